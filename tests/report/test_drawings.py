"""Drawings: the same bytes each time, dark what is trained, true to area."""

from __future__ import annotations

import io
from typing import Any

import matplotlib.style
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from t5peft.report import drawings, plots


def svg(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


@pytest.mark.slow
def test_every_figure_is_the_same_bytes_each_time(records: list[Any]) -> None:
    matplotlib.style.use(drawings.STYLE)
    for draw in (
        lambda: drawings.t5(("q", "wo")),
        lambda: plots.curves(records, {r["run"]["name"]: np.ones(9) for r in records}),
        lambda: plots.accuracy_vs_parameters(records),
        lambda: plots.ten_results(records),
    ):
        assert svg(draw()) == svg(draw())


def test_what_is_added_is_drawn_dark() -> None:
    def dark(*targets: str) -> list[int]:
        trained = to_rgb(drawings.TRAINED["facecolor"])
        return [
            sum(patch.get_facecolor()[:3] == trained for patch in ax.patches)
            for ax in drawings.t5(targets).axes
        ]

    prompt, adapters, details = 2, 2, [3, 2, 2]  # some rows; W_down and W_up; A and B
    assert dark() == [prompt + adapters, *details]
    assert dark("q", "v") == [prompt + adapters + 3 * 2, *details]  # of three attentions
    assert dark("o", "wi", "wo") == [prompt + adapters + 3 + 2 * 2, *details]


@pytest.mark.parametrize("targets", [("q", "v"), ("k", "o")])
def test_the_figure_of_lora_has_its_update_at_its_targets(targets: tuple[str, ...]) -> None:
    ax, *_ = drawings.t5(targets).axes
    spots = {
        (round(t.get_position()[0], 2), round(t.get_position()[1], 2)): t.get_text()
        for t in ax.texts
    }
    beside = [
        x
        for (a, y), text in spots.items()
        if text == "$AB$"
        for (b, z), x in spots.items()
        if z == y and 0 < a - b < 4
    ]
    assert beside == 3 * [f"${target}$" for target in targets]
    assert {x for x in spots.values() if "times" in x} >= {"$\\times\\, L_e$", "$\\times\\, L_d$"}
    (left,) = (p[0] for p, x in spots.items() if "L_e" in x)
    (right,) = (p[0] for p, x in spots.items() if "L_d" in x)
    assert left < right, "the encoder stands on the left"
