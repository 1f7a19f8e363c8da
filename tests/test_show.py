"""Tables, sentences and figures of the report, from records made up here."""

from __future__ import annotations

import ast
import dataclasses
import io
import itertools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from t5peft import (
    about,
    backbone,
    counting,
    figures,
    findings,
    methods,
    notebook,
    params,
    paths,
    plots,
    report,
    runs,
    show,
    training,
)
from t5peft.counting import Count
from t5peft.errors import InputError
from t5peft.params import Params
from t5peft.report import Checked, CountsDifferError

BARE = 1_000_000
"""Parameters of the made-up backbone."""

ADDED = {"full": 0, "soft-prompt": 10, "adapter": 100, "lora": 1000}


@pytest.fixture
def exercise() -> Params:
    return params.load(paths.CHECKOUT / "params" / "assignment.yaml")


@pytest.fixture
def records(exercise: Params) -> list[dict[str, Any]]:
    """Ten runs of two epochs; run k ends at (60 + k)%, one point below its first epoch."""
    return [record(run) for run in methods.runs(exercise)]


def record(run: methods.Run) -> dict[str, Any]:
    last = 0.60 + run.number / 100
    added = ADDED[run.method]
    history = [
        {"epoch": 1, "loss": 0.7, "train_accuracy": 0.75, "test_accuracy": last + 0.01},
        {"epoch": 2, "loss": 0.5, "train_accuracy": 0.80, "test_accuracy": last},
    ]
    return {
        "run": {"name": run.name, **vars(run)},
        "history": [{**epoch, "other_words": 0.02} for epoch in history],
        "best_epoch": 1,
        "best_accuracy": last + 0.01,
        "last_accuracy": last,
        "test_examples": 25_000,
        "parameters": {"total": BARE + added, "trained": added or BARE, "added": added},
        "memory": {"optimizer_bytes": 8 * (added or BARE), "peak_bytes": 10**9 + 4 * BARE},
        "speed": {
            "train_examples_per_second": 100.0,
            "test_examples_per_second": 300.0,
            "train_seconds": 500.0,
            "test_seconds": 100.0,
        },
        "stored_bytes": 4 * (added or BARE),
        "environment": {"python": "3.11", "threads": 2},
        "params": {
            "train_sample": 1000,
            "train_examples": 25_000,
            "study": "made-up",
            "prompt_tokens_small": 1,
            "bottleneck_small": 1,
            "lora_rank_small": 1,
        },
        "stale": "the training source has changed" if run.number == 4 else "",
    }


def cells(table: str) -> list[list[str]]:
    """The body of a pipe table."""
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table.split("\n")[2:]]


def column(table: str, name: str) -> list[str]:
    head = [cell.strip() for cell in table.split("\n")[0].strip("|").split("|")]
    return [row[head.index(name)] for row in cells(table)]


# --- numbers -------------------------------------------------------------------------------------


def test_wilson_is_the_interval_of_the_textbook() -> None:
    low, high = show.wilson(0.5, 10)
    assert (low, high) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert show.wilson(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert show.wilson(1.0, 10)[1] == pytest.approx(1.0)
    for trials in range(1, 500):
        assert 0 <= show.wilson(0.0, trials)[0] <= show.wilson(1.0, trials)[1] <= 1
    assert show.wilson(0.0, 7)[0] == 0, "which rounding would put below"
    with pytest.raises(ValueError, match="0 trials"):
        show.wilson(0.5, 0)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1e-5, "1e-5"), (2.5e-3, "2.5e-3"), (1e-2, "1e-2"), (0.1, "0.1"), (4.0, "4")],
)
def test_rates_are_written_as_people_write_them(value: float, shown: str) -> None:
    assert show.rate(value) == shown
    assert float(shown) == value


def test_an_inline_text_is_its_own_repr() -> None:
    """Quarto shows what an inline expression gives by its repr."""
    text = show.adamw_defaults()
    assert repr(text) == f"'{text}'"


def test_percent_has_one_decimal_and_bytes_are_decimal_megabytes() -> None:
    assert show.percent(0.87654) == "87.7"
    assert show.megabytes(1_234_567) == "1.235"
    assert show.kilobytes(10_240) == "10.2"


# --- tables --------------------------------------------------------------------------------------


def test_numbers_of_a_table_stand_on_the_right() -> None:
    table = show.table([("a", 1), ("b", 22)], ("name", "long head (%)"))
    rule = table.split("\n")[1]
    assert re.fullmatch(r"\|:-+\|-+:\|", rule)
    assert rule.count("-") < len(table.split("\n")[0])  # a head may be broken between words


def test_ten_results_stand_in_the_exercises_order_beside_the_reference(
    records: list[dict[str, Any]],
) -> None:
    table = show.ten_results_table(records)
    assert column(table, "run") == [str(number) for number in range(1, 11)]
    assert column(table, "best epoch (%)") == [f"**{61 + k}.0**" for k in range(1, 11)]
    assert column(table, "last epoch (%)") == [f"{60 + k}.0" for k in range(1, 11)]
    assert column(table, "published reference (%)") == [
        *("89.9", "86.6", "84.7", "86.9", "90.9", "90.4", "89.3", "89.2", "88.8", "88.7")
    ]
    for interval in column(table, "95% interval (%)"):
        low, high = map(float, interval.split(show.DASH))
        assert high - low == pytest.approx(1.2, abs=0.11)  # 25,000 reviews


