"""How a T5 starts and steps, so that it learns to read its input within few tokens.

Span corruption asks the decoder to find its sentinel in the input and to read what stands around
it. A fresh T5 can do neither: it becomes a language model of its targets, and its encoder drifts
where no gradient holds it (`loop.reading` shows it). Two things get it over that early:

    start   the encoder's heads look near (relative biases that fall with the distance, as those
            of ALiBi do, Press et al., 2022), and cross-attention looks for the decoder's own
            token (W_k = W_q, Trockman and Kolter, 2023)
    step    Muon (Jordan et al., 2024) for the matrices of the blocks, whose lengths are held,
            AdamW for the rest
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

SLOPES = (0.7, 0.7, 0.3, 0.05)
"""Fall of the bias with each token of distance: a head to the left, one to the right, two to both
sides; further heads repeat them with half the slope."""

LOWEST = -6.0
"""No bias starts below this, so that every token can still be found."""

SAME = 8.0
"""What a token's score against itself starts at in cross-attention; others' are SAME / sqrt(d_kv)
in size."""

MUON_RMS = 0.2
"""The RMS of `torch.optim.Muon`'s step at a rate of 1, where it matches AdamW's."""


# --- start -------------------------------------------------------------------------------------


@torch.no_grad()
def start(model: T5ForConditionalGeneration) -> None:
    """Draw the attention's start anew, in place."""
    first: Any = model.encoder.block[0]
    bias = first.layer[0].SelfAttention.relative_attention_bias.weight
    buckets, heads = bias.shape
    bias.copy_(near(buckets, heads, model.config.relative_attention_max_distance))
    blocks: Any = model.decoder.block
    for block in blocks:
        cross = block.layer[1].EncDecAttention
        cross.q.weight.normal_(std=math.sqrt(SAME / cross.key_value_proj_dim / cross.d_model))
        cross.k.weight.copy_(cross.q.weight)


def near(buckets: int, heads: int, farthest: int) -> Tensor:
    """The encoder's relative biases (buckets, heads) of heads that look near."""
    distances = torch.arange(-farthest, farthest + 1)  # of what is read from what reads
    bucket = T5Attention._relative_position_bucket(distances, True, buckets, farthest)
    total = torch.zeros(buckets).index_add_(0, bucket, distances.float())
    mean = total / torch.bincount(bucket, minlength=buckets).clamp(min=1)
    bias = torch.empty(buckets, heads)
    for head in range(heads):
        kind, round_ = head % len(SLOPES), head // len(SLOPES)
        bias[:, head] = -SLOPES[kind] / 2**round_ * mean.abs()
        if kind < 2:
            bias[mean > 0 if kind == 0 else mean < 0, head] = LOWEST
    return bias.clamp(min=LOWEST)


# --- step --------------------------------------------------------------------------------------


class Optimizer:
    """Muon for the matrices of the blocks, AdamW for embeddings, norms and relative biases.

    A matrix keeps the root mean square that it started with, and only turns: without 1 / sqrt(d) in
    T5's attention nothing else holds its scores, and a free matrix grows until they saturate.
    """

    def __init__(self, model: nn.Module) -> None:
        """No state yet; the matrices' RMS as they are now are the ones that they keep."""
        inside = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
        inside -= {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}  # tied
        matrices = [p for p in model.parameters() if id(p) in inside]
        self.muon = torch.optim.Muon(
            [{"params": [matrix], "rms": rms(matrix).item()} for matrix in matrices],
            weight_decay=0.0,
            adjust_lr_fn="match_rms_adamw",
        )
        others = [p for p in model.parameters() if id(p) not in inside]
        self.adamw = torch.optim.AdamW(others, weight_decay=0.0, fused=True)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step: a matrix turns by about `rate`, an entry of the rest moves by about that."""
        for group in self.muon.param_groups:
            group["lr"] = rate * group["rms"] / MUON_RMS
        self.adamw.param_groups[0]["lr"] = rate
        for optimizer in (self.muon, self.adamw):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        for group in self.muon.param_groups:
            (matrix,) = group["params"]
            matrix.mul_(group["rms"] / rms(matrix))

    def state_dict(self) -> dict[str, Any]:
        """Both optimizers' states."""
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Both optimizers' states again."""
        self.muon.load_state_dict(state["muon"])
        self.adamw.load_state_dict(state["adamw"])


def rms(tensor: Tensor) -> Tensor:
    """The root mean square of a tensor's entries, still on its device."""
    return tensor.detach().square().mean().sqrt()


def rate(highest: float, warmup_steps: int, progress: float, step: int) -> float:
    """Linear warm-up, then a cosine to a hundredth at progress 1."""
    decay = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return highest * min(1.0, (step + 1) / warmup_steps) * decay
