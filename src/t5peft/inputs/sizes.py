"""The dimensions of the T5 family, by name, so that parameters can be counted without weights.

Raffel et al. (2020) and the released configurations of T5, T5 v1.1, flan-T5 (Chung et al., 2022),
mT5 (Xue et al., 2021) and ByT5 (Xue et al., 2022); `mini` and `tiny` are this project's own.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar


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

    # no fields: a random backbone's fingerprint is of these
    feed_forward_proj: ClassVar[str] = "relu"
    is_gated_act: ClassVar[bool] = False
    tie_word_embeddings: ClassVar[bool] = True


class Gated(Size):
    """Of T5 v1.1 and what followed: (GELU(h W_0) * h W_1) W_o inside, an output head of its own."""

    feed_forward_proj = "gated-gelu"
    is_gated_act = True
    tie_word_embeddings = False


CLASSIC = {
    "t5-small": Size(512, 64, 2048, 8, 6, 6),
    "t5-base": Size(768, 64, 3072, 12, 12, 12),
    "t5-large": Size(1024, 64, 4096, 16, 24, 24),
    "t5-3b": Size(1024, 128, 16384, 32, 24, 24),
    "t5-11b": Size(1024, 128, 65536, 128, 24, 24),
    "mini": Size(256, 64, 1024, 4, 4, 2, vocab_size=8_128),
    "tiny": Size(32, 8, 64, 4, 2, 2, vocab_size=8_128),
}
"""T5's first form, which alone is trained here."""

V1_1 = {
    "small": (512, 64, 1024, 6, 8, 8),
    "base": (768, 64, 2048, 12, 12, 12),
    "large": (1024, 64, 2816, 16, 24, 24),
    "xl": (2048, 64, 5120, 32, 24, 24),
    "xxl": (4096, 64, 10240, 64, 24, 24),
}
BYT5 = {
    "small": (1472, 64, 3584, 6, 12, 4),
    "base": (1536, 64, 3968, 12, 18, 6),
    "large": (1536, 64, 3840, 16, 36, 12),
    "xl": (2560, 64, 6720, 32, 36, 12),
    "xxl": (4672, 64, 12352, 64, 36, 12),
}
LATER = {"t5-v1_1": (V1_1, 32_128), "flan-t5": (V1_1, 32_128), "mt5": (V1_1, 250_112)}
LATER |= {"byt5": (BYT5, 384)}
"""Sizes and vocabulary of each later family."""

SIZES: dict[str, Size] = CLASSIC | {
    f"{family}-{name}": Gated(*numbers, vocab_size=vocabulary)
    for family, (sizes, vocabulary) in LATER.items()
    for name, numbers in sizes.items()
}
KNOWN = f"{', '.join(CLASSIC)}, or {', '.join(LATER)} with -{', -'.join(V1_1)}"
"""All names of sizes, in a line."""


def config(size: str, **changes: Any) -> Any:
    """The `T5Config` of a known size; `changes` go on top.

    Raises KeyError for an unknown size.
    """
    from transformers import T5Config

    known = SIZES[size]
    form = {name: getattr(known, name) for name in ("feed_forward_proj", "tie_word_embeddings")}
    return T5Config(**{**asdict(known), **form, "decoder_start_token_id": 0, **changes})
