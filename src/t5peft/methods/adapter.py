"""Bottleneck adapter, from scratch.

Houlsby et al. (2019), "Parameter-Efficient Transfer Learning for NLP"; the placement of one
adapter a layer, after the feed-forward sublayer, is Pfeiffer et al. (2021), "AdapterFusion".

    h <- h + ReLU(h W_down + b_down) W_up + b_up

    h       (B, T, d)  output of `T5LayerFF`, its residual and norm inside
    W_down  (d, b)     b_down (b)       W_up  (b, d)     b_up (d)
    d  d_model         b  bottleneck

Initialisation: W_up and b_up are zero, so that the first output is the frozen model's; W_down and
b_down as `nn.Linear` draws them. Parameters added per site: d b + b + b d + d.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5LayerFF

from t5peft.methods.sites import Sites, find, replace


class AdapterLayer(nn.Module):
    """A feed-forward sublayer with a bottleneck adapter behind it."""

    def __init__(self, feed_forward: nn.Module, d_model: int, bottleneck: int) -> None:
        super().__init__()
        self.feed_forward = feed_forward
        self.down = nn.Linear(d_model, bottleneck)
        self.up = nn.Linear(bottleneck, d_model)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(B, T, d) -> (B, T, d)."""
        h = self.feed_forward(hidden_states)
        return h + self.up(torch.relu(self.down(h)))  # h + ReLU(h W_down + b_down) W_up + b_up


def sites(model: nn.Module) -> Sites:
    """Every feed-forward sublayer of the encoder and of the decoder."""
    return find(model, lambda name, module: isinstance(module, T5LayerFF))


def inject(model: T5ForConditionalGeneration, bottleneck: int) -> None:
    """Put the method into a frozen T5, in place."""
    replace(model, sites(model), lambda site: AdapterLayer(site, model.config.d_model, bottleneck))
