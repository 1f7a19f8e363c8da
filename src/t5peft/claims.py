"""The exercise's three claims about PEFT, and a verdict on each: computed sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from t5peft.findings import of_all, untold, versus
from t5peft.show import (
    METHOD_NAMES,
    REFERENCE,
    Record,
    bullets,
    gap,
    megabytes,
    number,
    one_epoch,
    only,
    percent,
)


def memory_shares(records: Sequence[Record], key: str) -> list[float]:
    """A figure of each PEFT run's memory, as a share of full fine-tuning's."""
    full = only(records, method="full")[0]["memory"][key]
    return [r["memory"][key] / full for r in records if r["run"]["method"] != "full"]


def optimizer_sentence(records: Sequence[Record]) -> str:
    """Claim 1, in one sentence."""
    state = memory_shares(records, "optimizer_bytes")
    return f"The optimizer's state of the PEFT runs is {span(state, 3)} of full fine-tuning's."


def peak_sentence(records: Sequence[Record], bench: dict[str, Any]) -> str:
    """The peak of a training: the bench's, which measures each method alone, if there is one."""
    if not bench:
        peaks = memory_shares(records, "peak_bytes")
        return f"The peak of the whole training is {span(peaks, 0)} of full fine-tuning's."
    from t5peft.bench import table as timed

    peaks = {
        method: exercise for method, what, exercise, *_ in timed(bench) if what == "peak_bytes"
    }
    full = peaks.pop("full")
    shares = span([peak / full for peak in peaks.values()], 0)
    return (
        "The peak of the whole training, measured for the exercise's own loop with each method "
        "alone in a process, in float32 and on the backbone "
        f"{bench['params']['backbone']} (@tbl-bench), is "
        f"{full:,.0f} MB with full fine-tuning, and {shares} of that with a PEFT method."
    )


def span(shares: Sequence[float], digits: int) -> str:
    """`0.1% to 0.9%`, or `0.1%` where all are the same."""
    low, high = percent(min(shares), digits), percent(max(shares), digits)
    return f"{low}%" if low == high else f"{low}% to {high}%"


def storage_sentence(records: Sequence[Record]) -> str:
    """Claim 2, in one sentence."""
    full = only(records, method="full")[0]["stored_bytes"]
    shares = [r["stored_bytes"] / full for r in records if r["run"]["method"] != "full"]
    return (
        f"One more task costs {megabytes(full)} MB with full fine-tuning, and "
        f"{span(shares, 3)} of that with a PEFT method."
    )


Gap = tuple[float, float]
"""Accuracy on training reviews less that on test reviews, and its standard error."""


def gap_sentence(records: Sequence[Record]) -> str:
    """Claim 3: which way it went, and whether that is more than the draw of the reviews."""
    full = only(records, method="full")[0]
    others = [last_gap(record) for record in records if record["run"]["method"] != "full"]
    points = [100 * found for found, _ in others]
    text = (
        f"After the last epoch the gap between training and test reviews is "
        f"{100 * last_gap(full)[0]:+.1f} points with full fine-tuning and {min(points):+.1f} to "
        f"{max(points):+.1f} with a PEFT method. {draw_sentence(last_gap(full), others)} "
        f"{number(sample_size(full))} training and {number(full['test_examples'])} test reviews "
        "were looked at."
    )
    if one_epoch(records):
        text += (
            " Each review was seen once, which leaves little room for learning it by heart: this "
            "is a weak test of the claim, and the exercise's ten epochs are a stronger one."
        )
    return text


def draw_sentence(full: Gap, others: Sequence[Gap]) -> str:
    """What of the gaps' differences is more than the draw of the reviews."""
    doubts = doubts_of(full, others)
    return (
        "If the reviews were drawn anew for each run, the difference of two gaps would be "
        f"uncertain by up to {100 * max(doubts):.1f} points (95% for all {len(others)} comparisons "
        "together, by Bonferroni's bound); by more than its uncertainty the gap is smaller in "
        f"{of_all(smaller(full, others), len(others))} PEFT runs."
    )


def doubts_of(full: Gap, others: Sequence[Gap]) -> list[float]:
    """Half the interval of each difference to full fine-tuning's gap; 95% for all together."""
    z = NormalDist().inv_cdf(1 - 0.05 / (2 * len(others)))
    return [z * math.hypot(full[1], error) for _, error in others]


def smaller(full: Gap, others: Sequence[Gap]) -> int:
    """How many gaps are smaller than full fine-tuning's by more than the uncertainty."""
    pairs = zip(others, doubts_of(full, others), strict=True)
    return sum(full[0] - found > doubt for (found, _), doubt in pairs)


def sample_size(record: Record) -> int:
    """How many training reviews a run's training accuracy is measured on."""
    settings = record["params"]
    return min(settings["train_sample"], settings["train_examples"])


def last_gap(record: Record) -> Gap:
    """The gap after the last epoch."""
    last = record["history"][-1]
    shares = (
        (last["train_accuracy"], sample_size(record)),
        (
            last["test_accuracy"],
            record["test_examples"],
        ),
    )
    return gap(record, len(record["history"])), error_of(*shares)


