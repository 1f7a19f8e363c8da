"""Low-rank adaptation (LoRA), from scratch.

Hu et al. (2022), "LoRA: Low-Rank Adaptation of Large Language Models".

    x W  becomes  x W + (alpha / r) x A B

    x  (B, T, d_in)    W  (d_in, d_out)  frozen projection
    A  (d_in, r)       B  (r, d_out)     trained
    r  rank            alpha  scale

Initialisation: A Kaiming-uniform, B zero, so that the first output is the frozen model's.
No bias, no dropout. Parameters added per site: r (d_in + d_out).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from t5peft.methods.sites import Sites, find, replace


class LoRALinear(nn.Module):
    """A frozen linear map with a trained low-rank update beside it."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float) -> None:
        super().__init__()
        self.linear = linear
        self.scale = alpha / rank
        like = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        self.A = nn.Parameter(torch.empty(linear.in_features, rank, **like))
        self.B = nn.Parameter(torch.zeros(rank, linear.out_features, **like))
        nn.init.kaiming_uniform_(self.A.T, a=math.sqrt(5))  # fan-in d_in, as nn.Linear draws it

    @property
    def weight(self) -> Tensor:
        """The frozen weight: T5 looks at a projection's dtype."""
        return self.linear.weight

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d_in) -> (B, T, d_out)."""
        return self.linear(x) + self.scale * (x @ self.A @ self.B)  # x W + (alpha / r) x A B


def sites(model: nn.Module, targets: Sequence[str] = ("q", "v")) -> Sites:
    """The targets among q, k, v, o of every attention, and wi, wo of every feed-forward.

    `wi` is both wi_0 and wi_1 of a gated one.
    """
    return find(model, lambda name, _: name.rpartition(".")[2].partition("_")[0] in targets)


def inject(
    model: T5ForConditionalGeneration,
    rank: int,
    alpha: float,
    targets: Sequence[str] = ("q", "v"),
) -> None:
    """Put the method into a frozen T5, in place."""
    replace(model, sites(model, targets), lambda site: LoRALinear(site, rank, alpha))
