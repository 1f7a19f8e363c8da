"""What the records say, as sentences: computed, so that they hold whatever the numbers are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise
from math import comb
from statistics import mean

from t5peft.base.studies import Study
from t5peft.measure.measurements import Baselines
from t5peft.methods.table import EXERCISE
from t5peft.report.show import (
    ALPHA,
    IMPLEMENTATION_NAMES,
    METHOD_NAMES,
    adamw_default,
    bullets,
    groups,
    listed,
    mark,
    number,
    one_epoch,
    only,
    percent,
    rate,
    run_name,
    setting_name,
)
from t5peft.report.statistics import apart, ranges_apart, seed_spreads, shared_seeds
from t5peft.runs.records import Record, Stored


def findings(records: Sequence[Record], seeds: Sequence[Sequence[Record]]) -> str:
    """What the ten results say, as a list of computed sentences; seeds: as `evidence.seeds` has."""
    full = only(records, method="full")[0]
    items = [
        f"Our **{METHOD_NAMES[record['run']['method']]}** trains "
        f"{percent(record['parameters']['trained'] / record['parameters']['total'], 3)}% of the "
        f"parameters and reaches {percent(record['best_accuracy'])}%: "
        f"{versus(record, full)} full fine-tuning's {percent(full['best_accuracy'])}%"
        f"{beside(record, full, seeds)}."
        for record in only(records, implementation="scratch")
        if record["run"]["method"] != "full"
    ]
    told = [twin_sentence(pair, seeds) for pair in twins(records)]
    silent = filter(None, [silent_sentence(records)])
    return bullets([*items, *told, *silent, seeds_sentence(seeds), selection_sentence(records)])


def is_silent(record: Record) -> bool:
    """Did it write no label word at all, at its best epoch?"""
    return record["history"][record["best_epoch"] - 1]["other_words"] == 1


def silent_sentence(records: Sequence[Record]) -> str:
    """Which runs have not learned what to write; "" where all have."""
    names = [run_name(record["run"]) for record in records if is_silent(record)]
    if not names:
        return ""
    return (
        f"**{of_all(len(names), len(records)).capitalize()} runs wrote no label word** to any test "
        f"review, and so have not learned the task: {'; '.join(names)}."
    )


def seeds_sentence(seeds: Sequence[Sequence[Record]]) -> str:
    """How far two runs must be apart before their difference says something."""
    if not seeds:
        return (
            "Each number is one run with one seed; how far another seed moves it was not measured, "
            "so that small differences say little."
        )
    most = seed_spreads(seeds)
    moved = listed(
        [f"{METHOD_NAMES[method]} by up to {points:.1f} points" for method, points in most.items()]
    )
    single = [METHOD_NAMES[method] for method in EXERCISE if method not in most]
    text = f"Another seed moved {moved} (@tbl-seeds)"
    text += f"; {listed(single)} had one seed. " if single else ". "
    text += (
        "Two runs with the same several seeds are told apart where their ranges do not "
        "overlap, others where they differ by more than another seed moved their methods' runs. "
        "That is a rule of thumb"
    )
    pairs = combinations([records[0] for records in seeds], 2)
    if shared := {len(both[0]) for pair in pairs if (both := shared_seeds(*pair, seeds))}:
        text += ": between runs that are alike, chance alone sets the ranges apart in "
        text += chance_apart(shared)
    return f"{text}."


def chance_apart(counts: Iterable[int]) -> str:
    """How often 2 x k draws alike fall into two halves without overlap: `10% with 3 seeds each`."""
    each = [f"{percent(2 / comb(2 * k, k), 0)}% with {k} seeds each" for k in sorted(counts)]
    return listed(each)


def beside(record: Record, other: Record, seeds: Sequence[Sequence[Record]]) -> str:
    """What other seeds say of two runs' difference, as the end of a sentence."""
    if both := shared_seeds(record, other, seeds):
        means = listed([f"{percent(mean(found))}%" for found in both])
        return f"; over {len(both[0])} seeds the means are {means}, and the ranges {ranges(*both)}"
    equal = versus(record, other) in (LEVEL, NEITHER)
    return "" if equal or apart(record, other, seeds) else ", within the spread between seeds"


def ranges(some: Sequence[float], others: Sequence[float]) -> str:
    """The same in words: `are apart` or `overlap`."""
    return "are apart" if ranges_apart(some, others) else "overlap"


