"""Sections on what else was measured; empty where it was not."""

from __future__ import annotations

from typing import Any

from helpers import cells

from t5peft.base.studies import Study
from t5peft.report import sections


def test_the_bench_is_shown_where_it_was_measured(exercise: Study) -> None:
    assert sections.bench([]) == ""
    ours = {"step": 2.0, "evaluation": 4.0, "epoch": 12.0, "peak_bytes": 3e6}
    ours |= {"operations": 1e9, "matrix_rate": 2e9}
    exercises = {name: 3 * figure for name, figure in ours.items()}
    record: Any = {
        "methods": {"lora": {"exercise": exercises, "ours": ours}},
        "repeats": 5,
        "params": vars(exercise),
        "environment": {"precision": "bf16", "device": "a CPU", "threads": 2},
    }
    text = sections.bench([record])
    assert cells(text) == [
        [
            *("LoRA", "6.00 / 2.00: **3.00**", "12.0 / 4.00: **3.00**"),
            *("36.0 / 12.0: **3.00**", "9.00 / 3.00: **3.00**"),
        ]
    ]
    assert "A random backbone" not in text
    assert "only the precision differs in the mathematics" in text
    assert "at 2.00 GFLOP/s, of which our training step reaches 25% (LoRA)" in text
    other = {**record, "environment": {**record["environment"], "precision": "fp32"}}
    text = sections.bench([record, other])
    assert "In @tbl-bench ours is in bf16, so only the precision differs" in text
    assert "In @tbl-bench-other ours is in fp32, so nothing differs" in text


def test_timings_have_three_digits() -> None:
    shown = [sections.three_digits(x) for x in (11551.25, 361.88, 12.594, 1.6523, 0.0456, 0.0)]
    assert shown == ["11,600", "362", "12.6", "1.65", "0.0456", "0"]


def test_the_rates_show_what_was_tried_and_which_was_taken(
    exercise: Study, records: list[Any]
) -> None:
    assert sections.learning_rates([], records) == ""
    base = {"run": "lora-scratch-r8", "method": "lora", "reviews": 6400, "held_out": 2500}
    tried = [
        {**base, "learning_rate": rate, "loss": 0.25, "accuracy": accuracy}
        for rate, accuracy in ((exercise.lora_learning_rate, 0.81), (1e-2, 0.79))
    ]
    text = sections.learning_rates(tried, records)
    assert cells(text) == [
        ["LoRA", "1e-4", "0.250", "**81.0**"],
        ["LoRA", "1e-2", "0.250", "79.0"],
    ]
    assert "Here LoRA, from scratch, had one epoch on 6,400 training reviews" in text
    assert "2,500 other training reviews" in text
    assert "uncertain by 1.5 points" in text
    assert "within the uncertainty of each other" not in text, "2 points apart"
    tried[1]["accuracy"] = 0.80
    text = sections.learning_rates(tried, records)
    assert "best two rates of LoRA lie within the uncertainty of each other" in text


def test_the_exercises_rates_stand_beside_the_studys(exercise: Study, records: list[Any]) -> None:
    settings = vars(exercise)
    here = [{**r, "params": settings} for r in records]
    assert sections.exercise_rates(here, [], []) == ""
    there = [
        {**r, "params": {**settings, "study": "exercise-rates", "epochs": 1}, "best_accuracy": 0.5}
        for r in records[:2]
    ]
    text = sections.exercise_rates(here, there, [])
    assert cells(text)[0] == ["full fine-tuning", "1e-5", "50.0", "1e-5", "62.0"]
    assert "more than the rates differs, it does not show what they do alone." in text
    assert "alone; @tbl-rates does, for the runs that were tried." in sections.exercise_rates(
        here, there, [{}]
    )
    assert "256 tokens, 1 epoch)" in text
    assert "256 tokens, 10 epochs)" in text
    assert "exercise-rates" in text


def test_more_epochs_test_claim_3_on_the_companions_runs(
    exercise: Study, records: list[Any]
) -> None:
    assert sections.more_epochs(records, []) == ""
    here = [{**records[0], "params": vars(exercise)}]
    settings = {**vars(exercise), "study": "ten-epochs", "train_examples": 500}
    settings["test_examples"] = 5000
    text = sections.more_epochs(here, [{**r, "params": settings} for r in records])
    assert "{#sec-ten-epochs}" in text
    assert "are stored" not in text
    assert "All else but `test_examples` is as in this study" in text
    here[0]["params"] = {**settings, "train_examples": 600}
    assert "All else is as in this study" in sections.more_epochs(
        here, [{**r, "params": settings} for r in records]
    )
    here[0]["params"] = {**vars(exercise), "lora_rank": 16}
    assert "All else but `test_examples` and `lora_rank` is" in sections.more_epochs(
        here, [{**r, "params": settings} for r in records]
    )
    assert " 9 of its 10 runs are stored." in sections.more_epochs(
        here, [{**r, "params": settings} for r in records[:9]]
    )
    assert "study “ten-epochs” trains on 500 of the training reviews" in text
    assert "sees each 10 times, in fp32" in text
    assert "is +19.0 points with full fine-tuning and +10.0 to +18.0 with a PEFT method" in text
    assert "is 1.0 points above the last on average, and 1.0 at most" in text
    assert "500 of the 500 training reviews, and 25,000 test reviews" in text
    assert cells(text)[0] == [
        *("full fine-tuning", "1", "75.0", "62.0", "+13.0"),
        *("80.0", "61.0", "+19.0"),
    ]


def test_seeds_show_each_result_and_their_spread(records: list[Any]) -> None:
    assert sections.seeds([]) == ""
    repeated = [
        {
            **records[7],
            "params": {"seed": seed, "study": "s"},
            "best_accuracy": best,
            "environment": {"device": f"machine {seed % 2}"},
        }
        for seed, best in ((0, 0.80), (1, 0.79), (2, 0.81))
    ]
    text = sections.seeds([repeated])
    (row,) = cells(text)
    assert row[1:] == ["80.0 (seed 0), 79.0 (seed 1), 81.0 (seed 2)", "80.0", "2.0"]
    assert "study “s”" in text
    told = "were not all made on the same kind of machine (machine 0 and machine 1)"
    assert f"The seeds of all of them {told}" in text
    same = [record | {"environment": {"device": "machine 0"}} for record in repeated]
    assert f"= 4 {told}" in sections.seeds([same, repeated])
    two = sections.seeds([repeated, same, repeated])
    assert "all of them but LoRA, ours, r = 8" in two
    same = [{**record, "environment": {"device": "one"}} for record in repeated]
    assert "machine" not in sections.seeds([same])
