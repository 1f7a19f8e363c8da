"""Statistics of stored runs: numbers alone. Accuracies are shares of 1."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import cohen_kappa_score

from t5peft.measure.measurements import Kept, Retention
from t5peft.runs.records import Record

ALPHA = 0.05
"""The error rate of all tests of a report together."""


# --- accuracies ----------------------------------------------------------------------------------


def wilson(share: float, trials: int) -> tuple[float, float]:
    """The 95% interval of a binomial share (Wilson, 1927). Raises ValueError without a trial."""
    low, high = binomtest(round(share * trials), trials).proportion_ci(method="wilson")
    return float(low), float(high)


def interval(record: Record) -> tuple[float, float]:
    """The same of a run's best epoch."""
    return wilson(record["best_accuracy"], record["test_examples"])


def points(record: Record, other: Record) -> float:
    """Percentage points between two runs, of the accuracies as they are printed."""
    return round(percent(record) - percent(other), 1)


def percent(record: Record) -> float:
    """The accuracy of a run's best epoch as it is printed."""
    return round(100 * record["best_accuracy"], 1)


# --- tests ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Test:
    """A difference, and how probable one at least as large is if there is none."""

    p: float

    @property
    def differ(self) -> bool:
        """Is the difference more than the draw of the reviews explains?"""
        return self.p < ALPHA


@dataclass(frozen=True)
class Pair(Test):
    """Two runs that answered the same test reviews, each after its best epoch."""

    first: Record
    second: Record
    only_first: int  # how many reviews the first alone has right
    only_second: int


@dataclass(frozen=True)
class Lead(Test):
    """By how much the gap of a PEFT run is smaller than full fine-tuning's."""

    smaller: float


class Tests(NamedTuple):
    """All that a report tests."""

    pairs: list[Pair]
    gaps: list[Lead]
    later: list[Lead]  # after the last epoch of a longer study


