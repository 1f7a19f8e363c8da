"""A run's trace: the loss of its steps, and its answer to each test review.

`trace.npz` lies beside the tensors; the record names it and its hash. A run without one is as
valid: it was made before there were traces, and `verify.complete` makes what can still be made.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from t5peft import runs
from t5peft.data import LABELS

OTHER = len(LABELS)
"""The code of an answer that is no label word; a label word's is its label."""


@dataclass
class Trace:
    """Losses of a run's first steps, or of all, and its answers; each with what made it."""

    losses: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))  # (steps,), nats
    losses_by: str = ""  # `machine.kind`
    epochs: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # after which ...
    answers: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.uint8))  # (epochs, reviews)
    answers_by: str = ""

    def packed(self) -> bytes:
        """As a file holds it: about 1.3 bits an answer."""
        content = io.BytesIO()
        np.savez_compressed(content, **vars(self))
        return content.getvalue()


def unpack(content: bytes) -> Trace:
    """What `packed` wrote."""
    with np.load(io.BytesIO(content)) as held:
        return Trace(**{name: array if array.ndim else str(array) for name, array in held.items()})


def load(where: Path) -> Trace:
    """The trace of the run in a folder; an empty one where it has none."""
    held = runs.whole(where)[1]
    return unpack(held[runs.TRACE]) if runs.TRACE in held else Trace()


def codes(answers: Sequence[str]) -> np.ndarray:
    """Answers (reviews,) as their labels or `OTHER`."""
    known = {word: label for label, word in enumerate(LABELS)}
    return np.array([known.get(answer, OTHER) for answer in answers], np.uint8)
