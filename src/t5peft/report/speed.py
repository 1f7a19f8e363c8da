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


def rows(record: Bench) -> list[list[Any]]:
    """Rows of (method, what, exercise, ours, ratio); times in seconds, memory in MB."""
    units = {"step": 1, "evaluation": 1, "epoch": 1, "peak_bytes": 1e6}
    return [
        [
            method,
            what,
            sides[bench.EXERCISE][what] / unit,
            sides[bench.OURS][what] / unit,
            sides[bench.EXERCISE][what] / sides[bench.OURS][what],
        ]
        for method, sides in record["methods"].items()
        for what, unit in units.items()
    ]
