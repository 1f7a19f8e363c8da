"""LoRA: its sites and its start."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny

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


def test_loras_a_starts_as_a_linear_map_of_d_in_does() -> None:
    """Kaiming-uniform with a = sqrt(5): it fills the range of 1 / sqrt(d_in) to both sides."""
    layer = lora.LoRALinear(torch.nn.Linear(400, 300, bias=False), rank=8, alpha=4.0)
    assert layer.A.abs().max().item() == pytest.approx(1 / 20, rel=0.02)
    assert not layer.B.any()
