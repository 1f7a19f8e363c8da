"""T5's own arithmetic with less memory traffic; the mathematics stays, only rounding differs.

These places of `transformers` spend more time on moving numbers than they need:

    encoder attention   softmax((q k^T) + bias + mask) v  in the working precision: the scores are
                        not copied to float32 and back, the kernel itself sums in float32; bias and
                        mask are added up once for all layers; where no gradient is wanted, on a
                        CPU, one review at a time stays in the cache
    cross-attention     the same; for the one or two queries of a label word  (q W_k^T) E^T  and
                        (softmax E) W_v  instead of the keys E W_k and values E W_v of all states E
    feed-forward        dropout(ReLU(h W_i)) W_o  without a trip through the weight's precision
    RMS norm            one kernel, rounded once for all projections that read it; where no gradient
                        is wanted, on a CPU, without a tensor of squares
    dropout, on a CPU   16 random bits an entry, drawn 64 at a time, instead of one draw an entry
    frozen projections  rounded to bf16 once, instead of by autocast at every use
    every projection    of a model that answers on a CPU: laid out for oneDNN's products once

What the methods inject (LoRA inside projections, adapters behind sublayers, prompts before the
encoder) stays where it is: modules keep their names and parameters, and only `forward` changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from types import MethodType
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import (
    T5Attention,
    T5DenseActDense,
    T5LayerCrossAttention,
    T5LayerNorm,
)

from t5peft.base import machine

FUSED = {"cuda"}
"""Devices with one kernel for the whole attention, which keeps no scores."""

FEW = 8
"""Queries up to which the cross-attention makes no keys and values."""

SAME = 1e-3
"""How far, relatively, the loss of the faster forward may be from that of transformers."""

Model = TypeVar("Model", bound=nn.Module)


def speed_up(model: Model) -> Model:
    """Give a T5's modules the faster forward, in place; returns the model."""
    for module in model.modules():
        if isinstance(module, T5Attention) and not module.is_decoder:
            module.forward = MethodType(encoder_attention, module)
        elif isinstance(module, T5LayerCrossAttention):
            attention = module.EncDecAttention
            attention.forward = MethodType(cross_attention, attention)
        elif isinstance(module, T5DenseActDense):
            module.forward = MethodType(feed_forward, module)
        elif isinstance(module, T5LayerNorm):
            module.forward = MethodType(rms_norm, module)
        elif isinstance(module, nn.Dropout):
            module.forward = MethodType(dropout_layer, module)
    return model


@torch.no_grad()
def probe(model: T5ForConditionalGeneration) -> float:
    """The loss of two made-up texts, one of them padded, in float32 and without dropout, in nats
    a token.
    """
    ids = torch.arange(2 * 160, device=model.device).reshape(2, 160) % model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, 100:] = 0
    training = model.training
    loss = model.eval()(input_ids=ids, attention_mask=mask, labels=ids[:, :2].contiguous()).loss
    model.train(training)
    return float(loss)


def round_frozen(model: T5ForConditionalGeneration) -> None:
    """Keep frozen projections in bf16, in place: what autocast would make of them at every use.

    The embedding stays in float32, as its rows are added up unrounded; the output projection that
    shares its weights gets a rounded copy.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.requires_grad:
            rounded = module.weight.data.bfloat16()
            if module is model.lm_head:
                module.forward = partial(F.linear, weight=rounded)
            else:
                module.weight.data = rounded


@contextmanager
def packed(model: T5ForConditionalGeneration) -> Iterator[None]:
    """While it is entered, a CPU keeps a copy of each projection as oneDNN's products want it.

    PyTorch would lay the weight out anew at every product in bf16, and leave those in float32 to
    MKL, which is slow on some processors. The weights may not change meanwhile.
    """
    able = model.device.type == "cpu" and torch.backends.mkldnn.is_available()
    plain = [m for m in model.modules() if type(m) is nn.Linear and "forward" not in vars(m)]
    for module in plain if able else ():
        weight = working(module.weight.detach())
        weight = weight.float() if machine.lacks_bf16() else weight
        bias = None if module.bias is None else module.bias.detach().to(weight.dtype)
        weight = torch.ops.mkldnn._reorder_linear_weight(weight)
        vars(module)["forward"] = partial(product, weight=weight, bias=bias)
    try:
        yield
    finally:
        for module in plain:
            vars(module).pop("forward", None)


def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear`, of a packed weight: in bf16, or where the processor lacks it in float32."""
    x = working(x).to(weight.dtype)
    return working(torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], ""))


def working(x: Tensor) -> Tensor:
    """`x` in the precision that autocast would give it before a matrix product."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def rms_norm(self: Any, hidden_states: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + eps) * weight, over the last dimension."""
    epsilon = self.eps if hasattr(self, "eps") else self.variance_epsilon  # apex's, or T5's own
    x, weight = hidden_states.float(), self.weight
    if x.device.type != "cpu" or torch.is_grad_enabled():
        return working(F.rms_norm(x, weight.shape, weight, epsilon))
    square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square()
    return working((x * torch.rsqrt(square / x.shape[-1] + epsilon)).mul_(weight))


