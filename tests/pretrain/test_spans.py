"""Span corruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from t5peft.inputs import data, tokenizers
from t5peft.pretrain import loop, settings, spans
from t5peft.pretrain.settings import BackboneParams

SENTINEL = 900


@given(st.integers(10, 600))
def test_an_input_is_filled_but_never_longer(input_length: int) -> None:
    size = spans.lengths(input_length)
    assert input_length - 1 <= size.input <= input_length
    assert size.noise == pytest.approx(0.15 * size.text, abs=1)
    assert size.noise >= size.spans >= 1


def test_there_is_a_sentinel_for_each_span() -> None:
    longest, longer = (spans.lengths(settings.LONGEST + more).spans for more in (0, 1))
    assert longest == tokenizers.SENTINELS < longer


def test_t5s_own_lengths() -> None:
    """512 tokens of input are 568 of text and 114 of target, as in T5's code."""
    size = spans.lengths(512)
    assert (size.text, size.input, size.target) == (568, 512, 114)


@given(st.integers(10, 200), st.integers(0, 100))
def test_input_and_target_together_are_the_text(input_length: int, seed: int) -> None:
    size = spans.lengths(input_length)
    text = np.arange(3, 3 + size.text)
    source, target = spans.corrupt(text, size, SENTINEL, data.EOS, np.random.default_rng(seed))
    assert (len(source), len(target)) == (size.input, size.target)
    assert source[-1] == target[-1] == data.EOS
    for side in (source, target):
        sentinels = np.flatnonzero(side > SENTINEL - size.spans)
        assert (np.diff(sentinels) > 1).all(), "no span is empty"
    filled = []
    for token in source[:-1]:
        if token > SENTINEL - size.spans:
            start = int(np.flatnonzero(target == token)[0]) + 1
            rest = target[start:-1]
            stops = np.flatnonzero(rest > SENTINEL - size.spans)
            filled += rest[: stops[0] if len(stops) else None].tolist()
        else:
            filled.append(token)
    assert filled == text.tolist()


def test_another_texts_input_is_a_whole_text(
    small: BackboneParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = loop.start(small, Path("none"), torch.device("cpu"))
    forward, seen = state.model.forward, []

    def noted(*, input_ids: Any, **rest: Any) -> Any:
        seen.append(input_ids.tolist())
        return forward(input_ids=input_ids, **rest)

    monkeypatch.setattr(state.model, "forward", noted)
    loop.reading(state.model, small, torch.randint(3, 100, (6, 20)), torch.randint(3, 100, (6, 8)))
    own, other = seen
    assert sorted(own) == sorted(other)
    assert all(a != b for a, b in zip(own, other, strict=True))
