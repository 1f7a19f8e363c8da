"""What the records say, as sentences: computed, so that they hold whatever the numbers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import mean
from typing import Any

from t5peft.show import (
    IMPLEMENTATION_NAMES,
    METHOD_NAMES,
    Record,
    bullets,
    gap,
    megabytes,
    number,
    only,
    percent,
    rate,
    run_name,
    setting_name,
    wilson,
)


def findings(records: Sequence[Record]) -> str:
    """What the ten results say, as a list of computed sentences."""
    full = only(records, method="full")[0]
    items = [
        f"**{METHOD_NAMES[record['run']['method']]}** trains "
        f"{percent(record['parameters']['trained'] / full['parameters']['trained'], 3)}% as many "
        f"parameters as full fine-tuning and reaches {percent(record['best_accuracy'])}%: "
        f"{versus(record, full)} full fine-tuning's {percent(full['best_accuracy'])}%."
        for record in only(records, implementation="scratch")
        if record["run"]["method"] != "full"
    ]
    return bullets([*items, *map(twin_sentence, twins(records)), selection_sentence(records)])


def baselines_sentence(baselines: Mapping[str, Any], records: Sequence[Record]) -> str:
    """What the runs stand beside: the backbone as it was, and a bag of words."""
    if not baselines:
        return ""
    bag = baselines["bag_of_words_accuracy"]
    above = sum(record["best_accuracy"] > bag for record in records)
    settings = records[0]["params"]
    return (
        f"Two landmarks on the same {number(baselines['test_examples'])} test reviews. **Before "
        "any training** the backbone labels "
        f"{percent(baselines['zero_shot_accuracy'])}% of them right "
        f"({percent(baselines['zero_shot_other_words'])}% of its answers are neither label word). "
        "**A bag of words**, logistic regression on TF-IDF of words and pairs of words, fitted on "
        f"the same {number(settings['train_examples'])} training reviews and cut to the same "
        f"{settings['max_length']} tokens, reaches {percent(bag)}%; {above} of the "
        f"{len(records)} runs are above it."
    )


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
        f"other learning rates, as the exercise wants it ({rate(rates[0])} and {rate(rates[1])})"
    )  # fmt: skip
    return (
        f"Our {METHOD_NAMES[ours['run']['method']]} ({percent(ours['best_accuracy'])}%) is "
        f"{versus(ours, theirs)} {IMPLEMENTATION_NAMES[theirs['run']['implementation']]}'s "
        f"({percent(theirs['best_accuracy'])}%) with {setting_name(ours['run'])} and {same}."
    )


def versus(record: Record, other: Record) -> str:
    """`1.2 points below`, or `0.4 points above`, or `level with`; and whether intervals overlap."""
    points = 100 * (record["best_accuracy"] - other["best_accuracy"])
    if round(abs(points), 1) == 0:
        return "level with"
    low, high = wilson(record["best_accuracy"], record["test_examples"])
    other_low, other_high = wilson(other["best_accuracy"], other["test_examples"])
    overlap = low <= other_high and other_low <= high
    side = "above" if points > 0 else "below"
    return f"{abs(points):.1f} points {side} (intervals {'overlap' if overlap else 'apart'})"


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


def optimizer_sentence(records: Sequence[Record]) -> str:
    """Claim 1, in one sentence."""
    full = only(records, method="full")[0]["memory"]
    others = [record["memory"] for record in records if record["run"]["method"] != "full"]
    state = [memory["optimizer_bytes"] / full["optimizer_bytes"] for memory in others]
    peak = [memory["peak_bytes"] / full["peak_bytes"] for memory in others]
    return (
        f"The optimizer's state of the PEFT runs is {span(state, 3)} of full fine-tuning's; the "
        f"peak of the whole training is {span(peak, 0)} of full fine-tuning's."
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
    """Claim 3, in one sentence that says which way it went."""
    full = only(records, method="full")[0]
    reference = gap(full, len(full["history"]))
    others = [r for r in records if r["run"]["method"] != "full"]
    smaller = [r for r in others if gap(r, len(r["history"])) < reference]
    text = (
        f"After the last epoch full fine-tuning is {100 * reference:.1f} points better on training "
        f"reviews than on test reviews; the gap is smaller in {len(smaller)} of the {len(others)} "
        "PEFT runs."
    )
    if one_epoch(records):
        text += (
            " Each review was seen once, which leaves little room for learning it by heart: this "
            "is a weak test of the claim, and the exercise's ten epochs are a stronger one."
        )
    return text
