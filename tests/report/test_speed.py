"""Ratios and shares of a bench."""

from __future__ import annotations

from typing import Any

import pytest

from t5peft.report import speed


@pytest.fixture
def record() -> dict[str, Any]:
    """Two methods; ours is twice as fast and half as large."""
    ours = {"step": 2.0, "evaluation": 3.0, "epoch": 10.0, "peak_bytes": 4e6, "operations": 6e9}
    theirs = {what: 2 * value for what, value in ours.items()}

    def both(rate: float) -> dict[str, dict[str, float]]:
        return {
            name: x | {"matrix_rate": rate} for name, x in (("exercise", theirs), ("ours", ours))
        }

    return {"methods": {"full": both(6e9), "lora": both(4e9)}}


def test_a_row_has_both_sides_and_their_ratio_in_seconds_or_megabytes(
    record: dict[str, Any],
) -> None:
    assert speed.rows(record)[4:] == [
        ["lora", "step", 4.0, 2.0, 2.0],
        ["lora", "evaluation", 6.0, 3.0, 2.0],
        ["lora", "epoch", 20.0, 10.0, 2.0],
        ["lora", "peak_bytes", 8.0, 4.0, 2.0],
    ]


def test_a_share_is_the_operations_rate_of_our_step_by_that_of_matrix_products(
    record: dict[str, Any],
) -> None:
    assert speed.share(record["methods"]["full"]["ours"]) == 0.5
    assert speed.shares(record) == "50% (full fine-tuning) and 75% (LoRA)"
    assert speed.peak(record) == 5e9, "the median of our processes"
