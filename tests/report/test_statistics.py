"""Statistics, against values worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import seeded
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score

from t5peft.report import statistics


def test_wilson_is_the_interval_of_the_textbook() -> None:
    low, high = statistics.wilson(0.5, 10)
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert statistics.wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert statistics.wilson(1.0, 10)[1] == pytest.approx(1.0)
    for trials in range(1, 500):
        assert 0 <= statistics.wilson(0.0, trials)[0] <= statistics.wilson(1.0, trials)[1] <= 1
    assert statistics.wilson(0.0, 7)[0] == 0, "which rounding would put below"
    with pytest.raises(ValueError, match="n"):
        statistics.wilson(0.5, 0)


def test_mcnemar_is_a_sign_test_of_the_discordant() -> None:
    assert statistics.mcnemar(0, 5) == statistics.mcnemar(5, 0) == pytest.approx(2 / 2**5)
    assert statistics.mcnemar(1, 5) == pytest.approx(2 * (1 + 6) / 2**6)
    assert statistics.mcnemar(4, 4) == 1
    assert statistics.mcnemar(0, 0) == 1, "the same answers"


def test_holm_is_the_one_of_the_paper() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.9, 0.8]) == [1, 1]
    assert statistics.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(found: list[float]) -> None:
    adjusted = statistics.holm(found)
    for p, after in zip(found, adjusted, strict=True):
        assert p <= after <= min(1, p * len(found)) + 1e-12
    assert [adjusted[i] for i in np.argsort(found)] == sorted(adjusted)


def test_pairs_are_compared_by_what_one_alone_has_right(records: list[Any]) -> None:
    right = {
        records[1]["run"]["name"]: np.array([1, 1, 0, 0, 1], bool),
        records[0]["run"]["name"]: np.array([0, 1, 1, 0, 0], bool),
    }
    pairs = [(records[1], records[0]), (records[2], records[0])]
    (pair,) = statistics.compared(pairs, right)
    assert (pair.first, pair.second) == pairs[0], "the other kept no answers"
    assert (pair.of_first, pair.of_second, pair.p) == (2, 1, 1)
    assert not pair.differ
    assert statistics.all_wrong(right.values()) == [3]
    several = {name: np.resize(x, 5000) for name, x in right.items()}
    assert statistics.compared(pairs, several)[0].differ


def test_the_pairs_are_twins_sizes_and_ours_against_full(records: list[Any]) -> None:
    def numbers(pairs: list[Any]) -> list[tuple[int, int]]:
        return [(one["run"]["number"], other["run"]["number"]) for one, other in pairs]

    assert numbers(statistics.against_full(records)) == [(2, 1), (5, 1), (8, 1)]
    assert numbers(statistics.against_full(records[1:])) == []
    assert numbers(statistics.twins(records)) == [(2, 4), (5, 6), (8, 10)]
    for record in records:
        record["parameters"]["trained"] *= 1 + ("8" in record["run"]["name"][-1:])
    assert (10, 9) in numbers(statistics.sizes(records))
    assert len(statistics.sizes(records)) == 3


def test_agreement_is_of_every_two_runs() -> None:
    answers = [np.array(x) for x in ([0, 1, 1, 2], [0, 1, 1, 2], [0, 0, 1, 2])]
    one = cohen_kappa_score(answers[0], answers[2])
    assert statistics.agreement(answers) == pytest.approx([1, one, one])
    assert statistics.agreement(2 * [np.array([2, 2, 2])]) == [1], "of no label word at all"


def test_points_are_of_what_is_printed(records: list[Any]) -> None:
    records[0]["best_accuracy"], records[1]["best_accuracy"] = 0.87649, 0.79751
    assert statistics.points(*records[:2]) == 7.8, "87.6 less 79.8"
    assert statistics.seed_spread(seeded(records[0], {0: 0.8004, 1: 0.8106})) == 1.1


def test_a_gap_is_of_the_best_epoch_or_as_it_was_measured(
    records: list[Any], kept: dict[str, Any]
) -> None:
    found, error = statistics.gap(records[0], {})
    assert found == pytest.approx(0.75 - 0.62)
    assert error == pytest.approx((0.75 * 0.25 / 1000 + 0.62 * 0.38 / 25_000) ** 0.5)
    assert statistics.gap(records[0], kept)[0] == pytest.approx(0.7 - 0.62)
    assert statistics.known(records[0], kept) == (0.7, 0.62, 1000)


def test_a_gap_is_tested_as_if_each_run_had_drawn_its_reviews(records: list[Any]) -> None:
    own, error = statistics.gap(records[0], {})
    pairs = statistics.gaps(records, {})
    assert [pair.second for pair in pairs] == records[1:]
    for pair in pairs:
        gap, other = statistics.gap(pair.second, {})
        assert (pair.of_first, pair.of_second) == (own, gap)
        assert pair.p == pytest.approx(2 * norm.sf(abs(own - gap) / np.hypot(error, other)))
    assert statistics.gaps(records[1:], {}) == [], "without full fine-tuning"


def test_gaps_without_an_error_are_alike_or_not(records: list[Any]) -> None:
    for record, test in zip(records, [1.0, 1.0, 0.0], strict=False):
        record["history"][0].update(train_accuracy=1.0, test_accuracy=test)
    assert [pair.p for pair in statistics.gaps(records[:3], {})] == [1, 0]


def test_the_margin_of_a_difference_is_that_of_paired_shares(records: list[Any]) -> None:
    """As the variance of the reviews' own differences, which are 1, 0 or -1, has it."""
    pair = statistics.Pair(records[0], records[1], 30, 10, 1)
    each = np.repeat([1, -1, 0], [30, 10, records[0]["test_examples"] - 40])
    error = 100 * each.std() / len(each) ** 0.5
    assert statistics.margin(pair) == pytest.approx(1.96 * error)


def test_all_tests_of_a_report_have_one_error_rate(records: list[Any]) -> None:
    found = [0.01, 0.04, 0.03, 0.005]
    one, *rest = [statistics.Pair(records[0], records[1], 1, 2, p) for p in found]
    pairs, gaps, later = statistics.together([one], [], rest)
    assert [pair.p for pair in [*pairs, *later]] == statistics.holm(found)
    assert (len(pairs), gaps) == (1, [])
