"""The clauses whose verdict depends on the numbers, verdict first; the chapters have the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations

from t5peft.measure.measurements import Kept, Trial, decay_of
from t5peft.report import show, statistics
from t5peft.report.show import METHOD_NAMES, listed, points, run_name, setting_name
from t5peft.report.statistics import Pair
from t5peft.runs.records import Record


def of_all(count: int, total: int) -> str:
    """`3 of the 10`, `all 10`, `none of the 10`."""
    return f"all {total}" if count == total else f"{count or 'none'} of the {total}"


# --- accuracy ------------------------------------------------------------------------------------


def versus(record: Record, other: Record, what: str, pairs: Iterable[Pair] = ()) -> str:
    """`1.0 points below` or `level with` what the other is, and McNemar's p where it was tested."""
    difference = statistics.points(record, other)
    way = "above" if difference > 0 else "below"
    text = f"{abs(difference):.1f} points {way} {what}" if difference else f"level with {what}"
    names = {record["run"]["name"], other["run"]["name"]}
    for pair in pairs:
        if {pair.first["run"]["name"], pair.second["run"]["name"]} == names:
            p = show.probability(pair.p)
            text += f" (p {p if p.startswith('<') else f'= {p}'})"
    return text


def alike(pairs: Iterable[Pair], seeds: Iterable[Sequence[Record]] = ()) -> str:
    """How many of the from-scratch runs differ from the libraries', by less than seeds do?"""
    apart = {alike[0]["run"]["name"]: statistics.seed_spread(alike) for alike in seeds}
    found = [pair for pair in pairs if statistics.twins([pair.first, pair.second])]
    if not found:
        return "nothing is known of the from-scratch runs, whose answers are not stored"
    differ = []
    for pair in (pair for pair in found if pair.differ):
        by = statistics.points(pair.first, pair.second)
        most = apart.get(pair.first["run"]["name"], 0.0)
        less = f", less than its seeds lie apart, {most:.1f}" if abs(by) < most else ""
        differ.append(f"{METHOD_NAMES[pair.first['run']['method']]} {points(by)} points{less}")
    do = "differs from the library's" if len(differ) == 1 else "differ from the libraries'"
    told = f" ({'; '.join(differ)})" if differ else ""
    return f"{of_all(len(differ), len(found))} from-scratch runs {do}{told}"


def method_results(records: Sequence[Record], full: Record | None, pairs: Iterable[Pair]) -> str:
    """Ours against full fine-tuning, its twin against ours, the small setting against the large."""
    (ours,) = show.only(records, implementation="scratch")
    setting = setting_name(ours["run"]["settings"])
    text = f"Ours reaches {show.percent(ours['best_accuracy'])}% with {setting}"
    if full:
        text += f", {versus(ours, full, 'full fine-tuning', pairs)}"
    for _, twin in statistics.twins(records):
        text += f"; the library's is {versus(twin, ours, 'ours', pairs)}"
    for many, few in statistics.sizes(records):
        small, large = (setting_name(one["run"]["settings"]) for one in (few, many))
        told = versus(few, many, f"its own with {large}", pairs)
        text += f". With {small} the library's run is {told}"
    return f"{text}."


def by_method(
    records: Iterable[Record],
    value: Callable[[Record], float],
    told: Callable[[float], str] = points,
) -> str:
    """A value of each record, as a range of each method: `adapter +0.1 to +0.6 and LoRA +0.2`."""
    found = of_methods(records, value).items()
    return listed([f"{name} {show.span(values, told)}" for name, values in found])


def of_methods(
    records: Iterable[Record], value: Callable[[Record], float]
) -> dict[str, list[float]]:
    """A value of each record, by the name of its method."""
    found: dict[str, list[float]] = {}
    for record in records:
        found.setdefault(METHOD_NAMES[record["run"]["method"]], []).append(value(record))
    return found


def overlap(records: Iterable[Record]) -> str:
    """`; the seeds do not tell adapter from LoRA`: methods whose ranges meet; "" where none do."""
    ranges = of_methods(records, statistics.percent).items()
    meet = [
        f"{one} from {other}"
        for (one, a), (other, b) in combinations(ranges, 2)
        if min(a) <= max(b) and min(b) <= max(a)
    ]
    return f"; the seeds do not tell {listed(meet)}" if meet else ""


