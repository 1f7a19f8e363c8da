"""What is measured beside the runs of a study: trials of rates, baselines, retention, benches.

One store for all: each measurement is a record in weights/<study>/ that holds its figures, the
identity that decides them and the digest of the code that measured them. Like a run it is fresh,
stale, missing or damaged, and shown with a mark where it is stale; a trial and a retention are
verified with their run. Nothing here needs torch until something is measured.
"""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar, cast, get_args

from t5peft.base import deciding, files, machine, paths
from t5peft.base.errors import InputError
from t5peft.base.studies import Decay, Precision, Study
from t5peft.inputs import backbone, checks
from t5peft.methods.table import METHODS, runs_of
from t5peft.runs import records, store
from t5peft.runs.identity import of_run
from t5peft.runs.records import Status, Stored


class Measured(TypedDict, total=False):
    """What each record has beside its figures; `stale` as it is shown: why, or ""."""

    identity: dict[str, Any]
    source: str
    environment: dict[str, Any]
    stale: str


class Trial(Measured):
    """One learning rate: loss and held-out accuracy after an epoch on some reviews.

    Its identity says whether the rate fell meanwhile, see `decay_of`.
    """

    run: str
    method: str
    learning_rate: float
    reviews: int
    held_out: int
    loss: float
    accuracy: float
    seconds: float


class Baselines(Measured):
    """Shares of 1: the backbone's accuracy and its answers of other words; a bag of words.

    And of the test reviews, how many are training reviews too.
    """

    zero_shot_accuracy: float
    zero_shot_other_words: float
    bag_of_words_accuracy: float
    test_reviews_in_training: int
    test_examples: int


class Retention(Measured):
    """What a run knows of its training reviews, and its span loss: nats a target token."""

    run: str
    reviews: int
    train_accuracy: float
    test_accuracy: float
    stretches: int
    span_loss: float
    span_loss_before: float


class Bench(Measured):
    """By method and side: seconds, bytes and operations, as `bench.timed` has them."""

    methods: dict[str, dict[str, dict[str, float]]]
    repeats: int
    params: dict[str, Any]


Kept = dict[str, Retention]
"""What the runs keep, by name."""

F = TypeVar("F", bound=Measured)


@dataclass(frozen=True)
class Measurement(Generic[F]):
    """A measurement that a study has or may have."""

    study: Study
    name: str  # of its file
    identity: dict[str, Any]
    kind: type[F]
    code: tuple[str, ...]  # what measures, as `deciding` names it: a function, and what it is given
    arguments: tuple[Any, ...]
    verified_run: Stored | None = None  # of the same training, if that is verified

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return paths.weights() / self.study.study / f"{self.name}.json"

    def status(self) -> Status:
        """Its state."""
        try:
            return self.look()[0]
        except InputError as error:
            return Status("damaged", str(error))

    def look(self) -> tuple[Status, dict[str, Any]]:
        """Its state, and the record in its place. Raises `InputError` for a damaged one."""
        code = deciding.code(self.code)  # as it is before anything is measured
        if not self.path.exists():
            return Status("missing", "never measured"), {}
        keys = records.Coded.__required_keys__ | self.kind.__required_keys__
        record = records.read(self.path, {"identity", *keys})
        status, run = records.status(record, self.identity, code), self.verified_run
        if (
            status.state == "stale"
            and run
            and records.since(record, code) <= records.since(run, deciding.code())
        ):
            status = Status("verified", "what has changed since is verified with its run")
        return status, record

    def load(self) -> F | None:
        """Its record, marked, if there is one. Raises `InputError` for a damaged one."""
        status, record = self.look()
        shown = status.state in records.SHOWN
        return cast(F, record | {"stale": records.mark(status)}) if shown else None

    def figures(self) -> F:
        """Measure."""
        gc.collect()  # of what was measured before: the faster forward refers to its own module
        module, name = self.code[0].rsplit(".", 1)
        return getattr(import_module(f"t5peft.{module}"), name)(*self.arguments)

    def announce(self) -> None:
        """Say that it is measured, and why."""
        status = self.status()
        other = " (it is replaced; --set study=NAME keeps both)" if status.replaces else ""
        print(f"measure {self.name:40} {status}{other}", flush=True)

    def lock(self) -> AbstractContextManager[bool]:
        """Take it: `files.lock` on a file in the cache."""
        return files.lock(paths.cache() / "locks" / self.study.study / self.name)

    def attempt(self) -> bool:
        """Measure and store it, unless that is done by now; False where another process has it."""
        with self.lock() as mine:
            if mine and self.status().state not in records.AS_MADE:
                self.store(self.figures())
            return mine

    def store(self, figures: F) -> None:
        """Keep what was measured, in the place of what was kept before."""
        environment = machine.environment(self.study.precision)
        made_by = records.made_by(deciding.code(self.code))
        made = {"identity": self.identity, **made_by, "environment": environment}
        records.write(self.path, {**figures, **made})


def made(wanted: Sequence[Measurement[F]]) -> list[F]:
    """The records of some measurements of a study; what is neither fresh nor verified is made.

    Several processes share the work. Raises `InputError` where something is to be made and
    `checks.check` refuses the study.
    """
    todo = [one for one in wanted if one.status().state not in records.AS_MADE]
    for one in todo:
        one.announce()
    if todo:
        checks.check(todo[0].study)
    files.share(todo, Measurement.attempt)
    return loaded(wanted)


# --- the four kinds ----------------------------------------------------------------------------

GRID = {
    "full": (1e-5, 1e-4, 3e-4, 5e-4, 1e-3),
    "soft-prompt": (0.03, 0.1, 0.3, 1.0, 3.0),
    "adapter": (1e-3, 3e-3, 1e-2),
    "lora": (1e-4, 1e-3, 3e-3, 1e-2),
    "ia3": (1e-2, 3e-2, 1e-1, 3e-1),
}
"""Rates a factor of about 3 apart, one more for full fine-tuning, and the exercise's own."""

