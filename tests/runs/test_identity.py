"""What decides a run is in its identity, and only that."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from helpers import run_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from t5peft.base.errors import InputError
from t5peft.base.studies import TARGETS, Listed, Study
from t5peft.methods.table import runs_of
from t5peft.runs.identity import identity_of

FIELDS = {field.name: str(field.type) for field in dataclasses.fields(Study)}
VALUES: dict[str, some.SearchStrategy[Any]] = {
    "int": some.integers(1, 60),
    "float": some.floats(1e-6, 10),
    "Precision": some.sampled_from(["fp32", "bf16"]),
    "Decay": some.sampled_from(["none", "linear"]),
    "Order": some.sampled_from(["shared", "own"]),
    "Train": some.sampled_from(["auto", "yes", "no"]),
    "tuple[Listed, ...]": some.sampled_from([(), (Listed("lora"),), (Listed("full"),)]),
    "tuple[str, ...]": some.sampled_from([("q", "v"), ("q",), TARGETS]),
    "str": some.sampled_from(["random:mini", "made-up", "f00d", "other"]),
}
NAMES = {"backbone", "data", "tokenizer", "text_column", "label_column", "labels"}
"""Names that are not themselves part of an identity, but what they name is."""


@given(some.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_field_changes_the_identity_or_is_known_not_to(
    study: Study, data: some.DataObject
) -> None:
    name = data.draw(some.sampled_from(list(FIELDS)))
    value = data.draw(VALUES[FIELDS[name]])
    before = [identity_of(run, study) for run in runs_of(study)]
    try:
        changed = dataclasses.replace(study, **{name: value})
        after = [identity_of(run, changed) for run in runs_of(changed)]
    except InputError:
        return  # refused: no number is shown at all
    if value == getattr(study, name) or name in ("study", "train", "micro_batch_size"):
        assert after == before
    elif name not in NAMES or (name, value) == ("backbone", "random:mini"):
        assert after != before


def test_the_same_contents_under_another_name_are_the_same_run(
    on_folders: Study, home: Path
) -> None:
    shutil.move(home / "imdb", home / "reviews")
    shutil.move(home / "t5", home / "model")
    moved = dataclasses.replace(on_folders, data="reviews", backbone="model")
    after = identity_of(run_of(moved), moved)
    shutil.move(home / "reviews", home / "imdb")
    shutil.move(home / "model", home / "t5")
    assert after == identity_of(run_of(on_folders), on_folders)