def test_a_stale_run_is_marked_wherever_it_is_shown(records: list[dict[str, Any]]) -> None:
    tables = (
        *(show.ten_results_table, show.results_table, show.memory_table),
        *(show.storage_table, show.gap_table, about.speed_table),
    )
    for table in tables:
        rows = table(records).split("\n")[2:]
        assert ["(stale)" in row for row in rows] == [k == 4 for k in range(1, 11)], table
    own = {**records[7], "stale": "why"}
    assert "LoRA **(stale)**" in show.glance_table([*records[:7], own], [])
    made = {"params": {"seed": 1, "study": "s"}, "environment": {"device": "a machine"}}
    assert " **(stale)** (seed 1)" in about.seeds_section([[own | made]])
    settings = vars(params.load("assignment"))
    with_settings = {**own, "params": settings}
    text = about.exercise_rates_section([with_settings], [with_settings], [])
    assert f"{show.ALPHA} = 4 **(stale)** |" in text


def test_memory_and_storage_are_compared_with_full_fine_tuning(
    records: list[dict[str, Any]],
) -> None:
    memory = show.memory_table(records)
    assert column(memory, "8 bytes each (MB)") == column(memory, "AdamW state, measured (MB)")
    assert column(memory, "8 bytes each (MB)")[0] == "8.000"
    assert column(show.storage_table(records), "tasks in the space of one")[-1] == "1,000"


def test_gap_is_train_minus_test_in_points(records: list[dict[str, Any]]) -> None:
    first = cells(show.gap_table(records))[0]
    assert first == ["full fine-tuning", "1", "75.0", "62.0", "+13.0", "80.0", "61.0", "+19.0"]


# --- sentences -----------------------------------------------------------------------------------


def test_findings_say_which_way_it_went(records: list[dict[str, Any]]) -> None:
    text = findings.findings(records, [])
    assert "Our **soft prompt** trains 0.001% of the parameters" in text
    assert "reaches 63.0%: 1.0 points above full fine-tuning's 62.0%" in text
    assert "Our LoRA (69.0%) is 2.0 points below PEFT's (71.0%)" in text
    assert "other learning rates (1e-3 and 1e-4)" in text
    records[1]["best_accuracy"] = records[0]["best_accuracy"]
    assert "level with full fine-tuning's" in findings.findings(records, [])


def test_findings_say_how_far_another_seed_moves_a_run(records: list[dict[str, Any]]) -> None:
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
    rows = {row[0]: row[-1] for row in cells(show.glance_table(records, seeds))}
    assert rows["adapter"] == "79.0, 81.5"
    assert rows["full fine-tuning"] == show.DASH


def test_twins_have_the_same_setting(records: list[dict[str, Any]]) -> None:
    pairs = [(a["run"]["number"], b["run"]["number"]) for a, b in findings.twins(records)]
    assert pairs == [(2, 4), (5, 6), (8, 10)]


def test_claims_are_sentences_about_the_records(records: list[dict[str, Any]]) -> None:
    assert "state of the PEFT runs is 0.001% to 0.100% of" in findings.optimizer_sentence(records)
    assert "costs 4.000 MB" in findings.storage_sentence(records)
    assert "is 40% of full" in findings.peak_sentence(with_peaks(records), {})
    side = dict.fromkeys(("step", "evaluation", "epoch"), 1.0)
    sides = {
        name: {"exercise": side | {"peak_bytes": 1e6 * mega}, "ours": side | {"peak_bytes": 1e6}}
        for name, mega in PEAKS.items()
    }
    bench = {"methods": sides, "params": {"backbone": "random:t5-small"}}
    assert "is 5,000 MB with full fine-tuning, and 60% to 80% of that" in findings.peak_sentence(
        records, bench
    )


PEAKS = {"full": 5000, "soft-prompt": 4000, "adapter": 3500, "lora": 3000}


def with_peaks(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**r, "memory": {"peak_bytes": 10**9 if r["run"]["method"] == "full" else 4 * 10**8}}
        for r in records
    ]


def test_a_gap_counts_as_smaller_beyond_the_draw_of_the_reviews(
    records: list[dict[str, Any]],
) -> None:
    gap, error = findings.last_gap(records[0])
    assert gap == pytest.approx(0.19)
    assert error == pytest.approx((0.8 * 0.2 / 1000 + 0.61 * 0.39 / 25_000) ** 0.5)
    text = findings.gap_sentence(records)
    assert "is +19.0 points with full fine-tuning and +10.0 to +18.0 with a PEFT method" in text
    assert "1,000 training and 25,000 test reviews were looked at" in text
    others = [findings.last_gap(record) for record in records[1:]]
    z = 2.7729  # the normal quantile of 1 - 0.05 / (2 x 9)
    uncertain = [100 * z * math.hypot(error, its_error) for _, its_error in others]
    assert 100 * max(findings.doubts_of((gap, error), others)) == pytest.approx(
        max(uncertain), 1e-4
    )
    assert max(uncertain) == pytest.approx(5.105, abs=0.001)
    assert "uncertain by up to 5.1 points (95% for all 9" in text
    told = [19 - 100 * found > own for (found, _), own in zip(others, uncertain, strict=True)]
    assert sum(told) == 4
    assert "by more than its uncertainty the gap is smaller in 4 of the 9 PEFT runs" in text
    for record in records[1:]:
        record["history"][-1]["train_accuracy"] = 0.99
    assert "none of the 9 PEFT runs" in findings.gap_sentence(records)
    for record in records[1:]:
        record["history"][-1]["train_accuracy"] = 0.5
    assert "all 9 PEFT runs" in findings.gap_sentence(records)


