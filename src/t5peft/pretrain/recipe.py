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
from typing import Any, cast

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

MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.775, 2.0315)
TIMES = 5
"""Muon's own: the decay of its momentum, the coefficients of its iteration, how often it runs."""


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
    """Muon for the matrices of the blocks, AdamW for embeddings, norms and relative biases."""

    def __init__(self, model: nn.Module) -> None:
        """No state yet; the matrices' RMS as they are now are the ones that they keep."""
        inside = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
        inside -= {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}  # tied
        self.muon = Muon([p for p in model.parameters() if id(p) in inside])
        others = [p for p in model.parameters() if id(p) not in inside]
        self.adamw = torch.optim.AdamW(others, weight_decay=0.0, fused=True)

    def step(self, rate: float) -> None:
        """One step: a matrix turns by about `rate`, an entry of the rest moves by about that."""
        self.adamw.param_groups[0]["lr"] = rate
        self.muon.step(rate)
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        """Both optimizers' states."""
        return {"muon": self.muon.state, "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Both optimizers' states again."""
        self.muon.state = state["muon"]
        self.adamw.load_state_dict(state["adamw"])


class Muon:
    """`torch.optim.Muon` (Nesterov, no decay) of all matrices of a shape (r, c), r <= c, at once.

    A GPU gets some sixty kernels a step so, in place of thirty for each of a hundred matrices.

        M <- M + (1 - mu) (G - M)           the momentum of the gradient
        W <- W - rate sqrt(c) |W_0| O       O: G + mu (M - G) with singular values near 1, whose
                                            RMS is about 1 / sqrt(c)
        W <- W |W_0| / |W|                  |.|: the RMS

    So a matrix keeps the RMS that it started with, and only turns: without 1 / sqrt(d) in T5's
    attention nothing else holds its scores, and a free matrix grows until they saturate.
    """

    def __init__(self, matrices: list[nn.Parameter]) -> None:
        """No momentum yet."""
        self.groups: dict[tuple[int, ...], list[nn.Parameter]] = {}
        for matrix in matrices:
            self.groups.setdefault(tuple(sorted(matrix.shape)), []).append(matrix)
        self.state: list[dict[str, Tensor]] = []
        for group in self.groups.values():
            stack = torch.stack([wide(matrix.detach()) for matrix in group])
            self.state.append({"momentum": torch.zeros_like(stack), "rms": rms(stack)})

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step; the gradients are gone afterwards."""
        for ((_, longest), group), state in zip(self.groups.items(), self.state, strict=True):
            gradient = torch.stack([wide(cast(Tensor, matrix.grad)) for matrix in group])
            state["momentum"].lerp_(gradient, 1 - MOMENTUM)
            turn = orthogonal(gradient.lerp_(state["momentum"], MOMENTUM))
            stack = torch.stack([wide(matrix) for matrix in group])
            stack.sub_(turn.mul(state["rms"] * (rate * math.sqrt(longest))))
            stack.mul_(state["rms"] / rms(stack))
            torch._foreach_copy_([wide(matrix) for matrix in group], list(stack.unbind()))  # type: ignore[attr-defined]
            for matrix in group:
                matrix.grad = None


def wide(matrix: Tensor) -> Tensor:
    """A view of the matrix with at most as many rows as columns."""
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def orthogonal(stack: Tensor) -> Tensor:
    """(n, r, c), r <= c -> the same with singular values near 1, in bf16: Newton and Schulz."""
    a, b, c = NEWTON_SCHULZ
    x = stack.bfloat16()
    x = x.div_(torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True).clamp_(min=1e-7))
    with torch.autocast(x.device.type, torch.bfloat16):  # where `bfloat16.provide` serves
        for _ in range(TIMES):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def rms(stack: Tensor) -> Tensor:
    """(n, r, c) -> (n, 1, 1), the root mean square of each matrix's entries, on its device."""
    return stack.square().mean((-2, -1), keepdim=True).sqrt()


def rate(highest: float, warmup_steps: int, progress: float, step: int) -> float:
    """Linear warm-up, then a cosine to a hundredth at progress 1."""
    decay = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return highest * min(1.0, (step + 1) / warmup_steps) * decay
