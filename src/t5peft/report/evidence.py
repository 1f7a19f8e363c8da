"""What the report's cells call: from its parameters to records and checked counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import ModuleType
from typing import TYPE_CHECKING, Any

from t5peft.base import machine, paths, studies
from t5peft.base.errors import InputError
from t5peft.base.settings import build
from t5peft.base.studies import Study
from t5peft.inputs import backbone, checks, hub
from t5peft.inputs.sizes import SIZES
from t5peft.methods import counting, formulas
from t5peft.methods.counting import Count
from t5peft.methods.formulas import Derivation, Model
from t5peft.methods.table import EXERCISE, Run, facts, runs_of
from t5peft.report import drawings, gaps, show
from t5peft.runs import records, store
from t5peft.runs.identity import of_study
from t5peft.runs.records import SHOWN, Incomplete, Planned, Record, Stored

if TYPE_CHECKING:
    from torch import Tensor


EXERCISE_SIZE = "t5-small"


def notebook_params(namespace: Mapping[str, Any]) -> Study:
    """The study with its changes, as the parameters cell and what was injected after it name them.

    `namespace` is a notebook's `globals()`. The parameters cell keeps in `_before` the names that
    were there before it, which are the settings too where it is run again; each new one must be a
    setting. None means: as in params/<study>.yaml.
    Raises `InputError` for a name that is no setting, and what `studies.load` raises.
    """
    known = {field.name for field in fields(Study)}
    given = {
        name: value
        for name, value in namespace.items()
        if (name in known or name not in namespace["_before"])
        and not name.startswith("_")
        and not isinstance(value, ModuleType)
        and value is not None
    }
    if not isinstance(given.get("study"), str):
        raise InputError(
            "study", repr(given.get("study")), "a name in params/ or a file", "give a study"
        )
    if given.keys() >= known:
        study = build(Study, given, "parameters")
    else:
        study = studies.load(given.pop("study"), given)
    if study.train == "partial":
        gaps.mark()
    return study


def use_svg() -> None:
    """Plots as SVG in the report's style, the same bytes each time."""
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    drawings.use_style()
    set_matplotlib_formats("svg", metadata={"Date": None})


A_MINUTE = 90.0
"""Seconds that a run may take for `train: auto` to train it on a CPU."""


def results(study: Study, *wanted: str) -> list[Record]:
    """The records of the runs (of the `wanted` methods), each trained if missing and allowed.

    Where `study.train` is `partial`, `Incomplete` ones if some are missing. Raises `Missing`
    that names all of the study's where they may not be trained, and `CountsDifferError` where a run
    has another number of parameters than is derived.
    """
    checks.check_backbone(study)
    every = runs_of(study)
    chosen = [run for run in every if not wanted or run.method in wanted]
    found = store.look(every, study)
    lacking = [run for run in chosen if found[run.name][0].state == "missing"]
    if lacking and study.train == "partial":
        there = [store.shown(run, study, *found[run.name]) for run in chosen if run not in lacking]
        check_records(study, there)
        gone = [Planned(run=facts(run)) for run in lacking]
        return Incomplete(there, gone, store.missing(study, found))
    if lacking:
        allow(study, lacking, found)
    records = [
        train(run, study) if run in lacking else store.shown(run, study, *found[run.name])
        for run in chosen
    ]
    check_records(study, records)
    return records


def allow(study: Study, lacking: list[Run], found: store.Found) -> None:
    """Raise `Missing` unless these runs may be trained now."""
    replaces = any(found[run.name][0].replaces for run in lacking)  # never by a render
    free = study.train == "yes" or (study.train == "auto" and machine.has_accelerator())
    if free and not replaces:
        return
    from t5peft.runs import estimate

    times = estimate.seconds(lacking, study)
    if study.train == "no" or replaces or max(times.values()) > A_MINUTE:
        takes = f"takes about {show.duration(sum(times.values()))} here"
        raise store.missing(study, found, f"{takes}; or render with train=yes, or --partial")


def train(run: Run, study: Study) -> Record:
    """The record of a missing run that is trained now; raises what `checks.check` does."""
    from t5peft.runs import make

    checks.check(study)
    return make.train_alone(run, study)


def seeds(study: Study) -> list[list[Record]]:
    """The records of each run that is stored with several seeds, its own first."""
    folders = paths.weights().glob(f"{study.study}-seed-*")
    numbers = [folder.name.rpartition("-")[2] for folder in folders]
    others = sorted({int(number) for number in numbers if number.isdecimal()} - {study.seed})
    alike = [study, *(studies.with_seed(study, seed) for seed in others)]
    found = []
    for run in runs_of(study):
        stored = [one for one in alike if store.status(run, one).state in SHOWN]
        if len(stored) > 1:
            found.append([store.load(run, one) for one in stored])
    return found