KEPT = {
    "train_accuracy": 0.7,
    "reviews": 1000,
    "stretches": 9,
    "span_loss": 4.0,
    "span_loss_before": 3.5,
}


def test_what_is_kept_is_compared_with_full_fine_tuning(records: list[dict[str, Any]]) -> None:
    kept = {record["run"]["name"]: dict(KEPT) for record in records}
    kept["full"] |= {"train_accuracy": 0.9, "span_loss": 5.0}
    kept["lora-scratch-r8"]["span_loss"] = 5.5
    text = findings.retention_sentences(records, kept)
    assert "costs it 3.500 nats" in text
    assert (
        "moves that by +1.500, a PEFT method, with its addition in place, by +0.500 to +2.000"
        in text
    )
    assert "rises less than full fine-tuning's in 8 of the 9 PEFT runs" in text
    assert "smaller in all 9 PEFT runs" in text, "0.9 - 0.62 against 0.7 - 0.63 at most"
    rows = cells(show.retention_table(records, kept))
    assert rows[0] == ["full fine-tuning", "90.0", "62.0", "+28.0", "5.000", "+1.500"]
    assert "tbl-retention" in about.retention_section(records, kept)
    assert "was not measured for this study" in about.retention_section(records, {})


def test_the_conclusions_answer_the_question(records: list[dict[str, Any]]) -> None:
    text = findings.conclusions(records, [], {})
    assert "Ours, from the best down: LoRA 69.0%, adapter 66.0%, soft prompt 63.0%, full" in text
    assert "reference: adapter 90.9%, full fine-tuning 89.9%, LoRA 89.2%, soft" in text
    assert "LoRA, is 7.0 points above full fine-tuning. Of what" in text
    assert "kept of the pre-training was not measured" in text
    kept = {record["run"]["name"]: dict(KEPT) for record in records}
    assert "by the span loss, in none of the 9" in findings.conclusions(records, [], kept)


def test_what_seeds_can_do_is_said_to_be_untold(records: list[dict[str, Any]]) -> None:
    first, second = records[:2]  # 1 point apart
    wide, narrow = ([{"best_accuracy": x} for x in (0.8, y)] for y in (0.815, 0.805))
    assert findings.untold(first, second, [wide]) == ", no more than another seed can do"
    assert findings.untold(first, second, [narrow]) == ""
    assert findings.untold(first, second, []) == ""
    assert findings.untold(first, first, [wide]) == "", "they are level"


def test_twins_are_compared_over_the_seeds_that_both_have(records: list[dict[str, Any]]) -> None:
    def made(record: dict[str, Any], accuracies: dict[int, float]) -> list[dict[str, Any]]:
        return [
            {**record, "params": {"seed": seed}, "best_accuracy": x}
            for seed, x in accuracies.items()
        ]

    pair = (records[7], records[9])
    seeds = [made(pair[0], {0: 0.80, 1: 0.82, 2: 0.10}), made(pair[1], {0: 0.83, 1: 0.85, 3: 0.1})]
    text = findings.twin_sentence(pair, seeds)
    assert text.endswith(" Over the seeds 0 and 1 their means are 81.0% and 84.0%.")
    assert "their means" not in findings.twin_sentence(pair, seeds[:1])
    assert "their means" not in findings.twin_sentence(pair, [seeds[0], seeds[1][:1]])
    assert findings.seeds_sentence(seeds).startswith("Another seed moved LoRA by up to 75.0 points")


def test_the_prompts_walk_is_told(records: list[dict[str, Any]]) -> None:
    settings = {"train_examples": 25_000, "batch_size": 32}
    record = {**records[1], "params": settings, "best_epoch": 1}
    record["run"] = {**record["run"], "learning_rate": 1.0}
    text = findings.prompt_sentence(record, 1.41, 5.74)
    assert "In the 782 steps" in text
    assert "went from 1.41 to 5.74" in text
    assert "left 0.04% of it" in text  # 0.99^782


def test_the_best_epoch_is_said_and_whether_it_was_the_last(
    records: list[dict[str, Any]],
) -> None:
    assert findings.epochs_sentence(records[:1]) == "The best epoch is 1 of 2."
    records[0]["best_epoch"] = 2
    assert "more epochs might have given more" in findings.epochs_sentence(records[:1])


def test_of_one_epoch_none_is_said_to_be_chosen(records: list[dict[str, Any]]) -> None:
    sentences = (findings.epochs_sentence, findings.selection_sentence, findings.gap_sentence)
    of_two = [sentence(records) for sentence in sentences]
    for record in records:
        del record["history"][1:]
    of_one = [sentence(records) for sentence in sentences]
    for text, word in zip(
        of_one, ("the best is the last", "nothing was chosen", "weak test"), strict=True
    ):
        assert word in text
        assert not any(word in other for other in of_two)


# --- the study -----------------------------------------------------------------------------------


def test_the_banner_names_study_and_backbone_and_warns_of_smoke(
    exercise: Params, records: list[dict[str, Any]]
) -> None:
    text = about.banner(exercise, records)
    assert text.startswith("# Results of the study “assignment”, backbone t5-small {.unnumbered")
    assert "mean nothing" not in text
    assert "soft prompt, OpenDelta, n = 10: the training source has changed" in text
    random = about.banner(dataclasses.replace(exercise, backbone="random:tiny", tokenizer="t"), [])
    assert "These numbers mean nothing" in random
    assert "runs with a random T5. It" in random
    both = dataclasses.replace(exercise, backbone="random:tiny", tokenizer="t", data="made-up")
    assert "runs with a random T5 and made-up reviews. It" in about.banner(both, [])


