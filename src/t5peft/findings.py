"""What the records say, as sentences: computed, so that they hold whatever the numbers are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist, mean
from typing import Any

from t5peft.params import Params
from t5peft.show import (
    IMPLEMENTATION_NAMES,
    METHOD_NAMES,
    REFERENCE,
    Record,
    adamw_default,
    bullets,
    gap,
    listed,
    megabytes,
    number,
    one_epoch,
    only,
    percent,
    rate,
    run_name,
    setting_name,
)


def findings(records: Sequence[Record], seeds: Sequence[Sequence[Record]]) -> str:
    """What the ten results say, as a list of computed sentences; seeds: as `report.seeds` has."""
    full = only(records, method="full")[0]
    items = [
        f"Our **{METHOD_NAMES[record['run']['method']]}** trains "
        f"{percent(record['parameters']['trained'] / record['parameters']['total'], 3)}% of the "
        f"parameters and reaches {percent(record['best_accuracy'])}%: "
        f"{versus(record, full)} full fine-tuning's {percent(full['best_accuracy'])}%"
        f"{untold(record, full, seeds)}."
        for record in only(records, implementation="scratch")
        if record["run"]["method"] != "full"
    ]
    told = [twin_sentence(pair, seeds) for pair in twins(records)]
    return bullets([*items, *told, seeds_sentence(seeds), selection_sentence(records)])


def seeds_sentence(seeds: Sequence[Sequence[Record]]) -> str:
    """How far two runs must be apart before their difference says something."""
    if not seeds:
        return (
            "Each number is one run with one seed; how far another seed moves it was not measured, "
            "so that small differences say little."
        )
    most: dict[str, float] = {}
    for records in seeds:
        method = records[0]["run"]["method"]
        most[method] = max(seed_spread(records), most.get(method, 0.0))
    moved = listed(
        [f"{METHOD_NAMES[method]} by up to {points:.1f} points" for method, points in most.items()]
    )
    single = [METHOD_NAMES[method] for method in METHOD_NAMES if method not in most]
    text = f"Another seed moved {moved} (@tbl-seeds)"
    text += f"; {listed(single)} had one seed. " if single else ". "
    return text + (
        f"Differences of up to {max(map(seed_spread, seeds)):.1f} points are not told apart here."
    )


def untold(record: Record, other: Record, seeds: Sequence[Sequence[Record]]) -> str:
    """What to add where two runs are no farther apart than another seed moved one; else ""."""
    points = 100 * abs(record["best_accuracy"] - other["best_accuracy"])
    apart = points > max(map(seed_spread, seeds), default=0.0)
    return "" if apart or round(points, 1) == 0 else ", no more than another seed can do"


def seed_spread(records: Sequence[Record]) -> float:
    """Percentage points between the best and the worst seed of a run."""
    found = [record["best_accuracy"] for record in records]
    return 100 * (max(found) - min(found))


def baselines_sentence(baselines: Mapping[str, Any], records: Sequence[Record]) -> str:
    """What the runs stand beside: the backbone as it was, and a bag of words."""
    if not baselines:
        return ""
    bag = baselines["bag_of_words_accuracy"]
    above = sum(record["best_accuracy"] > bag for record in records)
    settings = records[0]["params"]
    return (
        f"Two landmarks on the same {number(baselines['test_examples'])} test reviews. **Before "
        "fine-tuning** the backbone labels "
        f"{percent(baselines['zero_shot_accuracy'])}% of them right "
        f"({percent(baselines['zero_shot_other_words'])}% of its answers are neither label word). "
        "**A bag of words**, logistic regression on TF-IDF of words and pairs of words "
        "[@pedregosa2011sklearn], fitted on "
        f"the same {number(settings['train_examples'])} training reviews, cut to the same "
        f"{settings['max_length']} tokens, reaches {percent(bag)}%; {of_all(above, len(records))} "
        "runs are above it."
    )


def of_all(count: int, total: int) -> str:
    """`3 of the 10`, `all 10`, `none of the 10`."""
    if count == total:
        return f"all {total}"
    return f"{count or 'none'} of the {total}"


def twins(records: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Each from-scratch run with the library's run of the same setting."""
    return [
        (ours, theirs)
        for ours in only(records, implementation="scratch")
        for theirs in only(records, method=ours["run"]["method"])
        if theirs is not ours and theirs["run"]["settings"] == ours["run"]["settings"]
    ]


def twin_sentence(pair: tuple[Record, Record], seeds: Sequence[Sequence[Record]]) -> str:
    """How far our run and the library's twin are apart, and whether their rates differ."""
    ours, theirs = pair
    rates = [run["run"]["learning_rate"] for run in pair]
    same = "the same learning rate" if rates[0] == rates[1] else (
        f"other learning rates ({rate(rates[0])} and {rate(rates[1])})"
    )  # fmt: skip
    return (
        f"Our {METHOD_NAMES[ours['run']['method']]} ({percent(ours['best_accuracy'])}%) is "
        f"{versus(ours, theirs)} {IMPLEMENTATION_NAMES[theirs['run']['implementation']]}'s "
        f"({percent(theirs['best_accuracy'])}%) with {setting_name(ours['run'])} and {same}"
        f"{untold(ours, theirs, seeds)}.{means_sentence(pair, seeds)}"
    )


