"""Plots of the report: from records to matplotlib figures, in the style of `drawings`.

A method has its marker and colour everywhere; filled marks are ours, hollow ones the library's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from sklearn.isotonic import isotonic_regression

from t5peft.methods.table import EXERCISE, LETTER, METHODS
from t5peft.report import show, statistics
from t5peft.report.drawings import FAINT, INK, WIDTH
from t5peft.runs.records import Record

MARKERS = {"full": "o", "soft-prompt": "s", "adapter": "^", "lora": "D", "ia3": "v"}
COLOURS = {
    "full": "#222222",
    "soft-prompt": "#b5651d",
    "adapter": "#1f6f8b",
    "lora": "#7b2d5e",
    "ia3": "#5b7a1f",
}
"""Told apart by hue, by darkness in print, and by the marker where there is none of either."""


def filled(record: Record) -> bool:
    """Is it a run of ours? Its mark is filled, and drawn last."""
    return record["run"]["implementation"] == "scratch"


def look(record: Record) -> dict[str, Any]:
    """Marker and colour of a run; a library's marker is hollow and its line dashed."""
    run = record["run"]
    colour, ours = COLOURS[run["method"]], filled(record)
    return {
        "marker": MARKERS[run["method"]],
        "color": colour,
        "markerfacecolor": colour if ours else "white",
        "linestyle": "-" if ours else "--" if small(record) else (0, (6, 2)),
    }


SMALL = {
    "tokens": "prompt_tokens_small",
    "bottleneck": "bottleneck_small",
    "rank": "lora_rank_small",
}
"""A method's setting, and the study's name for the smaller one of two."""


def small(record: Record) -> bool:
    """Is it one of the runs with the smaller setting of their method?"""
    return any(
        record["run"]["settings"].get(key) == record["params"][name] for key, name in SMALL.items()
    )


def short_name(record: Record) -> str:
    """`PEFT, r = 8`: what stands at the end of a curve."""
    run = record["run"]
    if run["method"] == "full":
        return "full"
    sizes = {key: x for key, x in run["settings"].items() if key != "alpha"}
    return f"{show.IMPLEMENTATION_NAMES[run['implementation']]}, " + show.setting_name(sizes)


def accuracies(record: Record, key: str = "test_accuracy") -> list[float]:
    """Percent, epoch by epoch."""
    return [100 * item[key] for item in record["history"]]


def learning_curves(records: Sequence[Record]) -> Figure:
    """The runs of one method: loss on the left, test (and, thin, train) accuracy on the right."""
    if show.one_epoch(records):
        return single_epoch(records, [short_name(record) for record in records])
    figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.35))
    for record in records:
        left.plot(_epochs(record), [item["loss"] for item in record["history"]], **look(record))
        _train_and_test(right, record)
    left.set(title="training loss (nats a token)", xlabel="epoch")
    right.set(title="test accuracy (%); dash marks: on training reviews", xlabel="epoch")
    right.margins(y=0.15)
    _label_ends(
        right, [(accuracies(r)[-1], short_name(r), COLOURS[r["run"]["method"]]) for r in records]
    )
    for ax in (left, right):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def _train_and_test(ax: Axes, record: Record) -> None:
    """A run's accuracies by epoch, those on training reviews thin and with dash marks."""
    trained, colour = accuracies(record, "train_accuracy"), look(record)["color"]
    ax.plot(_epochs(record), trained, color=colour, alpha=0.6, lw=0.6, ls=":", marker="_", ms=7)
    ax.plot(_epochs(record), accuracies(record), **look(record))


def single_epoch(records: Sequence[Record], names: Sequence[str]) -> Figure:
    """Loss and accuracies where there is one epoch, and so no curve: a line a run."""
    figure = Figure(figsize=(WIDTH, 0.9 + 0.22 * len(records)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.35), sharey=True)
    for row, record in enumerate(records):
        style = {**look(record), "linestyle": "none", "markersize": 6}
        left.plot(record["history"][0]["loss"], row, **style)
        right.plot(accuracies(record, "train_accuracy"), [row], **{**style, "marker": "|"})
        right.plot(accuracies(record), [row], **style)
    left.set_yticks(range(len(records)), names)
    left.set(title="training loss (nats a token)", ylim=(len(records) - 0.5, -0.5))
    right.set(title="test accuracy (%); dash marks: on training reviews")
    for ax, least in ((left, 0.1), (right, 5.0)):
        ax.tick_params(axis="y", length=0)
        ax.grid(axis="y", color="#ececea", lw=0.6)
        ax.set_axisbelow(True)
        ax.margins(x=0.1)
        widen(ax, least)
    return figure


