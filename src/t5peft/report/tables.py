"""What the runs scored and cost, as tables: from records to Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import mean

from t5peft.measure.measurements import Bench, Kept, Trial
from t5peft.report import speed
from t5peft.report.counts import EXERCISE_SIZE, Checked
from t5peft.report.show import (
    ADAMW_BYTES,
    DASH,
    MEGABYTE,
    METHOD_NAMES,
    duration,
    implementation,
    mark,
    number,
    one_epoch,
    only,
    percent,
    points,
    probability,
    rate,
    reference,
    run_name,
    setting_name,
    share,
    size,
    table,
    three_digits,
)
from t5peft.report.statistics import Pair, gap_points, interval, known, rise, seed_spread
from t5peft.report.statistics import points as apart
from t5peft.runs.records import Incomplete, Planned, Record

MISSING = " (missing)"


# --- accuracy ------------------------------------------------------------------------------------


def glance(records: Sequence[Record], checked: Iterable[Checked]) -> str:
    """The first page's: the four from-scratch methods in the exercise's model, and their accuracy.

    checked: their counts, in t5-small and in the study's backbone.
    """
    counts = {item.run.name: item.count for item in checked if item.model == EXERCISE_SIZE}
    rows = [
        (
            METHOD_NAMES[record["run"]["method"]] + mark(record),
            setting_name(record["run"]["settings"]) or DASH,
            f"{counts[record['run']['name']].counted_added:,}",
            f"**{counts[record['run']['name']].counted_total:,}**",
            f"**{percent(record['best_accuracy'])}**",
            percents(record),
        )
        for record in only(records, implementation="scratch")
    ]
    head = ("method", "setting", "added", "Number of parameters", "test accuracy (%)",
            "95% interval (%)")  # fmt: skip
    return table(rows, head, left=2)


def percents(record: Record) -> str:
    """The interval of a run's best accuracy, in percent."""
    low, high = interval(record)
    return f"{percent(low)}{DASH}{percent(high)}"


def parts(records: Sequence[Record]) -> tuple[Sequence[Record], Sequence[Planned]]:
    """The records that are stored, and what is known of the others."""
    if isinstance(records, Incomplete):
        return records.stored, records.lacking
    return records, ()


def in_order(records: Sequence[Record]) -> list[tuple[Planned, str, list[str]]]:
    """Each run with its mark and its scores, or with dashes where it is missing."""
    stored, lacking = parts(records)
    every: list[tuple[Planned, str, list[str]]]
    every = [(record, mark(record), score(record, stored)) for record in stored]
    every += [(record, MISSING, [DASH] * len(score_heads(stored))) for record in lacking]
    return sorted(every, key=lambda each: each[0]["run"]["number"])


def score(record: Record, records: Iterable[Record]) -> list[str]:
    """A run's best accuracy with its interval, and beside it, of several epochs, the last."""
    cells = [f"**{percent(record['best_accuracy'])}**", percents(record)]
    return cells if one_epoch(records) else [*cells, percent(record["last_accuracy"])]


def score_heads(records: Iterable[Record]) -> list[str]:
    """The heads of the columns that `score` fills."""
    if one_epoch(records):
        return ["test accuracy (%)", "95% interval (%)"]
    return ["accuracy, best epoch (%)", "95% interval (%)", "accuracy, last epoch (%)"]


def heads(records: Sequence[Record]) -> list[str]:
    """The same of those that are stored."""
    return score_heads(parts(records)[0])


def ten_results(records: Sequence[Record]) -> str:
    """The exercise's ten numbers in its order, the published reference run beside them."""
    rows = [
        (
            record["run"]["number"],
            METHOD_NAMES[record["run"]["method"]] + state,
            implementation(record),
            setting_name(record["run"]["settings"]) or DASH,
            rate(record["run"]["learning_rate"]),
            *scored,
            f"{reference(record['run']['number']):.1f}",
        )
        for record, state, scored in in_order(records)
    ]
    head = ("run", "method", "implementation", "setting", "learning rate", *heads(records),
            "published (%)")  # fmt: skip
    return table(rows, head, left=4)


def log(records: Iterable[Record]) -> str:
    """What the runs came to, epoch by epoch."""
    rows = [
        (
            run_name(record["run"]) + mark(record),
            item["epoch"],
            f"{item['loss']:.4f}",
            percent(item["train_accuracy"]),
            percent(item["test_accuracy"]),
        )
        for record in records
        for item in record["history"]
    ]
    head = ("run", "epoch", "training loss", "training reviews (%)", "test reviews (%)")
    return table(rows, head)


def sizes(records: Sequence[Record], checked: Iterable[Checked]) -> str:
    """The runs that a study lists: parameters, derived and counted, and accuracy.

    checked: their counts, the study's own backbone last.
    """
    counts = {item.run.name: item.count for item in checked}
    rows = [
        (
            run_name(record["run"]) + state,
            rate(record["run"]["learning_rate"]),
            f"{counts[record['run']['name']].derived_added:,}",
            f"{counts[record['run']['name']].counted_added:,}",
            *scored,
        )
        for record, state, scored in in_order(records)
    ]
    return table(
        rows, ("run", "learning rate", "added, derived", "added, counted", *heads(records))
    )


