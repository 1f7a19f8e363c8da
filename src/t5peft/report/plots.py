"""Plots of the report: from records to matplotlib figures, in the style of `drawings`.

A method has its marker and colour everywhere; filled marks are ours, hollow ones the library's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from t5peft.methods.table import METHODS
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


def look(record: Record) -> dict[str, Any]:
    """Marker and colour of a run; a library's marker is hollow and its line dashed."""
    run = record["run"]
    colour, ours = COLOURS[run["method"]], run["implementation"] == "scratch"
    return {
        "marker": MARKERS[run["method"]],
        "color": colour,
        "markerfacecolor": colour if ours else "white",
        "linestyle": "-" if ours else "--",
    }


def by_epoch(record: Record, key: str = "test_accuracy") -> tuple[list[int], list[float]]:
    """The epochs, and an accuracy after each in percent."""
    history = record["history"]
    return [item["epoch"] for item in history], [100 * item[key] for item in history]


SMOOTH = 20
"""A loss is drawn as the running mean over this part of all steps."""


def curves(records: Sequence[Record], losses: Mapping[str, np.ndarray]) -> Figure:
    """Smoothed training losses (steps,) of the from-scratch runs, by run's name.

    Of several epochs, beside it all runs' test accuracies, the published ones grey behind.
    """
    several = not show.one_epoch(records)
    figure = Figure(figsize=(WIDTH, 2.2), layout="constrained")
    left, *right = figure.subplots(1, 1 + several, squeeze=False)[0]
    for record in show.only(records, implementation="scratch"):
        loss = losses[record["run"]["name"]]
        width = max(1, len(loss) // SMOOTH)
        smooth = np.convolve(loss, np.full(width, 1 / width), "valid") if loss.size else loss
        style = {**look(record), "label": show.METHOD_NAMES[record["run"]["method"]]}
        style |= {"markersize": 3, "markevery": max(1, len(smooth) // 8)}
        left.plot(np.arange(len(smooth)) + width, smooth, **style)
    left.set(ylabel="training loss (nats a token)", xlabel="step")
    left.legend(
        frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=4 - 2 * several
    )
    for ax in right:
        for number in sorted(record["run"]["number"] for record in records):
            published = 100 * np.array(show.published()["first"].get(number, []))
            ax.plot(np.arange(len(published)) + 1, published, color="#d4d4d0", lw=0.8)
        for record in records:
            ax.plot(*by_epoch(record), **{**look(record), "markersize": 3})
        ax.set(ylabel="test accuracy (%)", xlabel="epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return figure


def overfitting(records: Sequence[Record]) -> Figure:
    """A small plot a from-scratch run, on one scale; the gap of training and test is shaded."""
    ours = show.only(records, implementation="scratch")
    figure = Figure(figsize=(WIDTH, 1.9), layout="constrained")
    row = figure.subplots(1, len(ours), sharey=True, squeeze=False)[0]
    for ax, record in zip(row, ours, strict=True):
        method, trained = record["run"]["method"], by_epoch(record, "train_accuracy")
        ax.fill_between(*trained, by_epoch(record)[1], color=COLOURS[method], alpha=0.12, lw=0)
        ax.plot(*trained, color=COLOURS[method], alpha=0.6, lw=0.6, ls=":", marker="_", ms=7)
        ax.plot(*by_epoch(record), **look(record))
        ax.set_title(show.METHOD_NAMES[method], color=COLOURS[method], weight="bold")
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    row[0].set_ylabel("accuracy (%)")
    figure.supxlabel("epoch", fontsize=9)
    return figure


def accuracy_vs_parameters(
    records: Sequence[Record], seeds: Iterable[Sequence[Record]] = ()
) -> Figure:
    """Best test accuracy, with its interval, against the number of trained parameters.

    seeds: the records of each run with several, its own first; the others are dots.
    """
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    ax = figure.subplots()
    for record in records:
        low, high = statistics.interval(record)
        y, x = 100 * record["best_accuracy"], record["parameters"]["trained"]
        style = {**look(record), "linestyle": "none", "markersize": 6, "zorder": 3}
        if record["run"]["implementation"] != "scratch":  # a ring: a mark below it stays in sight
            style |= {"markersize": 8, "markerfacecolor": "none"}
        ax.errorbar(x, y, [[y - 100 * low], [100 * high - y]], elinewidth=0.8, **style)
    others = [record for _, *rest in seeds for record in rest]
    for record in others:
        ax.plot(record["parameters"]["trained"], 100 * record["best_accuracy"], **dot(record))
    ax.set(xscale="log", xlabel="trained parameters", ylabel="best test accuracy (%)")
    ax.margins(x=0.09, y=0.16)
    ax.grid(axis="y", color="#e4e4e0", lw=0.5)
    ax.set_axisbelow(True)
    for method in METHODS:
        if alike := show.only([*records, *others], method=method):
            _name_group(ax, alike)
    return figure


def accuracy_over_size(records: Sequence[Record]) -> Figure:
    """Best test accuracy, with its interval, over n, b or r; a method without a size is a line."""
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    ax = figure.subplots()
    for alike in statistics.groups(records):
        method, style = alike[0]["run"]["method"], look(alike[0])
        name = show.run_name({**alike[0]["run"], "settings": {}})
        scores = [100 * record["best_accuracy"] for record in alike]
        if method in show.SIZES:
            spans = 100 * np.array([statistics.interval(record) for record in alike]).T
            bars, name = np.abs(spans - scores), f"{name} ({show.SIZES[method]})"
            x = [show.size_of(record["run"]) for record in alike]
            ax.errorbar(x, scores, bars, elinewidth=0.8, label=name, **style)
        else:
            dashes = ":" if alike[0]["run"]["implementation"] == "scratch" else "-."
            ax.axhline(scores[-1], color=style["color"], lw=0.9, ls=dashes, label=name)
    drawn = sorted({show.size_of(record["run"]) for record in records} - {0})
    ax.set_xscale("log", base=2)
    ax.set_xticks(drawn, [f"{x:g}" for x in drawn], minor=False)
    ax.set(xlabel="size: n, b or r", ylabel="best test accuracy (%)")
    ax.margins(x=0.06, y=0.1)
    figure.legend(frameon=False, fontsize=8, loc="outside right center")
    return figure


def _name_group(ax: Axes, records: Sequence[Record]) -> None:
    """The method's name above its points; below them their settings, the least and the largest."""
    lowest: dict[tuple[int, str], float] = {}
    for record in records:
        settings = {key: x for key, x in record["run"]["settings"].items() if key != "alpha"}
        at = record["parameters"]["trained"], show.setting_name(settings)
        lowest[at] = min(lowest.get(at, 100.0), 100 * statistics.interval(record)[0])
    method, right = records[0]["run"]["method"], max(x for x, _ in lowest)
    top = max(statistics.interval(r)[1] for r in records if r["parameters"]["trained"] == right)
    beside: dict[str, Any] = {
        "textcoords": "offset points",
        "ha": "center",
        "path_effects": [withStroke(linewidth=2.5, foreground="white")],
        "zorder": 1.5,  # a mark is never hidden by a name
    }
    name, at = show.METHOD_NAMES[method], (right, 100 * top)
    ax.annotate(name, at, (0, 5), color=COLOURS[method], weight="bold", **beside)
    if method in show.SIZES:
        for x, name in sorted({min(lowest), max(lowest)}):  # with those between they would overlap
            y = lowest[x, name]
            ax.annotate(name, (x, y), (0, -4), va="top", fontsize=8, color=INK, **beside)


def dot(record: Record) -> dict[str, Any]:
    """The mark of another seed's run."""
    return {"marker": ".", "ms": 4, "alpha": 0.6, "ls": "none", "color": look(record)["color"]}


def ten_results(records: Sequence[Record], seeds: Iterable[Sequence[Record]] = ()) -> Figure:
    """A line a run: best accuracy with its interval, other seeds, the last epoch, the published."""
    others = {own["run"]["name"]: rest for own, *rest in seeds}
    figure = Figure(figsize=(WIDTH, 1.9), layout="constrained")
    ax = figure.subplots()
    for row, record in enumerate(records):
        low, high = statistics.interval(record)
        style = {**look(record), "linestyle": "none", "markersize": 6}
        ax.axhline(row, color="#ececea", lw=0.6, zorder=0)
        ax.plot([100 * low, 100 * high], [row, row], color=INK, lw=1)
        if record["last_accuracy"] != record["best_accuracy"]:
            ax.plot(100 * record["last_accuracy"], row, marker="|", color=INK, ms=9, ls="none")
        for other in others.get(record["run"]["name"], []):
            ax.plot(100 * other["best_accuracy"], row, **dot(record))
        ax.plot(show.reference(record["run"]["number"]), row, "x", color=FAINT, ms=5)
        ax.plot(100 * record["best_accuracy"], row, **style)
    names = [f"{r['run']['number']}  {show.run_name(r['run'])}" for r in records]
    ax.set_yticks(range(len(records)), names)
    ax.invert_yaxis()
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("test accuracy (%)")
    return figure
