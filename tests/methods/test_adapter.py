"""The adapter: its sites."""

from __future__ import annotations

from tiny import tiny

from t5peft.methods import adapter


def test_adapter_sits_behind_every_feed_forward() -> None:
    assert list(adapter.sites(tiny())) == [
        "encoder.block.0.layer.1",
        "encoder.block.1.layer.1",
        "decoder.block.0.layer.2",
        "decoder.block.1.layer.2",
    ]
