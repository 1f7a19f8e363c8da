"""Span corruption, the objective that T5 was pre-trained with.

Raffel et al. (2020), "Exploring the Limits of Transfer Learning with a Unified Text-to-Text
Transformer", sections 3.1.4 and 3.3.4: 15% of the tokens are dropped in spans of mean length 3;
each is replaced by a sentinel in the input, and the target lists these with what they stand for.

    text    thank you for inviting me to your party last week
    input   thank you <X> me to your party <Y> week </s>
    target  <X> for inviting <Y> last <Z>            (here </s> instead of T5's last sentinel)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

NOISE_DENSITY = 0.15
MEAN_SPAN = 3


@dataclass(frozen=True)
class Lengths:
    """How many tokens of text make one example of a given input length."""

    text: int
    noise: int
    spans: int

    @property
    def input(self) -> int:
        """Kept tokens, one sentinel a span, </s>."""
        return self.text - self.noise + self.spans + 1

    @property
    def target(self) -> int:
        """Dropped tokens, one sentinel a span, </s>."""
        return self.noise + self.spans + 1


def lengths(input_length: int) -> Lengths:
    """The longest text whose corrupted input has at most `input_length` tokens.

    Raises ValueError for a length that holds no span.
    """
    best = None
    for text in range(2 * MEAN_SPAN, 2 * input_length):
        noise = max(1, round(text * NOISE_DENSITY))
        candidate = Lengths(text, noise, max(1, round(noise / MEAN_SPAN)))
        if candidate.input > input_length:
            break
        best = candidate
    if best is None:
        raise ValueError(f"input_length {input_length} is too short for span corruption")
    return best


def corrupt(
    text: np.ndarray, size: Lengths, first_sentinel: int, eos: int, draw: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Corrupt one text of `size.text` token ids; returns (input, target).

    Sentinels count down from `first_sentinel`, as `<extra_id_0>` is T5's last id.
    """
    kept = _segments(size.text - size.noise, size.spans, draw)
    dropped = _segments(size.noise, size.spans, draw)
    source, target, at = [], [], 0
    for number, (keep, drop) in enumerate(zip(kept, dropped, strict=True)):
        sentinel = [first_sentinel - number]
        source += [text[at : at + keep], sentinel]
        target += [sentinel, text[at + keep : at + keep + drop]]
        at += keep + drop
    return np.concatenate([*source, [eos]]), np.concatenate([*target, [eos]])


def corrupt_batch(
    stream: np.ndarray, starts: np.ndarray, size: Lengths, tokenizer: Any, draw: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """The texts of a stream of token ids that begin at `starts`: (B, input) and (B, target)."""
    sentinel = tokenizer.convert_tokens_to_ids("<extra_id_0>")
    pairs = [
        corrupt(stream[start : start + size.text], size, sentinel, tokenizer.eos_token_id, draw)
        for start in starts
    ]
    sources, targets = (np.stack(side).astype(np.int64) for side in zip(*pairs, strict=True))
    return torch.from_numpy(sources), torch.from_numpy(targets)


def _segments(total: int, parts: int, draw: np.random.Generator) -> np.ndarray:
    """`total` cut at random into `parts` positive lengths, every cut equally likely."""
    cuts = np.sort(draw.choice(total - 1, parts - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))