SEEN = ("train_examples", "test_examples", "max_length", "precision")
"""What a run and all that is measured beside it are cut to."""

CLOCK = ("base.machine.seconds", "base.machine.peak_memory", "base.machine.matrix_peak")
"""Of `machine`, which decides no run's result, the clock and the scales of a bench."""

REPEATS = 5
"""Timed turns of a bench."""


def held_out(study: Study) -> int:
    """How many of the training reviews, the last, no trial sees: a tenth."""
    return max(1, study.train_examples // 10)


def trials(
    study: Study, found: store.Found, reviews: int, only: Collection[str] = METHODS
) -> list[Measurement[Trial]]:
    """A trial for each from-scratch run of the methods and each rate of its grid, which is constant
    or falls.

    Decided by what decides a run, on other numbers of reviews, and not by the test's. found: the
    runs of the study.
    """
    shared = {k: x for k, x in found.shared().items() if k not in ("decay", "test_examples")}
    shared |= {"train_examples": reviews, "held_out": held_out(study), "epochs": 1}
    verified = {name: record for name, (at, record) in found.items() if at.state == "verified"}
    tried = [
        (dataclasses.replace(run, learning_rate=rate), decay)
        for run in runs_of(study)
        if run.implementation == "scratch" and run.method in only
        for rate in GRID[run.method]
        for decay in get_args(Decay)
    ]
    return [
        Measurement(
            study,
            f"tuning/{run.name}-{run.learning_rate:g}{f'-{decay}' * falls}-{reviews}",
            of_run(run) | shared | ({"decay": decay} if falls else {}),
            Trial,
            ("measure.tune.trial", "methods.table.Run"),
            (run, dataclasses.replace(study, decay=decay), reviews),
            verified.get(run.name),
        )
        for run, decay in tried
        for falls in [decay != "none"]
    ]


def decay_of(record: Mapping[str, Any]) -> Decay:
    """Whether the rate of a trial or a run fell."""
    return record["identity"].get("decay", "none")


def baselines(study: Study, shared: dict[str, Any]) -> Measurement[Baselines]:
    """The backbone before training, and a bag of words; a backbone that is drawn has a seed."""
    drawn = ["seed"] if study.backbone.startswith(backbone.RANDOM) else []
    identity = {key: shared[key] for key in (*SEEN, "backbone", "tokenizer", "data", *drawn)}
    return Measurement(
        study, "baselines", identity, Baselines, ("measure.baselines.measure",), (study,)
    )


def retention(study: Study, reviews: int, found: store.Found) -> list[Measurement[Retention]]:
    """One for each run that was found stored, as it is; full fine-tuning, the long one, last."""
    wanted = sorted(runs_of(study), key=lambda run: run.method == "full")
    return [
        Measurement(
            study,
            f"retention/{run.name}-{reviews}",
            {"result": store.result(record), "reviews": reviews},
            Retention,
            ("measure.retention.of_run", "methods.table.Run"),
            (run, study, reviews),
            record if at.state == "verified" else None,
        )
        for run in wanted
        for at, record in [found[run.name]]
        if record and at.state in records.SHOWN
    ]


def bench(study: Study, repeats: int = REPEATS) -> Measurement[Bench]:
    """The bench of a study, on any backbone, which is named beside it; one of either precision."""
    same = {key: getattr(study, key) for key in (*SEEN, "batch_size", "data_fingerprint")}
    name, code = f"bench-{study.precision}", ("measure.bench.bench", "methods.table.Run", *CLOCK)
    return Measurement(study, name, same, Bench, code, (study, repeats))


def benches(study: Study) -> list[Measurement[Bench]]:
    """In the study's own precision, and in the other."""
    kinds = sorted(get_args(Precision), key=lambda kind: kind != study.precision)
    return [bench(dataclasses.replace(study, precision=kind)) for kind in kinds]


# --- what is stored ----------------------------------------------------------------------------


def reviews(study: Study, kind: str) -> list[int]:
    """On how many reviews measurements of a kind are stored, the most first.

    Their names end in it, as in tuning/full-0.0003-9600.
    """
    found = (paths.weights() / study.study / kind).glob("*.json")
    numbers = {path.stem.rpartition("-")[2] for path in found}
    return sorted((int(number) for number in numbers if number.isdecimal()), reverse=True)


def loaded(wanted: Sequence[Measurement[F]]) -> list[F]:
    """The records of those that are not missing."""
    return [record for one in wanted if (record := one.load())]


def tried(study: Study, found: store.Found) -> list[Trial]:
    """The trials of the study as it is, those on most reviews."""
    numbers = reviews(study, "tuning")
    each = (loaded(trials(study, found, number)) for number in numbers)
    return next(filter(None, each), [])


def retained(study: Study, found: store.Found) -> Kept:
    """What the runs keep, by name, on the most reviews; {} unless of all that were found."""
    for number in reviews(study, "retention"):
        kept = {each["run"]: each for each in loaded(retention(study, number, found))}
        if len(kept) == len(found):
            return kept
    return {}


def stored(study: Study, found: store.Found) -> list[Measurement[Any]]:
    """All that is stored of a study, of other settings too; asks for its backbone if need be."""
    wanted: list[Measurement[Any]] = []
    for number in reviews(study, "tuning"):
        wanted += trials(study, found, number)
    for number in reviews(study, "retention"):
        wanted += retention(study, number, found)
    if (paths.weights() / study.study / "baselines.json").exists():
        wanted.append(baselines(study, found.shared()))
    return [one for one in (*wanted, *benches(study)) if one.path.exists()]
