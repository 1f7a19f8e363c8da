"""The dimensions of the T5 family, by name, so that parameters can be counted without weights.

Raffel et al. (2020) and the released configurations; `mini` and `tiny` are this project's own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Size:
    """The numbers of a T5 that decide its shapes."""

    d_model: int
    d_kv: int
    d_ff: int
    num_heads: int
    num_layers: int
    num_decoder_layers: int
    vocab_size: int = 32_128


SIZES = {
    "t5-small": Size(512, 64, 2048, 8, 6, 6),
    "t5-base": Size(768, 64, 3072, 12, 12, 12),
    "t5-large": Size(1024, 64, 4096, 16, 24, 24),
    "t5-3b": Size(1024, 128, 16384, 32, 24, 24),
    "t5-11b": Size(1024, 128, 65536, 128, 24, 24),
    "mini": Size(256, 64, 1024, 4, 4, 2, vocab_size=8_128),
    "tiny": Size(32, 8, 64, 4, 2, 2, vocab_size=8_128),
}


def config(size: str, **changes: Any) -> Any:
    """The `T5Config` of a known size; `changes` go on top.

    Raises KeyError for an unknown size.
    """
    from transformers import T5Config

    return T5Config(**{**asdict(SIZES[size]), "decoder_start_token_id": 0, **changes})
