"""Claim 3: gaps between training and test reviews, and span losses, from records made up here."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from helpers import cells

from t5peft.base.studies import Study
from t5peft.report import claims, overfitting, sections, statistics, tables


def test_a_gap_counts_as_smaller_beyond_the_draw_of_the_reviews(
    records: list[Any],
) -> None:
    gap, error = statistics.last_gap(records[0])
    assert gap == pytest.approx(0.19)
    assert error == pytest.approx((0.8 * 0.2 / 1000 + 0.61 * 0.39 / 25_000) ** 0.5)
    text = overfitting.gap_sentence(records, [])
    assert "is +19.0 points with full fine-tuning and +10.0 to +18.0 with a PEFT method" in text
    assert "1,000 training and 25,000 test reviews were looked at" in text
    others = {record["run"]["name"]: statistics.last_gap(record) for record in records[1:]}
    z = 2.7729  # the normal quantile of 1 - 0.05 / (2 x 9)
    uncertain = {name: z * math.hypot(error, own) for name, (_, own) in others.items()}
    assert statistics.doubts_of((gap, error), others) == pytest.approx(uncertain, 1e-4)
    assert 100 * max(uncertain.values()) == pytest.approx(5.105, abs=0.001)
    assert "uncertain by up to 5.1 points (95% for all 9" in text
    told = [name for name, (found, _) in others.items() if 0.19 - found > uncertain[name]]
    assert len(told) == 4
    assert list(statistics.smaller((gap, error), others)) == told
    assert "smaller than full fine-tuning's in all 9 PEFT runs." in text
    assert "the gap is smaller in adapter, AdapterHub, b = 1 (a gap of +13.0); LoRA, ours" in text
    for record in records[1:]:
        record["history"][-1]["train_accuracy"] = 0.99
    text = overfitting.gap_sentence(records, [])
    assert "in none of the 9 PEFT runs." in text
    assert "the gap is smaller in no PEFT run." in text


def test_gaps_of_all_seeds_are_compared_by_their_ranges(records: list[Any]) -> None:
    def again(record: Any, train: float) -> dict[str, Any]:
        last = {**record["history"][-1], "train_accuracy": train}
        settings = record["params"] | {"seed": 1}
        return {**record, "history": [*record["history"][:-1], last], "params": settings}

    full, prompt = records[:2]
    assert "all seeds" not in overfitting.gap_sentence(records, [[prompt, again(prompt, 0.7)]])
    seeds = [[full, again(full, 0.85)], [prompt, again(prompt, 0.7)]]
    assert (
        "it is +19.0 to +24.0 points in 2 runs of full fine-tuning and +8.0 to +18.0 in 10 of PEFT "
        "methods: the ranges are apart."
    ) in overfitting.gap_sentence(records, seeds)
    assert "ranges, on 1,000 training reviews, are apart" in claims.conclusions(
        records, seeds, {}, [], {}
    )
    seeds[1][1] = again(prompt, 0.85)
    assert "the ranges overlap." in overfitting.gap_sentence(records, seeds)


def test_the_conclusion_tells_claim_3_by_the_runs_with_more_epochs(
    records: list[Any],
) -> None:
    longer = [
        {**r, "params": r["params"] | {"epochs": 10, "train_examples": 2500}} for r in records
    ]
    text = claims.conclusions(records, [], {}, longer, {})
    assert (
        "After 10 epochs on 2,500 reviews, with one seed (@sec-ten-epochs), the gap is +19.0 "
        "points with full fine-tuning and +10.0 to +18.0 with a PEFT method: smaller in all 9 PEFT "
        "runs, beyond the uncertainty of the draw in 4 of the 9; after each run's best epoch it is "
        "smaller in all 9."
    ) in text
    longer[0]["history"][-1]["train_accuracy"] = 0.0
    assert "in none of the 9 PEFT runs, beyond the uncertainty of the draw in none of the 9;" in (
        claims.conclusions(records, [], {}, longer, {})
    )
    assert "@sec-ten-epochs" not in claims.conclusions(records, [], {}, [], {})


def test_the_gaps_are_told_epoch_against_epoch_and_after_the_best(
    records: list[Any],
) -> None:
    full, *peft = records
    text = overfitting.epochs_sentence(records)
    assert "the gap of every PEFT run is smaller after all 2 epochs" in text
    assert (
        "After each run's best epoch it is +13.0 points with full fine-tuning, whose best is epoch "
        "1 (training reviews 75.0%), and +4.0 to +12.0 with a PEFT method: smaller in all 9"
    ) in text
    assert "its test accuracy moves by up to 1.0 points" in text
    peft[3]["history"][1]["test_accuracy"] = 0.4
    peft[4]["history"][0]["train_accuracy"] = 0.9
    text = overfitting.epochs_sentence([*peft, full])
    assert "the gap of every PEFT run is smaller after none of the 2 epochs" in text
    assert "smaller in 8 of the 9 PEFT runs" in text
    assert "moves by up to 26.0 points" in text


def test_all_runs_beyond_doubt_are_counted_not_listed(records: list[Any]) -> None:
    records[0]["history"][-1]["train_accuracy"] = 1.0
    assert "the gap is smaller in all 9 PEFT runs." in overfitting.gap_sentence(records, [])


def test_points_have_a_sign_but_zero_has_none() -> None:
    assert [overfitting.points(x) for x in (0.012, -0.2, 0.0, 0.0004, -0.0004)] == [
        *("+1.2", "-20.0", "0.0", "0.0", "0.0")
    ]


def test_what_is_kept_is_compared_with_full_fine_tuning(
    exercise: Study, records: list[Any], kept: dict[str, dict[str, Any]]
) -> None:
    kept["full"] |= {"train_accuracy": 0.9, "span_loss": 5.0}
    kept["lora-scratch-r8"]["span_loss"] = 5.5
    text = overfitting.retention_sentences(records, kept, 1000)
    assert "costs it 3.500 nats" in text
    assert "among the 1,000 tokens of the vocabulary would cost 6.908" in text
    assert (
        "moves its loss by +1.500, a PEFT method, with its addition in place, by +0.500 to +2.000"
        in text
    )
    assert "rises less than full fine-tuning's in 8 of the 9 PEFT runs" in text
    assert "The gap is +28.0 points with full fine-tuning, and smaller in all 9" in text
    assert "beyond that the gap is smaller in all 9 PEFT runs." in text
    assert "does not follow the number of trained parameters" not in text
    assert "PEFT runs, on more training reviews than that of @tbl-gap. By" not in text
    kept["full"]["reviews"] = 10**6
    said = overfitting.retention_sentences(records, kept, 1000)
    assert "PEFT runs, on more training reviews than that of @tbl-gap. By" in said
    kept["lora-peft-r8"]["span_loss"] = 5.6
    said = overfitting.retention_sentences(records, kept, 1000)
    assert "does not follow" not in said, "as many parameters as any, and the largest rise"
    kept["adapter-scratch-b8"]["span_loss"] = 6.0
    said = overfitting.retention_sentences(records, kept, 1000)
    assert "The largest is +2.500, of adapter, ours, b = 8, with 100 trained parameters;" in said
    assert "as many as any has +2.000, of LoRA, ours" in said
    rows = cells(tables.retention(records, kept))
    assert rows[0] == ["full fine-tuning", "90.0", "62.0", "+28.0", "5.000", "+1.500"]
    assert "tbl-retention" in sections.retention(exercise, records, kept, 1000)
    changed = dataclasses.replace(exercise, seed=7)
    unmeasured = sections.retention(changed, records, {}, 1000)
    assert "`t5peft retention assignment --set seed=7` does" in unmeasured