def means_sentence(pair: tuple[Record, Record], seeds: Sequence[Sequence[Record]]) -> str:
    """The means of two runs over the seeds that both were made with; "" where that is one."""
    found = {
        records[0]["run"]["name"]: {r["params"]["seed"]: r["best_accuracy"] for r in records}
        for records in seeds
    }
    ours, theirs = (found.get(record["run"]["name"], {}) for record in pair)
    both = sorted(ours.keys() & theirs.keys())
    if len(both) < 2:
        return ""
    means = [f"{percent(mean(one[seed] for seed in both))}%" for one in (ours, theirs)]
    return f" Over the seeds {listed(list(map(str, both)))} their means are {listed(means)}."


def versus(record: Record, other: Record) -> str:
    """`1.2 points below`, or `0.4 points above`, or `level with`."""
    points = 100 * (record["best_accuracy"] - other["best_accuracy"])
    if round(abs(points), 1) == 0:
        return "level with"
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'}"


def reading(records: Sequence[Record], seeds: Sequence[Sequence[Record]]) -> str:
    """What the runs of one method say, as a list of computed sentences."""
    told = [twin_sentence(pair, seeds) for pair in twins(records)]
    told += [size_sentence(pair, seeds) for pair in sizes(records)]
    return bullets([*told, epochs_sentence(records)])


def sizes(records: Sequence[Record]) -> list[tuple[Record, Record]]:
    """The library's run with fewer trained parameters, and the one with more."""
    library = [r for r in records if r["run"]["implementation"] != "scratch"]
    ordered = sorted(library, key=lambda record: record["parameters"]["trained"])
    return list(pairwise(ordered))


def size_sentence(pair: tuple[Record, Record], seeds: Sequence[Sequence[Record]]) -> str:
    """What more parameters of the same kind bring."""
    few, many = pair
    return (
        f"{IMPLEMENTATION_NAMES[many['run']['implementation']]} with {setting_name(many['run'])} "
        f"({percent(many['best_accuracy'])}%) is {versus(many, few)} the same with "
        f"{setting_name(few['run'])} ({percent(few['best_accuracy'])}%)"
        f"{untold(many, few, seeds)}."
    )


def epochs_sentence(records: Sequence[Record]) -> str:
    """Which epochs were best, and whether a run could have gone on."""
    if one_epoch(records):
        return "With one epoch, the best is the last; more epochs might have given more."
    names = {r["run"]["name"]: run_name(r["run"]).partition(", ")[2] for r in records}
    best = ", ".join(
        f"{r['best_epoch']} of {len(r['history'])}"
        + (f" ({names[r['run']['name']]})" if names[r["run"]["name"]] else "")
        for r in records
    )
    text = f"The best epoch is {best}."
    if any(r["best_epoch"] == len(r["history"]) for r in records):
        text += " Where the last epoch is the best, more epochs might have given more."
    return text


def selection_sentence(records: Sequence[Record]) -> str:
    """What the choice of the best epoch is worth here."""
    if one_epoch(records):
        return "With one epoch the best is the last, and nothing was chosen on the test reviews."
    gains = [100 * (r["best_accuracy"] - r["last_accuracy"]) for r in records]
    return (
        f"Choosing the best epoch on the test reviews lifts a run by {mean(gains):.1f} points on "
        f"average over its last epoch, and by {max(gains):.1f} at most."
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


def prompt_sentence(record: Record, start: float, end: float) -> str:
    """What the learning rate did to the soft prompt's entries, of which these are the RMS."""
    settings, run = record["params"], record["run"]
    steps = record["best_epoch"] * -(-settings["train_examples"] // settings["batch_size"])
    left = (1 - run["learning_rate"] * adamw_default("weight_decay")) ** steps
    return (
        f"In the {number(steps)} steps of this study's run the root mean square of its entries "
        f"went from {start:.2f} to {end:.2f}. The weight decay, which AdamW scales by the rate, "
        f"forgets the start on the way: alone it would have left {percent(left, 2)}% of it."
    )


def adapter_rates(params: Params, exercise: Params) -> str:
    """The two learning rates of adapters: the exercise's, and the study's."""
    ours, theirs = params.adapter_learning_rate, params.adapter_library_learning_rate
    text = (
        "The exercise gives it another learning rate than ours, "
        f"{rate(exercise.adapter_library_learning_rate)} instead of "
        f"{rate(exercise.adapter_learning_rate)}"
    )
    if ours == theirs:
        return f"{text}; in this study both are {rate(ours)}."
    return (
        f"{text}; in this study they are {rate(theirs)} and {rate(ours)}. So the runs with the "
        "same bottleneck differ in more than the implementation."
    )