def widen(ax: Axes, least: float) -> None:
    """Let the x axis span so much: on a narrower one a hair looks like a difference."""
    low, high = ax.get_xlim()
    lack = max(0.0, least - (high - low)) / 2
    ax.set_xlim(low - lack, high + lack)


def caption(records: Sequence[Record]) -> str:
    """What `all_curves` shows."""
    if show.one_epoch(records):
        return "Training loss and accuracy after the one epoch, a line a run"
    return "Test accuracy by epoch; grey, the runs of the other methods"


def all_curves(records: Sequence[Record]) -> Figure:
    """Four small plots on one scale, a method each, the other methods' runs grey behind it."""
    if show.one_epoch(records):
        return single_epoch(records, [show.run_name(record["run"]) for record in records])
    figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True, sharey=True)
    for ax, method in zip(grid.flat, EXERCISE, strict=True):
        ends = []
        for record in sorted(records, key=lambda r: (r["run"]["method"] == method, filled(r))):
            mine = record["run"]["method"] == method
            style = (
                look(record) if mine else {"color": "#d4d4d0", "lw": 0.8, "marker": ".", "ms": 3}
            )
            ax.plot(_epochs(record), accuracies(record), **style)
            if mine:
                ends.append((accuracies(record)[-1], short_name(record), COLOURS[method]))
        ax.set_title(show.METHOD_NAMES[method], color=COLOURS[method], weight="bold")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.margins(y=0.15)
        if method != "full":
            _label_ends(ax, ends, least=0.12)
    figure.supylabel("test accuracy (%)", fontsize=9)
    figure.supxlabel("epoch", fontsize=9)
    return figure


def overfitting(records: Sequence[Record]) -> Figure:
    """A small plot a from-scratch run, on one scale; the gap of training and test is shaded.

    Of one epoch there is no curve: `single_epoch`.
    """
    ours = show.only(records, implementation="scratch")
    if show.one_epoch(ours):
        return single_epoch(ours, [show.METHOD_NAMES[record["run"]["method"]] for record in ours])
    figure = Figure(figsize=(WIDTH, 2.3), layout="constrained")
    row = figure.subplots(1, len(ours), sharey=True, squeeze=False)[0]
    for ax, record in zip(row, ours, strict=True):
        gap = accuracies(record, "train_accuracy"), accuracies(record)
        ax.fill_between(_epochs(record), *gap, color=look(record)["color"], alpha=0.12, lw=0)
        _train_and_test(ax, record)
        method = record["run"]["method"]
        ax.set_title(show.METHOD_NAMES[method], color=COLOURS[method], weight="bold")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    row[0].set_ylabel("accuracy (%)")
    figure.supxlabel("epoch", fontsize=9)
    return figure


def beside(records: Sequence[Record]) -> str:
    """What else `overfitting` shows, in its caption."""
    if show.one_epoch(records):
        return "On the left, the training loss"
    return "Shaded, the gap between the two"


def accuracy_vs_parameters(records: Sequence[Record]) -> Figure:
    """Best test accuracy, with its interval, against the number of trained parameters."""
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    ax = figure.subplots()
    for record in records:
        low, high = _interval(record)
        y, x = 100 * record["best_accuracy"], record["parameters"]["trained"]
        style = {**look(record), "linestyle": "none", "markersize": 6, "zorder": 3}
        if record["run"]["implementation"] != "scratch":  # a ring: a mark below it stays in sight
            style |= {"markersize": 8, "markerfacecolor": "none"}
        ax.errorbar(x, y, [[y - 100 * low], [100 * high - y]], elinewidth=0.8, **style)
    ax.set(xscale="log", xlabel="trained parameters", ylabel="best test accuracy (%)")
    ax.margins(x=0.09, y=0.16)
    ax.grid(axis="y", color="#e4e4e0", lw=0.5)
    ax.set_axisbelow(True)
    for method in METHODS:
        if alike := show.only(records, method=method):
            _name_group(ax, alike)
    return figure


def accuracy_over_size(records: Sequence[Record]) -> Figure:
    """Best test accuracy, with its interval, over n, b or r; a method without a size is a line."""
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    ax = figure.subplots()
    ends, drawn = [], {size(record) for record in records} - {0}
    for alike in show.groups(records):
        method = alike[0]["run"]["method"]
        style, scores = look(alike[0]), [100 * record["best_accuracy"] for record in alike]
        names = [show.METHOD_NAMES[method], *([show.implementation(alike[0])] * (method != "full"))]
        if method in show.SIZES:
            names[0] += f" ({show.SIZES[method]})"
            spans = [_interval(record) for record in alike]
            low = [y - 100 * span[0] for y, span in zip(scores, spans, strict=True)]
            high = [100 * span[1] - y for y, span in zip(scores, spans, strict=True)]
            ax.errorbar([*map(size, alike)], scores, [low, high], elinewidth=0.8, **style)
        else:
            ax.axhline(scores[-1], color=style["color"], lw=0.9, ls=":")
        ends.append((scores[-1], ", ".join(names), style["color"]))
    ax.set_xscale("log", base=2)
    ax.set_xticks(sorted(drawn), [f"{x:g}" for x in sorted(drawn)], minor=False)
    ax.set(xlabel="size: n, b or r", ylabel="best test accuracy (%)")
    ax.margins(x=0.06, y=0.1)
    _label_ends(ax, ends)
    return figure


