"""What a bench has shown, in ratios and shares."""

from __future__ import annotations

import statistics
from typing import Any

from t5peft.measure import bench
from t5peft.measure.measurements import Bench
from t5peft.report.show import METHOD_NAMES, listed


def shares(record: Bench) -> str:
    """How near our training step is to the machine's `matrix_peak` (MFU), by method."""
    found = [
        f"{share(sides[bench.OURS]):.0%} ({METHOD_NAMES[method]})"
        for method, sides in record["methods"].items()
    ]
    return listed(found)


def peak(record: Bench) -> float:
    """The machine's `matrix_peak`: the median of what our sides' processes measured."""
    return statistics.median(
        sides[bench.OURS]["matrix_rate"] for sides in record["methods"].values()
    )


def share(side: dict[str, float]) -> float:
    """Matrix products of a training step, by the time that the measured peak would take."""
    return side["operations"] / side["step"] / side["matrix_rate"]


def sides(record: Bench) -> list[str]:
    """What a record has timed, in its order."""
    return [*next(iter(record["methods"].values()))]


def rows(record: Bench) -> list[list[Any]]:
    """(method, what, each side's figure, the exercise's by ours): in seconds or MB."""
    units = {"step": 1, "evaluation": 1, "epoch": 1, "peak_bytes": 1e6}
    return [
        [
            method,
            what,
            *(figures[what] / unit for figures in sides.values()),
            sides[bench.EXERCISE][what] / sides[bench.OURS][what],
        ]
        for method, sides in record["methods"].items()
        for what, unit in units.items()
    ]
