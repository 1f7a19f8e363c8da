"""Sites are found, or their absence is told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import T5ForConditionalGeneration

from t5peft.inputs import backbone
from t5peft.methods import sites
from t5peft.methods.table import LIBRARY, METHODS, inject

TOKENS, BOTTLENECK, RANK, ALPHA = 3, 5, 2, 4.0

SETTINGS: dict[str, dict[str, Any]] = {
    "full": {},
    "soft-prompt": {"tokens": TOKENS},
    "adapter": {"bottleneck": BOTTLENECK},
    "lora": {"rank": RANK, "alpha": ALPHA},
}
EVERY = [(method, "scratch") for method in METHODS] + list(LIBRARY.items())
PEFT = [pair for pair in EVERY if pair[0] != "full"]


def tiny() -> T5ForConditionalGeneration:
    return backbone.load("random:tiny")


def injected(method: str, implementation: str) -> T5ForConditionalGeneration:
    model = tiny()
    torch.manual_seed(1)
    inject(model, method, implementation, SETTINGS[method])
    return model.eval()


def test_no_site_is_an_error() -> None:
    with pytest.raises(ValueError, match="no site"):
        sites.replace(torch.nn.Linear(2, 2), {}, lambda site: site)


@pytest.mark.parametrize(("method", "implementation"), PEFT)
def test_a_second_injection_is_an_error(method: str, implementation: str) -> None:
    model = injected(method, implementation)
    with pytest.raises(ValueError, match="load a fresh backbone"):
        inject(model, method, implementation, SETTINGS[method])
