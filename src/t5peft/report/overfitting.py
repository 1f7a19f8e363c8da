"""Claim 3, overfitting and prior knowledge: gaps between training and test reviews, span losses."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from t5peft.measure.measurements import Kept
from t5peft.report.findings import of_all, ranges
from t5peft.report.show import Record, number, one_epoch, only, percent, run_name
from t5peft.report.statistics import (
    Gap,
    best_epochs_gap,
    best_gap,
    doubts_of,
    epoch,
    forgotten_less,
    full_first,
    gap,
    gaps_of_seeds,
    jump,
    last_gap,
    rise,
    sample_size,
    smaller,
)


def gap_sentence(
    records: Sequence[Record],
    seeds: Sequence[Sequence[Record]],
    longer: Sequence[Record] = (),
) -> str:
    """Claim 3: which way it went, and whether that is more than the draw of reviews and seed.

    longer: the runs of a companion study with more epochs, which is referred to.
    """
    full = only(records, method="full")[0]
    others = {run_name(r["run"]): last_gap(r) for r in records if r["run"]["method"] != "full"}
    low, high = (pick(found for found, _ in others.values()) for pick in (min, max))
    text = (
        "After the last epoch the gap between training and test reviews is "
        f"{points(last_gap(full)[0])} points with full fine-tuning and {points(low)} to "
        f"{points(high)} with a PEFT method. {draw_sentence(last_gap(full), others)} "
        f"{number(sample_size(full))} training and {number(full['test_examples'])} test reviews "
        "were looked at."
    )
    full_gaps, peft_gaps = gaps_of_seeds(records, seeds)
    if len(full_gaps) > 1:
        text += (
            f" With all seeds that are stored (@tbl-seeds) it is {extent(full_gaps)} points in "
            f"{len(full_gaps)} runs of full fine-tuning and {extent(peft_gaps)} in "
            f"{len(peft_gaps)} of PEFT methods: the ranges {ranges(full_gaps, peft_gaps)}."
        )
    if one_epoch(records):
        stronger = "the exercise's ten epochs are" if not longer else "@sec-ten-epochs has"
        text += (
            " Each review was seen once, which leaves little room for learning it by heart: this "
            f"is a weak test of the claim, and {stronger} a stronger one."
        )
    return text


def extent(gaps: Sequence[float]) -> str:
    """`+1.4 to +1.7`."""
    return f"{points(min(gaps))} to {points(max(gaps))}"


def draw_sentence(full: Gap, others: Mapping[str, Gap]) -> str:
    """Which of the gaps (by run's name) are smaller than full fine-tuning's, and beyond doubt."""
    return (
        f"It is smaller than full fine-tuning's in {below(full, others)} PEFT runs. Were "
        "the runs' reviews drawn independently, a difference of two gaps would be uncertain by up "
        f"to {doubt(full, others)} points (95% for all {len(others)} comparisons together, by "
        "Bonferroni's bound); as all runs answered the same reviews, it should be less. Beyond "
        f"this uncertainty the gap is smaller in {named(smaller(full, others), len(others))}."
    )


def below(full: Gap, others: Mapping[str, Gap]) -> str:
    """In how many runs the gap is smaller than full fine-tuning's, beyond doubt or not."""
    return of_all(sum(found < full[0] for found, _ in others.values()), len(others))


def named(gaps: Mapping[str, Gap], total: int) -> str:
    """`no PEFT run`, `LoRA, ours (a gap of -0.1)`, or `all 9 PEFT runs`."""
    if not gaps:
        return "no PEFT run"
    if len(gaps) == total:
        return f"all {total} PEFT runs"
    return "; ".join(f"{name} (a gap of {points(found)})" for name, (found, _) in gaps.items())


def doubt(full: Gap, others: Mapping[str, Gap]) -> str:
    """The largest of them, in points."""
    return f"{100 * max(doubts_of(full, others).values()):.1f}"


def points(share: float) -> str:
    """A difference of two shares in percentage points, with its sign: `+1.2`, `0.0`."""
    return f"{100 * share:+.1f}".replace("+0.0", "0.0").replace("-0.0", "0.0")


def retention_sentences(records: Sequence[Record], kept: Kept, vocabulary: int) -> str:
    """Claim 3, measured by `t5peft retention` (by run's name): reviews learned, skill lost."""
    full = only(records, method="full")[0]
    peft = [record for record in records if record is not full]
    reference = best_gap(kept["full"], full)
    others = {run_name(r["run"]): best_gap(kept[r["run"]["name"]], r) for r in peft}
    rises = {r["run"]["name"]: rise(kept[r["run"]["name"]]) for r in peft}
    most = max(peft, key=lambda record: rises[record["run"]["name"]])
    largest = max(peft, key=lambda record: record["parameters"]["trained"])
    more = kept["full"]["reviews"] > sample_size(full)
    rests = ", on more training reviews than that of @tbl-gap" if more else ""
    text = (
        f"**By heart.** The gap is {points(reference[0])} points with full fine-tuning, and "
        f"smaller in {below(reference, others)} PEFT runs{rests}. By the same reckoning as for "
        "@tbl-gap a difference of two gaps is uncertain by up to "
        f"{doubt(reference, others)} points, and beyond that the gap is smaller in "
        f"{named(smaller(reference, others), len(others))}.\n\n**Prior knowledge.** Span "
        "corruption, the objective that the backbone was pre-trained with, costs it "
        f"{kept['full']['span_loss_before']:.3f} nats a target token on the text of the test "
        f"reviews (to guess evenly among the {number(vocabulary)} tokens of the vocabulary would "
        f"cost {math.log(vocabulary):.3f}). Full fine-tuning moves its loss by "
        f"{rise(kept['full']):+.3f}, a PEFT method, with its addition in place, by "
        f"{min(rises.values()):+.3f} to {max(rises.values()):+.3f}; the "
        f"loss rises less than full fine-tuning's in {of_all(forgotten_less(kept), len(peft))} "
        "PEFT runs. Without the addition the backbone is what it was, to the bit."
    )
    if most["parameters"]["trained"] < largest["parameters"]["trained"]:
        text += (
            " Among PEFT methods the rise does not follow the number of trained parameters. The "
            f"largest is {rise_of(most, kept)}; as many as any has {rise_of(largest, kept)}."
        )
    return text


def rise_of(record: Record, kept: Kept) -> str:
    """`+1.679, of LoRA, ours, r = 8, with 8,192 trained parameters`."""
    name, trained = run_name(record["run"]), number(record["parameters"]["trained"])
    return f"{rise(kept[record['run']['name']]):+.3f}, of {name}, with {trained} trained parameters"


def epochs_sentence(records: Sequence[Record]) -> str:
    """The gaps epoch against epoch, after each run's best, and how much the last one is chance."""
    full, *peft = full_first(records)
    count, own = len(full["history"]), best_epochs_gap(full)
    found = [best_epochs_gap(record) for record in peft]
    known = percent(epoch(full, full["best_epoch"])["train_accuracy"])
    every = sum(all(gap(r, e) < gap(full, e) for r in peft) for e in range(1, count + 1))
    return (
        f"Epoch against epoch, the gap of every PEFT run is smaller after {of_all(every, count)} "
        f"epochs. After each run's best epoch it is {points(own)} points with full fine-tuning, "
        f"whose best is epoch {full['best_epoch']} (training reviews {known}%), and "
        f"{extent(found)} with a PEFT method: smaller in "
        f"{of_all(sum(x < own for x in found), len(found))} PEFT runs. Each run has one seed, and "
        f"from one epoch to the next its test accuracy moves by up to {100 * jump(records):.1f} "
        "points: the last epoch is a draw as well, which the uncertainty above leaves out."
    )


def longer_verdict(records: Sequence[Record]) -> str:
    """The claim's first half by runs that saw each review many times."""
    full, *peft = full_first(records)
    gaps = {run_name(record["run"]): last_gap(record) for record in peft}
    settings, own = full["params"], last_gap(full)
    fewer = sum(best_epochs_gap(record) < best_epochs_gap(full) for record in peft)
    return (
        f"After {settings['epochs']} epochs on {number(settings['train_examples'])} reviews, with "
        f"one seed (@sec-ten-epochs), the gap is {points(own[0])} points with full fine-tuning and "
        f"{extent([found for found, _ in gaps.values()])} with a PEFT method: smaller in "
        f"{below(own, gaps)} PEFT runs, beyond the uncertainty of the draw in "
        f"{of_all(len(smaller(own, gaps)), len(gaps))}; after each run's best epoch it is smaller "
        f"in {of_all(fewer, len(gaps))}."
    )


def claim_3(
    records: Sequence[Record],
    seeds: Sequence[Sequence[Record]],
    kept: Kept,
    longer: Sequence[Record],
) -> str:
    """Whether PEFT learned less by heart, and whether it kept more of what the backbone knew.

    longer: runs of a companion study with more epochs, or none.
    """
    full, *peft = full_first(records)
    gaps = {
        run_name(r["run"]): best_gap(kept[r["run"]["name"]], r) if kept else last_gap(r)
        for r in (full, *peft)
    }
    own = gaps.pop(run_name(full["run"]))
    text = (
        f"Learned by heart: {'after one epoch ' if one_epoch(records) else ''}the gap is smaller "
        f"in {below(own, gaps)} PEFT runs, beyond the uncertainty of the draw in "
        f"{of_all(len(smaller(own, gaps)), len(gaps))}"
    )
    full_gaps, peft_gaps = gaps_of_seeds(records, seeds)
    if len(full_gaps) > 1:
        text += (
            f"; with all seeds the gaps' ranges, on {number(sample_size(full))} training reviews, "
            f"{ranges(full_gaps, peft_gaps)}"
        )
    text += "."
    if one_epoch(records):
        text += " One epoch is a weak test of it."
    if longer:
        text += f" {longer_verdict(longer)}"
    if not kept:
        return f"{text} What is kept of the pre-training was not measured."
    return (
        f"{text} Kept of the pre-training: the span loss rises less in "
        f"{of_all(forgotten_less(kept), len(peft))} PEFT runs."
    )
