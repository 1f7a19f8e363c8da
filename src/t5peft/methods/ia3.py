"""IA3, infused adapter by inhibiting and amplifying inner activations, from scratch.

Liu et al. (2022), "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
Learning", section 3.3. Every entry of the keys, of the values and of the feed-forward's inner state
has a learned scale:

    softmax(q (l_k * k)^T) (l_v * v)        (l_ff * ReLU(x W_i)) W_o

    k, v  (B, T, H d_kv)    l_k, l_v  (H d_kv)    in each attention: self- and cross-
    x W_i (B, T, d_ff)      l_ff      (d_ff)      in each feed-forward

Initialisation: ones, so that the first output is the frozen model's. Parameters added: H d_kv for
each projection of keys or values, d_ff for each feed-forward.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import (
    T5Attention,
    T5DenseActDense,
    T5DenseGatedActDense,
)

from t5peft.methods.sites import Sites, find, replace


class ScaledLinear(nn.Module):
    """A frozen linear map with a trained scale for each entry of its output, or of its input."""

    def __init__(self, linear: nn.Linear, of_input: bool) -> None:
        super().__init__()
        self.linear, self.of_input = linear, of_input
        width = linear.in_features if of_input else linear.out_features
        like = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        self.scale = nn.Parameter(torch.ones(width, **like))

    @property
    def weight(self) -> Tensor:
        """The frozen weight: T5 looks at a projection's dtype."""
        return self.linear.weight

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, d_in) -> (B, T, d_out)."""
        if self.of_input:
            return self.linear(x * self.scale.to(x.dtype))  # (l_ff * ReLU(x W_i)) W_o
        y = self.linear(x)
        return y * self.scale.to(y.dtype)  # l_k * k, l_v * v


def sites(model: nn.Module) -> Sites:
    """Key and value projection of every attention, and every feed-forward's second map."""
    parts = {T5Attention: ("k", "v"), T5DenseActDense: ("wo",), T5DenseGatedActDense: ("wo",)}
    return {
        f"{name}.{part}": getattr(module, part)
        for name, module in find(model, lambda _, module: type(module) in parts).items()
        for part in parts[type(module)]
    }


def inject(model: T5ForConditionalGeneration) -> None:
    """Put the method into a frozen T5, in place."""
    inner = {name: site for name, site in sites(model).items() if name.endswith(".wo")}
    replace(model, sites(model), lambda site: ScaledLinear(site, site in inner.values()))
