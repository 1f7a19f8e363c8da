"""Parameters as derived and as counted: nothing is shown where they differ."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from t5peft.base import paths
from t5peft.base.studies import Study
from t5peft.inputs import backbone, hub
from t5peft.inputs.sizes import SIZES
from t5peft.methods import counting, formulas
from t5peft.methods.counting import Count
from t5peft.methods.formulas import Model
from t5peft.methods.table import Run
from t5peft.report import show
from t5peft.runs import records
from t5peft.runs.records import Record

EXERCISE_SIZE = "t5-small"


# --- the model -----------------------------------------------------------------------------------


def model(study: Study) -> Model:
    """The dimensions of the study's backbone; a hub name of a known size is not looked up.

    Of another that is not on this machine, its stored runs tell.
    """
    name = study.backbone.removeprefix(backbone.RANDOM).rpartition("/")[2]
    if name in SIZES and paths.local(study.backbone) is None:
        return name
    if not hub.at_hand(study.backbone, hub.CONFIG):
        for record in records.stored_with(study, "backbone"):
            if known := record["backbone"].get("config"):
                from transformers import T5Config

                return T5Config.from_dict(known)
    return backbone.read_config(study.backbone)


def total(size: Model) -> int:
    """How many parameters a T5 has."""
    return sum(formulas.parts(size).values())


def models(study: Study) -> dict[str, Model]:
    """T5-small, and the study's backbone where it has other dimensions, by name."""
    ours = model(study)
    same = formulas.dimensions(ours) == formulas.dimensions(EXERCISE_SIZE)
    if same and total(ours) == total(EXERCISE_SIZE):
        return {EXERCISE_SIZE: EXERCISE_SIZE}
    name = show.backbone_name(study)
    if name == EXERCISE_SIZE:
        name += " of the study"
    return {EXERCISE_SIZE: EXERCISE_SIZE, name: ours}


# --- derived equals counted ----------------------------------------------------------------------


class CountsDifferError(Exception):
    """A derived number of parameters is not the counted one: nothing may be shown."""


@dataclass(frozen=True)
class Checked:
    """The count of one run's method in one model."""

    model: str
    run: Run
    count: Count


def counted(study: Study, wanted: Collection[Run]) -> list[Checked]:
    """Derive and count the wanted runs, in t5-small and the study's backbone.

    Raises `CountsDifferError`, naming every pair of numbers that differ.
    """
    found = [
        Checked(name, run, counting.count(run.method, size, run.settings, run.implementation))
        for name, size in models(study).items()
        for run in wanted
    ]
    check(found)
    return found


def check(found: list[Checked]) -> None:
    """Raise `CountsDifferError` unless every derived number is the counted one."""
    wrong = [
        f"{item.run.name} in {item.model}: "
        f"derived {item.count.derived_added:,} added and {item.count.derived_total:,} in all, "
        f"counted {item.count.counted_added:,} and {item.count.counted_total:,}"
        for item in found
        if not item.count.equal
    ]
    if wrong:
        raise CountsDifferError("; ".join(wrong))


def check_record(study: Study, record: Record) -> None:
    """Raise `CountsDifferError` unless a stored run has as many parameters as are derived."""
    size, run, held = model(study), record["run"], record["parameters"]
    derived = formulas.derive(run["method"], size, run["settings"]).derived
    if (held["added"], held["total"]) != (derived, whole := total(size) + derived):
        raise CountsDifferError(
            f"{run['name']} as trained: derived {derived:,} added, {whole:,} in all, "
            f"recorded {held['added']:,}, {held['total']:,}"
        )