def test_the_first_page_says_what_the_numbers_are_not(exercise: Params) -> None:
    models = report.models(exercise)
    assert about.departures(exercise, exercise, models) == ""
    ours = dataclasses.replace(
        exercise, backbone="weights/backbone/mini", epochs=1, lora_learning_rate=0.1
    )
    models = report.models(
        dataclasses.replace(ours, backbone=str(paths.weights() / "backbone/mini"))
    )
    text = about.departures(ours, exercise, models)
    assert "departs from 3 of them (@sec-differences)" in text
    assert "*mini* with 7,328,000 parameters instead of t5-small with 60,506,624" in text
    assert "1 instead of 10 epochs; other learning rates" in text
    assert "tokens a review" not in text
    assert "The parameters of @tbl-glance are those of *mini*; the exercise's, of t5-small," in text


def test_the_first_page_names_every_other_setting(exercise: Params) -> None:
    wider = dataclasses.replace(exercise, lora_rank=16, batch_size=8)
    text = about.departures(wider, exercise, report.models(exercise))
    assert "departs from 2 of them (@sec-differences): `batch_size` 8 instead of 32" in text
    assert "`lora_rank` 16 instead of 8." in text
    assert "parameters of" not in text


def test_a_backbone_in_a_folder_called_t5_small_is_not_taken_for_it(
    exercise: Params, tmp_path: Path
) -> None:
    backbone.load("random:tiny").config.save_pretrained(tmp_path / "t5-small")
    study = dataclasses.replace(exercise, backbone=str(tmp_path / "t5-small"))
    models = report.models(study)
    sizes_of = [sum(counting.parts(model).values()) for model in models.values()]
    assert list(models) == ["t5-small", "t5-small of the study"]
    assert sizes_of == [60_506_624, 301_696]
    assert "has other dimensions" in show.other_backbone(report.scratch_counts(study), study)


def test_the_two_rates_of_adapters_are_compared(exercise: Params) -> None:
    assert "they are 1e-4 and 1e-3. So the runs" in findings.adapter_rates(exercise, exercise)
    same = dataclasses.replace(exercise, adapter_library_learning_rate=1e-3)
    assert findings.adapter_rates(same, exercise).endswith("in this study both are 1e-3.")


def test_every_setting_that_differs_is_listed_with_its_reason(exercise: Params) -> None:
    assert "to the letter" in about.differences_section(exercise, exercise, {})
    ours = dataclasses.replace(exercise, study="x", train="no", epochs=3, max_length=128)
    assert about.differences(ours, exercise) == ["max_length", "epochs"]
    moved = dataclasses.replace(exercise, data="a/folder")
    assert about.differences(moved, exercise) == [], "the texts that are pinned, wherever they lie"
    assert about.differences(dataclasses.replace(moved, data_fingerprint=""), exercise) == ["data"]
    text = about.differences_section(ours, exercise, {"epochs": "two cores"})
    rows = [line for line in text.split("\n") if line.startswith("| `")]
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in rows] == [
        ["`max_length`", "256", "128", show.DASH],
        ["`epochs`", "10", "3", "two cores"],
    ]


def test_reasons_are_the_comments_behind_settings(tmp_path: Path) -> None:
    study = tmp_path / "s.yaml"
    study.write_text("# a study\nepochs: 3  # two cores\nseed: 0\ndata: made-up # no hub\n")
    here = params.load("smoke", {"epochs": 3})
    assert about.reasons(study, here) == {"epochs": "two cores", "data": "no hub"}
    changed = dataclasses.replace(here, epochs=4)
    assert about.reasons(study, changed) == {"data": "no hub"}, "the file knows not why"
    assert about.reasons(study.with_name("none.yaml"), here) == {}


def test_what_runs_do_not_share_is_told_apart(records: list[dict[str, Any]]) -> None:
    records[2]["environment"] = {"python": "3.12", "threads": 2}
    rows = dict(cells(about.environment_table(records)))
    assert rows["threads"] == "2"
    assert rows["python"] == "3.11 (runs 1, 2, 4, 5, 6, 7, 8, 9, 10); 3.12 (run 3)"


def test_an_own_backbone_says_what_it_cost_and_a_random_one_that_it_is(exercise: Params) -> None:
    card = {
        "params": {
            "vocabulary": 8000, "batch_size": 48, "input_length": 128, "learning_rate": 0.02
        },
        "parameters": 7, "steps": 5, "seconds": 3600.0, "corpus_tokens": 9, "seen_tokens": 8,
        "sst2_sentences": 6, "device": "cpu", "losses": {"span": 4.5, "sst2": 0.1},
        "zero_shot_sst2": 0.771, "zero_shot_imdb_train": 0.752,
        "span_loss": 4.1, "span_loss_other_input": 5.6,
    }  # fmt: skip
    text = about.backbone_section(exercise, card)
    for fact in ("not Google's", "60 min", "4.500", "77.1", "75.2", "tbl-backbone"):
        assert fact in text
    assert "4.10 nats a target token" in text
    assert "hardly reads" not in text
    unmeasured = {key: value for key, value in card.items() if "span" not in key}
    assert "another text" not in about.backbone_section(exercise, unmeasured)
    idle = {**card, "span_loss": 5.55}
    assert "hardly reads" in about.backbone_section(exercise, idle)
    assert "published checkpoint" in about.backbone_section(exercise, {})
    tiny = dataclasses.replace(exercise, backbone="random:tiny", tokenizer="x")
    assert "never pre-trained" in about.backbone_section(tiny, {})