def prompt_rms(study: Study) -> tuple[Stored, float | None, float]:
    """Our soft prompt's record, and the root mean square of P's entries: at the start, stored.

    The start is the backbone's: None where that is not on this machine.
    """
    run = scratch(study, "soft-prompt")
    list(results(study, "soft-prompt"))  # trains it, or is refused, where it is missing
    record, tensors = store.tensors(store.folder(run, study))
    (rows,) = tensors.values()
    if not study.backbone.startswith(backbone.RANDOM) and not backbone.at_hand(study):
        return record, None, rms(rows)
    embedding = backbone.load(study.backbone, study.seed).shared.weight
    return record, rms(embedding[: len(rows)]), rms(rows)


def rms(entries: Tensor) -> float:
    """The root mean square of a tensor's entries."""
    return entries.detach().square().mean().sqrt().item()


COMPANIONS = ("exercise-rates", "ten-epochs")
"""Studies on the default one's backbone that its report shows beside it."""


def companion(study: Study, name: str) -> list[Record]:
    """The stored runs of another study, on the same backbone, that the default one is shown with.

    name: one of `COMPANIONS`. None where full fine-tuning or all of PEFT is missing among them.
    """
    if study.study != studies.DEFAULT:
        return []
    other = studies.load(name)
    stored = [run for run in runs_of(other) if store.status(run, other).state in SHOWN]
    found = [store.load(run, other) for run in stored]
    here = of_study(study)["backbone"]
    alike = [record for record in found if record["identity"]["backbone"] == here]
    kinds = {record["run"]["method"] == "full" for record in alike}
    return alike if len(kinds) == 2 else []


def scratch(study: Study, method: str) -> Run:
    """The study's from-scratch run of a method."""
    return next(
        run for run in runs_of(study) if run.method == method and run.implementation == "scratch"
    )


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


def vocabulary(study: Study) -> int:
    """How many tokens the study's backbone chooses among."""
    return formulas.dimensions(model(study))[formulas.V]


def models(study: Study) -> dict[str, Model]:
    """T5-small, and the study's backbone where it has other dimensions, by name."""
    ours = model(study)
    if formulas.dimensions(ours) == formulas.dimensions(EXERCISE_SIZE):
        return {EXERCISE_SIZE: EXERCISE_SIZE}
    name = show.backbone_name(study)
    if name == EXERCISE_SIZE:
        name += " of the study"
    return {EXERCISE_SIZE: EXERCISE_SIZE, name: ours}


def derivations(study: Study, method: str) -> dict[str, Derivation]:
    """How many parameters the study's from-scratch run of `method` adds, in each of the models."""
    settings = scratch(study, method).settings
    return {name: formulas.derive(method, size, settings) for name, size in models(study).items()}


def scratch_settings(study: Study) -> dict[str, dict[str, Any]]:
    """The settings of the from-scratch PEFT runs by method."""
    return {method: scratch(study, method).settings for method in EXERCISE[1:]}


def exercise_derivations(study: Study) -> dict[str, Derivation]:
    """What each from-scratch PEFT method adds to t5-small, by method."""
    return {
        method: formulas.derive(method, EXERCISE_SIZE, settings)
        for method, settings in scratch_settings(study).items()
    }


def added(study: Study) -> dict[str, int]:
    """The same as numbers, by the method's name."""
    derived = exercise_derivations(study)
    return {show.METHOD_NAMES[method]: one.derived for method, one in derived.items()}


# --- derived equals counted ----------------------------------------------------------------------


class CountsDifferError(Exception):
    """A derived number of parameters is not the counted one: nothing may be shown."""


@dataclass(frozen=True)
class Checked:
    """The count of one run's method in one model."""

    model: str
    run: Run
    count: Count


def counts(study: Study, method: str) -> list[Checked]:
    """Derive and count each run of `method`, in t5-small and in the study's backbone.

    Raises `CountsDifferError`, naming every pair of numbers that differ.
    """
    return counted(study, [run for run in runs_of(study) if run.method == method])


def scratch_counts(study: Study) -> list[Checked]:
    """The same for the from-scratch run of each method."""
    return counted(study, [scratch(study, method) for method in EXERCISE])


def counted(study: Study, wanted: list[Run]) -> list[Checked]:
    """The counts of the `wanted` runs in each of the models, checked."""
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


def check_records(study: Study, records: list[Record]) -> None:
    """Raise `CountsDifferError` unless each stored run has as many parameters as are derived."""
    size = model(study)
    bare = sum(formulas.parts(size).values())
    for record in records:
        run, held = record["run"], record["parameters"]
        derived = formulas.derive(run["method"], size, run["settings"]).derived
        if (held["added"], held["total"]) != (derived, bare + derived):
            raise CountsDifferError(
                f"{run['name']} as trained: derived {derived:,} added, {bare + derived:,} in all, "
                f"recorded {held['added']:,}, {held['total']:,}"
            )
