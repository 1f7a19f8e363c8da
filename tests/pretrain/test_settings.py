"""The settings of a pre-training."""

from __future__ import annotations

import dataclasses

from t5peft.pretrain import loop
from t5peft.pretrain.settings import BackboneParams


def test_the_last_seed_is_as_good_as_any(small: BackboneParams) -> None:
    last = dataclasses.replace(small, seed=2**31 - 1, steps=1)
    assert (loop.pretrain(last) / "pretraining.json").exists()