def test_the_bench_is_shown_where_it_was_measured(exercise: Params) -> None:
    assert about.bench_section({}) == ""
    ours = {"step": 2.0, "evaluation": 4.0, "epoch": 12.0, "peak_bytes": 3e6}
    ours |= {"operations": 1e9, "matrix_rate": 2e9}
    exercises = {name: 3 * figure for name, figure in ours.items()}
    text = about.bench_section(
        {
            "methods": {"lora": {"exercise": exercises, "ours": ours}},
            "repeats": 5,
            "params": vars(exercise),
            "environment": {"precision": "bf16", "device": "a CPU", "threads": 2},
        }
    )
    rows = [line for line in text.split("\n") if line.startswith("| LoRA")]
    assert [cell.strip() for cell in rows[-1].strip("|").split("|")] == [
        *("LoRA", "peak memory (MB)", "9.00", "3.00", "3.00")
    ]
    assert "The backbone is random" not in text


def test_timings_have_three_digits() -> None:
    shown = [about.three_digits(x) for x in (11551.25, 361.88, 12.594, 1.6523, 0.0456, 0.0)]
    assert shown == ["11,600", "362", "12.6", "1.65", "0.0456", "0"]


def test_the_rates_show_what_was_tried_and_which_was_taken(
    exercise: Params, records: list[dict[str, Any]]
) -> None:
    assert about.rates_section([], records) == ""
    base = {"run": "lora-scratch-r8", "method": "lora", "reviews": 6400, "held_out": 2500}
    tried = [
        {**base, "learning_rate": rate, "loss": 0.25, "accuracy": accuracy}
        for rate, accuracy in ((exercise.lora_learning_rate, 0.81), (1e-2, 0.79))
    ]
    text = about.rates_section(tried, records)
    rows = [
        [x.strip() for x in line.strip("|").split("|")]
        for line in text.split("\n")
        if "LoRA" in line
    ]
    assert rows == [["LoRA", "1e-4", "0.250", "**81.0**"], ["LoRA", "1e-2", "0.250", "79.0"]]
    assert "6,400 training reviews" in text
    assert "2,500 other training reviews" in text
    assert "uncertain by 1.5 points" in text


def test_the_exercises_rates_stand_beside_the_studys(
    exercise: Params, records: list[dict[str, Any]]
) -> None:
    settings = vars(exercise)
    here = [{**r, "params": settings} for r in records]
    assert about.exercise_rates_section(here, [], []) == ""
    there = [
        {**r, "params": {**settings, "study": "exercise-rates", "epochs": 1}, "best_accuracy": 0.5}
        for r in records[:2]
    ]
    text = about.exercise_rates_section(here, there, [])
    (row,) = (line for line in text.split("\n") if line.startswith("| full fine-tuning"))
    cells = [x.strip() for x in row.strip("|").split("|")][1:]
    assert cells == ["1e-5", "50.0", "1e-5", "62.0"]
    assert "more than the rates differs, it does not show what they do alone." in text
    assert "alone; @tbl-rates does." in about.exercise_rates_section(here, there, [{}])
    assert "256 tokens, 1 epoch)" in text
    assert "256 tokens, 10 epochs)" in text
    assert "exercise-rates" in text


def test_seeds_show_each_result_and_their_spread(records: list[dict[str, Any]]) -> None:
    assert about.seeds_section([]) == ""
    repeated = [
        {
            **records[7],
            "params": {"seed": seed, "study": "s"},
            "best_accuracy": best,
            "environment": {"device": f"machine {seed % 2}"},
        }
        for seed, best in ((0, 0.80), (1, 0.79), (2, 0.81))
    ]
    text = about.seeds_section([repeated])
    (row,) = (line for line in text.split("\n") if line.startswith("| LoRA"))
    cells = [x.strip() for x in row.strip("|").split("|")][1:]
    assert cells == ["80.0 (seed 0), 79.0 (seed 1), 81.0 (seed 2)", "80.0", "2.0"]
    assert "study “s”" in text
    assert "made on machine 0 and machine 1, so the spread has the machine in it" in text


def test_a_single_epoch_is_a_line_a_run(records: list[dict[str, Any]]) -> None:
    once = [{**r, "history": r["history"][:1]} for r in records[7:]]
    for figure in (plots.learning_curves(once), plots.all_curves(once)):
        left, right = figure.axes
        assert len(left.get_yticks()) == 3
        for row, item in enumerate(once):
            (epoch,) = item["history"]
            trained, tested = (
                line for line in right.lines if np.asarray(line.get_ydata()) == [row]
            )
            assert np.asarray(trained.get_xdata()) == pytest.approx([100 * epoch["train_accuracy"]])
            assert np.asarray(tested.get_xdata()) == pytest.approx([100 * epoch["test_accuracy"]])
    assert len(plots.all_curves(records).axes) == 4


# --- parameters ----------------------------------------------------------------------------------


def test_a_derivation_goes_from_sites_to_the_exercises_number() -> None:
    text = show.derivation(counting.derive("lora", "t5-small", {"rank": 8, "alpha": 4}))
    assert text.count("\n") == 4
    assert "= 36$" in text
    assert text.endswith(r"$\text{294,912}$ parameters.")


def test_counts_that_differ_stop_the_report_by_name(exercise: Params) -> None:
    run = report.scratch(exercise, "lora")
    right, wrong = Count(8, 8, 108, 108), Count(8, 9, 108, 109)
    report.check([Checked("t5-small", run, right)])
    with pytest.raises(CountsDifferError, match=r"lora-scratch-r8 in tiny: derived 8 .* counted 9"):
        report.check([Checked("t5-small", run, right), Checked("tiny", run, wrong)])
    assert "**NO**" in show.counts_table([Checked("tiny", run, wrong)])


