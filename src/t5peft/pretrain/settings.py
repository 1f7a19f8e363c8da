"""The settings of a backbone's pre-training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t5peft.base.errors import InputError
from t5peft.base.settings import build, check_types, read_yaml, require, require_name, study_file
from t5peft.base.studies import Precision
from t5peft.inputs import tokenizers
from t5peft.inputs.sizes import CLASSIC

ZERO_SHOT_REVIEWS, ZERO_SHOT_TOKENS = 2000, 256
"""Training reviews, and tokens of each, on which a finished backbone is tried."""

LONGEST = 1809
"""Tokens of a corrupted input with a span for each of T5's sentinels."""

POSITIVE = (
    *("vocabulary", "input_length", "batch_size", "sst2_batch_size", "sst2_every", "sst2_length"),
    *("learning_rate", "warmup_steps", "steps", "minutes"),
)
"""Settings of a backbone that make no sense at zero."""


@dataclass(frozen=True)
class BackboneParams:
    """Everything that decides a backbone."""

    name: str  # folder in weights/backbone/
    size: str
    data: str  # IMDB: hub name or folder
    sst2: str  # SST-2: hub name or folder
    vocabulary: int  # SentencePiece pieces, sentinels not counted
    input_length: int  # tokens of a corrupted input
    batch_size: int
    sst2_batch_size: int
    sst2_length: int  # longer sentences are cut
    sst2_weight: float  # of the sentences' loss beside the spans'
    learning_rate: float  # of a matrix's RMS; of the rest as it is
    warmup_steps: int
    dropout: float
    steps: int  # stops here ...
    minutes: float  # ... or after so many minutes of training, whichever is first
    precision: Precision
    seed: int
    sst2_every: int = 1  # steps from one batch of sentences to the next

    def __post_init__(self) -> None:
        check_types(self)
        for field in POSITIVE:
            require(self, field, getattr(self, field) > 0, "a positive number")
        require(self, "vocabulary", self.vocabulary >= 50, "50 pieces or more")
        fits = 10 <= self.input_length <= LONGEST
        most = f"10 to {LONGEST:,} tokens: 1 to {tokenizers.SENTINELS} spans"
        require(self, "input_length", fits, most)
        require(self, "dropout", 0 <= self.dropout < 1, "a number from 0, below 1")
        require(self, "sst2_weight", self.sst2_weight >= 0, "a number from 0")
        require(self, "seed", 0 <= self.seed < 2**31, "a whole number from 0, below 2^31")
        require_name(self, "name")
        require(self, "size", self.size in CLASSIC, f"one of {', '.join(CLASSIC)}")
        held = CLASSIC[self.size].vocab_size - tokenizers.SENTINELS
        require(self, "vocabulary", self.vocabulary <= held, f"at most {held} for {self.size}")


def load(backbone: str | Path, changes: Mapping[str, Any]) -> BackboneParams:
    """The backbone in `backbone` (a file or a name in params/), with `changes` on top."""
    path = study_file(backbone)
    values = read_yaml(path)
    if "study" in values:
        raise InputError(str(path), "a study", "a backbone's settings", "give it to t5peft train")
    return build(BackboneParams, values, str(path), changes)
