"""IA3: its sites, its start and the places of its scales."""

from __future__ import annotations

import torch
from tiny import tiny
from transformers import T5ForConditionalGeneration

from t5peft.inputs.sizes import config
from t5peft.methods import ia3


def test_ia3_sits_at_keys_values_and_the_feed_forwards_inner_state() -> None:
    names = list(ia3.sites(tiny()))
    ends = [name.rpartition(".")[2] for name in names]
    assert {end: ends.count(end) for end in ends} == {"k": 6, "v": 6, "wo": 4}
    assert names[:3] == [
        "encoder.block.0.layer.0.SelfAttention.k",
        "encoder.block.0.layer.0.SelfAttention.v",
        "encoder.block.0.layer.1.DenseReluDense.wo",
    ]


def test_ia3_sits_before_a_gated_feed_forwards_last_map() -> None:
    gated = T5ForConditionalGeneration(config("tiny", feed_forward_proj="gated-gelu"))
    assert list(ia3.sites(gated)) == list(ia3.sites(tiny()))


def test_a_scale_is_of_the_output_or_of_the_input() -> None:
    linear, x = torch.nn.Linear(3, 2, bias=False), torch.randn(4, 3)
    for of_input, width in ((True, 3), (False, 2)):
        scaled = ia3.ScaledLinear(linear, of_input)
        assert torch.equal(scaled(x), linear(x)), "it starts as the frozen map"
        factors = torch.arange(1.0, width + 1)
        scaled.scale.data = factors
        wanted = linear(x * factors) if of_input else linear(x) * factors
        assert torch.equal(scaled(x), wanted)