def best_gap(record: Record, measured: Mapping[str, Any]) -> Gap:
    """The gap after the best epoch, on the training reviews that `t5peft retention` looked at."""
    train, test = measured["train_accuracy"], record["best_accuracy"]
    return train - test, error_of((train, measured["reviews"]), (test, record["test_examples"]))


def error_of(*shares: tuple[float, int]) -> float:
    """The standard error of a sum or difference of binomial shares (share, trials)."""
    return math.sqrt(sum(share * (1 - share) / count for share, count in shares))


def retention_sentences(records: Sequence[Record], kept: Mapping[str, Mapping[str, Any]]) -> str:
    """Claim 3, measured by `t5peft retention` (by run's name): reviews learned, skill lost."""
    full = only(records, method="full")[0]
    peft = [record for record in records if record is not full]
    reference = best_gap(full, kept["full"])
    others = [best_gap(record, kept[record["run"]["name"]]) for record in peft]
    rises = [rise(kept[record["run"]["name"]]) for record in peft]
    return (
        f"**By heart.** {draw_sentence(reference, others)}\n\n**Prior knowledge.** Span "
        "corruption, the objective that the backbone was pre-trained with, costs it "
        f"{kept['full']['span_loss_before']:.3f} nats a target token on the text of the test "
        f"reviews. Full fine-tuning moves that by {rise(kept['full']):+.3f}, a PEFT method, with "
        f"its addition in place, by {min(rises):+.3f} to {max(rises):+.3f}; the loss rises less "
        f"than full fine-tuning's in {of_all(forgotten_less(kept), len(peft))} PEFT runs. Without "
        "the addition the backbone is what it was, to the bit."
    )


def rise(measured: Mapping[str, Any]) -> float:
    """How far fine-tuning moved the span loss, nats a target token."""
    return measured["span_loss"] - measured["span_loss_before"]


def forgotten_less(kept: Mapping[str, Mapping[str, Any]]) -> int:
    """How many PEFT runs moved the span loss up by less than full fine-tuning did."""
    return sum(rise(x) < rise(kept["full"]) for name, x in kept.items() if name != "full")


def conclusions(
    records: Sequence[Record],
    seeds: Sequence[Sequence[Record]],
    kept: Mapping[str, Mapping[str, Any]],
) -> str:
    """The answer to the report's question and a verdict on each claim, as computed sentences."""
    full, *ours = only(records, implementation="scratch")
    best = max(ours, key=lambda record: record["best_accuracy"])
    of_full = {
        key: best[part][key] / full[part][key]
        for part, key in (("parameters", "trained"), ("memory", "optimizer_bytes"))
    } | {"stored_bytes": best["stored_bytes"] / full["stored_bytes"]}
    return bullets(
        [
            f"**The order.** {order_sentence(records)}",
            f"**What it costs, what it saves.** Our best PEFT method, "
            f"{METHOD_NAMES[best['run']['method']]}, is {versus(best, full)} full fine-tuning"
            f"{untold(best, full, seeds)}. Of what full fine-tuning takes it trains "
            f"{percent(of_full['trained'], 2)}% of the parameters, holds "
            f"{percent(of_full['optimizer_bytes'], 2)}% of the optimizer's state and stores "
            f"{percent(of_full['stored_bytes'], 2)}% of the bytes.",
            "**Claims 1 and 2** hold, in proportion to the trained parameters: for the optimizer's "
            "state (@tbl-memory), not for the whole of a training, and for what is stored "
            "(@tbl-storage).",
            f"**Claim 3.** {claim_3(records, kept)}",
        ]
    )


def order_sentence(records: Sequence[Record]) -> str:
    """Our four methods by accuracy, and the published reference's."""
    ours = only(records, implementation="scratch")
    accuracy = {r["run"]["number"]: 100 * r["best_accuracy"] for r in ours}
    published = {number: REFERENCE.accuracy[number - 1] for number in accuracy}
    names = {r["run"]["number"]: METHOD_NAMES[r["run"]["method"]] for r in ours}
    here, there = (
        ", ".join(f"{names[n]} {found[n]:.1f}%" for n in sorted(found, key=lambda n: -found[n]))
        for found in (accuracy, published)
    )
    return f"Ours, from the best down: {here}. The published reference: {there}."


def claim_3(records: Sequence[Record], kept: Mapping[str, Mapping[str, Any]]) -> str:
    """Whether PEFT learned less by heart, and whether it kept more of what the backbone knew."""
    full, *peft = sorted(records, key=lambda record: record["run"]["method"] != "full")
    if kept:
        gaps = [best_gap(record, kept[record["run"]["name"]]) for record in (full, *peft)]
    else:
        gaps = [last_gap(record) for record in (full, *peft)]
    count = len(peft)
    text = (
        "Less learned by heart is shown where a gap is smaller by more than its uncertainty: in "
        f"{of_all(smaller(gaps[0], gaps[1:]), count)} PEFT runs."
    )
    if not kept:
        return f"{text} What is kept of the pre-training was not measured."
    return (
        f"{text} More of the pre-training is kept, by the span loss, in "
        f"{of_all(forgotten_less(kept), count)}."
    )