def together(pairs: list[Pair], gaps: list[Lead], later: list[Lead]) -> Tests:
    """The tests, each p adjusted for one error rate of all."""
    adjusted = iter(holm([test.p for test in (*pairs, *gaps, *later)]))
    return Tests(
        [replace(pair, p=next(adjusted)) for pair in pairs],
        [replace(lead, p=next(adjusted)) for lead in gaps],
        [replace(lead, p=next(adjusted)) for lead in later],
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of discordant answers (McNemar, 1947): a sign test among these."""
    either = only_first + only_second
    return float(binomtest(only_first, either).pvalue) if either else 1.0


def holm(found: Sequence[float]) -> list[float]:
    """p of several tests, adjusted for one error rate of all (Holm, 1979)."""
    order = np.argsort(found)
    scaled = np.asarray(found)[order] * np.arange(len(found), 0, -1)
    adjusted = np.empty(len(found))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(scaled))
    return adjusted.tolist()


def compared(pairs: Iterable[tuple[Record, Record]], right: Mapping[str, np.ndarray]) -> list[Pair]:
    """The pairs by their answers: right, by run's name, says which reviews (reviews,) it has right.

    A pair is left out where one of the two kept no answers.
    """
    both = [
        (one, other, right[one["run"]["name"]], right[other["run"]["name"]])
        for one, other in pairs
        if {one["run"]["name"], other["run"]["name"]} <= right.keys()
    ]
    counts = [(int((a & ~b).sum()), int((b & ~a).sum())) for _, _, a, b in both]
    return [
        Pair(mcnemar(*count), one, other, *count)
        for (one, other, *_), count in zip(both, counts, strict=True)
    ]


def against_full(records: Iterable[Record]) -> list[tuple[Record, Record]]:
    """Each from-scratch PEFT run with full fine-tuning."""
    ours = [record for record in records if record["run"]["implementation"] == "scratch"]
    full = [record for record in ours if record["run"]["method"] == "full"]
    return [(record, one) for record in ours for one in full if record is not one]


def twins(records: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Each from-scratch run with the library's run of the same setting."""
    return [
        (one, other)
        for one in records
        for other in records
        if one["run"]["implementation"] == "scratch" != other["run"]["implementation"]
        and all(one["run"][key] == other["run"][key] for key in ("method", "settings"))
    ]


def sizes(records: Iterable[Record]) -> list[tuple[Record, Record]]:
    """Each library's run with more parameters, with that of fewer."""
    library = [record for record in records if record["run"]["implementation"] != "scratch"]
    return [(many, few) for alike in groups(library) for few, many in pairwise(alike)]


def groups(records: Iterable[Record]) -> list[list[Record]]:
    """The runs of each method and implementation, the smallest first."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(records, key=lambda record: record["parameters"]["trained"]):
        run = record["run"]
        found.setdefault((run["method"], run["implementation"]), []).append(record)
    return [*found.values()]


def agreement(answers: Iterable[np.ndarray]) -> list[float]:
    """Cohen's kappa (Cohen, 1960) of the answers (reviews,) of each two runs; of all alike, 1."""
    return [
        1.0 if np.array_equal(*pair) else float(cohen_kappa_score(*pair))
        for pair in combinations(answers, 2)
    ]


def all_wrong(right: Iterable[np.ndarray]) -> list[int]:
    """The places of the reviews that no run has right."""
    return np.flatnonzero(~np.any([*right], axis=0)).tolist()


# --- seeds ---------------------------------------------------------------------------------------


def seed_spread(records: Iterable[Record]) -> float:
    """Percentage points between the best and the worst seed of a run, as printed."""
    found = [percent(record) for record in records]
    return round(max(found) - min(found), 1)


# --- training reviews and prior knowledge --------------------------------------------------------


def known(record: Record, kept: Kept) -> tuple[float, float, int]:
    """Accuracy on training and on test reviews after the best epoch, and how many training ones.

    As `t5peft retention` measured it, else as the training did.
    """
    if measured := kept.get(record["run"]["name"]):
        return measured["train_accuracy"], measured["test_accuracy"], measured["reviews"]
    best, settings = record["history"][record["best_epoch"] - 1], record["params"]
    sample = min(settings["train_sample"], settings["train_examples"])
    return best["train_accuracy"], best["test_accuracy"], sample


def gap(record: Record, kept: Kept) -> tuple[float, float]:
    """Accuracy on training less that on test reviews, and its standard error."""
    train, test, count = known(record, kept)
    variance = train * (1 - train) / count + test * (1 - test) / record["test_examples"]
    return train - test, math.sqrt(variance)


def gap_points(record: Record, kept: Kept) -> float:
    """The gap in percentage points, of the accuracies as they are printed."""
    train, test, _ = known(record, kept)
    return round(100 * train, 1) - round(100 * test, 1)


def trained_on(records: Iterable[Record]) -> list[Record]:
    """The same runs as they are after their last epoch, in place of the best."""
    return [{**record, "best_epoch": len(record["history"])} for record in records]


def leads(records: Iterable[Record], kept: Kept) -> list[Lead]:
    """Each PEFT run's gap beside full fine-tuning's, by a z test; none without the latter.

    The test takes the reviews of the two as drawn independently. As they are the same ones, p is
    no smaller than it has to be.
    """
    full, peft = [], []
    for record in records:
        (full if record["run"]["method"] == "full" else peft).append(gap(record, kept))
    both = [(own - one, math.hypot(error, other)) for own, error in full for one, other in peft]
    return [
        Lead(2 * NormalDist().cdf(-abs(smaller) / (error or math.ulp(1))), smaller)
        for smaller, error in both
    ]


def rise(measured: Retention, digits: int = 15) -> float:
    """How far fine-tuning moved the span loss, nats a target token; of so many printed digits."""
    return round(measured["span_loss"], digits) - round(measured["span_loss_before"], digits)
