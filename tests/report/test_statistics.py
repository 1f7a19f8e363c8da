"""Statistics, against values worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from helpers import seeded

from t5peft.report import statistics


def test_wilson_is_the_interval_of_the_textbook() -> None:
    low, high = statistics.wilson(0.5, 10)
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert statistics.wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert statistics.wilson(1.0, 10)[1] == pytest.approx(1.0)
    for trials in range(1, 500):
        assert 0 <= statistics.wilson(0.0, trials)[0] <= statistics.wilson(1.0, trials)[1] <= 1
    assert statistics.wilson(0.0, 7)[0] == 0, "which rounding would put below"
    with pytest.raises(ValueError, match="0 trials"):
        statistics.wilson(0.5, 0)


def test_two_runs_are_told_apart_by_the_seeds_that_both_have(records: list[Any]) -> None:
    one, two, three = records[:3]
    of_two = seeded(two, {0: 0.83, 1: 0.9})
    seeds = [seeded(one, {0: 0.80, 1: 0.82, 2: 0.50}), of_two]
    assert statistics.shared_seeds(one, two, seeds) == ([0.80, 0.82], [0.83, 0.9])
    assert statistics.apart(one, two, seeds), "their ranges share no point"
    of_two[0]["best_accuracy"] = 0.81
    assert not statistics.apart(one, two, seeds)
    assert statistics.shared_seeds(one, three, seeds) is None


def test_without_shared_seeds_a_difference_must_exceed_what_a_seed_moves(
    records: list[Any],
) -> None:
    one, two = records[:2]  # a point apart
    assert statistics.seed_spreads([seeded(one, {0: 0.8, 1: 0.809})]) == {
        "full": pytest.approx(0.9)
    }
    assert statistics.apart(one, two, [seeded(one, {0: 0.8, 1: 0.809})])
    assert not statistics.apart(one, two, [seeded(one, {0: 0.8, 1: 0.81})])
    assert statistics.apart(one, two, []), "no seed moved any"


def test_a_lead_is_of_the_best_trial_over_the_second_best() -> None:
    found = {"full": (0.7, 0.9, 0.85), "lora": (0.6,)}
    trials: list[Any] = [{"method": m, "accuracy": x} for m, all_ in found.items() for x in all_]
    assert statistics.leads(trials) == {"full": pytest.approx(0.05)}


def test_a_run_moves_by_its_largest_step_between_epochs(one_epoch: list[Any]) -> None:
    assert statistics.jump(one_epoch) == 0.0
    first = one_epoch[0]["history"][0]
    accuracies = (0.5, 0.6, 0.3)
    one_epoch[0]["history"] = [first | {"test_accuracy": accuracy} for accuracy in accuracies]
    assert statistics.jump(one_epoch) == pytest.approx(0.3)


def test_a_gap_is_of_the_epoch_that_is_asked_for(records: list[Any]) -> None:
    (full, *_) = records
    assert statistics.gap(full, 1) == pytest.approx(0.75 - 0.62)
    assert statistics.best_epochs_gap(full) == statistics.gap(full, 1)
    assert statistics.last_gap(full)[0] == statistics.gap(full, 2) == pytest.approx(0.8 - 0.61)
    assert statistics.full_first(records[::-1])[0] is full
