"""Clauses about the results, from records made up here: each verdict turns with the numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

from helpers import seeded

from t5peft.base.studies import Study
from t5peft.report import statistics, verdicts
from t5peft.report.show import ALPHA
from t5peft.report.statistics import Pair


def test_a_difference_is_of_what_is_printed_and_has_its_p(records: list[Any]) -> None:
    full, prompt = records[:2]
    full["best_accuracy"], prompt["best_accuracy"] = 0.8756, 0.7984  # 87.6 and 79.8
    assert verdicts.versus(prompt, full, "full") == "7.8 points below full"
    pairs = [Pair(prompt, full, 3, 90, 0.0004)]
    assert verdicts.versus(full, prompt, "it", pairs) == "7.8 points above it (p < 0.001)"
    prompt["best_accuracy"] = 0.8763
    pairs = [Pair(prompt, full, 3, 4, 0.7312)]
    assert verdicts.versus(prompt, full, "it", pairs) == "level with it (p = 0.73)"
    assert verdicts.versus(prompt, records[2], "it", pairs) == "23.6 points above it"


def test_twins_are_told_apart_by_the_test_alone(records: list[Any]) -> None:
    twins = [Pair(*pair, 0, 0, 0.05) for pair in statistics.twins(records)]
    others = [Pair(records[1], records[0], 0, 9, 0.001)]
    assert verdicts.alike(others).startswith("nothing is known")
    assert verdicts.alike(twins + others) == (
        "none of the 3 from-scratch runs differ from their library twins"
    )
    twins[2] = dataclasses.replace(twins[2], p=0.049)
    assert verdicts.alike(twins) == (
        "1 of the 3 from-scratch runs differs from its library twin (LoRA -2.0 points)"
    )
    twins[1] = dataclasses.replace(twins[1], p=0.049)
    assert "2 of the 3 from-scratch runs differ from their library twins (" in verdicts.alike(twins)


def test_a_chapters_results_say_what_is_stored(records: list[Any]) -> None:
    lora = records[7:]
    text = verdicts.method_results(lora, None, [])
    assert text.startswith("Ours reaches 69.0% with r = 8, ")
    assert "full fine-tuning" not in text
    text = verdicts.method_results(lora, records[0], [])
    assert "7.0 points above full fine-tuning; the library's twin is 2.0 points above it." in text
    assert (
        f"With r = 1, {ALPHA} = 4 the library's run is 1.0 points below its own with r = 8" in text
    )


def test_runs_that_write_no_label_word_are_named(records: list[Any]) -> None:
    assert verdicts.silent(records) == ""
    records[0]["history"][records[0]["best_epoch"] - 1]["other_words"] = 1.0
    assert "was written by full fine-tuning: not learned" in verdicts.silent(records)


def test_claims_1_and_2_hold_below_full_fine_tunings(records: list[Any]) -> None:
    def held(kind: str) -> list[float]:
        return verdicts.shares(records, lambda record: record["memory"][kind])

    stored = verdicts.shares(records, lambda record: record["stored_bytes"])
    assert verdicts.at_most(stored) == "yes, at most 0.10%"
    assert verdicts.span(held("optimizer_bytes")) == "0.001% to 0.10%"
    records[4]["memory"]["peak_bytes"] *= 2
    assert verdicts.at_most(held("peak_bytes")) == "no, up to 200.0%"


def test_forgetting_counts_the_runs_that_lost_less(kept: dict[str, Any]) -> None:
    assert verdicts.forgetting({}) == "not measured"
    assert verdicts.forgetting(kept) == "not always, in none of the 9 PEFT runs"
    for name, measured in kept.items():
        measured["span_loss"] = 4.0 if name == "full" else 3.6
    assert verdicts.forgetting(kept) == "yes, in all 9 PEFT runs"
    assert verdicts.rises(kept) == "+0.10 to +0.10"


def test_overfitting_has_a_verdict(records: list[Any]) -> None:
    def gaps(own: float, p: float) -> Pair:
        return Pair(records[0], records[1], 0.1, own, p)

    none, larger, drawn, smaller = gaps(0.1, 1), gaps(0.2, 0), gaps(0.09, 0.05), gaps(0, 0.049)
    assert verdicts.overfitting([none, larger]) == (
        "not shown, the gap is smaller in none of the 2 PEFT runs, beyond the draw of the "
        "reviews in none of the 2"
    )
    assert verdicts.overfitting([smaller]).startswith("yes, the gap is smaller in all 1 PEFT runs")
    text = verdicts.overfitting([larger, drawn, smaller])
    assert text.startswith("in part, the gap is smaller in 2 of the 3 PEFT runs, beyond the draw")
    assert text.endswith("in 1 of the 3")


def test_a_gap_is_printed_in_points(records: list[Any], kept: dict[str, Any]) -> None:
    kept["full"]["train_accuracy"] = 0.9
    assert verdicts.gap_range(records[:1], kept) == "+28.0"
    assert verdicts.gap_range(records[:2], {}) == "+12.0 to +13.0"
    assert verdicts.gap_range(statistics.trained_on(records)[:1], {}) == "+19.0"


def test_training_on_is_judged_where_there_is_a_longer_study(records: list[Any]) -> None:
    assert verdicts.more_epochs([], []) == ""
    records[0]["study"] = "x"
    gaps = [
        Pair(records[0], record, 0.1, 0.0, p) for record, p in zip(records, (0.01, 1), strict=False)
    ]
    assert verdicts.more_epochs(records, gaps).startswith(
        " Trained on for 2 epochs, in the study “x”: in part, the gap is smaller in all 2"
    )


def test_seeds_move_a_method_by_the_most_of_its_runs(records: list[Any]) -> None:
    seeds = [seeded(records[k], {0: 0.8, 1: x}) for k, x in ((7, 0.81), (9, 0.75), (0, 0.8))]
    assert verdicts.moved(seeds) == "LoRA by up to 5.0 and full fine-tuning by up to 0.0"


def test_rates_that_fall_are_compared_with_constant_ones_at_the_best_of_either() -> None:
    tried: list[Any] = [
        {"method": method, "accuracy": x, "identity": how}
        for method, constant, falling in (("full", 0.9, 0.91), ("lora", 0.8, 0.79))
        for x, how in ((0.5, {}), (constant, {}), (falling, {"decay": "linear"}))
    ]
    assert verdicts.falling(tried) == (
        "A rate that falls to 0 is better in 1 of the 2 methods, each at its best rate "
        "(+1.0 and -1.0 points)."
    )
    assert verdicts.falling(tried[:2]) == ""


def test_a_larger_run_is_compared_with_the_smallest_of_its_kind(records: list[Any]) -> None:
    text = verdicts.gains(records)
    assert (
        f"LoRA, PEFT, r = 8, {ALPHA} = 4 is 1.0 points above r = 1, {ALPHA} = 4, for 1 times"
        in text
    )
    assert "full" not in text
    assert verdicts.gains(records[:2]) == ""


def test_epochs_and_looks_are_counted(exercise: Study) -> None:
    assert verdicts.epochs(1) == "one epoch"
