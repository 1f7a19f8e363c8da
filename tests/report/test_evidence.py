"""The study that a notebook's cells name, and what is found of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from helpers import parameters_cell

from t5peft.base import paths, studies
from t5peft.base.errors import InputError
from t5peft.base.settings import read_yaml
from t5peft.base.studies import Study
from t5peft.inputs import data
from t5peft.report import evidence
from t5peft.report.counts import CountsDifferError
from t5peft.report.evidence import Evidence
from t5peft.runs import store
from t5peft.runs.records import Status

ROOT = paths.CHECKOUT


def given(**injected: Any) -> Study:
    """What the set-up cell makes of the parameters cell and what was injected after it."""
    namespace: dict[str, Any] = {"fig_width": 7, "open": open}  # Quarto's and IPython's own
    exec(parameters_cell(), namespace)
    return evidence.study_of({**namespace, **injected})


def test_parameters_are_the_study_and_what_was_injected() -> None:
    assert given() == studies.load(studies.DEFAULT)
    smoke = read_yaml(ROOT / "params" / "smoke.yaml")
    assert given(study="smoke", lora_rank=16) == studies.load("smoke", {"lora_rank": 16})
    assert given(**smoke) == studies.load("smoke")


def test_cells_may_be_run_again_with_another_setting() -> None:
    namespace: dict[str, Any] = {}
    exec(parameters_cell(), namespace)
    namespace["params"] = evidence.study_of(namespace)
    assert namespace["params"].lora_rank == 8
    exec(parameters_cell().replace("lora_rank = None", "lora_rank = 16"), namespace)
    assert evidence.study_of(namespace).lora_rank == 16


@pytest.mark.parametrize(
    ("injected", "complaint"),
    [
        ({"lora_rnak": 16}, "setting lora_rnak: .*did you mean 'lora_rank'"),
        ({"lora_rank": "16"}, "lora_rank: found '16'"),
        ({"study": "nope"}, "nope.yaml"),
        ({"study": None}, "study: found None"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(injected: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        given(**injected)


def test_a_chapter_is_of_the_exercises_ten() -> None:
    """Its text says targets and rates of these."""
    listed = Evidence(studies.load("sweep"))
    with pytest.raises(InputError, match=r"study sweep: found runs of its own, .* shows what it"):
        listed.records("lora")


def test_a_quoted_review_says_what_it_says(
    exercise: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An @name would be a citation, which a render refuses for want of an entry."""
    made_up = dataclasses.replace(exercise, data=data.MADE_UP)
    monkeypatch.setattr(data, "read", lambda *_: [("Dear @airline: *never* $5 again", 0)])
    wanted = r"- negative: “dear \@airline: \*never\* \$5 …”"
    assert Evidence(made_up).quoted([0]) == wanted


def test_results_are_shown_only_with_the_derived_counts(
    exercise: Study, records: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {item["run"]["name"]: item for item in records}
    here = dataclasses.replace(exercise, backbone="random:tiny", tokenizer="t")
    fresh = Status("fresh", "")
    monkeypatch.setattr(store, "look", lambda *_: {name: (fresh, made[name]) for name in made})
    with pytest.raises(CountsDifferError, match="lora-scratch-r8 as trained"):
        Evidence(here).records("lora")