def pairs(found: Iterable[Pair]) -> str:
    """McNemar's test of each two runs that the text compares."""
    rows = [
        (
            run_name(pair.first["run"]),
            run_name(pair.second["run"]),
            points(apart(pair.first, pair.second)),
            number(pair.only_first),
            number(pair.only_second),
            probability(pair.p),
        )
        for pair in found
    ]
    head = ("run", "compared with", "points", "first alone", "second alone", "p")
    return table(rows, head, left=2)


# --- the claims ----------------------------------------------------------------------------------


def cost(records: Sequence[Record]) -> str:
    """Claims 1 and 2: the optimizer's state, derived and measured, and the bytes to keep."""
    full = only(records, method="full")[0]["stored_bytes"]
    rows = [
        (
            run_name(record["run"]) + mark(record),
            number(record["parameters"]["trained"]),
            size(ADAMW_BYTES * record["parameters"]["trained"]),
            size(record["memory"]["optimizer_bytes"]),
            f"{record['memory']['peak_bytes'] / MEGABYTE:,.0f} MB",
            size(record["stored_bytes"]),
            share(record["stored_bytes"] / full),
        )
        for record in records
    ]
    head = ("run", "trained parameters", "AdamW, 8 bytes each", "AdamW, measured", "peak",
            "to store", "of full")  # fmt: skip
    return table(rows, head)


def knowledge(records: Sequence[Record], kept: Kept) -> str:
    """Claim 3: what the runs know of their training reviews, and of their pre-training."""
    rows = []
    for record in records:
        name = record["run"]["name"]
        train, test, _ = known(record, kept)
        cells = [percent(train), percent(test), points(gap_points(record, kept))]
        if kept:
            cells += [f"{kept[name]['span_loss']:.2f}", f"{rise(kept[name], 2):+.2f}"]
        rows.append((run_name(record["run"]) + (mark(record) or mark(kept.get(name, {}))), *cells))
    head = ["run", "training reviews (%)", "test reviews (%)", "gap (points)"]
    return table(rows, head + ["span loss (nats)", "its rise (nats)"] * bool(kept))


# --- beside the ten runs -------------------------------------------------------------------------


def seeds(several: Iterable[Sequence[Record]]) -> str:
    """The runs that were made with several seeds: accuracy by seed, mean and spread."""
    rows = [
        (
            run_name(records[0]["run"]),
            ", ".join(
                f"{percent(record['best_accuracy'])} ({record['params']['seed']}){mark(record)}"
                for record in records
            ),
            percent(mean(record["best_accuracy"] for record in records)),
            f"{seed_spread(records):.1f}",
        )
        for records in several
    ]
    head = ("run", "accuracy (seed)", "mean", "spread (points)")
    return table(rows, head, left=2)


def two_rates(records: Iterable[Record], others: Iterable[Record]) -> str:
    """The runs of another study of the same backbone beside the study's: rate and accuracy."""
    own = {record["run"]["name"]: record for record in records}
    rows = [
        (
            run_name(other["run"]) + mark(other),
            *(
                cell
                for record in (other, own[other["run"]["name"]])
                for cell in (
                    rate(record["run"]["learning_rate"]),
                    percent(record["best_accuracy"]),
                )
            ),
        )
        for other in others
        if other["run"]["name"] in own
    ]
    return table(rows, ("run", "exercise's rate", "accuracy (%)", "rate here", "accuracy (%)"))


def trials(tried: Sequence[Trial], records: Iterable[Record]) -> str:
    """Held-out accuracy by learning rate; bold where the study took it."""
    used = {record["run"]["name"]: record["run"]["learning_rate"] for record in records}
    rows = []
    for trial in tried:
        bold = "**" * (used.get(trial["run"]) == trial["learning_rate"])
        rows.append(
            (
                METHOD_NAMES[trial["method"]] + mark(trial),
                rate(trial["learning_rate"]),
                f"{trial['loss']:.3f}",
                f"{bold}{percent(trial['accuracy'])}{bold}",
            )
        )
    return table(rows, ("method", "learning rate", "training loss", "held out (%)"))


def times(records: Iterable[Record]) -> str:
    """How long each run took."""
    rows = [
        (
            run_name(record["run"]) + mark(record),
            f"{record['speed']['train_examples_per_second']:,.0f}",
            f"{record['speed']['test_examples_per_second']:,.0f}",
            duration(record["speed"]["train_seconds"]),
            duration(record["speed"]["test_seconds"]),
            percent(record["history"][-1]["other_words"], 2),
        )
        for record in records
    ]
    head = ("run", "training (reviews/s)", "testing (reviews/s)", "time to train", "time to test",
            "other words (%)")  # fmt: skip
    return table(rows, head)


def bench(measured: Iterable[Bench]) -> str:
    """Each side's figures, a row a method and precision: the exercise's first, ours last."""
    rows = []
    for record in measured:
        compared: dict[str, list[str]] = {}
        for method, _, *figures in speed.rows(record):
            *sides, ratio = map(three_digits, figures)
            compared.setdefault(method, []).append(f"{' / '.join(sides)}: **{ratio}**")
        precision = record["params"]["precision"] + mark(record)
        rows += [(METHOD_NAMES[method], precision, *cells) for method, cells in compared.items()]
    head = ("method", "ours in", "training step (s)", "all test reviews (s)", "whole epoch (s)",
            "peak memory (MB)")  # fmt: skip
    return table(rows, head, left=2)
