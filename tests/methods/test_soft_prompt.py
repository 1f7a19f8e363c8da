"""The soft prompt: its site and its start."""

from __future__ import annotations

from typing import Any

import torch
from transformers import T5ForConditionalGeneration

from t5peft.inputs import backbone
from t5peft.methods import soft_prompt
from t5peft.methods.table import LIBRARY, METHODS, inject
from t5peft.training.jobs import trained

TOKENS, BOTTLENECK, RANK, ALPHA = 3, 5, 2, 4.0

SETTINGS: dict[str, dict[str, Any]] = {
    "full": {},
    "soft-prompt": {"tokens": TOKENS},
    "adapter": {"bottleneck": BOTTLENECK},
    "lora": {"rank": RANK, "alpha": ALPHA},
}
EVERY = [(method, "scratch") for method in METHODS] + list(LIBRARY.items())


def tiny() -> T5ForConditionalGeneration:
    return backbone.load("random:tiny")


def injected(method: str, implementation: str) -> T5ForConditionalGeneration:
    model = tiny()
    torch.manual_seed(1)
    inject(model, method, implementation, SETTINGS[method])
    return model.eval()


def test_soft_prompt_sits_at_the_encoders_embedding_alone() -> None:
    assert list(soft_prompt.sites(tiny())) == ["encoder.embed_tokens"]


def test_the_prompt_starts_as_the_first_rows_of_the_embedding() -> None:
    model = injected("soft-prompt", "scratch")
    prompt = trained(model)["encoder.embed_tokens.prompt"]
    assert torch.equal(prompt, model.shared.weight[:TOKENS])
    assert prompt.data_ptr() != model.shared.weight.data_ptr()
