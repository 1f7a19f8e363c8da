"""A tiny T5 with a method in place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from t5peft.inputs import backbone
from t5peft.methods import formulas
from t5peft.methods.table import LIBRARY, METHODS, inject
from t5peft.training.jobs import trained

TOKENS, BOTTLENECK, RANK, ALPHA = 3, 5, 2, 4.0

SETTINGS: dict[str, dict[str, Any]] = {
    "full": {},
    "soft-prompt": {"tokens": TOKENS},
    "adapter": {"bottleneck": BOTTLENECK},
    "lora": {"rank": RANK, "alpha": ALPHA},
    "ia3": {},
}
EVERY = [(method, "scratch") for method in METHODS] + list(LIBRARY.items())
SIZED: list[tuple[str, dict[str, Any]]] = [("full", {}), ("ia3", {})] + [
    (method, {name: number})
    for method, (name, _) in formulas.SETTINGS.items()
    for number in (1, 5, 8, 13)
]
"""Each method, at several sizes."""

PEFT = [pair for pair in EVERY if pair[0] != "full"]


def tiny() -> T5ForConditionalGeneration:
    return backbone.load("random:tiny")


def injected(method: str, implementation: str) -> T5ForConditionalGeneration:
    model = tiny()
    torch.manual_seed(1)
    inject(model, method, implementation, SETTINGS[method])
    return model.eval()


def inputs(method: str, implementation: str) -> dict[str, Tensor]:
    """Two padded texts; placeholders stand before them for the from-scratch soft prompt."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 100, (2, 7), generator=draw)
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    ids[1, 5:] = 0
    if (method, implementation) == ("soft-prompt", "scratch"):
        ids = torch.cat([torch.zeros(2, TOKENS, dtype=torch.long), ids], dim=1)
        mask = torch.cat([torch.ones(2, TOKENS, dtype=torch.long), mask], dim=1)
    return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([[40, 1], [50, 1]])}


def perturb(model: T5ForConditionalGeneration) -> None:
    """Move the new tensors away from their start, so that every one of them matters."""
    draw = torch.Generator().manual_seed(2)
    for tensor in trained(model).values():
        tensor.add_(0.1 * torch.randn(tensor.shape, generator=draw))
