"""LoRA: its sites and its start."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny
from transformers import T5ForConditionalGeneration

from t5peft.base.studies import TARGETS
from t5peft.inputs.sizes import config
from t5peft.methods import lora


def test_lora_sits_at_query_and_value_of_every_attention() -> None:
    attentions = [
        *(f"encoder.block.{i}.layer.0.SelfAttention" for i in range(2)),
        *(
            f"decoder.block.{i}.layer.{j}"
            for i in range(2)
            for j in ("0.SelfAttention", "1.EncDecAttention")
        ),
    ]
    assert list(lora.sites(tiny())) == [f"{name}.{p}" for name in attentions for p in ("q", "v")]


def test_targets_are_found_in_the_models_order_whatever_theirs() -> None:
    for targets in (TARGETS, TARGETS[::-1]):
        found = list(lora.sites(tiny(), targets))
        assert found[:6] == [
            *(f"encoder.block.0.layer.0.SelfAttention.{x}" for x in ("q", "k", "v", "o")),
            *(f"encoder.block.0.layer.1.DenseReluDense.{x}" for x in ("wi", "wo")),
        ]
        assert len(found) == 6 * 4 + 4 * 2
    assert {name.rpartition(".")[2] for name in lora.sites(tiny(), ("o", "wi"))} == {"o", "wi"}


def test_wi_of_a_gated_feed_forward_is_both() -> None:
    form = config("tiny", feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    found = list(lora.sites(T5ForConditionalGeneration(form), ["wi"]))
    assert found[:2] == [f"encoder.block.0.layer.1.DenseReluDense.wi_{x}" for x in (0, 1)]
    assert len(found) == 4 * 2


def test_loras_a_starts_as_a_linear_map_of_d_in_does() -> None:
    """Kaiming-uniform with a = sqrt(5): it fills the range of 1 / sqrt(d_in) to both sides."""
    layer = lora.LoRALinear(torch.nn.Linear(400, 300, bias=False), rank=8, alpha=4.0)
    assert layer.A.abs().max().item() == pytest.approx(1 / 20, rel=0.02)
    assert not layer.B.any()
