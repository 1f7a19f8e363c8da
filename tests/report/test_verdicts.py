"""Clauses about the results, from records made up here: each verdict turns with the numbers."""

from __future__ import annotations

import dataclasses
from typing import Any

from helpers import seeded

from t5peft.report import show, statistics, verdicts
from t5peft.report.show import ALPHA, MINUS
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
        "none of the 3 from-scratch runs differ from the libraries'"
    )
    twins[2] = dataclasses.replace(twins[2], p=0.049)
    assert verdicts.alike(twins) == (
        f"1 of the 3 from-scratch runs differs from the library's (LoRA {MINUS}2.0 points)"
    )
    near, far = ([seeded(records[7], {0: 0.69, 1: x})] for x in (0.71, 0.72))
    assert verdicts.alike(twins, near) == verdicts.alike(twins)
    assert verdicts.alike(twins, far).endswith(
        f"(LoRA {MINUS}2.0 points, less than its seeds lie apart, 3.0)"
    )
    twins[1] = dataclasses.replace(twins[1], p=0.049)
    assert "2 of the 3 from-scratch runs differ from the libraries' (" in verdicts.alike(twins)


def test_a_chapters_results_say_what_is_stored(records: list[Any]) -> None:
    lora = records[7:]
    text = verdicts.method_results(lora, None, [])
    assert text.startswith("Ours reaches 69.0% with r = 8, ")
    assert "full fine-tuning" not in text
    text = verdicts.method_results(lora, records[0], [])
    assert "7.0 points above full fine-tuning; the library's is 2.0 points above ours." in text
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
    assert show.span(held("optimizer_bytes"), show.share) == "0.001% to 0.10%"
    assert show.span([0.1, 0.1], show.share) == "10.0%"
    records[4]["memory"]["peak_bytes"] *= 2
    assert verdicts.at_most(held("peak_bytes")) == "no, up to 200.0%"


def test_forgetting_names_the_methods_that_lost_less(
    records: list[Any], kept: dict[str, Any]
) -> None:
    assert verdicts.forgetting(records, {}) == "not measured"
    every = "soft prompt, adapter and LoRA"
    assert verdicts.forgetting(records, kept) == f"not less with {every}", "but as much"
    for name, measured in kept.items():
        measured["span_loss"] = 4.0 if name == "full" else 3.6
    assert verdicts.forgetting(records, kept) == f"less with {every}"
    kept["lora-peft-r1"]["span_loss"] = 4.1
    for name in ("adapter-scratch-b8", "adapter-adapterhub-b8", "adapter-adapterhub-b1"):
        kept[name]["span_loss"] = 4.0
    assert verdicts.forgetting(records, kept) == (
        "less with soft prompt, in part less with LoRA, not less with adapter"
    )


def test_a_value_is_told_as_a_range_of_each_method(records: list[Any]) -> None:
    told = verdicts.by_method(records[:8], lambda record: record["run"]["number"] - 4.5)
    assert told == (
        f"full fine-tuning {MINUS}3.5, soft prompt {MINUS}2.5 to {MINUS}0.5, "
        "adapter +0.5 to +2.5 and LoRA +3.5"
    )
    assert verdicts.by_method(records[:1], lambda _: -0.04) == "full fine-tuning 0.0", "no sign"
    assert verdicts.by_method(records[:1], lambda _: 0.25, str) == "full fine-tuning 0.25"


def test_methods_whose_seeds_meet_are_not_told_apart(records: list[Any]) -> None:
    full, adapter = seeded(records[0], {0: 0.9, 1: 0.88}), seeded(records[4], {0: 0.87, 1: 0.86})
    near, level = seeded(records[7], {0: 0.83, 1: 0.8596}), seeded(records[1], {0: 0.8802})
    assert verdicts.overlap([*full, *adapter]) == verdicts.overlap([*adapter, *full]) == ""
    told = "; the seeds do not tell full fine-tuning from soft prompt and adapter from LoRA"
    assert verdicts.overlap([*full, *level, *adapter, *near]) == told


def test_overfitting_has_a_verdict(records: list[Any]) -> None:
    def gaps(own: float, p: float) -> Pair:
        return Pair(records[0], records[1], 0.1, own, p)

    none, larger, drawn, smaller = gaps(0.1, 1), gaps(0.2, 0), gaps(0.09, 0.05), gaps(0, 0.049)
    assert verdicts.overfitting([none, larger]) == (
        "not shown, the gap is smaller beyond chance in none of the 2 PEFT runs"
    )
    assert verdicts.overfitting([smaller, smaller]) == (
        "yes, the gap is smaller beyond chance in all 2 PEFT runs"
    )
    assert verdicts.overfitting([larger, drawn, smaller]) == (
        "in part, the gap is smaller in 2 of the 3 PEFT runs, beyond chance in 1 of the 3"
    )


def test_a_gap_is_printed_in_points(records: list[Any], kept: dict[str, Any]) -> None:
    kept["full"]["train_accuracy"] = 0.9
    assert verdicts.gap_range(records[:1], kept) == "+28.0"
    assert verdicts.gap_range(records[:2], {}) == "+12.0 to +13.0"
    assert verdicts.gap_range(statistics.trained_on(records)[:1], {}) == "+19.0"


def test_training_on_is_judged_where_there_is_a_longer_study(records: list[Any]) -> None:
    assert verdicts.more_epochs([], [], []) == ""
    records[0] |= {"study": "x", "params": {"epochs": 2, "train_examples": 2500}}
    best, last = ([Pair(records[0], records[1], 0.1, 0.0, p)] for p in (1, 0.01))
    assert verdicts.more_epochs(records, best, last) == (
        " In 2 epochs over 2,500 reviews (study “x”), after the best one: not shown, the gap is "
        "smaller in all 1 PEFT runs, beyond chance in none of the 1; after the last: yes, the gap "
        "is smaller beyond chance in all 1 PEFT runs."
    )


def test_rates_that_fall_are_compared_with_constant_ones_at_the_best_of_either() -> None:
    tried: list[Any] = [
        {"method": method, "accuracy": x, "identity": how}
        for method, constant, falling in (("full", 0.9, 0.91), ("lora", 0.8, 0.79))
        for x, how in ((0.5, {}), (constant, {}), (0.4, {}), (falling, {"decay": "linear"}))
    ]
    assert verdicts.falling(tried) == (
        "A rate that falls to 0 is better in 1 of the 2 methods, each at its best rate "
        f"(+1.0 and {MINUS}1.0 points)."
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


def test_epochs_are_counted() -> None:
    assert [verdicts.epochs(count) for count in (1, 10)] == ["one epoch", "10 epochs"]