def epochs(count: int) -> str:
    """`one epoch`, `10 epochs`."""
    return "one epoch" if count == 1 else f"{count} epochs"


def silent(records: Iterable[Record]) -> str:
    """Which runs wrote no label word to any test review; "" where all did."""
    names = [
        run_name(record["run"])
        for record in records
        if record["history"][record["best_epoch"] - 1]["other_words"] == 1
    ]
    return f"**No label word** was written by {listed(names)}: not learned." if names else ""


def gains(records: Iterable[Record]) -> str:
    """How far each kind's largest run is from its smallest, as a clause each."""
    told = [
        f"{run_name(many['run'])} is {versus(many, few, setting_name(few['run']['settings']))}, "
        f"for {many['parameters']['trained'] / few['parameters']['trained']:.3g} times the "
        "parameters"
        for few, *_, many in (alike for alike in statistics.groups(records) if len(alike) > 1)
    ]
    return f"The largest beside the smallest: {'; '.join(told)}." if told else ""


# --- the claims ----------------------------------------------------------------------------------


def shares(records: Iterable[Record], held: Callable[[Record], float]) -> list[float]:
    """What each PEFT run holds, bytes of a kind, as a share of the first's, full fine-tuning's."""
    full, *peft = records
    return [held(record) / held(full) for record in peft]


def at_most(shares: Iterable[float]) -> str:
    """`yes, at most 0.9%`, or `no, up to 104%`."""
    most = max(shares)
    return f"{'yes, at most' if most < 1 else 'no, up to'} {show.share(most)}"


def forgetting(records: Iterable[Record], kept: Kept) -> str:
    """With which methods PEFT, its addition in place, forgets less than full fine-tuning."""
    if not kept:
        return "not measured"
    rises = {name: statistics.rise(measured) for name, measured in kept.items()}
    less: dict[str, set[bool]] = {}
    for run in (record["run"] for record in records if record["run"]["name"] != "full"):
        less.setdefault(METHOD_NAMES[run["method"]], set()).add(rises[run["name"]] < rises["full"])
    words = {"less with": {True}, "in part less with": {True, False}, "not less with": {False}}
    named = {
        word: [name for name, x in less.items() if x == these] for word, these in words.items()
    }
    return ", ".join(f"{word} {listed(names)}" for word, names in named.items() if names)


def overfitting(gaps: Sequence[Pair]) -> str:
    """Does PEFT learn less of its training reviews by heart than full fine-tuning?"""
    total, smaller = len(gaps), [pair for pair in gaps if pair.of_second < pair.of_first]
    beyond = sum(pair.differ for pair in smaller)
    verdict = "not shown" if not beyond else "yes" if beyond == total else "in part"
    first = "" if len(smaller) == beyond else f"in {of_all(len(smaller), total)} PEFT runs, "
    runs = "" if first else " PEFT runs"
    return f"{verdict}, the gap is smaller {first}beyond chance in {of_all(beyond, total)}{runs}"


def more_epochs(longer: Sequence[Record], best: Sequence[Pair], last: Sequence[Pair]) -> str:
    """The same of a study of more epochs, after the best and after the last; "" for none."""
    if not longer:
        return ""
    study, settings = longer[0]["study"], longer[0]["params"]
    return (
        f" In {epochs(settings['epochs'])} over {settings['train_examples']:,} reviews (study "
        f"“{study}”), after the best one: {overfitting(best)}; after the last: {overfitting(last)}."
    )


def gap_range(records: Iterable[Record], kept: Kept) -> str:
    """`-0.3 to +0.8`, the gaps in percentage points."""
    return show.span([statistics.gap_points(record, kept) for record in records], points)


# --- beside the ten runs -------------------------------------------------------------------------


def falling(tried: Iterable[Trial]) -> str:
    """Whether a method's best trial has a rate that falls; "" where none did."""
    best: dict[str, dict[str, float]] = {}
    for trial in tried:
        of_method, decay = best.setdefault(trial["method"], {}), decay_of(trial)
        of_method[decay] = max(of_method.get(decay, 0.0), round(100 * trial["accuracy"], 1))
    gained = [found["linear"] - found["none"] for found in best.values() if len(found) == 2]
    if not gained:
        return ""
    better = of_all(sum(each > 0 for each in gained), len(gained))
    return (
        f"A rate that falls to 0 is better in {better} methods, each at its best rate "
        f"({listed([points(each) for each in gained])} points)."
    )