def baselines_sentence(baselines: Baselines | None, records: Sequence[Record]) -> str:
    """What the runs stand beside: the backbone as it was, and a bag of words."""
    if not baselines:
        return ""
    bag = baselines["bag_of_words_accuracy"]
    above = sum(record["best_accuracy"] > bag for record in records)
    settings = records[0]["params"]
    return (
        f"Two landmarks{mark(baselines)} on the same {number(baselines['test_examples'])} test "
        "reviews. **Before fine-tuning** the backbone labels "
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
        f"({percent(theirs['best_accuracy'])}%) with {setting_name(ours['run']['settings'])} and "
        f"{same}"
        f"{beside(ours, theirs, seeds)}."
    )


LEVEL = "level with"
NEITHER = "not to be compared with"


def versus(record: Record, other: Record) -> str:
    """`1.2 points below`, or `0.4 points above`, or `level with`; where one is silent, neither."""
    if is_silent(record) or is_silent(other):
        return NEITHER
    points = 100 * (record["best_accuracy"] - other["best_accuracy"])
    if round(abs(points), 1) == 0:
        return LEVEL
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'}"


def reading(records: Sequence[Record], seeds: Sequence[Sequence[Record]]) -> str:
    """What the runs of one method say, as a list of computed sentences."""
    told = [twin_sentence(pair, seeds) for pair in twins(records)]
    told += [size_sentence(pair, seeds) for pair in sizes(records)]
    return bullets([*told, epochs_sentence(records)])


def more_parameters(records: Sequence[Record], seeds: Sequence[Sequence[Record]]) -> str:
    """What more parameters of the same kind bring, by method."""
    pairs = [pair for method in EXERCISE for pair in sizes(only(records, method=method))]
    return bullets(size_sentence(pair, seeds) for pair in pairs)


def over_size(records: Sequence[Record]) -> str:
    """What the largest run of each method and implementation is above its smallest."""
    told = []
    for alike in groups(records):
        few, many = alike[0], alike[-1]
        factor = many["parameters"]["trained"] / few["parameters"]["trained"]
        if factor > 1:
            told.append(
                f"{run_name(many['run'])} ({percent(many['best_accuracy'])}%) is "
                f"{versus(many, few)} the same with {setting_name(few['run']['settings'])} "
                f"({percent(few['best_accuracy'])}%), for {factor:.3g} times the parameters."
            )
    return bullets(told)


def sizes(records: Sequence[Record]) -> list[tuple[Record, Record]]:
    """The library's run with fewer trained parameters, and the one with more."""
    library = [r for r in records if r["run"]["implementation"] != "scratch"]
    ordered = sorted(library, key=lambda record: record["parameters"]["trained"])
    return list(pairwise(ordered))


def size_sentence(pair: tuple[Record, Record], seeds: Sequence[Sequence[Record]]) -> str:
    """What more parameters of the same kind bring."""
    few, many = pair
    factors = [run["run"]["settings"] for run in pair if "alpha" in run["run"]["settings"]]
    both = " and ".join(f"{x['alpha'] / x['rank']:g}" for x in reversed(factors))
    return (
        f"{IMPLEMENTATION_NAMES[many['run']['implementation']]} with "
        f"{setting_name(many['run']['settings'])} "
        f"({percent(many['best_accuracy'])}%) is {versus(many, few)} the same with "
        f"{setting_name(few['run']['settings'])} ({percent(few['best_accuracy'])}%)"
        f"{beside(many, few, seeds)}{f'; the factor {ALPHA} / r is {both}' if both else ''}."
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
        f"The best epoch, chosen on the test reviews, is {mean(gains):.1f} points above the last "
        f"on average, and {max(gains):.1f} at most. A part of that is the luck of the choice "
        "(@sec-task), the rest what a run lost after its best epoch, by chance or by overfitting."
    )


def prompt_sentence(record: Stored, start: float | None, end: float) -> str:
    """What the learning rate did to the soft prompt's entries, of which these are the RMS."""
    if start is None:
        return (
            f"The root mean square of its entries ended at {end:.2f}; where it started is not "
            "known here, as the backbone is not on this machine."
        )
    settings, run = record["params"], record["run"]
    steps = record["best_epoch"] * -(-settings["train_examples"] // settings["batch_size"])
    left = (1 - run["learning_rate"] * adamw_default("weight_decay")) ** steps
    return (
        f"In the {number(steps)} steps of this study's run the root mean square of its entries "
        f"went from {start:.2f} to {end:.2f}. The weight decay, which AdamW scales by the rate, "
        f"would alone have shrunk the start to {percent(left, 2)}% of its size."
    )


def adapter_rates(study: Study, exercise: Study) -> str:
    """The two learning rates of adapters: the exercise's, and the study's."""
    ours, theirs = study.adapter_learning_rate, study.adapter_library_learning_rate
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
