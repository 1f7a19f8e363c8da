"""The drawn figure: T5 with each method in its place.

Black and white carry the meaning: what is trained is dark, what is frozen is light.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

WIDTH = 6.3
"""Inches: the text width of an A4 page."""

TRAINED: dict[str, Any] = {"facecolor": "#1f3a5f", "edgecolor": "#1f3a5f"}
FROZEN: dict[str, Any] = {"facecolor": "white", "edgecolor": "#8a8a8a"}
PANEL: dict[str, Any] = {"facecolor": "#f3f3f1", "edgecolor": "none"}
INK = "#222222"
FAINT = "#777777"

STYLE = Path(__file__).with_name("report.mplstyle")
"""The report's one style, for every figure."""


# --- where a method sits -------------------------------------------------------------------------


def t5(targets: Sequence[str]) -> Figure:
    """One encoder and one decoder layer with what each PEFT method adds (LoRA at `targets`) drawn
    dark; below, the site of each.
    """
    figure = Figure(figsize=(WIDTH, 5.0))
    whole = figure.add_axes((0, 0.4, 1, 0.6), xlim=(0, 84), ylim=(0, 70))
    _encoder(whole, targets)
    _decoder(whole, targets)
    for number, (title, detail) in enumerate(DETAILS.items()):
        ax = figure.add_axes((number / 3, 0, 1 / 3, 0.38), xlim=(90, 126), ylim=(0, 70))
        _text(ax, 108, 67, title, weight="bold")
        detail(ax)
    for ax in figure.axes:
        ax.axis("off")
    return figure


def _encoder(ax: Axes, targets: Sequence[str]) -> None:
    _text(ax, 19, 67.5, "encoder", weight="bold")
    _panel(ax, 2, 16, 34, 43, "$\\times\\, L_e$")
    _attention(ax, 4, 19, "self-attention", targets)
    _feed_forward(ax, 4, 37, targets)
    _box(ax, 4, 49.6, 30, 4.8, "adapter", True)
    _box(ax, 4, 61, 30, 4, "norm", False)
    _arrows(ax, 19, [(11, 19), (31, 37), (47, 49.6), (54.4, 61)])
    for x in (4, 8):
        _box(ax, x, 6, 3.4, 5, "$P$", True)
    _box(ax, 12.2, 6, 21.8, 5, "embedding $E(x)$", False)
    _text(ax, 7.7, 3, "prompt", size=7.5)
    _text(ax, 23, 3, "tokens of the review", size=7.5)


def _decoder(ax: Axes, targets: Sequence[str]) -> None:
    _text(ax, 63, 67.5, "decoder", weight="bold")
    _panel(ax, 46, 13.5, 34, 47, "$\\times\\, L_d$")
    _attention(ax, 48, 15, "self-attention", targets, 10)
    _attention(ax, 48, 28.5, "cross-attention", targets, 10)
    _feed_forward(ax, 48, 42, targets, 8)
    _box(ax, 48, 52.6, 30, 4.8, "adapter", True)
    _box(ax, 48, 62, 30, 3.6, "norm, $E^{\\top}$", False)
    _box(ax, 48, 6, 30, 5, "embedding $E(y)$", False)
    _text(ax, 63, 3, "tokens of the label word", size=7.5)
    _arrows(ax, 63, [(11, 15), (25, 28.5), (38.5, 42), (50, 52.6), (57.4, 62)])
    ax.plot([34, 41, 41], [63, 63, 33.5], color=INK, lw=0.7, solid_joinstyle="miter")
    ax.annotate("", (48, 33.5), (41, 33.5), arrowprops=ARROW)


def _attention(
    ax: Axes, x: float, y: float, name: str, targets: Sequence[str], height: float = 12
) -> None:
    _box(ax, x, y, 30, height, "", False)
    _text(ax, x + 15, y + height - 2.4, name, size=8)
    for number, projection in enumerate(("q", "k", "v", "o")):
        _weight(ax, x + 1.6 + 7 * number, y + 1.3, 5.9, 5, f"${projection}$", projection in targets)


def _feed_forward(ax: Axes, x: float, y: float, targets: Sequence[str], height: float = 10) -> None:
    _box(ax, x, y, 30, height, "", False)
    _text(ax, x + 15, y + height - 2.2, "feed-forward", size=8)
    for number, (target, name) in enumerate({"wi": "$W_i$", "wo": "$W_o$"}.items()):
        _weight(ax, x + 1.6 + 14 * number, y + 1, 12.8, height - 5, name, target in targets)


def _weight(ax: Axes, x: float, y: float, w: float, h: float, name: str, changed: bool) -> None:
    """A matrix; changed: a frozen one with a LoRA beside it."""
    beside = 3 if changed else 0
    _box(ax, x, y, w - beside, h, name, False, size=8)
    if changed:
        _box(ax, x + w - beside, y, beside, h, "$AB$", True, size=6.5)