def feed_forward(self: Any, hidden_states: Tensor) -> Tensor:
    """(B, T, d) -> (B, T, d), d_ff wide inside."""
    return self.wo(self.dropout(torch.relu_(self.wi(hidden_states))))


def encoder_attention(
    self: Any,
    hidden_states: Tensor,
    mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """(B, T, d) -> (B, T, d), and bias + mask (B, H, T, T), which the next layers take as theirs.

    mask: (B, 1, 1, T), 0 or a large negative number.
    """
    q, k, v = (heads(self, projection(hidden_states)) for projection in (self.q, self.k, self.v))
    bias = position_bias
    if bias is None:
        length = hidden_states.shape[1]
        bias = self.compute_bias(length, length, device=q.device).to(q.dtype)
        bias = bias.contiguous()  # its heads lie last, which is slow to add
        if mask is None or (q.device.type not in FUSED and not mask.any()):  # a GPU would wait
            bias = bias.expand(len(q), -1, -1, -1)
        else:
            bias = bias + mask.to(q.dtype)
    return attention(self, q, k, v, cast(Tensor, bias)), cast(Tensor, bias)


def heads(self: Any, x: Tensor) -> Tensor:
    """(B, T, H d_kv) -> (B, H, T, d_kv)."""
    return x.view(*x.shape[:2], self.n_heads, -1).transpose(1, 2)


def attention(self: Any, q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T + bias) v W_o: (B, H, n, d_kv), twice (B, H, T, d_kv) -> (B, n, d)."""
    p = self.dropout if self.training else 0.0
    if q.device.type in FUSED:
        out = F.scaled_dot_product_attention(q, k, v, bias, dropout_p=p, scale=1.0)
    elif torch.is_grad_enabled():
        scores = (q @ k.transpose(2, 3)).add_(bias)
        out = dropout(torch.softmax(scores, dim=-1), self.dropout, self.training) @ v
    else:
        out = torch.stack([attend(*review) for review in zip(q, k, v, bias, strict=True)])
    return self.o(out.transpose(1, 2).reshape(len(q), -1, self.inner_dim))


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """One review's attention (H, n, d_kv), whose scores (H, n, T) fit into a core's cache."""
    scores = torch.baddbmm(bias, q, k.contiguous().transpose(1, 2))  # not copied as a transpose
    return torch.softmax(scores, dim=-1) @ v


def cross_attention(
    self: Any,
    hidden_states: Tensor,
    mask: Tensor,
    key_value_states: Tensor,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """(B, q, d) that look at E (B, T, d) -> (B, q, d), and the mask that the next layers take.

    mask: (B, 1, 1, T), 0 or a large negative number. There is nothing to cache: E itself is read.
    """
    batch, queries, width = hidden_states.shape
    states = key_value_states  # E
    if queries > FEW:
        q, k, v = (heads(self, x) for x in (self.q(hidden_states), self.k(states), self.v(states)))
        return attention(
            self, q, k, v, mask.to(q.dtype).expand(-1, self.n_heads, queries, -1)
        ), mask
    eye = torch.eye(width, dtype=states.dtype, device=states.device)
    w_k, w_v = (  # (d, H, d_kv), whatever the method put into the projection
        projection(eye).view(width, self.n_heads, -1) for projection in (self.k, self.v)
    )
    q = self.q(hidden_states).view(batch, queries, self.n_heads, -1)
    asked = torch.einsum("bnhc,dhc->bhnd", q, w_k).flatten(1, 2)
    scores = (asked @ states.transpose(1, 2)).view(batch, self.n_heads, queries, -1)
    weights = torch.softmax(scores.add_(mask.to(scores.dtype)), dim=-1)
    mixed = dropout(weights, self.dropout, self.training).flatten(1, 2) @ states
    mixed = mixed.view(batch, self.n_heads, queries, width)
    out = torch.einsum("bhnd,dhc->bnhc", mixed, w_v).reshape(batch, queries, self.inner_dim)
    return self.o(out), mask


def dropout_layer(self: nn.Dropout, x: Tensor) -> Tensor:
    """`nn.Dropout`'s forward."""
    return dropout(x, self.p, self.training)


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero each entry with probability p (to 1 / 65,536), and scale the others by 1 / (1 - p)."""
    if not training or p == 0:
        return x
    return Dropout.apply(x, p) if x.device.type == "cpu" else F.dropout(x, p)


class Dropout(torch.autograd.Function):
    """Dropout whose mask costs 16 random bits an entry, drawn 64 at a time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        """x (any shape), p in (0, 1) -> the same shape."""
        words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16)[: x.numel()].ge_(round(p * 2**16) - 2**15)  # 0 or 1
        mask = kept.to(x.dtype).view(x.shape)
        ctx.save_for_backward(mask)
        ctx.scale = 1 / (1 - p)
        return (x * mask).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        """The same mask and scale."""
        (mask,) = ctx.saved_tensors
        return (gradient * mask).mul_(ctx.scale), None
