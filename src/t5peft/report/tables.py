"""What the runs scored and cost, as tables: from records to Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from statistics import mean

from t5peft.measure import bench as benches
from t5peft.measure.measurements import Bench, Kept, Trial, decay_of
from t5peft.report import show, statistics
from t5peft.report.counts import EXERCISE_SIZE, Checked
from t5peft.report.gaps import split
from t5peft.report.show import METHOD_NAMES, mark, percent, points, run_name, setting_name
from t5peft.report.statistics import Pair
from t5peft.runs.records import Planned, Record

# --- accuracy ------------------------------------------------------------------------------------


def glance(records: Sequence[Record], checked: Iterable[Checked]) -> str:
    """The first page's: the four from-scratch methods in the exercise's model, and their accuracy.

    checked: their counts, in t5-small and in the study's backbone.
    """
    counts = {item.run.name: item.count for item in checked if item.model == EXERCISE_SIZE}
    return show.table(
        (
            {
                "method": METHOD_NAMES[record["run"]["method"]] + mark(record),
                "setting": setting_name(record["run"]["settings"]) or show.DASH,
                "added": f"{counts[record['run']['name']].counted_added:,}",
                "Number of parameters": f"**{counts[record['run']['name']].counted_total:,}**",
                "test accuracy (%)": f"**{percent(record['best_accuracy'])}**",
                "95% interval (%)": percents(record),
            }
            for record in show.only(records, implementation="scratch")
        ),
        left=2,
    )


def percents(record: Record) -> str:
    """The interval of a run's best accuracy, in percent."""
    return show.DASH.join(map(percent, statistics.interval(record)))


def in_order(records: Sequence[Record]) -> list[tuple[Planned, str, dict[str, str]]]:
    """Each run with its mark and its scores, or with dashes where it is missing."""
    stored, lacking = split(records)
    last = show.best_is_last(stored)
    there = [(record, mark(record), score(record, last)) for record in stored]
    dashes = dict.fromkeys(there[0][2] if there else (), show.DASH)
    gone = [(record, " (missing)", dashes) for record in lacking]
    return sorted([*there, *gone], key=lambda each: each[0]["run"]["number"])


def score(record: Record, best_is_last: bool) -> dict[str, str]:
    """A run's best accuracy with its interval and, unless it is that of all runs, the last."""
    head = "test accuracy (%)" if best_is_last else "accuracy, best epoch (%)"
    last = {} if best_is_last else {"accuracy, last epoch (%)": percent(record["last_accuracy"])}
    best = f"**{percent(record['best_accuracy'])}**"
    return {head: best, "95% interval (%)": percents(record), **last}


def ten_results(records: Sequence[Record]) -> str:
    """The exercise's ten numbers in its order, the published reference run beside them."""
    return show.table(
        (
            {
                "run": record["run"]["number"],
                "method": METHOD_NAMES[record["run"]["method"]] + state,
                "implementation": show.implementation(record),
                "setting": setting_name(record["run"]["settings"]) or show.DASH,
                "learning rate": show.rate(record["run"]["learning_rate"]),
                **scored,
                "published (%)": f"{show.reference(record['run']['number']):.1f}",
            }
            for record, state, scored in in_order(records)
        ),
        left=4,
    )


def log(records: Iterable[Record]) -> str:
    """What the runs came to, epoch by epoch."""
    return show.table(
        {
            "run": run_name(record["run"]) + mark(record),
            "epoch": item["epoch"],
            "training loss": f"{item['loss']:.4f}",
            "training reviews (%)": percent(item["train_accuracy"]),
            "test reviews (%)": percent(item["test_accuracy"]),
        }
        for record in records
        for item in record["history"]
    )


def sizes(records: Sequence[Record], checked: Iterable[Checked]) -> str:
    """The runs that a study lists: parameters, derived and counted, and accuracy.

    checked: their counts, the study's own backbone last.
    """
    counts = {item.run.name: item.count for item in checked}
    return show.table(
        {
            "run": run_name(record["run"]) + state,
            "learning rate": show.rate(record["run"]["learning_rate"]),
            "added, derived": f"{counts[record['run']['name']].derived_added:,}",
            "added, counted": f"{counts[record['run']['name']].counted_added:,}",
            **scored,
        }
        for record, state, scored in in_order(records)
    )


def by_size(records: Sequence[Record]) -> str:
    """Best accuracy, a row a method and implementation, a column a size."""
    columns = sorted({show.size_of(record["run"]) for record in records})
    rows = []
    for alike in statistics.groups(records):
        run = alike[0]["run"]
        found = {show.size_of(r["run"]): percent(r["best_accuracy"]) + mark(r) for r in alike}
        row = {f"{size}": found.get(size, show.DASH) for size in columns}
        name, letter = run_name({**run, "settings": {}}), show.SIZES[run["method"]]
        rows.append({"method": name, "size": f"${letter}$", **row})
    return show.table(rows, left=2)


