"""The settings of a pre-training."""

from __future__ import annotations

import dataclasses

import pytest

from t5peft.base.errors import InputError
from t5peft.pretrain import loop
from t5peft.pretrain.settings import BackboneParams


def test_the_last_seed_is_as_good_as_any(small: BackboneParams) -> None:
    last = dataclasses.replace(small, seed=2**31 - 1, steps=1)
    assert (loop.pretrain(last) / "pretraining.json").exists()


def test_a_later_size_is_not_pretrained(small: BackboneParams) -> None:
    with pytest.raises(InputError, match="size: found flan-t5-small, expected one of t5-small"):
        dataclasses.replace(small, size="flan-t5-small")


def test_more_pieces_than_the_size_holds_are_refused(small: BackboneParams) -> None:
    with pytest.raises(InputError, match="at most 8028 for tiny"):
        dataclasses.replace(small, vocabulary=8_100)
