"""What the records say, as sentences: computed, so that they hold whatever the numbers are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import mean
from typing import Any

from t5peft.params import Params
from t5peft.show import (
    IMPLEMENTATION_NAMES,
    METHOD_NAMES,
    Record,
    Z,
    bullets,
    gap,
    megabytes,
    number,
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
        f"{versus(record, full)} full fine-tuning's {percent(full['best_accuracy'])}%."
        for record in only(records, implementation="scratch")
        if record["run"]["method"] != "full"
    ]
    return bullets(
        [*items, *map(twin_sentence, twins(records)), seeds_sentence(seeds),
         selection_sentence(records)]
    )  # fmt: skip


def seeds_sentence(seeds: Sequence[Sequence[Record]]) -> str:
    """How far two runs must be apart before their difference says something."""
    if not seeds:
        return (
            "Each number is one run with one seed; how far another seed moves it was not measured, "
            "so that small differences say little."
        )
    return (
        f"Another seed moved a run by up to {max(map(seed_spread, seeds)):.1f} points "
        "(@tbl-seeds): differences that are no larger are not told apart here."
    )


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
        "**A bag of words**, logistic regression on TF-IDF of words and pairs of words, fitted on "
        f"the same {number(settings['train_examples'])} training reviews and cut to the same "
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


def twin_sentence(pair: tuple[Record, Record]) -> str:
    """How far our run and the library's twin are apart, and whether their rates differ."""
    ours, theirs = pair
    rates = [run["run"]["learning_rate"] for run in pair]
    same = "the same learning rate" if rates[0] == rates[1] else (
        f"other learning rates ({rate(rates[0])} and {rate(rates[1])})"
    )  # fmt: skip
    return (
        f"Our {METHOD_NAMES[ours['run']['method']]} ({percent(ours['best_accuracy'])}%) is "
        f"{versus(ours, theirs)} {IMPLEMENTATION_NAMES[theirs['run']['implementation']]}'s "
        f"({percent(theirs['best_accuracy'])}%) with {setting_name(ours['run'])} and {same}."
    )


def versus(record: Record, other: Record) -> str:
    """`1.2 points below`, or `0.4 points above`, or `level with`."""
    points = 100 * (record["best_accuracy"] - other["best_accuracy"])
    if round(abs(points), 1) == 0:
        return "level with"
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'}"


def reading(records: Sequence[Record]) -> str:
    """What the runs of one method say, as a list of computed sentences."""
    return bullets(
        [*map(twin_sentence, twins(records)), *map(size_sentence, sizes(records)),
         epochs_sentence(records)]
    )  # fmt: skip


def sizes(records: Sequence[Record]) -> list[tuple[Record, Record]]:
    """The library's run with fewer trained parameters, and the one with more."""
    library = [r for r in records if r["run"]["implementation"] != "scratch"]
    ordered = sorted(library, key=lambda record: record["parameters"]["trained"])
    return list(pairwise(ordered))


def size_sentence(pair: tuple[Record, Record]) -> str:
    """What more parameters of the same kind bring."""
    few, many = pair
    return (
        f"{IMPLEMENTATION_NAMES[many['run']['implementation']]} with {setting_name(many['run'])} "
        f"({percent(many['best_accuracy'])}%) is {versus(many, few)} itself with "
        f"{setting_name(few['run'])} ({percent(few['best_accuracy'])}%)."
    )


def one_epoch(records: Sequence[Record]) -> bool:
    """Has no run more than one epoch? Then there is none to choose."""
    return all(len(record["history"]) == 1 for record in records)


def epochs_sentence(records: Sequence[Record]) -> str:
    """Which epochs were best, and whether a run could have gone on."""
    if one_epoch(records):
        return "There is one epoch, and so none to choose; more might have given more."
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
        "The peak of the whole training, measured with each method alone in a process, in float32 "
        f"and on the backbone {bench['params']['backbone']} (@tbl-bench), is "
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


def gap_sentence(records: Sequence[Record]) -> str:
    """Claim 3: which way it went, and whether that is more than the draw of the reviews."""
    full = only(records, method="full")[0]
    reference, doubt = last_gap(full)
    others = [last_gap(record) for record in records if record["run"]["method"] != "full"]
    points = [100 * found for found, _ in others]
    doubts = [math.hypot(doubt, its_doubt) for _, its_doubt in others]
    smaller = sum(reference - found > its for (found, _), its in zip(others, doubts, strict=True))
    text = (
        f"After the last epoch the gap between training and test reviews is {100 * reference:+.1f} "
        f"points with full fine-tuning and {min(points):+.1f} to {max(points):+.1f} with a PEFT "
        f"method. If the {number(sample_size(full))} training and {number(full['test_examples'])} "
        "test reviews were drawn anew for each run, the difference of two gaps would be uncertain "
        f"by up to {100 * max(doubts):.1f} points; by more than its uncertainty the gap is smaller "
        f"in {of_all(smaller, len(others))} PEFT runs."
    )
    if one_epoch(records):
        text += (
            " Each review was seen once, which leaves little room for learning it by heart: this "
            "is a weak test of the claim, and the exercise's ten epochs are a stronger one."
        )
    return text


def sample_size(record: Record) -> int:
    """How many training reviews a run's training accuracy is measured on."""
    settings = record["params"]
    return min(settings["train_sample"], settings["train_examples"])


def last_gap(record: Record) -> tuple[float, float]:
    """The gap after the last epoch, and half its 95% interval (of a difference of two shares)."""
    last = record["history"][-1]
    shares = {"train": sample_size(record), "test": record["test_examples"]}
    variances = [
        last[f"{side}_accuracy"] * (1 - last[f"{side}_accuracy"]) / count
        for side, count in shares.items()
    ]
    return gap(record, len(record["history"])), Z * math.sqrt(sum(variances))


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
