"""Statistics of stored runs: numbers alone, which the other modules put into words.

Accuracies are shares of 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import TYPE_CHECKING

from t5peft.measure.measurements import Kept, Retention, Trial
from t5peft.runs.records import Record

if TYPE_CHECKING:
    from t5peft.training.jobs import Epoch

Z = 1.959964
"""The normal quantile of a 95% interval."""

Gap = tuple[float, float]
"""Accuracy on training reviews less that on test reviews, and its standard error."""


def wilson(share: float, trials: int) -> tuple[float, float]:
    """The 95% interval of a binomial share (Wilson, 1927); stays inside 0 to 1.

    Raises ValueError where there was no trial.
    """
    if trials <= 0:
        raise ValueError(f"{trials} trials have no share")
    centre = share + Z * Z / (2 * trials)
    spread = Z * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials))
    scale = 1 + Z * Z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)  # but rounding


def error_of(*shares: tuple[float, int]) -> float:
    """The standard error of a sum or difference of binomial shares (share, trials)."""
    return math.sqrt(sum(share * (1 - share) / count for share, count in shares))


def epoch(record: Record, number: int) -> Epoch:
    """What the history holds of epoch `number` (from 1)."""
    return record["history"][number - 1]


def gap(record: Record, number: int) -> float:
    """Train minus test accuracy after epoch `number`."""
    return epoch(record, number)["train_accuracy"] - epoch(record, number)["test_accuracy"]


def sample_size(record: Record) -> int:
    """How many training reviews a run's training accuracy is measured on."""
    settings = record["params"]
    return min(settings["train_sample"], settings["train_examples"])


def last_gap(record: Record) -> Gap:
    """The gap after the last epoch."""
    last = record["history"][-1]
    train = last["train_accuracy"], sample_size(record)
    test = last["test_accuracy"], record["test_examples"]
    return gap(record, len(record["history"])), error_of(train, test)


def best_gap(measured: Retention, record: Record) -> Gap:
    """The gap after the best epoch, on the training reviews that `t5peft retention` looked at."""
    train, test = measured["train_accuracy"], measured["test_accuracy"]
    return train - test, error_of((train, measured["reviews"]), (test, record["test_examples"]))


def best_epochs_gap(record: Record) -> float:
    """The gap after a run's best epoch, on the reviews of its history."""
    return gap(record, record["best_epoch"])


def jump(records: Sequence[Record]) -> float:
    """The most that a test accuracy moves from an epoch to the next."""
    pairs = (pair for record in records for pair in pairwise(record["history"]))
    return max((abs(b["test_accuracy"] - a["test_accuracy"]) for a, b in pairs), default=0.0)


def gaps_of_seeds(
    records: Sequence[Record], seeds: Sequence[Sequence[Record]]
) -> tuple[list[float], list[float]]:
    """The last gaps of full fine-tuning's runs and of the PEFT runs, with every stored seed."""
    full, peft = [], []
    for record in [*records, *(other for _, *others in seeds for other in others)]:
        (full if record["run"]["method"] == "full" else peft).append(last_gap(record)[0])
    return full, peft


def full_first(records: Sequence[Record]) -> list[Record]:
    """Full fine-tuning's run, then the others."""
    return sorted(records, key=lambda record: record["run"]["method"] != "full")


def doubts_of(full: Gap, others: Mapping[str, Gap]) -> dict[str, float]:
    """Half the interval of each difference to full fine-tuning's gap; 95% for all together."""
    z = NormalDist().inv_cdf(1 - 0.05 / (2 * len(others)))
    return {name: z * math.hypot(full[1], error) for name, (_, error) in others.items()}


def smaller(full: Gap, others: Mapping[str, Gap]) -> dict[str, Gap]:
    """The gaps that are smaller than full fine-tuning's by more than the uncertainty."""
    doubts = doubts_of(full, others)
    return {name: gap for name, gap in others.items() if full[0] - gap[0] > doubts[name]}


def rise(measured: Retention) -> float:
    """How far fine-tuning moved the span loss, nats a target token."""
    return measured["span_loss"] - measured["span_loss_before"]


def forgotten_less(kept: Kept) -> int:
    """How many PEFT runs moved the span loss up by less than full fine-tuning did."""
    return sum(rise(x) < rise(kept["full"]) for name, x in kept.items() if name != "full")


def seed_spread(records: Sequence[Record]) -> float:
    """Percentage points between the best and the worst seed of a run."""
    found = [record["best_accuracy"] for record in records]
    return 100 * (max(found) - min(found))


def seed_spreads(seeds: Sequence[Sequence[Record]]) -> dict[str, float]:
    """How far another seed moved a run, at most, by method."""
    most: dict[str, float] = {}
    for records in seeds:
        method = records[0]["run"]["method"]
        most[method] = max(seed_spread(records), most.get(method, 0.0))
    return most


def shared_seeds(
    record: Record, other: Record, seeds: Sequence[Sequence[Record]]
) -> tuple[list[float], list[float]] | None:
    """Two runs' accuracies with the seeds that both were made with; None where that is but one."""
    found = {
        records[0]["run"]["name"]: {r["params"]["seed"]: r["best_accuracy"] for r in records}
        for records in seeds
    }
    ours, theirs = (found.get(run["run"]["name"], {}) for run in (record, other))
    both = sorted(ours.keys() & theirs.keys())
    if len(both) < 2:
        return None
    return [ours[seed] for seed in both], [theirs[seed] for seed in both]


def ranges_apart(some: Sequence[float], others: Sequence[float]) -> bool:
    """Do the ranges of two samples share no point?"""
    return max(some) < min(others) or max(others) < min(some)


def apart(record: Record, other: Record, seeds: Sequence[Sequence[Record]]) -> bool:
    """Do other seeds leave the order of two runs as it is?

    Where both have the same several seeds, by their ranges; else by how far another seed moved
    their methods' runs, as it is printed. A method that was made with one seed is taken to move as
    far as any.
    """
    if both := shared_seeds(record, other, seeds):
        return ranges_apart(*both)
    moved = seed_spreads(seeds)
    most = max(moved.values(), default=0.0)
    needed = max(moved.get(run["run"]["method"], most) for run in (record, other))
    points = 100 * abs(record["best_accuracy"] - other["best_accuracy"])
    return round(points, 1) > round(needed, 1)


def leads(trials: Sequence[Trial]) -> dict[str, float]:
    """How far each method's best rate is ahead of its second best."""
    tried: dict[str, list[float]] = {}
    for trial in trials:
        tried.setdefault(trial["method"], []).append(trial["accuracy"])
    ordered = {method: sorted(found, reverse=True) for method, found in tried.items()}
    return {method: found[0] - found[1] for method, found in ordered.items() if len(found) > 1}
