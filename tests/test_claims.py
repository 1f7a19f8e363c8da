"""The verdicts on the exercise's three claims, from records made up here."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
from conftest import cells

from t5peft import claims, sections, tables
from t5peft.params import Params


def test_claims_are_sentences_about_the_records(records: list[dict[str, Any]]) -> None:
    assert "state of the PEFT runs is 0.001% to 0.100% of" in claims.optimizer_sentence(records)
    assert "costs 4.000 MB" in claims.storage_sentence(records)
    assert "is 40% of full" in claims.peak_sentence(with_peaks(records), {})
    side = dict.fromkeys(("step", "evaluation", "epoch"), 1.0)
    sides = {
        name: {"exercise": side | {"peak_bytes": 1e6 * mega}, "ours": side | {"peak_bytes": 1e6}}
        for name, mega in PEAKS.items()
    }
    bench = {"methods": sides, "params": {"backbone": "random:t5-small"}}
    text = claims.peak_sentence(records, bench)
    assert "is 5,000 MB with full fine-tuning, and 60% to 80% of that" in text
    assert "AdamW's state for all parameters is 484 MB of it, 10%" in text
    bench["params"]["backbone"] = "a/folder"
    assert "AdamW" not in claims.peak_sentence(records, bench), "its size is not known here"


def test_t5_small_has_its_own_figures_whatever_the_study() -> None:
    text = claims.in_t5_small({"soft prompt": 5_120}, 8, "the state")
    assert text == (
        "For T5-small, at 8 bytes a trained parameter, the state is 484.053 MB (full fine-tuning) "
        "and 0.041 MB (soft prompt)."
    )


def test_a_process_is_compared_with_itself_over_its_seeds(records: list[dict[str, Any]]) -> None:
    assert claims.process_sentence([[records[7], records[7]]]) == ""
    other = {**records[0], "memory": {"peak_bytes": 2 * 10**9}}
    text = claims.process_sentence([[records[0], other]])
    assert text == "Full fine-tuning's peak was 1,004 and 2,000 MB with 2 seeds."


PEAKS = {"full": 5000, "soft-prompt": 4000, "adapter": 3500, "lora": 3000}


def with_peaks(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {**r, "memory": {"peak_bytes": 10**9 if r["run"]["method"] == "full" else 4 * 10**8}}
        for r in records
    ]


def test_a_gap_counts_as_smaller_beyond_the_draw_of_the_reviews(
    records: list[dict[str, Any]],
) -> None:
    gap, error = claims.last_gap(records[0])
    assert gap == pytest.approx(0.19)
    assert error == pytest.approx((0.8 * 0.2 / 1000 + 0.61 * 0.39 / 25_000) ** 0.5)
    text = claims.gap_sentence(records, [])
    assert "is +19.0 points with full fine-tuning and +10.0 to +18.0 with a PEFT method" in text
    assert "1,000 training and 25,000 test reviews were looked at" in text
    others = {record["run"]["name"]: claims.last_gap(record) for record in records[1:]}
    z = 2.7729  # the normal quantile of 1 - 0.05 / (2 x 9)
    uncertain = {name: z * math.hypot(error, own) for name, (_, own) in others.items()}
    assert claims.doubts_of((gap, error), others) == pytest.approx(uncertain, 1e-4)
    assert 100 * max(uncertain.values()) == pytest.approx(5.105, abs=0.001)
    assert "uncertain by up to 5.1 points (95% for all 9" in text
    told = [name for name, (found, _) in others.items() if 0.19 - found > uncertain[name]]
    assert len(told) == 4
    assert list(claims.smaller((gap, error), others)) == told
    assert "smaller than full fine-tuning's in all 9 PEFT runs." in text
    assert "the gap is smaller in adapter, AdapterHub, b = 1 (a gap of +13.0); LoRA, ours" in text
    for record in records[1:]:
        record["history"][-1]["train_accuracy"] = 0.99
    text = claims.gap_sentence(records, [])
    assert "in none of the 9 PEFT runs." in text
    assert "the gap is smaller in no PEFT run." in text


def test_gaps_of_all_seeds_are_compared_by_their_ranges(records: list[dict[str, Any]]) -> None:
    def again(record: dict[str, Any], train: float) -> dict[str, Any]:
        last = {**record["history"][-1], "train_accuracy": train}
        settings = record["params"] | {"seed": 1}
        return {**record, "history": [*record["history"][:-1], last], "params": settings}

    full, prompt = records[:2]
    assert "all seeds" not in claims.gap_sentence(records, [[prompt, again(prompt, 0.7)]])
    seeds = [[full, again(full, 0.85)], [prompt, again(prompt, 0.7)]]
    assert (
        "it is +19.0 to +24.0 points in 2 runs of full fine-tuning and +8.0 to +18.0 in 10 of PEFT "
        "methods: the ranges are apart."
    ) in claims.gap_sentence(records, seeds)
    assert "with all seeds the gaps' ranges are apart" in claims.conclusions(records, seeds, {}, {})
    seeds[1][1] = again(prompt, 0.85)
    assert "the ranges overlap." in claims.gap_sentence(records, seeds)


def test_points_have_a_sign_but_zero_has_none() -> None:
    assert [claims.points(x) for x in (0.012, -0.2, 0.0, 0.0004, -0.0004)] == [
        *("+1.2", "-20.0", "0.0", "0.0", "0.0")
    ]


KEPT = {
    "train_accuracy": 0.7,
    "test_accuracy": 0.62,
    "reviews": 1000,
    "stretches": 9,
    "span_loss": 4.0,
    "span_loss_before": 3.5,
}


def test_what_is_kept_is_compared_with_full_fine_tuning(
    exercise: Params, records: list[dict[str, Any]]
) -> None:
    kept = {record["run"]["name"]: dict(KEPT) for record in records}
    kept["full"] |= {"train_accuracy": 0.9, "span_loss": 5.0}
    kept["lora-scratch-r8"]["span_loss"] = 5.5
    text = claims.retention_sentences(records, kept, 1000)
    assert "costs it 3.500 nats" in text
    assert "among the 1,000 tokens of the vocabulary would cost 6.908" in text
    assert (
        "moves its loss by +1.500, a PEFT method, with its addition in place, by +0.500 to +2.000"
        in text
    )
    assert "rises less than full fine-tuning's in 8 of the 9 PEFT runs" in text
    assert "The gap is +28.0 points with full fine-tuning, and smaller in all 9" in text
    assert "LoRA, PEFT, r = 1, \N{GREEK SMALL LETTER ALPHA} = 4 (a gap of +8.0)" in text
    assert "does not follow the number of trained parameters" not in text
    kept["adapter-scratch-b8"]["span_loss"] = 6.0
    said = claims.retention_sentences(records, kept, 1000)
    assert "The largest is +2.500, of adapter, ours, b = 8, with 100 trained parameters;" in said
    assert "as many as any has +2.000, of LoRA, ours" in said
    rows = cells(tables.retention(records, kept))
    assert rows[0] == ["full fine-tuning", "90.0", "62.0", "+28.0", "5.000", "+1.500"]
    assert "tbl-retention" in sections.retention(exercise, records, kept, 1000)
    changed = dataclasses.replace(exercise, seed=7)
    unmeasured = sections.retention(changed, records, {}, 1000)
    assert "`t5peft retention assignment --set seed=7` does" in unmeasured


def test_the_conclusions_answer_the_question(records: list[dict[str, Any]]) -> None:
    text = claims.conclusions(records, [], {}, {})
    assert "Ours, from the best down: LoRA 69.0%, adapter 66.0%, soft prompt 63.0%, full" in text
    assert "reference: adapter 90.9%, full fine-tuning 89.9%, LoRA 89.2%, soft" in text
    assert "Why its order is another cannot be told here" in text
    assert "not told apart" not in text
    assert "LoRA, is 7.0 points above full fine-tuning. Of what" in text
    assert "**Claims 1 and 2** hold" in text
    assert "kept of the pre-training was not measured" in text
    assert "a bag of words" not in text.lower()
    kept = {record["run"]["name"]: dict(KEPT) for record in records}
    bag = {"bag_of_words_accuracy": 0.685}
    text = claims.conclusions(records, [], kept, bag)
    assert "the span loss rises less in none of the 9" in text
    assert "A bag of words reaches 68.5%; 3 of the 10 runs are above it." in text
    lora = [
        {**records[7], "params": records[7]["params"] | {"seed": k}, "best_accuracy": 0.69 - k / 20}
        for k in (0, 1)
    ]
    text = claims.conclusions(records, [lora], kept, bag)
    assert "these are not told apart: LoRA and adapter; adapter and soft prompt;" in text