def size(record: Record) -> int:
    """n, b or r of a run; 0 where it has none."""
    return next((x for key, x in record["run"]["settings"].items() if key in LETTER), 0)


def _name_group(ax: Axes, records: Sequence[Record]) -> None:
    """The method's name above its points, and each setting below the points that have it."""
    lowest: dict[tuple[int, str], float] = {}
    for record in records:
        name = short_name(record).partition(", ")[2]
        at = (record["parameters"]["trained"], name)
        lowest[at] = min(lowest.get(at, 100.0), 100 * _interval(record)[0])
    method = records[0]["run"]["method"]
    right = max(x for x, _ in lowest)
    tops = (_interval(r)[1] for r in records if r["parameters"]["trained"] == right)
    above: dict[str, Any] = {
        "xytext": (0, 5),
        "textcoords": "offset points",
        "ha": "center",
        "va": "bottom",
        "path_effects": [withStroke(linewidth=2.5, foreground="white")],
        "zorder": 1.5,  # a mark is never hidden by a name
    }
    ax.annotate(
        show.METHOD_NAMES[method],
        (right, 100 * max(tops)),
        color=COLOURS[method],
        weight="bold",
        **above,
    )
    if method in show.SIZES:
        below = {**above, "xytext": (0, -4), "va": "top"}
        for (x, name), y in lowest.items():
            ax.annotate(name, (x, y), fontsize=8, color=INK, **below)


def _interval(record: Record) -> tuple[float, float]:
    return statistics.wilson(record["best_accuracy"], record["test_examples"])


def marks(records: Sequence[Record]) -> str:
    """The small marks of `ten_results`, in its caption."""
    tick = "" if show.one_epoch(records) else "tick, the last epoch where it is another; "
    return f"{tick}grey cross, the published reference run"


def ten_results(records: Sequence[Record]) -> Figure:
    """A line a run: best accuracy with its interval, the last epoch, the published reference."""
    figure = Figure(figsize=(WIDTH, 3.1), layout="constrained")
    ax = figure.subplots()
    for row, record in enumerate(records):
        low, high = _interval(record)
        style = {**look(record), "linestyle": "none", "markersize": 6}
        ax.axhline(row, color="#ececea", lw=0.6, zorder=0)
        ax.plot([100 * low, 100 * high], [row, row], color=INK, lw=1)
        if record["last_accuracy"] != record["best_accuracy"]:
            ax.plot(100 * record["last_accuracy"], row, marker="|", color=INK, ms=9, ls="none")
        ax.plot(show.REFERENCE.accuracy[record["run"]["number"] - 1], row, "x", color=FAINT, ms=5)
        ax.plot(100 * record["best_accuracy"], row, **style)
    names = [f"{r['run']['number']}  {show.run_name(r['run'])}" for r in records]
    ax.set_yticks(range(len(records)), names)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("test accuracy (%)")
    return figure


def _epochs(record: Record) -> list[int]:
    return [item["epoch"] for item in record["history"]]


def _label_ends(ax: Axes, ends: Sequence[tuple[float, str, str]], least: float = 0.085) -> None:
    """Names at the right end of the curves, `least` of the axis apart or more."""
    low, high = ax.get_ylim()
    places = spread([y for y, _, _ in ends], least * (high - low))
    for (_, name, colour), y in zip(ends, places, strict=True):
        ax.annotate(
            name, (1.0, y), xycoords=("axes fraction", "data"), xytext=(3, 0),
            textcoords="offset points", va="center", fontsize=8, color=colour,
        )  # fmt: skip


def spread(positions: Sequence[float], least: float) -> list[float]:
    """The positions, moved as little as keeps them `least` apart (each crowd around its middle).

    Less `least` times their rank, they only must not fall: that is isotonic regression.
    """
    order = np.argsort(positions, kind="stable")
    steps = least * np.arange(len(positions))
    placed = np.empty(len(positions))
    placed[order] = isotonic_regression(np.asarray(positions)[order] - steps) + steps
    return placed.tolist()
