"""Params: shipped files are bound to the dataclass, wrong ones are refused by name."""

from __future__ import annotations

import dataclasses
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from t5peft.__main__ import parser, study_of
from t5peft.base import paths, studies
from t5peft.base.errors import InputError
from t5peft.base.settings import build, has_default, read_yaml
from t5peft.base.studies import Study
from t5peft.methods.table import runs_of
from t5peft.pretrain.settings import BackboneParams
from t5peft.report.evidence import LONGER

SHIPPED = sorted((paths.CHECKOUT / "params").glob("*.yaml"))
STUDIES = [path.stem for path in SHIPPED if not path.stem.startswith("backbone-")]

EXERCISE = [
    ("full", {}, 1e-5),
    ("soft-prompt-scratch-n10", {"tokens": 10}, 0.1),
    ("soft-prompt-opendelta-n1", {"tokens": 1}, 0.1),
    ("soft-prompt-opendelta-n10", {"tokens": 10}, 0.1),
    ("adapter-scratch-b8", {"bottleneck": 8}, 1e-3),
    ("adapter-adapterhub-b8", {"bottleneck": 8}, 1e-4),
    ("adapter-adapterhub-b1", {"bottleneck": 1}, 1e-4),
    ("lora-scratch-r8", {"rank": 8, "alpha": 4.0}, 1e-4),
    ("lora-peft-r1", {"rank": 1, "alpha": 4.0}, 1e-4),
    ("lora-peft-r8", {"rank": 8, "alpha": 4.0}, 1e-4),
]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_file_is_bound_to_its_dataclass(path: Path) -> None:
    values = read_yaml(path)
    kind = BackboneParams if path.stem.startswith("backbone-") else Study
    fields = dataclasses.fields(kind)
    needed = {x.name for x in fields if not has_default(x)}
    assert needed <= set(values) <= {x.name for x in fields}
    settings = build(kind, values, str(path))
    name = settings.study if isinstance(settings, Study) else f"backbone-{settings.name}"
    assert name == path.stem


def test_the_assignment_is_the_exercise_to_the_letter() -> None:
    study = studies.load(paths.CHECKOUT / "params" / "assignment.yaml")
    assert [(run.name, run.settings, run.learning_rate) for run in runs_of(study)] == EXERCISE
    assert [run.number for run in runs_of(study)] == list(range(1, 11))
    common = (study.train_examples, study.test_examples, study.max_length)
    assert common == (25_000, 25_000, 256)
    assert (study.batch_size, study.epochs, study.precision) == (32, 10, "fp32")


def test_ten_epochs_has_the_exercises_epochs_and_else_the_default_studys_settings() -> None:
    longer, exercise, study = (
        studies.load(paths.CHECKOUT / "params" / f"{name}.yaml")
        for name in (LONGER, "assignment", studies.DEFAULT)
    )
    assert {part.partition("=")[0] for part in studies.changed(longer, study)} == {
        *("study", "train_examples", "test_examples", "epochs", "order")
    }, "as the report says of it"
    assert longer.epochs == exercise.epochs
    assert longer.order == "own"


CHANGES = [
    {},
    {"lora_rank": 16, "lora_learning_rate": 1e-5, "data_fingerprint": ""},
    {"study": "mine", "data": "a folder/with a 'quote' # and more", "backbone": "/models/t5"},
    {"study": "smoke", "train": "no"},
    {"study": "2024", "seed": 5},
    {"lora_targets": ["q", "k", "v", "o"]},
    {"labels": ["\N{THUMBS DOWN SIGN}", "\N{THUMBS UP SIGN}"]},
    {"runs": [{"method": "lora", "settings": {"rank": 2}}, {"method": "ia3", "rate": 1e-5}]},
]


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.parametrize("changes", CHANGES)
def test_a_study_is_named_so_that_a_command_means_it(study: str, changes: dict[str, Any]) -> None:
    """The ways out of errors, pasted into a shell."""
    meant = studies.load(study, {"train": "auto", "tokenizer": "folder", **changes})
    for wanted in (meant, studies.with_seed(meant, 7)):
        command = ["train", *shlex.split(studies.arguments(wanted)), "--only", "full"]
        understood = study_of(parser().parse_args(command))
        assert dataclasses.replace(understood, train=meant.train) == wanted
    assert studies.arguments(studies.load(study)) == study
    own = dataclasses.replace(studies.load(study), study="mine")
    assert studies.arguments(own) == f"{study} --set study=mine"


def test_a_root_without_studies_is_named(home: Path) -> None:
    mine = studies.load(shutil.move(home / "params" / "smoke.yaml", home / "mine.yaml"))
    for other in (home / "params").iterdir():
        other.unlink()
    with pytest.raises(InputError, match=f"folder {home}/params: found no study.*T5PEFT_HOME"):
        studies.arguments(mine)


SIZES = (1, 2, 4, 8, 16)


