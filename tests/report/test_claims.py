"""The verdicts on the exercise's three claims, from records made up here."""

from __future__ import annotations

from typing import Any

from t5peft.report import claims


def test_claims_are_sentences_about_the_records(records: list[Any]) -> None:
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
    assert "on a t5-small with random weights (@tbl-bench)" in text
    assert "AdamW's state for all parameters is 484 MB of it, 10%" in text
    bench["params"]["backbone"] = "a/folder"
    text = claims.peak_sentence(records, bench)
    assert "on the backbone a/folder (@tbl-bench)" in text
    assert "AdamW" not in text, "its size is not known here"


def test_t5_small_has_its_own_figures_whatever_the_study() -> None:
    text = claims.in_t5_small({"soft prompt": 5_120}, 8, "the state")
    assert text == (
        "For T5-small, at 8 bytes a trained parameter, the state is 484.053 MB (full fine-tuning) "
        "and 0.041 MB (soft prompt)."
    )


def test_a_process_is_compared_with_itself_over_its_seeds(records: list[Any]) -> None:
    assert claims.process_sentence([[records[7], records[7]]]) == ""
    other = {**records[0], "memory": {"peak_bytes": 2 * 10**9}}
    text = claims.process_sentence([[records[0], other]])
    assert text.endswith("full fine-tuning's was 1,004 and 2,000 MB with 2 seeds.")


PEAKS = {"full": 5000, "soft-prompt": 4000, "adapter": 3500, "lora": 3000}


def with_peaks(records: list[Any]) -> list[Any]:
    return [
        {**r, "memory": {"peak_bytes": 10**9 if r["run"]["method"] == "full" else 4 * 10**8}}
        for r in records
    ]


def test_one_epoch_is_said_to_test_the_third_claim_weakly(
    one_epoch: list[Any],
) -> None:
    assert "One epoch is a weak test of it." in claims.conclusions(one_epoch, [], {}, [], {})


def test_the_conclusions_answer_the_question(
    records: list[Any], kept: dict[str, dict[str, Any]]
) -> None:
    text = claims.conclusions(records, [], {}, [], {})
    assert "Ours, from the best down: LoRA 69.0%, adapter 66.0%, soft prompt 63.0%, full" in text
    assert "reference: adapter 90.9%, full fine-tuning 89.9%, LoRA 89.2%, soft" in text
    assert "Why its order is another, these runs cannot tell." in text
    assert "not told apart" not in text
    assert "Level" not in text
    assert "LoRA, is 7.0 points above full fine-tuning. Of what" in text
    assert "**Claims 1 and 2** hold, in proportion to the trained parameters:" in text
    assert "kept of the pre-training was not measured" in text
    assert "a bag of words" not in text.lower()
    assert "One epoch" not in text
    assert "trains 0.10% of the parameters, holds 0.10% of the optimizer's state and" in text
    bag = {"bag_of_words_accuracy": 0.685}
    text = claims.conclusions(records, [], kept, [], bag)
    assert "the span loss rises less in none of the 9" in text
    assert "A bag of words reaches 68.5%; 3 of the 10 runs are above it." in text
    level = [{**r, "best_accuracy": 0.5} for r in records]
    assert "Level are: full fine-tuning and soft prompt; " in claims.order_sentence(level, [])
    records[1]["stored_bytes"] = 2 * records[0]["stored_bytes"]
    text = claims.conclusions(records, [], kept, [], bag)
    assert "**Claims 1 and 2** do not hold for every PEFT run: see the optimizer" in text
    assert "not for the whole of a training" not in text
    lora = [
        {**records[7], "params": records[7]["params"] | {"seed": k}, "best_accuracy": 0.69 - k / 20}
        for k in (0, 1)
    ]
    text = claims.conclusions(records, [lora], kept, [], bag)
    assert "these are not told apart: LoRA and adapter; adapter and soft prompt;" in text
