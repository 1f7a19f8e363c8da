"""The sizes are the published ones."""

from __future__ import annotations

from t5peft.inputs import backbone
from t5peft.inputs.sizes import SIZES


def test_the_published_sizes_have_the_published_counts() -> None:
    """The totals that the released checkpoints hold."""
    totals = {
        "t5-small": 60_506_624,
        "t5-base": 222_903_552,
        "t5-large": 737_668_096,
        "t5-3b": 2_851_598_336,
        "t5-11b": 11_307_321_344,
    }
    for size, total in totals.items():
        assert backbone.load_on_meta(size).num_parameters() == total
    assert set(totals) < set(SIZES)