def test_the_sweep_has_every_size_from_scratch_with_the_default_studys_settings() -> None:
    sweep, study = studies.load("sweep"), studies.load(studies.DEFAULT)
    assert dataclasses.replace(sweep, study=study.study, runs=()) == study
    runs = runs_of(sweep)
    letters = {"soft-prompt": "n", "adapter": "b", "lora": "r"}
    sized = [f"{method}-scratch-{x}{size}" for method, x in letters.items() for size in SIZES]
    assert [run.name for run in runs] == ["full", *sized, "ia3-scratch"]
    usual = {run.method: run.learning_rate for run in runs_of(study) if run.number in (1, 2, 5, 8)}
    assert {run.learning_rate == usual.get(run.method) for run in runs[:-1]} == {True}


@pytest.mark.parametrize(
    ("runs", "complaint"),
    [
        ("lora", "runs: found 'lora', expected a list"),
        (["lora"], "run 1 in its list: found 'lora', expected {method: NAME, ...}"),
        ([{}], "run 1 in its list: found no method"),
        ([{"method": "full"}, {"method": "lora", "rank": 1}], "run 2 in its list: key 'rank'"),
        ([{"method": 3}], "method: found 3, expected a text"),
        ([{"method": "lora", "settings": 3}], "settings: found 3, expected a mapping"),
        ([{"method": "lora", "rate": "high"}], "rate: found 'high', expected a finite number"),
        ([{"method": "lora", "rate": True}], "rate: found True"),
    ],
)
def test_what_is_no_list_of_runs_is_refused(runs: Any, complaint: str) -> None:
    with pytest.raises(InputError, match=re.escape(complaint)):
        studies.load("smoke", {"runs": runs})


@pytest.mark.parametrize("name", ["prompt_tokens", "bottleneck", "lora_rank"])
def test_two_runs_of_one_name_are_refused(name: str) -> None:
    usual = getattr(studies.load("smoke"), name)
    with pytest.raises(InputError, match=f"another number than {name} = {usual}"):
        studies.load("smoke", {f"{name}_small": usual})


def test_whether_a_render_trains_is_no_commands_word() -> None:
    smoke = studies.load("smoke")
    assert studies.arguments(dataclasses.replace(smoke, train="no")) == studies.arguments(smoke)


def test_of_files_that_differ_alike_a_command_names_the_default_study() -> None:
    own = studies.load(studies.DEFAULT, {"study": "mine", "runs": [{"method": "full"}]})
    assert studies.arguments(own).startswith(f"{studies.DEFAULT} "), "not the sweep"


def test_another_seed_is_kept_beside_the_study() -> None:
    study = studies.load("smoke")
    other = studies.with_seed(study, 3)
    assert (other.seed, other.study) == (3, "smoke-seed-3")
    assert dataclasses.replace(other, seed=study.seed, study=study.study) == study
    assert studies.with_seed(study, study.seed) == study


def test_the_largest_seed_is_one_that_every_generator_takes() -> None:
    largest = dataclasses.replace(studies.load("assignment"), seed=2**22 - 1)
    np.random.seed(1000 * largest.seed + largest.epochs)  # as an epoch's set_seed does
    with pytest.raises(InputError, match="seed: found 4194304"):
        dataclasses.replace(largest, seed=2**22)


def test_a_whole_number_for_a_rate_is_the_same_study() -> None:
    """`lora_alpha: 4` is 4.0 in names and identities too."""
    study = studies.load("assignment", {"lora_alpha": 4})
    assert type(study.lora_alpha) is float
    with pytest.raises(InputError, match="found True"):
        studies.load("assignment", {"lora_alpha": True})


def test_loras_targets_are_a_list_in_one_order() -> None:
    assert studies.load("smoke").lora_targets == ("q", "v")
    study = studies.load("smoke", {"lora_targets": ["wo", "v", "q"]})
    assert study.lora_targets == ("q", "v", "wo")
    assert studies.plain(study)["lora_targets"] == ["q", "v", "wo"]
    for wrong in ([], ["q", "q"], ["q", "w"], [["q"]], "q", 3, None):
        with pytest.raises(
            InputError, match=r"lora_targets: found .*expected (some of q, k|a list)"
        ):
            studies.load("smoke", {"lora_targets": wrong})


def test_a_prompt_leaves_room_for_a_review() -> None:
    with pytest.raises(InputError, match="prompt_tokens_small"):
        studies.load("assignment", {"prompt_tokens_small": 255})
    assert studies.load("assignment", {"prompt_tokens": 254}).prompt_tokens == 254


def test_a_broken_file_beside_does_not_stop_the_way_out(home: Path) -> None:
    (home / "params" / "broken.yaml").write_text("epochs: [1")
    own = dataclasses.replace(studies.load("smoke"), study="mine")
    assert studies.arguments(own) == "smoke --set study=mine"
