"""Statistics of stored runs: numbers alone. Accuracies are shares of 1."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from statistics import NormalDist

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
class Pair:
    """Two runs, compared by the reviews that either alone has right, or by their gaps."""

    first: Record
    second: Record
    of_first: float
    of_second: float
    p: float  # of so large a difference, if there is none

    @property
    def differ(self) -> bool:
        """Is the difference more than the draw of the reviews explains?"""
        return self.p < ALPHA


def together(*tests: Sequence[Pair]) -> list[list[Pair]]:
    """Several tables of tests, each p adjusted for one error rate of all."""
    adjusted = iter(holm([pair.p for some in tests for pair in some]))
    return [[replace(pair, p=next(adjusted)) for pair in some] for some in tests]


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p of discordant answers (McNemar, 1947): a sign test among these."""
    either = only_first + only_second
    return float(binomtest(only_first, either).pvalue) if either else 1.0


def margin(pair: Pair) -> float:
    """Half the 95% interval of the percentage points between two runs (Wald's, of paired shares).

    The variance of a share of N is (b + c - (b - c)^2 / N) / N^2, with b and c discordant answers.
    """
    b, c, trials = pair.of_first, pair.of_second, pair.first["test_examples"]
    return 100 * 1.96 * math.sqrt(b + c - (b - c) ** 2 / trials) / trials


def holm(found: Sequence[float]) -> list[float]:
    """p of several tests, adjusted for one error rate of all (Holm, 1979)."""
    order = np.argsort(found)
    scaled = np.asarray(found)[order] * np.arange(len(found), 0, -1)
    return np.minimum(1, np.maximum.accumulate(scaled))[np.argsort(order)].tolist()


def compared(pairs: Iterable[tuple[Record, Record]], right: Mapping[str, np.ndarray]) -> list[Pair]:
    """The pairs by their answers: right, by run's name, says which reviews (reviews,) it has right.

    A pair is left out where one of the two kept no answers.
    """
    found = []
    for one, other in pairs:
        if {one["run"]["name"], other["run"]["name"]} <= right.keys():
            a, b = right[one["run"]["name"]], right[other["run"]["name"]]
            counts = int((a & ~b).sum()), int((b & ~a).sum())
            found.append(Pair(one, other, *counts, mcnemar(*counts)))
    return found


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


def agreement(right: Iterable[np.ndarray]) -> list[float]:
    """Cohen's kappa (Cohen, 1960) of which reviews (reviews,) each two runs have right.

    Of all alike it is 1. The answers themselves agree wherever both are right, errors alike or not.
    """
    return [
        1.0 if np.array_equal(*pair) else float(cohen_kappa_score(*pair))
        for pair in combinations(right, 2)
    ]


def all_wrong(right: Iterable[np.ndarray]) -> list[int]:
    """The places of the reviews that no run has right."""
    return np.flatnonzero(~np.any([*right], axis=0)).tolist()


# --- seeds ---------------------------------------------------------------------------------------


def seed_spread(records: Iterable[Record]) -> float:
    """Percentage points between the best and the worst seed of a run, as printed."""
    return round(float(np.ptp([percent(record) for record in records])), 1)


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


def gaps(records: Iterable[Record], kept: Kept) -> list[Pair]:
    """Full fine-tuning beside each PEFT run, by a z test of their gaps.

    It takes the reviews of the two as drawn independently. As they are the same ones, p is no
    smaller than it has to be.
    """
    found = [(record, *gap(record, kept)) for record in records]
    full = [each for each in found if each[0]["run"]["method"] == "full"]
    pairs = []
    for first, own, error in full:
        for second, one, other in found:
            z = abs(own - one) / (math.hypot(error, other) or math.ulp(1))
            p = 2 * NormalDist().cdf(-z)
            pairs += [Pair(first, second, own, one, p)] if first is not second else []
    return pairs


def rise(measured: Retention, digits: int = 15) -> float:
    """How far fine-tuning moved the span loss, nats a target token; of so many printed digits."""
    return round(measured["span_loss"], digits) - round(measured["span_loss_before"], digits)
