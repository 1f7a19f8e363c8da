"""The soft prompt: its site and its start."""

from __future__ import annotations

import torch
from tiny import TOKENS, injected, tiny

from t5peft.methods import soft_prompt
from t5peft.training.jobs import trained


def test_soft_prompt_sits_at_the_encoders_embedding_alone() -> None:
    assert list(soft_prompt.sites(tiny())) == ["encoder.embed_tokens"]


def test_the_prompt_starts_as_the_first_rows_of_the_embedding() -> None:
    model = injected("soft-prompt", "scratch")
    prompt = trained(model)["encoder.embed_tokens.prompt"]
    assert torch.equal(prompt, model.shared.weight[:TOKENS])
    assert prompt.data_ptr() != model.shared.weight.data_ptr()
