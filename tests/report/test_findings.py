"""Sentences about the results, from records made up here."""

from __future__ import annotations

import dataclasses
from typing import Any

from helpers import cells, seeded

from t5peft.base.studies import Study
from t5peft.report import claims, findings, overfitting, show, tables


def test_findings_say_which_way_it_went(records: list[Any]) -> None:
    text = findings.findings(records, [])
    assert "Our **soft prompt** trains 0.001% of the parameters" in text
    assert "reaches 63.0%: 1.0 points above full fine-tuning's 62.0%" in text
    assert "Our LoRA (69.0%) is 2.0 points below PEFT's (71.0%)" in text
    assert "other learning rates (1e-3 and 1e-4)" in text
    records[1]["best_accuracy"] = records[0]["best_accuracy"]
    assert "level with full fine-tuning's" in findings.findings(records, [])


def test_runs_that_write_no_label_word_are_not_compared(records: list[Any]) -> None:
    assert findings.silent_sentence(records) == ""
    for record in records[:2]:
        record["best_accuracy"] = 0.0
        record["history"][record["best_epoch"] - 1]["other_words"] = 1.0
    text = findings.findings(records, [])
    assert "reaches 0.0%: not to be compared with full fine-tuning's 0.0%" in text
    assert "**2 of the 10 runs wrote no label word** to any test review" in text
    for record in records:
        record["best_accuracy"] = 0.0
        record["history"][record["best_epoch"] - 1]["other_words"] = 1.0
    told = findings.findings(records, []) + claims.order_sentence(records, [])
    assert "**All 10 runs wrote no label word**" in told
    assert "evel" not in told, "neither level with, nor Level are"


def test_findings_say_how_far_another_seed_moves_a_run(records: list[Any]) -> None:
    assert "was not measured" in findings.findings(records, [])
    seeds = [
        [
            {**records[k], "params": {"seed": seed}, "best_accuracy": x}
            for seed, x in enumerate((0.80, 0.79, 0.815))
        ]
        for k in (4, 7)
    ]
    seeds[1][0]["best_accuracy"] = 0.75
    text = findings.findings(records, seeds)
    assert (
        "moved adapter by up to 2.5 points and LoRA by up to 6.5 points (@tbl-seeds); full" in text
    )
    assert "was not measured" not in text
    rows = {row[0]: row[-1] for row in cells(tables.glance(records, seeds))}
    assert rows["adapter"] == "79.0, 81.5"
    assert rows["full fine-tuning"] == show.DASH


def test_twins_have_the_same_setting(records: list[Any]) -> None:
    pairs = [(a["run"]["number"], b["run"]["number"]) for a, b in findings.twins(records)]
    assert pairs == [(2, 4), (5, 6), (8, 10)]


def test_what_seeds_can_do_is_said_to_be_untold(records: list[Any]) -> None:
    first, second = records[:2]  # full fine-tuning and soft prompt, 1 point apart
    wide, narrow, other = (
        seeded(run, {0: 0.8, 1: y})
        for run, y in ((second, 0.815), (second, 0.805), (records[4], 0.9))
    )
    own = seeded(first, {0: 0.8, 5: 0.8})
    assert findings.beside(first, second, [wide]) == ", within the spread between seeds"
    assert findings.beside(first, second, [seeded(second, {0: 0.8, 1: 0.8101})]) != "", "as printed"
    assert findings.beside(first, second, [narrow]) == ""
    assert findings.beside(first, second, [own, narrow, other]) == "", "adapters may move farther"
    assert findings.beside(first, second, [narrow, other]) != "", "the first has one seed"
    assert findings.beside(first, second, []) == ""
    assert findings.beside(first, first, [wide]) == "", "they are level"


def test_twins_are_compared_over_the_seeds_that_both_have(records: list[Any]) -> None:
    pair = (records[7], records[9])
    seeds = [
        seeded(pair[0], {0: 0.80, 1: 0.82, 2: 0.10}),
        seeded(pair[1], {0: 0.83, 1: 0.85, 3: 0.1}),
    ]
    text = findings.twin_sentence(pair, seeds)
    assert text.endswith("; over 2 seeds the means are 81.0% and 84.0%, and the ranges are apart.")
    seeds[1][1]["best_accuracy"] = 0.81
    assert findings.twin_sentence(pair, seeds).endswith("and 82.0%, and the ranges overlap.")
    assert "means" not in findings.twin_sentence(pair, seeds[:1])
    assert "means" not in findings.twin_sentence(pair, [seeds[0], seeds[1][:1]])
    text = findings.seeds_sentence(seeds)
    assert text.startswith("Another seed moved LoRA by up to 73.0 points")
    assert text.endswith("chance alone sets the ranges apart in 33% with 2 seeds each.")
    assert findings.seeds_sentence(seeds[:1]).endswith("That is a rule of thumb.")


