"""What the report asks: a study's records, and all that is measured beside them, each read once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import matplotlib.style
import numpy as np

from t5peft.base import machine, paths, studies
from t5peft.base.errors import InputError
from t5peft.base.settings import build, has_default
from t5peft.base.studies import Study
from t5peft.inputs import backbone, checks, data, hub
from t5peft.inputs.data import LABELS, MADE_UP
from t5peft.measure import measurements
from t5peft.measure.measurements import Baselines, Bench, Kept, Measured, Trial
from t5peft.methods.table import Run, facts, require_ten, runs_of
from t5peft.report import counts, drawings, gaps, show, statistics
from t5peft.report.statistics import Pair
from t5peft.runs import store
from t5peft.runs.records import SHOWN, Planned, Record

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration

LONGER, SIZES = "ten-epochs", "sweep"
"""The studies on the default one's backbone that its report shows beside it."""

QUOTED = 180
"""Letters of a quoted review."""

A_MINUTE = 90.0
"""Seconds that a run may take for `train: auto` to train it on a CPU."""


def study_of(namespace: Mapping[str, Any]) -> Study:
    """The study with its changes, as the parameters cell and what was injected after it name them.

    `namespace` is a notebook's `globals()`. The parameters cell keeps in `_before` the names that
    were there before it, which are the settings too where it is run again; each new one must be a
    setting. None means: as in params/<study>.yaml.
    Raises `InputError` for a name that is no setting, and what `studies.load` raises.
    """
    known = {field.name: has_default(field) for field in fields(Study)}
    given = {
        name: value
        for name, value in namespace.items()
        if (name in known or name not in namespace["_before"])
        and not name.startswith("_")
        and not isinstance(value, ModuleType)
        and value is not None
    }
    if isinstance(given.get("study"), Study):  # the cell is run again
        given["study"] = given["study"].study
    if not isinstance(given.get("study"), str):
        raise InputError(
            "study", repr(given.get("study")), "a name in params/ or a file", "give a study"
        )
    if all(name in given or optional for name, optional in known.items()):
        study = build(Study, given, "parameters")
    else:
        study = studies.load(given.pop("study"), given)
    if study.train == "partial":
        gaps.mark()
    return study


def use_svg() -> None:
    """Plots in the report's style, the same bytes each time; as SVG, or as Quarto wants them."""
    from matplotlib_inline.backend_inline import set_matplotlib_formats

    matplotlib.style.use(drawings.STYLE)
    form = os.environ.get("QUARTO_FIG_FORMAT", "svg")
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    set_matplotlib_formats(form, metadata=undated.get(form, {}))


