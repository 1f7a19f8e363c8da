"""What the runs scored and cost, as tables: from records to Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from t5peft.measure.measurements import Kept
from t5peft.report.counts import Checked
from t5peft.report.overfitting import points
from t5peft.report.show import (
    ADAMW_BYTES,
    DASH,
    MEGABYTE,
    METHOD_NAMES,
    REFERENCE,
    duration,
    implementation,
    interval,
    kilobytes,
    mark,
    marks,
    megabytes,
    one_epoch,
    only,
    percent,
    rate,
    run_name,
    setting_name,
    table,
)
from t5peft.report.statistics import best_gap, epoch, gap, rise
from t5peft.runs.records import Incomplete, Planned, Record


def results(records: Sequence[Record]) -> str:
    """The runs of one method."""
    stored, lacking = parts(records)
    rows = [
        (
            *names(record, mark(record)),
            f"{record['parameters']['trained']:,}",
            f"{record['parameters']['total']:,}",
            *score(record, stored),
        )
        for record in stored
    ]
    rows += [names(record, MISSING) for record in lacking]
    head = ("implementation", "setting", "learning rate", "trained parameters", "all parameters",
            *score_heads(stored))  # fmt: skip
    return table(rows, head, left=2)


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
    heads = score_heads(parts(records)[0])
    return table(rows, ("run", "learning rate", "added, derived", "added, counted", *heads))


MISSING = " (missing)"


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


def names(record: Planned, state: str) -> tuple[str, ...]:
    """A run's implementation, setting and learning rate."""
    run = record["run"]
    setting = setting_name(run["settings"]) or DASH
    return implementation(record) + state, setting, rate(run["learning_rate"])


def score(record: Record, records: Iterable[Record]) -> list[str]:
    """A run's best accuracy with its interval, and beside it, of several epochs, the last."""
    cells = [f"**{percent(record['best_accuracy'])}**", interval(record)]
    return cells if one_epoch(records) else [*cells, percent(record["last_accuracy"])]


def score_heads(records: Iterable[Record]) -> list[str]:
    """The heads of the columns that `score` fills."""
    if one_epoch(records):
        return ["test accuracy (%)", "95% interval (%)"]
    return ["accuracy, best epoch (%)", "95% interval (%)", "accuracy, last epoch (%)"]


def ten_results(records: Sequence[Record]) -> str:
    """The exercise's ten numbers in its order, the published reference run beside them."""
    rows = [
        (
            record["run"]["number"],
            METHOD_NAMES[record["run"]["method"]] + state,
            *names(record, ""),
            *scored,
            f"{REFERENCE.accuracy[record['run']['number'] - 1]:.1f}",
        )
        for record, state, scored in in_order(records)
    ]
    heads = score_heads(parts(records)[0])
    head = ("run", "method", "implementation", "setting", "learning rate", *heads,
            "published reference (%)")  # fmt: skip
    return table(rows, head, left=4)


def glance(records: Iterable[Record], seeds: Iterable[Sequence[Record]]) -> str:
    """The first page's: the four from-scratch methods in one line each.

    seeds: of runs that are stored with several seeds, all their records, the study's own first.
    """
    others = {
        own["run"]["name"]: [percent(x["best_accuracy"]) for x in rest] for own, *rest in seeds
    }
    rows = [
        (
            METHOD_NAMES[record["run"]["method"]] + mark(record),
            f"{record['parameters']['trained']:,}",
            percent(record["parameters"]["trained"] / record["parameters"]["total"], 3),
            kilobytes(record["stored_bytes"]),
            f"**{percent(record['best_accuracy'])}**",
            interval(record),
            ", ".join(others.get(record["run"]["name"], [])) or DASH,
        )
        for record in only(records, implementation="scratch")
    ]
    head = ("method", "trained parameters", "share trained (%)", "to store (kB)",
            "test accuracy (%)", "95% interval (%)", "other seeds (%)")  # fmt: skip
    return table(rows, head)


def memory(records: Sequence[Record]) -> str:
    """Claim 1: the optimizer's state, derived and measured, and the peak of the training."""
    rows = [
        (
            run_name(record["run"]) + mark(record),
            f"{record['parameters']['trained']:,}",
            megabytes(ADAMW_BYTES * record["parameters"]["trained"]),
            megabytes(record["memory"]["optimizer_bytes"]),
            f"{record['memory']['peak_bytes'] / MEGABYTE:,.0f}",
        )
        for record in records
    ]
    head = ("run", "trained parameters", "8 bytes each (MB)", "AdamW state, measured (MB)",
            "peak of training (MB)")  # fmt: skip
    return table(rows, head)


def storage(records: Sequence[Record]) -> str:
    """Claim 2: the bytes that one more task costs on a disk."""
    full = only(records, method="full")[0]["stored_bytes"]
    rows = [
        (
            run_name(record["run"]) + mark(record),
            f"{record['parameters']['trained']:,}",
            kilobytes(record["stored_bytes"]),
            percent(record["stored_bytes"] / full, 3),
            f"{full / record['stored_bytes']:,.0f}",
        )
        for record in records
    ]
    head = (
        "run",
        "trained parameters",
        "to store (kB)",
        "of full (%)",
        "tasks in the space of one",
    )
    return table(rows, head)


def gaps(records: Sequence[Record]) -> str:
    """Claim 3: train minus test accuracy, in percentage points."""
    rows = [
        (
            run_name(record["run"]) + mark(record),
            record["best_epoch"],
            *gap_cells(record, record["best_epoch"]),
            *gap_cells(record, len(record["history"])),
        )
        for record in records
    ]
    parts = ("train (%)", "test (%)", "gap (points)")
    if one_epoch(records):
        return table([(row[0], *row[2:5]) for row in rows], ("run", *parts))
    head = [f"{which}: {part}" for which in ("best", "last") for part in parts]
    return table(rows, ("run", "best epoch", *head))


def gap_cells(record: Record, number: int) -> tuple[str, str, str]:
    """Accuracy on training and on test reviews after an epoch, and the gap."""
    found = epoch(record, number)
    train, test = found["train_accuracy"], found["test_accuracy"]
    return percent(train), percent(test), points(gap(record, number))


def retention(records: Iterable[Record], kept: Kept) -> str:
    """Claim 3 by `t5peft retention`: training reviews known, and the span loss afterwards."""
    rows, marked = [], dict(zip(kept, marks([*kept.values()])[1], strict=True))
    for record in records:
        measured = kept[record["run"]["name"]]
        gap_found, _ = best_gap(measured, record)
        rows.append(
            (
                run_name(record["run"]) + (mark(record) or marked[record["run"]["name"]]),
                percent(measured["train_accuracy"]),
                percent(measured["test_accuracy"]),
                points(gap_found),
                f"{measured['span_loss']:.3f}",
                f"{rise(measured):+.3f}",
            )
        )
    head = ("run", "training reviews (%)", "test reviews (%)", "gap (points)",
            "span loss (nats)", "its rise (nats)")  # fmt: skip
    return table(rows, head)


def speed(records: Iterable[Record]) -> str:
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