def test_the_prompts_walk_is_told(records: list[Any]) -> None:
    settings = {"train_examples": 25_000, "batch_size": 32}
    record = {**records[1], "params": settings, "best_epoch": 1}
    record["run"] = {**record["run"], "learning_rate": 1.0}
    text = findings.prompt_sentence(record, 1.41, 5.74)
    assert "In the 782 steps" in text
    assert "went from 1.41 to 5.74" in text
    assert "shrunk the start to 0.04% of its size" in text  # 0.99^782


def test_the_best_epoch_is_said_and_whether_it_was_the_last(
    records: list[Any],
) -> None:
    assert findings.epochs_sentence(records[:1]) == "The best epoch is 1 of 2."
    records[0]["best_epoch"] = 2
    assert "more epochs might have given more" in findings.epochs_sentence(records[:1])


def test_of_one_epoch_none_is_said_to_be_chosen(records: list[Any]) -> None:
    sentences = {
        findings.epochs_sentence: "the best is the last",
        findings.selection_sentence: "nothing was chosen",
        lambda runs: overfitting.gap_sentence(runs, []): "weak test",
    }
    of_two = [sentence(records) for sentence in sentences]
    for record in records:
        del record["history"][1:]
    for sentence, word in sentences.items():
        assert word in sentence(records)
        assert not any(word in other for other in of_two)


def test_the_two_rates_of_adapters_are_compared(exercise: Study) -> None:
    assert "they are 1e-4 and 1e-3. So the runs" in findings.adapter_rates(exercise, exercise)
    same = dataclasses.replace(exercise, adapter_library_learning_rate=1e-3)
    assert findings.adapter_rates(same, exercise).endswith("in this study both are 1e-3.")


def test_sentences_compare_the_right_way_round(records: list[Any]) -> None:
    text = findings.reading(records[7:], [])
    assert (
        f"PEFT with r = 8, {show.ALPHA} = 4 (71.0%) is 1.0 points above the same with r = 1" in text
    )
    assert f"; the factor {show.ALPHA} / r is 0.5 and 4." in text
    few, *_ = findings.more_parameters(records, []).split("\n")
    assert few == "- OpenDelta with n = 10 (65.0%) is 1.0 points above the same with n = 1 (64.0%)."
    records[3]["last_accuracy"] -= 0.10  # one run of ten gains 11 points, the others 1
    assert "is 2.0 points above the last on average, and 11.0 at most" in (
        findings.selection_sentence(records)
    )
    records[9]["memory"]["peak_bytes"] //= 2
    assert "is 50% to 100% of full" in claims.peak_sentence(records, {})
    assert "0.001% to 0.100% of that" in claims.storage_sentence(records)


def test_baselines_are_told_beside_the_runs(records: list[Any]) -> None:
    assert findings.baselines_sentence({}, records) == ""
    measured = {
        "zero_shot_accuracy": 0.55,
        "zero_shot_other_words": 0.21,
        "bag_of_words_accuracy": 0.685,
        "test_examples": 25_000,
    }
    here = [{**r, "params": {"train_examples": 5000, "max_length": 128}} for r in records]
    text = findings.baselines_sentence(measured, here)
    assert "labels 55.0% of them right (21.0% of its answers are neither" in text
    assert "reaches 68.5%; 3 of the 10 runs are above it" in text


def test_the_largest_size_is_compared_with_the_smallest_of_the_same_kind(
    records: list[Any],
) -> None:
    runs = records[4:5] + records[7:]
    runs[1]["parameters"]["trained"] = 8000
    runs[3]["parameters"]["trained"] = 2000
    few, many = (f"r = {rank}, {show.ALPHA} = 4" for rank in (1, 8))
    assert findings.over_size(runs).splitlines() == [
        f"- LoRA, PEFT, {many} (71.0%) is 1.0 points above the same with {few} (70.0%), "
        "for 2 times the parameters."
    ], "not ours with PEFT's, and nothing of a single size"