# --- the details below it ------------------------------------------------------------------------


def _detail_prompt(ax: Axes) -> None:
    for row in range(8):
        trained, name = row < 3, "P" if row < 3 else "E(x)"
        bottom = 50 - 4 * row - (1.2 if row >= 3 else 0)
        _box(ax, 97, bottom, 20, 3.4, "", trained)
        if row in (1, 5):
            _text(ax, 121, bottom + 1.6, f"${name}$")
    _text(ax, 107, 13.5, "$d$")
    _text(ax, 94.2, 47.6, "$n$")
    _text(ax, 93, 30.4, "$T$")
    _text(ax, 109, 9, "rows that the encoder reads", size=8)


def _detail_adapter(ax: Axes) -> None:
    _box(ax, 95, 10, 22, 4, "$h$", False)
    _box(ax, 95, 55, 22, 4, "$h + \\ldots$", False)
    _map(ax, 18, 10, (95, 117), (102.5, 109.5), "$W_\\mathrm{down}$")
    _map(ax, 38, 10, (102.5, 109.5), (95, 117), "$W_\\mathrm{up}$")
    _box(ax, 102, 30.8, 8, 4.4, "ReLU", False, size=7.5)
    _arrows(ax, 106, [(14, 18), (28, 30.8), (35.2, 38), (48, 55)])
    ax.plot([117, 122, 122], [12, 12, 57], color=INK, lw=0.7, solid_joinstyle="miter")
    ax.annotate("", (117, 57), (122, 57), arrowprops=ARROW)
    _text(ax, 93.3, 19.5, "$d$")
    _text(ax, 100.3, 33, "$b$")
    _text(ax, 93.3, 46.5, "$d$")


def _detail_lora(ax: Axes) -> None:
    _box(ax, 96, 9, 26, 4, "$x$", False)
    _box(ax, 96, 24, 11, 20, "$W$", False)
    _map(ax, 24, 8, (110, 122), (114, 118), "$A$")
    _map(ax, 36, 8, (114, 118), (110, 122), "$B$")
    _text(ax, 112.2, 34, "$r$")
    _text(ax, 120.2, 48.5, r"$\times\,\alpha / r$", size=8)
    _box(ax, 105, 54, 7, 4.4, "+", False)
    _arrows(ax, 101.5, [(13, 24)])
    _arrows(ax, 116, [(13, 24), (32, 36)])
    for x, side in ((101.5, 105), (116, 112)):
        ax.plot([x, x], [44, 56.2], color=INK, lw=0.7)
        ax.annotate("", (side, 56.2), (x, 56.2), arrowprops=ARROW)
    _arrows(ax, 108.5, [(58.4, 63)])


DETAILS: dict[str, Callable[[Axes], None]] = {
    "soft prompt: the encoder's input": _detail_prompt,
    "adapter: behind a feed-forward": _detail_adapter,
    "LoRA: beside a projection": _detail_lora,
}


# --- strokes -------------------------------------------------------------------------------------

Side = tuple[float, float]  # from x to x

ARROW: dict[str, Any] = {
    "arrowstyle": "-|>,head_width=0.14,head_length=0.28",
    "color": INK,
    "lw": 0.7,
    "shrinkA": 0,
    "shrinkB": 0,
}


def _box(
    ax: Axes, x: float, y: float, w: float, h: float, text: str, trained: bool, size: float = 8.5
) -> None:
    ax.add_patch(Rectangle((x, y), w, h, lw=0.7, **(TRAINED if trained else FROZEN)))
    _text(ax, x + w / 2, y + h / 2, text, size=size, color="white" if trained else INK)


def _panel(ax: Axes, x: float, y: float, w: float, h: float, label: str) -> None:
    ax.add_patch(Rectangle((x, y), w, h, zorder=0, **PANEL))
    _text(ax, x + w + 0.8, y + 1.6, label, ha="left", size=8, color=FAINT)


def _text(ax: Axes, x: float, y: float, text: str, size: float = 8.5, **look: Any) -> None:
    """Text centred on (x, y)."""
    ax.text(x, y, text, fontsize=size, **{"color": INK, "ha": "center", "va": "center", **look})


def _arrows(ax: Axes, x: float, spans: list[tuple[float, float]]) -> None:
    for start, end in spans:
        ax.annotate("", (x, end), (x, start), arrowprops=ARROW)


def _map(ax: Axes, bottom: float, height: float, low: Side, high: Side, name: str) -> None:
    """A trained map as a trapezoid from the side `low` up to the side `high`."""
    top = bottom + height
    corners = [(low[0], bottom), (low[1], bottom), (high[1], top), (high[0], top)]
    ax.add_patch(Polygon(corners, **TRAINED))
    _text(ax, sum(low) / 2, bottom + height / 2, name, color="white")
