"""Every method and implementation of the table."""

from __future__ import annotations

import pytest
import torch
from tiny import BOTTLENECK, EVERY, PEFT, RANK, TOKENS, injected, inputs, perturb, tiny
from transformers import T5ForConditionalGeneration

from t5peft.methods import adapter, ia3, lora, soft_prompt
from t5peft.training.jobs import trained

D_MODEL, D_FF, D_FF_SITES, PROJECTIONS = 32, 64, 4, 12  # of the tiny T5: 2 + 2 layers, 6 attentions


@pytest.mark.parametrize(("method", "implementation"), PEFT)
def test_new_parameters_lie_at_the_sites(method: str, implementation: str) -> None:
    modules = {"soft-prompt": soft_prompt, "adapter": adapter, "lora": lora, "ia3": ia3}
    sites = modules[method].sites(tiny())
    home = {"soft-prompt": ["encoder"]}.get(method, list(sites))
    names = trained(injected(method, implementation))
    assert all(any(name.startswith(f"{site}.") for site in home) for name in names)
    assert all(any(name.startswith(f"{site}.") for name in names) for site in home)


@pytest.mark.parametrize(
    ("method", "implementation"),
    [
        *(("full", "scratch"), ("adapter", "scratch"), ("lora", "scratch"), ("lora", "peft")),
        *(("ia3", "scratch"), ("ia3", "peft")),
    ],
)
def test_the_first_output_is_the_backbones(method: str, implementation: str) -> None:
    batch = inputs(method, implementation)
    assert torch.equal(injected(method, implementation)(**batch).logits, tiny()(**batch).logits)


@pytest.mark.parametrize(("method", "implementation"), EVERY)
def test_only_the_new_parameters_learn(method: str, implementation: str) -> None:
    model = injected(method, implementation)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    start = {name: tensor.clone() for name, tensor in trained(model).items()}
    perturb(model)
    begun = {name: tensor.clone() for name, tensor in trained(model).items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model(**inputs(method, implementation)).loss.backward()
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in _used(model))
    optimizer.step()
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], tensor) for name, tensor in frozen.items())
    assert all(not torch.equal(after[name], begun[name]) for name in start)
    if method != "full":
        assert sum(t.numel() for t in frozen.values()) == sum(
            p.numel() for p in tiny().parameters()
        )


def _used(model: T5ForConditionalGeneration) -> list[torch.nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize(("method", "implementation"), EVERY)
def test_parameters_added_are_the_formulas(method: str, implementation: str) -> None:
    added = {
        "full": 0,
        "soft-prompt": TOKENS * D_MODEL,
        "adapter": D_FF_SITES * (2 * D_MODEL * BOTTLENECK + BOTTLENECK + D_MODEL),
        "lora": PROJECTIONS * RANK * (D_MODEL + D_MODEL),
        "ia3": PROJECTIONS * D_MODEL + D_FF_SITES * D_FF,
    }[method]
    model = injected(method, implementation)
    assert sum(p.numel() for p in model.parameters()) - tiny().num_parameters() == added
    if method != "full":
        assert sum(tensor.numel() for tensor in trained(model).values()) == added
