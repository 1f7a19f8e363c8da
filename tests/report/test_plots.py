"""Plots show the records, each mark where it belongs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import seeded

from t5peft.methods.table import EXERCISE
from t5peft.report import plots, show, statistics

FOUR = [show.METHOD_NAMES[method] for method in EXERCISE]


def test_ours_is_filled_and_the_librarys_hollow(records: list[Any]) -> None:
    for item in records:
        ours = item["run"]["implementation"] == "scratch"
        assert (plots.look(item)["markerfacecolor"] == "white") != ours


def test_the_ten_results_are_drawn_where_they_are(records: list[Any]) -> None:
    (ax,) = plots.ten_results(records).axes
    for row, item in enumerate(records):
        mine = {
            line.get_marker(): float(np.asarray(line.get_xdata())[0])
            for line in ax.lines
            if np.asarray(line.get_ydata()).tolist() == [row]
        }
        assert mine["|"] == pytest.approx(100 * item["last_accuracy"])
        assert mine["x"] == show.reference(row + 1)
        assert mine[plots.MARKERS[item["run"]["method"]]] == pytest.approx(
            100 * item["best_accuracy"]
        )


def test_a_point_stands_at_its_parameters_with_its_interval(records: list[Any]) -> None:
    (ax,) = plots.accuracy_vs_parameters(records).axes
    containers: list[Any] = list(ax.containers)
    for container, item in zip(containers, records, strict=True):
        point, _, (bar,) = container.lines
        assert point.get_xdata()[0] == item["parameters"]["trained"]
        low, high = statistics.wilson(item["best_accuracy"], item["test_examples"])
        ((_, bottom), (_, top)) = bar.get_segments()[0]
        assert (bottom, top) == pytest.approx((100 * low, 100 * high))


def test_overfitting_shades_the_gap_of_each_run_of_ours(records: list[Any]) -> None:
    axes = plots.overfitting(records).axes
    titles = [ax.get_title("left") or ax.get_title() for ax in axes]  # the style puts them left
    assert titles == FOUR
    trained, tested = (np.asarray(line.get_ydata()) for line in axes[3].lines)
    assert trained == pytest.approx([75.0, 80.0])
    assert tested == pytest.approx([69.0, 68.0])
    (shade,) = axes[3].collections
    assert set(np.asarray(shade.get_paths()[0].vertices)[:, 1]) == {75.0, 80.0, 69.0, 68.0}


def test_losses_are_smoothed_by_step(records: list[Any], one_epoch: list[Any]) -> None:
    losses = {r["run"]["name"]: np.zeros(0) for r in one_epoch}
    losses["lora-scratch-r8"] = np.arange(100.0)
    (left,) = plots.curves(one_epoch, losses).axes
    assert [line.get_label() for line in left.lines] == FOUR
    x, y = (np.asarray(side) for side in left.lines[-1].get_data())
    assert x[0] == 100 // plots.SMOOTH == 5, "the first mean is of the first five"
    assert (y[0], y[-1]) == pytest.approx((np.arange(5).mean(), np.arange(95, 100).mean()))


def test_of_several_epochs_accuracies_stand_before_the_published(records: list[Any]) -> None:
    losses = {r["run"]["name"]: np.ones(4) for r in records}
    _, right = plots.curves(records, losses).axes
    published, ours = right.lines[:10], right.lines[10:]
    for number, line in enumerate(published, 1):
        assert np.asarray(line.get_ydata()).max() == pytest.approx(show.reference(number), abs=0.05)
    assert np.asarray(ours[0].get_ydata()) == pytest.approx([62.0, 61.0])


def test_other_seeds_are_dots(records: list[Any]) -> None:
    seeds = [seeded(records[7], {0: 0.69, 1: 0.7, 2: 0.71})]
    for plot in (plots.ten_results, plots.accuracy_vs_parameters):
        (ax,) = plot(records, seeds).axes
        dots = [line.get_data() for line in ax.lines if line.get_marker() == "."]
        at = 0 if plot is plots.ten_results else 1
        assert [float(np.asarray(dot[at])[0]) for dot in dots] == pytest.approx([70, 71])


def sized(records: list[Any], method: str, sizes: dict[int, float]) -> list[Any]:
    """From-scratch runs of a method by their size, with these accuracies; largest first."""
    (one,) = show.only(records, method=method, implementation="scratch")
    (key, *_) = one["run"]["settings"]
    return [
        {
            **one,
            "run": one["run"] | {"settings": one["run"]["settings"] | {key: size}},
            "parameters": one["parameters"] | {"trained": 100 * size},
            "best_accuracy": accuracy,
        }
        for size, accuracy in sorted(sizes.items(), reverse=True)
    ]


def test_accuracy_stands_over_size_and_a_method_without_one_is_a_line(records: list[Any]) -> None:
    runs = sized(records, "lora", {4: 0.8, 1: 0.7, 2: 0.75}) + records[:1]
    figure = plots.accuracy_over_size(runs)
    (ax,) = figure.axes
    curve, line = ax.lines
    assert np.asarray(curve.get_xdata()).tolist() == [1, 2, 4], "from small to large"
    assert np.asarray(curve.get_ydata()) == pytest.approx([70.0, 75.0, 80.0])
    assert ax.get_xticks().tolist() == [1, 2, 4]
    assert np.asarray(line.get_ydata()) == pytest.approx(100 * runs[-1]["best_accuracy"])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(names) == ["LoRA, ours (r)", "full fine-tuning"]


def test_ours_and_the_librarys_line_are_told_apart(records: list[Any]) -> None:
    (one,) = show.only(records, method="lora", implementation="scratch")
    alike = {**one["run"], "method": "ia3", "settings": {}}
    runs = [{**one, "run": {**alike, "implementation": x}} for x in ("scratch", "peft")]
    ours, theirs = plots.accuracy_over_size(runs).axes[0].lines
    assert ours.get_linestyle() != theirs.get_linestyle()


def test_of_a_methods_settings_the_ends_are_named(records: list[Any]) -> None:
    runs = sized(records, "lora", {4: 0.8, 1: 0.7, 16: 0.9, 2: 0.75})
    names = {text.get_text() for text in plots.accuracy_vs_parameters(runs).axes[0].texts}
    assert names == {"LoRA", "r = 1", "r = 16"}


def test_runs_without_any_size_are_drawn_too(records: list[Any]) -> None:
    (text,) = plots.accuracy_vs_parameters(records[:1]).axes[0].texts
    (name,) = plots.accuracy_over_size(records[:1]).legends[0].get_texts()
    assert text.get_text() == name.get_text() == "full fine-tuning"