class Evidence:
    """All that there is of a study: found when it is first asked for, and then remembered."""

    def __init__(self, study: Study) -> None:
        self.study, self.runs = study, runs_of(study)
        self.shown: dict[str, Record] = {}  # by the run's name

    @cached_property
    def found(self) -> store.Found:
        """The state and the record of each run; raises what `checks.check_backbone` does."""
        checks.check_backbone(self.study)
        return store.look(self.runs, self.study)

    def records(self, *methods: str) -> list[Record]:
        """The records of the runs (of these methods), each trained if missing and allowed.

        Where `study.train` is `partial`, `Incomplete` ones if some are missing. Raises `Missing`
        that names all of the study's where they may not be trained, and `CountsDifferError` where a
        run has another number of parameters than is derived. A method's are a chapter's, which is
        of the exercise's ten.
        """
        if methods:
            require_ten(self.study)
        wanted = [run for run in self.runs if not methods or run.method in methods]
        lacking = [run for run in wanted if self.found[run.name][0].state == "missing"]
        if lacking and self.study.train != "partial":
            allow(self.study, lacking, self.found)
            from t5peft.runs import make  # with torch

            checks.check(self.study)
            for run in lacking:
                make.train_alone(run, self.study)
            self.found.update(store.look(lacking, self.study))
            lacking = []
        there = [self.record(run) for run in wanted if run not in lacking]
        if not lacking:
            return there
        gone = [Planned(run=facts(run)) for run in lacking]
        return cast(Any, gaps.Incomplete(store.missing(self.study, self.found), there, gone))

    def ten(self) -> list[Record]:
        """The records of the exercise's ten runs; refuses a study that lists others."""
        require_ten(self.study)
        return self.records()

    def record(self, run: Run) -> Record:
        """The record of a stored run, its counts checked."""
        if run.name not in self.shown:
            record = store.shown(run, self.study, *self.found[run.name])
            counts.check_record(self.study, record)
            self.shown[run.name] = record
        return self.shown[run.name]

    @property
    def stored(self) -> list[Record]:
        """The records of the study's runs that may be shown by now."""
        return [self.record(run) for run in self.runs if self.found[run.name][0].state in SHOWN]

    @property
    def full(self) -> Record | None:
        """Full fine-tuning's, if it is stored."""
        return next((r for r in self.stored if r["run"]["method"] == "full"), None)

    @property
    def right(self) -> dict[str, np.ndarray]:
        """By stored run whose trace tells, which test reviews (reviews,) it has right."""
        found = {r["run"]["name"]: store.trace(r).right_after(r["best_epoch"]) for r in self.stored}
        return {name: right for name, right in found.items() if right.size}

    @cached_property
    def tests(self) -> list[list[Pair]]:
        """All that the report tests: answers; gaps; a longer study's, after best and last epoch."""
        stored, of = self.stored, (statistics.against_full, statistics.twins, statistics.sizes)
        return statistics.together(
            statistics.compared([pair for one in of for pair in one(stored)], self.right),
            statistics.gaps(stored, self.kept),
            statistics.gaps(self.longer, {}),
            statistics.gaps(statistics.trained_on(self.longer), {}),
        )

    def quoted(self, places: Sequence[int]) -> str:
        """How these test reviews begin, as a list; "" where they are not on this machine."""
        study = self.study
        if study.data != MADE_UP and not hub.at_hand(study.data, *hub.REVIEWS):
            return ""
        reviews = data.read(study.data, "test", data.columns_of(study))
        some = [reviews[place] for place in places]
        texts = [(LABELS[label], data.normalize(text)[:QUOTED]) for text, label in some]
        begun = [(label, show.plain(text.rsplit(" ", 1)[0])) for label, text in texts]
        return "\n".join(f"- {label}: “{text} …”" for label, text in begun)

    @cached_property
    def seeds(self) -> list[list[Record]]:
        """The records of each run that is stored with several seeds, its own first."""
        study = self.study
        folders = paths.weights().glob(f"{study.study}-seed-*")
        numbers = [folder.name.rpartition("-")[2] for folder in folders]
        others = sorted({int(number) for number in numbers if number.isdecimal()} - {study.seed})
        beside = [Evidence(studies.with_seed(study, seed)) for seed in others]
        records = [record for each in (self, *beside) for record in each.stored]
        several = [show.only(records, name=run.name) for run in self.runs]
        return [alike for alike in several if len(alike) > 1]

    @cached_property
    def longer(self) -> list[Record]:
        """The stored runs of `LONGER`; none if it lacks full fine-tuning or all of PEFT."""
        longer = self.beside_default(LONGER)
        kinds = {record["run"]["method"] == "full" for record in longer}
        return longer if len(kinds) == 2 else []

    @cached_property
    def sizes(self) -> list[Record]:
        """The stored runs of `SIZES` whose method has a size."""
        return [x for x in self.beside_default(SIZES) if x["run"]["method"] in show.SIZES]

    def beside_default(self, name: str) -> list[Record]:
        """The stored runs of another study, if this is the default one and has its backbone."""
        if self.study.study != studies.DEFAULT:
            return []
        here = self.found.shared()["backbone"]
        stored = Evidence(studies.load(name)).stored
        return [record for record in stored if record["identity"]["backbone"] == here]

    @cached_property
    def exercise(self) -> Study:
        """The exercise to the letter."""
        return studies.load("assignment")

    # --- measured beside the runs ---------------------------------------------------------------

    @cached_property
    def kept(self) -> Kept:
        """What the runs keep of pre-training, by name; {} unless of all."""
        return measurements.retained(self.study, self.found)

    @cached_property
    def baselines(self) -> Baselines | None:
        """The backbone before any training, and a bag of words, where they were measured."""
        return measurements.baselines(self.study, self.found.shared()).load()

    @cached_property
    def trials(self) -> list[Trial]:
        """The trials of learning rates."""
        return measurements.tried(self.study, self.found)

    @cached_property
    def benches(self) -> list[Bench]:
        """Those that are stored, of the study's own precision first."""
        return measurements.loaded(measurements.benches(self.study))

    @property
    def beside(self) -> dict[str, Sequence[Measured]]:
        """All that is measured beside the runs, by what the report calls it."""
        return {
            "the trials of learning rates (@tbl-rates)": self.trials,
            "what the runs keep (@tbl-knowledge)": [*self.kept.values()],
            "the baselines (@sec-ten)": [self.baselines] if self.baselines else [],
            "the exercise's own loop (@tbl-bench)": self.benches,
        }

    @property
    def everything(self) -> list[Record]:
        """All records that the report shows, each once."""
        own = [*self.records(), *(record for each in self.seeds for record in each[1:])]
        others = [x for x in self.sizes if x.get("trained_for") != self.study.study]
        return own + self.longer + others

    @cached_property
    def backbone(self) -> T5ForConditionalGeneration | None:
        """The model that the runs started from; None where it is not on this machine."""
        study = self.study
        if not study.backbone.startswith(backbone.RANDOM) and not backbone.at_hand(study):
            return None
        return backbone.load(study.backbone, study.seed)


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
        render = "--partial" if replaces else "train=yes, or --partial"
        raise store.missing(study, found, f"{takes}; or render with {render}")
