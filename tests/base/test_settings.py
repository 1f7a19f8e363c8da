"""Settings are read as YAML 1.2, and refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from t5peft.base import paths, studies
from t5peft.base.errors import InputError
from t5peft.base.settings import overrides


def test_overrides_are_read_as_yaml() -> None:
    given = ["lora_rank=16", "lora_alpha=1e-1", "data=", "study=x", "data_fingerprint=1e5"]
    assert overrides(given) == {
        "lora_rank": 16,
        "lora_alpha": 0.1,
        "data": "",
        "study": "x",
        "data_fingerprint": "1e5",
    }


WRONG = {
    "lora_rnak: 8": "did you mean 'lora_rank'",
    "lora_rank: 8.5": "whole number",
    "epochs: -1": "positive number",
    f"lora_learning_rate: {'9' * 400}": "finite",
    "data: 7": "a text",
    "labels: [bad, Bad]": "two words, or none",
}


@pytest.mark.parametrize("line", WRONG)
def test_a_wrong_line_is_refused_by_name(line: str, tmp_path: Path) -> None:
    text = (paths.CHECKOUT / "params" / "assignment.yaml").read_text()
    key = line.partition(":")[0]
    kept = [row for row in text.splitlines() if not row.startswith(f"{key}:")]
    path = tmp_path / "study.yaml"
    path.write_text("\n".join([*kept, line]))
    with pytest.raises(InputError) as caught:
        studies.load(path)
    assert WRONG[line] in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    text = (paths.CHECKOUT / "params" / "assignment.yaml").read_text()
    path = tmp_path / "study.yml"
    path.write_text(text.replace("epochs: 10", ""))
    with pytest.raises(InputError, match="no epochs"):
        studies.load(path)


def test_yes_no_and_numbers_are_read_as_yaml_1_2() -> None:
    changes = overrides(["train=yes", "lora_rank=010", "lora_alpha=1e1", "x=1:30", "y=true"])
    assert changes == {"train": "yes", "lora_rank": 10, "lora_alpha": 10.0, "x": "1:30", "y": True}
    assert studies.load("smoke", {"train": changes["train"]}).train == "yes"


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("train: yes", "yes"),
        ("train: off", "no"),
        ("lora_learning_rate: 1e-4", 1e-4),
        ("lora_alpha: 4", 4.0),
        ("precision: fp32", "fp32"),
    ],
)
def test_what_papermill_reads_as_yaml_1_1_is_taken_for_what_was_written(
    line: str, value: object
) -> None:
    name, _, _ = line.partition(":")
    study = studies.load("smoke", yaml.safe_load(line))
    assert getattr(study, name) == value
    assert type(getattr(study, name)) is type(value)


@pytest.mark.parametrize("line", ["study: on", "study: 2024", "study: 2024-01-31", "data: 1:30"])
def test_a_text_that_yaml_1_1_reads_as_something_else_is_to_be_quoted(line: str) -> None:
    with pytest.raises(InputError, match="expected a text; quote it, as in"):
        studies.load("smoke", yaml.safe_load(line))


def test_a_place_is_taken_as_it_stands() -> None:
    assert overrides(["data=films # 2", "tokenizer="]) == {
        "data": "films # 2",
        "tokenizer": "",
    }
