"""A run's trace: the loss of its steps, and its answer to each test review.

It lies beside the tensors as `trace.npz`; the record names it and its hash.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from t5peft.base import machine
from t5peft.inputs.data import LABELS

OTHER = len(LABELS)
"""The code of an answer that is no label word; a label word's is its label."""


@dataclass
class Trace:
    """Losses of a run's first steps, or of all, and its answers; each with what made it."""

    losses: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))  # (steps,), nats
    losses_by: str = ""  # `machine.kind`
    epochs: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))  # after which ...
    answers: np.ndarray = field(
        default_factory=lambda: np.zeros((0, 0), np.uint8)
    )  # (epochs, reviews)
    answers_by: str = ""
    right: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))  # as answers

    def add(
        self, epoch: int, losses: np.ndarray, answers: Sequence[str], labels: np.ndarray
    ) -> None:
        """Note an epoch's losses and the answers after it, as made on this machine."""
        said = codes(answers)[None]
        self.losses = np.concatenate([self.losses, losses])
        self.answers = np.concatenate([self.answers, said]) if self.answers.size else said
        self.right = self.answers == labels
        self.epochs = np.append(self.epochs, epoch)
        self.losses_by, self.answers_by = self.losses_by or machine.kind(), machine.kind()

    def after(self, epoch: int) -> np.ndarray:
        """The answers (reviews,) after an epoch; none where they were not kept."""
        kept = self.answers[self.epochs == epoch]
        return kept[0] if len(kept) else np.zeros(0, np.uint8)

    def right_after(self, epoch: int) -> np.ndarray:
        """Which of them were right (reviews,); none where that was not kept."""
        kept = self.right[self.epochs == epoch] if self.right.size else self.right
        return kept[0] if len(kept) else np.zeros(0, bool)

    def packed(self) -> bytes:
        """As a file holds it: about 2 bits an answer."""
        content = io.BytesIO()
        np.savez_compressed(content, **vars(self))
        return content.getvalue()


def unpack(content: bytes) -> Trace:
    """What `packed` wrote."""
    with np.load(io.BytesIO(content)) as held:
        parts: dict[str, Any] = {name: x if x.ndim else str(x) for name, x in held.items()}
    return Trace(**parts)


def codes(answers: Sequence[str]) -> np.ndarray:
    """Answers (reviews,) as their labels or `OTHER`."""
    known = {word: label for label, word in enumerate(LABELS)}
    return np.array([known.get(answer, OTHER) for answer in answers], np.uint8)
