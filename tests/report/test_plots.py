"""Plots show the records, each mark where it belongs."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from t5peft.methods.table import EXERCISE
from t5peft.report import plots, show, statistics

FOUR = [show.METHOD_NAMES[method] for method in EXERCISE]


def test_a_single_epoch_is_a_line_a_run(records: list[Any]) -> None:
    once = [{**r, "history": r["history"][:1]} for r in records[7:]]
    low, high = plots.learning_curves(once[:1]).axes[1].get_xlim()
    assert high - low >= 5, "one point apart is no gulf"
    for figure in (plots.learning_curves(once), plots.all_curves(once)):
        left, right = figure.axes
        assert len(left.get_yticks()) == 3
        for row, item in enumerate(once):
            (epoch,) = item["history"]
            trained, tested = (
                line for line in right.lines if np.asarray(line.get_ydata()) == [row]
            )
            assert np.asarray(trained.get_xdata()) == pytest.approx([100 * epoch["train_accuracy"]])
            assert np.asarray(tested.get_xdata()) == pytest.approx([100 * epoch["test_accuracy"]])
    assert len(plots.all_curves(records).axes) == 4


def test_labels_are_kept_apart_and_near() -> None:
    assert plots.spread([1.0, 5.0, 9.0], 1.0) == [1.0, 5.0, 9.0]
    assert plots.spread([1.0, 1.0], 1.0) == [0.5, 1.5]
    placed = sorted(plots.spread([3.0, 1.0, 1.2, 1.1], 1.0))
    assert all(b - a >= 1.0 - 1e-9 for a, b in itertools.pairwise(placed))


def test_ours_is_filled_and_the_librarys_hollow(records: list[Any]) -> None:
    for item in records:
        ours = item["run"]["implementation"] == "scratch"
        assert (plots.look(item)["markerfacecolor"] == "white") != ours


def test_curves_are_the_records(records: list[Any]) -> None:
    left, right = plots.learning_curves(records[7:8]).axes
    heights = [np.asarray(line.get_ydata()) for line in (left.lines[0], *right.lines)]
    assert heights[0] == pytest.approx([0.7, 0.5])
    assert heights[1] == pytest.approx([75.0, 80.0])
    assert heights[2] == pytest.approx([69.0, 68.0])


def test_the_ten_results_are_drawn_where_they_are(records: list[Any]) -> None:
    (ax,) = plots.ten_results(records).axes
    for row, item in enumerate(records):
        mine = {
            line.get_marker(): float(np.asarray(line.get_xdata())[0])
            for line in ax.lines
            if np.asarray(line.get_ydata()).tolist() == [row]
        }
        assert mine["|"] == pytest.approx(100 * item["last_accuracy"])
        assert mine["x"] == show.REFERENCE.accuracy[row]
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


def test_the_curves_names_stand_at_their_ends(records: list[Any]) -> None:
    _, right = plots.learning_curves(records[7:8]).axes
    (name,) = right.texts
    assert name.xy[1] == pytest.approx(68.0), "the last epoch's"  # type: ignore[attr-defined]


def test_overfitting_shades_the_gap_of_each_run_of_ours(records: list[Any]) -> None:
    axes = plots.overfitting(records).axes
    titles = [ax.get_title("left") or ax.get_title() for ax in axes]  # the style puts them left
    assert titles == FOUR
    trained, tested = (np.asarray(line.get_ydata()) for line in axes[3].lines)
    assert trained == pytest.approx([75.0, 80.0])
    assert tested == pytest.approx([69.0, 68.0])
    (shade,) = axes[3].collections
    assert set(np.asarray(shade.get_paths()[0].vertices)[:, 1]) == {75.0, 80.0, 69.0, 68.0}


def test_one_epoch_has_no_gap_to_shade(one_epoch: list[Any]) -> None:
    left, _ = plots.overfitting(one_epoch).axes
    assert [text.get_text() for text in left.get_yticklabels()] == FOUR
    assert plots.beside(one_epoch) == "On the left, the training loss"


def test_the_shade_is_named_where_there_is_one(records: list[Any]) -> None:
    assert plots.beside(records) == "Shaded, the gap between the two"


def test_all_curves_are_of_test_reviews(records: list[Any]) -> None:
    first = plots.all_curves(records).axes[0]
    assert np.asarray(first.lines[-1].get_ydata()) == pytest.approx([62.0, 61.0])


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
    (ax,) = plots.accuracy_over_size(runs).axes
    curve, line = ax.lines
    assert np.asarray(curve.get_xdata()).tolist() == [1, 2, 4], "from small to large"
    assert np.asarray(curve.get_ydata()) == pytest.approx([70.0, 75.0, 80.0])
    assert ax.get_xticks().tolist() == [1, 2, 4]
    assert np.asarray(line.get_ydata()) == pytest.approx(100 * runs[-1]["best_accuracy"])
    names = [text.get_text() for text in ax.texts]
    assert names == ["LoRA (r), ours", "full fine-tuning"]


def test_runs_without_any_size_are_drawn_too(records: list[Any]) -> None:
    for plot in (plots.accuracy_over_size, plots.accuracy_vs_parameters):
        (ax,) = plot(records[:1]).axes
        assert [text.get_text() for text in ax.texts] == ["full fine-tuning"]


def test_a_curve_is_named_by_size_and_by_targets_that_are_not_the_usual() -> None:
    run = {"method": "lora", "implementation": "peft", "settings": {"rank": 8, "alpha": 4.0}}
    assert plots.short_name({"run": run}) == "PEFT, r = 8"
    run["settings"] = {"rank": 8, "alpha": 4.0, "targets": ["q", "o"]}
    assert plots.short_name({"run": run}) == "PEFT, r = 8, at q and o"