def pairs(found: Iterable[Pair]) -> str:
    """McNemar's test of each two runs that the text compares."""
    return show.table(
        (
            {
                "run": run_name(pair.first["run"]),
                "compared with": run_name(pair.second["run"]),
                "points, 95%": f"{points(statistics.points(pair.first, pair.second))} "
                f"± {statistics.margin(pair):.1f}",
                "first alone": show.number(pair.of_first),
                "second alone": show.number(pair.of_second),
                "p": show.probability(pair.p),
            }
            for pair in found
        ),
        left=2,
    )


# --- the claims ----------------------------------------------------------------------------------


def cost(records: Sequence[Record]) -> str:
    """Claims 1 and 2: the optimizer's state, derived and measured, and the bytes to keep."""
    full = show.only(records, method="full")[0]["stored_bytes"]
    return show.table(
        {
            "run": run_name(record["run"]) + mark(record),
            "trained parameters": show.number(record["parameters"]["trained"]),
            "AdamW, 8 bytes each": show.size(show.ADAMW_BYTES * record["parameters"]["trained"]),
            "AdamW, measured": show.size(record["memory"]["optimizer_bytes"]),
            "peak": f"{record['memory']['peak_bytes'] / 1e6:,.0f} MB",
            "to store": show.size(record["stored_bytes"]),
            "of full": show.share(record["stored_bytes"] / full),
        }
        for record in records
    )


def knowledge(records: Sequence[Record], kept: Kept) -> str:
    """Claim 3: what the runs know of their training reviews, and of their pre-training."""
    rows = []
    for record in records:
        name = record["run"]["name"]
        train, test, _ = statistics.known(record, kept)
        row = {
            "run": run_name(record["run"]) + (mark(record) or mark(kept.get(name, {}))),
            "training reviews (%)": percent(train),
            "test reviews (%)": percent(test),
            "gap (points)": points(statistics.gap_points(record, kept)),
        }
        if kept:
            row["span loss (nats)"] = f"{kept[name]['span_loss']:.2f}"
            row["its rise (nats)"] = show.signed(statistics.rise(kept[name], 2), 2)
        rows.append(row)
    return show.table(rows)


# --- beside the ten runs -------------------------------------------------------------------------


def seeds(several: Iterable[Sequence[Record]]) -> str:
    """The runs that were made with several seeds: accuracy by seed, mean and spread."""
    return show.table(
        (
            {
                "run": run_name(records[0]["run"]),
                "accuracy (seed)": ", ".join(
                    f"{percent(r['best_accuracy'])} ({r['params']['seed']}){mark(r)}"
                    for r in records
                ),
                "mean": percent(mean(record["best_accuracy"] for record in records)),
                "spread (points)": f"{statistics.seed_spread(records):.1f}",
            }
            for records in several
        ),
        left=2,
    )


FALLS = {"none": "constant (%)", "linear": "falling (%)"}


def trials(tried: Sequence[Trial], records: Iterable[Record]) -> str:
    """Held-out accuracy by learning rate, constant or falling; bold where the study took it."""
    used = [(r["run"]["name"], r["run"]["learning_rate"], decay_of(r)) for r in records]
    rows: dict[tuple[str, float], dict[str, str]] = {}
    heads = [FALLS[decay] for decay in dict.fromkeys(map(decay_of, tried))]
    for trial in tried:
        name, rate, decay = trial["run"], trial["learning_rate"], decay_of(trial)
        row = {"method": METHOD_NAMES[trial["method"]], "rate": show.rate(rate)}
        bold = "**" * ((name, rate, decay) in used)
        scored = {FALLS[decay]: f"{bold}{percent(trial['accuracy'])}{bold}{mark(trial)}"}
        rows.setdefault((name, rate), row | dict.fromkeys(heads, show.DASH)).update(scored)
    return show.table(rows.values())


def times(records: Iterable[Record]) -> str:
    """How long each run took."""
    return show.table(
        {
            "run": run_name(record["run"]) + mark(record),
            "training reviews per s": f"{record['speed']['train_examples_per_second']:,.0f}",
            "test reviews per s": f"{record['speed']['test_examples_per_second']:,.0f}",
            "time to train": show.duration(record["speed"]["train_seconds"]),
            "time to test": show.duration(record["speed"]["test_seconds"]),
            "other words (%)": percent(record["history"][-1]["other_words"], 2),
        }
        for record in records
    )


def bench(measured: Iterable[Bench]) -> str:
    """Each side's figures, a row a method and precision: the exercise's first, ours last."""
    rows = []
    for record in measured:
        precision = record["params"]["precision"] + mark(record)
        for method, found in groupby(benches.rows(record), key=itemgetter("method")):
            row = {"method": METHOD_NAMES[method], "in": precision}
            for _, head, *figures in map(dict.values, found):
                *sides, ratio = figures
                row[head] = f"{' / '.join(map(show.three_digits, sides))}: **{ratio:.1f}**"
            rows.append(row)
    return show.table(rows, left=2)