def test_records_must_hold_the_derived_counts(exercise: Params) -> None:
    run = report.scratch(exercise, "adapter")
    held = {"added": 104_544, "total": 60_611_168}
    stored = {"run": {"name": run.name, **vars(run)}, "parameters": held}
    report.check_records(exercise, [stored])
    stored["parameters"] = {**held, "added": 104_545}
    with pytest.raises(CountsDifferError, match="adapter-scratch-b8 as trained"):
        report.check_records(exercise, [stored])


def test_number_of_parameters_is_the_exercises(exercise: Params) -> None:
    table = show.number_of_parameters_table(report.scratch_counts(exercise), "t5-small")
    assert column(table, "Number of parameters (counted)") == [
        *("**60,506,624**", "**60,511,744**", "**60,611,168**", "**60,801,536**")
    ]
    assert set(column(table, "equal")) == {"yes"}


# --- figures -------------------------------------------------------------------------------------


def svg(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


def test_every_figure_is_the_same_bytes_each_time(records: list[dict[str, Any]]) -> None:
    figures.use_style()
    added = {"soft prompt": 5120, "LoRA": 294_912}
    for draw in (
        *((lambda m=m: figures.method_in_t5(m)) for m in methods.METHODS),
        lambda: figures.parameter_map("t5-small", added),
        lambda: plots.learning_curves(records[:4]),
        lambda: plots.all_curves(records),
        lambda: plots.accuracy_vs_parameters(records),
        lambda: plots.ten_results(records),
    ):
        assert svg(draw()) == svg(draw())


def test_a_method_draws_what_it_trains_dark() -> None:
    def dark(method: str) -> int:
        (ax,) = figures.method_in_t5(method).axes
        trained = matplotlib_rgb(figures.TRAINED["facecolor"])
        return sum(patch.get_facecolor()[:3] == trained for patch in ax.patches)

    assert dark("adapter") == 2 + 2  # one a layer; W_down and W_up of the detail
    assert dark("lora") == 3 * 2 + 2  # q and v of three attentions; A and B of the detail
    assert dark("soft-prompt") == 2 + 3
    assert dark("full") > 15


def matplotlib_rgb(colour: str) -> tuple[float, ...]:
    from matplotlib.colors import to_rgb

    return to_rgb(colour)


def test_the_map_is_true_to_area() -> None:
    (ax,) = figures.parameter_map("t5-small", {"x": 100_000}).axes
    boxes: list[Any] = list(ax.patches)
    areas = [box.get_width() * box.get_height() for box in boxes]
    parts = counting.parts("t5-small")
    per_area = parts["embedding"] / areas[0]  # the embedding is one box, and drawn first
    assert areas[-1] * per_area == pytest.approx(100_000)
    assert sum(areas[1:-1]) * per_area == pytest.approx(
        sum(count for name, count in parts.items() if name.startswith(("encoder", "decoder")))
    )


def test_labels_are_kept_apart_and_near() -> None:
    assert plots.spread([1.0, 5.0, 9.0], 1.0) == [1.0, 5.0, 9.0]
    assert plots.spread([1.0, 1.0], 1.0) == [0.5, 1.5]
    placed = sorted(plots.spread([3.0, 1.0, 1.2, 1.1], 1.0))
    assert all(b - a >= 1.0 - 1e-9 for a, b in itertools.pairwise(placed))


# --- the report's own source ---------------------------------------------------------------------

ROOT = paths.CHECKOUT
CHAPTERS = sorted((ROOT / "chapters").glob("*.qmd"))


def parameters_cell() -> str:
    text = (ROOT / "report.qmd").read_text()
    (cell,) = [
        cell for cell in notebook.cells(text) if "parameters" in cell.metadata.get("tags", [])
    ]
    return cell.source


def test_the_parameters_cell_declares_every_setting_once() -> None:
    names = [
        node.targets[0].id
        for node in ast.parse(parameters_cell()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    ]
    assert names == ["_before", *(field.name for field in dataclasses.fields(Params))]


def given(**injected: Any) -> Params:
    """What the set-up cell makes of the parameters cell and what was injected after it."""
    namespace: dict[str, Any] = {"fig_width": 7, "open": open}  # Quarto's and IPython's own
    exec(parameters_cell(), namespace)
    return report.notebook_params({**namespace, **injected})


def test_parameters_are_the_study_and_what_was_injected() -> None:
    assert given() == params.load("self-contained")
    smoke = params.read_yaml(ROOT / "params" / "smoke.yaml")
    assert given(study="smoke", lora_rank=16) == params.load("smoke", {"lora_rank": 16})
    assert given(**smoke) == params.load("smoke")


@pytest.mark.parametrize(
    ("injected", "complaint"),
    [
        ({"lora_rnak": 16}, "'lora_rnak'.*did you mean 'lora_rank'"),
        ({"lora_rank": "16"}, "lora_rank: found '16'"),
        ({"study": "nope"}, "nope.yaml"),
        ({"study": None}, "study: found None"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(injected: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        given(**injected)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapters_cells_are_short_and_it_has_no_front_matter(chapter: Path) -> None:
    text = chapter.read_text()
    assert text.startswith("# ")
    cells = [match[3] for match in notebook.FENCE.finditer(text) if match[2] == "{python}"]
    assert cells
    for cell in cells:
        assert len(notebook.code(cell).splitlines()) <= 10, cell


def test_peft_chapters_share_their_headings() -> None:
    headings = [
        re.findall(r"^## (.*?)(?: \{.*)?$", (ROOT / "chapters" / f"{name}.qmd").read_text(), re.M)
        for name in methods.LIBRARY
    ]
    assert headings[0] == [
        *("Idea and equation", "Our implementation", "With the library"),
        *("How many parameters it adds", "Derived equals counted", "Results"),
    ]
    assert headings[1] == headings[2] == headings[0]


def test_every_citation_is_in_the_bibliography_and_the_reference_run_is_cited() -> None:
    source = "".join(
        path.read_text() for path in [*CHAPTERS, Path(about.__file__), Path(findings.__file__)]
    )
    known = set(re.findall(r"^@\w+\{(\S+),", (ROOT / "references.bib").read_text(), re.M))
    cited = set(re.findall(r"@([a-z]+\d{4}\w*)", source))
    assert cited == known
    assert show.REFERENCE.citation in cited


def test_the_first_pages_table_is_of_the_four_methods_of_ours(
    records: list[dict[str, Any]],
) -> None:
    table = show.glance_table(records, [])
    assert column(table, "method") == ["full fine-tuning", "soft prompt", "adapter", "LoRA"]
    assert column(table, "trained parameters") == ["1,000,000", "10", "100", "1,000"]
    assert column(table, "share trained (%)") == ["100.000", "0.001", "0.010", "0.100"]
    assert column(table, "test accuracy (%)") == ["**62.0**", "**63.0**", "**66.0**", "**69.0**"]


def test_a_chapters_results_stand_in_their_columns(records: list[dict[str, Any]]) -> None:
    table = show.results_table(records[7:])
    assert column(table, "trained parameters") == 3 * ["1,000"]
    assert column(table, "all parameters") == 3 * ["1,001,000"]
    assert column(table, "best epoch (%)") == ["**69.0**", "**70.0**", "**71.0**"]
    assert column(table, "last epoch (%)") == ["68.0", "69.0", "70.0"]
    low, high = map(float, column(table, "95% interval (%)")[0].split(show.DASH))
    assert low < 69.0 < high
    assert (low + high) / 2 == pytest.approx(69.0, abs=0.06)


def test_shares_of_full_fine_tuning(records: list[dict[str, Any]]) -> None:
    records[9]["memory"]["peak_bytes"] //= 2
    assert column(show.memory_table(records), "peak, of full (%)") == [*9 * ["100"], "50"]
    assert column(show.storage_table(records), "of full (%)")[-1] == "0.100"


def test_derived_and_counted_stand_in_their_columns(exercise: Params) -> None:
    item = report.Checked("tiny", report.scratch(exercise, "lora"), counting.Count(1, 2, 3, 4))
    table = show.counts_table([item])
    heads = ("added, derived", "added, counted", "all, derived", "all, counted", "equal")
    assert [column(table, head) for head in heads] == [["1"], ["2"], ["3"], ["4"], ["**NO**"]]


def test_the_familys_shares_are_of_the_model(exercise: Params) -> None:
    table = show.family_table({"lora": {"rank": 8, "alpha": 4.0}})
    assert cells(table)[0] == ["t5-small", "60,506,624", "294,912 (0.4850)"]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(43, "43 s"), (720, "12 min"), (3600, "60 min"), (12_240, "3.4 h")]
)
def test_durations_are_in_the_unit_that_fits(seconds: float, shown: str) -> None:
    assert show.duration(seconds) == shown


def test_ours_is_filled_and_the_librarys_hollow(records: list[dict[str, Any]]) -> None:
    for item in records:
        ours = item["run"]["implementation"] == "scratch"
        assert (plots.look(item)["markerfacecolor"] == "white") != ours


def test_curves_are_the_records(records: list[dict[str, Any]]) -> None:
    left, right = plots.learning_curves(records[7:8]).axes
    heights = [np.asarray(line.get_ydata()) for line in (left.lines[0], *right.lines)]
    assert heights[0] == pytest.approx([0.7, 0.5])
    assert heights[1] == pytest.approx([75.0, 80.0])
    assert heights[2] == pytest.approx([69.0, 68.0])


def test_the_ten_results_are_drawn_where_they_are(records: list[dict[str, Any]]) -> None:
    (ax,) = plots.ten_results(records).axes
    for row, item in enumerate(records):
        mine = {
            line.get_marker(): float(np.asarray(line.get_xdata())[0])
            for line in ax.lines
            if np.asarray(line.get_ydata()).tolist() == [row]
        }
        assert mine["|"] == pytest.approx(100 * item["last_accuracy"])
        assert mine["x"] == show.REFERENCE.accuracy[row]
        assert mine[plots.MARKERS[item["run"]["method"]]] == pytest.approx(
            100 * item["best_accuracy"]
        )


def test_a_point_stands_at_its_parameters_with_its_interval(records: list[dict[str, Any]]) -> None:
    (ax,) = plots.accuracy_vs_parameters(records).axes
    containers: list[Any] = list(ax.containers)
    for container, item in zip(containers, records, strict=True):
        point, _, (bar,) = container.lines
        assert point.get_xdata()[0] == item["parameters"]["trained"]
        low, high = show.wilson(item["best_accuracy"], item["test_examples"])
        ((_, bottom), (_, top)) = bar.get_segments()[0]
        assert (bottom, top) == pytest.approx((100 * low, 100 * high))


def test_the_figure_of_lora_has_its_update_at_q_and_v() -> None:
    (ax,) = figures.method_in_t5("lora").axes
    spots = {
        (round(t.get_position()[0], 2), round(t.get_position()[1], 2)): t.get_text()
        for t in ax.texts
    }
    beside = [
        x
        for (a, y), text in spots.items()
        if text == "$AB$"
        for (b, z), x in spots.items()
        if z == y and 0 < a - b < 4
    ]
    assert beside == 3 * ["$q$", "$v$"]
    assert {x for x in spots.values() if "times" in x} >= {"$\\times\\, L_e$", "$\\times\\, L_d$"}
    (left,) = (p[0] for p, x in spots.items() if "L_e" in x)
    (right,) = (p[0] for p, x in spots.items() if "L_d" in x)
    assert left < right, "the encoder stands on the left"


def test_sentences_compare_the_right_way_round(records: list[dict[str, Any]]) -> None:
    text = findings.reading(records[7:], [])
    assert (
        f"PEFT with r = 8, {show.ALPHA} = 4 (71.0%) is 1.0 points above the same with r = 1" in text
    )
    records[3]["last_accuracy"] -= 0.10  # one run of ten gains 11 points, the others 1
    assert "by 2.0 points on average over its last epoch, and by 11.0 at most" in (
        findings.selection_sentence(records)
    )
    records[9]["memory"]["peak_bytes"] //= 2
    assert "is 50% to 100% of full" in findings.peak_sentence(records, {})
    assert "0.001% to 0.100% of that" in findings.storage_sentence(records)


def test_baselines_are_told_beside_the_runs(records: list[dict[str, Any]]) -> None:
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


def test_times_are_of_training_and_of_testing(records: list[dict[str, Any]]) -> None:
    table = about.speed_table(records)
    assert column(table, "time to train")[0] == "8 min"
    assert column(table, "time to test")[0] == "2 min"
    assert column(table, "other words (%)")[0] == "2.00"
    assert about.total_seconds(records) == 10 * 600


def test_a_stale_record_comes_with_its_reason(
    exercise: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = report.scratch(exercise, "lora")
    for state, why in (("stale", "the source"), ("fresh", "")):
        monkeypatch.setattr(runs, "status", lambda *_, s=state: runs.Status(s, "the source"))  # type: ignore[arg-type]
        assert report.with_mark(run, exercise, {"a": 1}) == {"a": 1, "stale": why}


def test_the_companions_rates_stand_beside_the_default_study_alone(smoke: Params) -> None:
    assert report.exercise_rates(smoke) == []


def test_records_must_hold_the_derived_total(exercise: Params) -> None:
    run = report.scratch(exercise, "adapter")
    held = {"added": 104_544, "total": 60_611_169}
    with pytest.raises(report.CountsDifferError, match="adapter-scratch-b8 as trained"):
        report.check_records(
            exercise, [{"run": {"name": run.name, **vars(run)}, "parameters": held}]
        )


def test_the_parts_add_up_to_the_model() -> None:
    table = show.parts_table({"t5-small": "t5-small", "t5-base": "t5-base"})
    assert cells(table)[-1] == ["**all**", "", "**60,506,624**", "**222,903,552**"]


def test_each_formula_stands_in_its_column() -> None:
    row = cells(show.formula_table())[2]
    lora = counting.FORMULAS["adapter"]
    assert row == [
        "adapter",
        *(f"${counting.latex(x)}$" for x in (lora.sites, lora.share, lora.added)),
    ]


def test_the_letters_have_each_models_values(exercise: Params) -> None:
    table = show.notation_table(exercise, {"t5-small": "t5-small", "t5-base": "t5-base"})
    rows = {row[1]: row[2:] for row in cells(table)}
    assert rows["width of the model, d_model"] == ["512", "768"]
    assert rows["rank of a LoRA update"] == ["1 and 8", "1 and 8"]
    assert rows["scale of a LoRA update"] == ["4", "4"]


def test_a_site_has_the_tensors_that_are_named(exercise: Params) -> None:
    """Their sizes are those of the model with the method in place."""
    for method, count in (("soft-prompt", 1), ("adapter", 12), ("lora", 36)):
        run = report.scratch(exercise, method)
        derived = counting.derive(method, "t5-small", run.settings)
        sizes = [counting.value(term, derived.values) for term in derived.terms.values()]
        model = counting.hollow("t5-small")
        methods.inject(model, method, "scratch", run.settings)
        trained = [p.numel() for p in model.parameters() if p.requires_grad]
        assert sorted(trained) == sorted(count * sizes)
        for name in derived.tensors:
            assert f"${name[0]}" in show.terms(derived)


def test_the_curves_names_stand_at_their_ends(records: list[dict[str, Any]]) -> None:
    _, right = plots.learning_curves(records[7:8]).axes
    (name,) = right.texts
    assert name.xy[1] == pytest.approx(68.0), "the last epoch's"  # type: ignore[attr-defined]


def test_all_curves_are_of_test_reviews(records: list[dict[str, Any]]) -> None:
    first = plots.all_curves(records).axes[0]
    assert np.asarray(first.lines[-1].get_ydata()) == pytest.approx([62.0, 61.0])


def test_results_are_shown_only_with_the_derived_counts(
    exercise: Params, records: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = {item["run"]["name"]: item for item in records}
    here = dataclasses.replace(exercise, backbone="random:tiny", tokenizer="t")
    monkeypatch.setattr(training, "result", lambda run, _: made[run.name])
    monkeypatch.setattr(runs, "status", lambda *_: runs.Status("fresh", ""))
    with pytest.raises(CountsDifferError, match="lora-scratch-r8 as trained"):
        report.results(here, "lora")
