"""Every (method, implementation): sites, start, gradients, count; ours against theirs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from t5peft.inputs import backbone
from t5peft.methods import adapter, lora, sites, soft_prompt
from t5peft.methods.table import LIBRARY, METHODS, inject
from t5peft.training.jobs import trained

TOKENS, BOTTLENECK, RANK, ALPHA = 3, 5, 2, 4.0
D_MODEL, D_FF_SITES, PROJECTIONS = 32, 4, 12  # of the tiny T5: 2 + 2 layers, 6 attentions

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
    """Move the new tensors away from zero, so that every one of them matters."""
    draw = torch.Generator().manual_seed(2)
    for tensor in trained(model).values():
        tensor.add_(0.1 * torch.randn(tensor.shape, generator=draw))


# --- sites -------------------------------------------------------------------------------------


def test_soft_prompt_sits_at_the_encoders_embedding_alone() -> None:
    assert list(soft_prompt.sites(tiny())) == ["encoder.embed_tokens"]


def test_adapter_sits_behind_every_feed_forward() -> None:
    assert list(adapter.sites(tiny())) == [
        "encoder.block.0.layer.1",
        "encoder.block.1.layer.1",
        "decoder.block.0.layer.2",
        "decoder.block.1.layer.2",
    ]


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


@pytest.mark.parametrize(("method", "implementation"), PEFT)
def test_new_parameters_lie_at_the_sites(method: str, implementation: str) -> None:
    sites = {"soft-prompt": soft_prompt, "adapter": adapter, "lora": lora}[method].sites(tiny())
    home = {"soft-prompt": ["encoder"]}.get(method, list(sites))
    names = trained(injected(method, implementation))
    assert all(any(name.startswith(f"{site}.") for site in home) for name in names)
    assert all(any(name.startswith(f"{site}.") for name in names) for site in home)


def test_no_site_is_an_error() -> None:
    with pytest.raises(ValueError, match="no site"):
        sites.replace(torch.nn.Linear(2, 2), {}, lambda site: site)


@pytest.mark.parametrize(("method", "implementation"), PEFT)
def test_a_second_injection_is_an_error(method: str, implementation: str) -> None:
    model = injected(method, implementation)
    with pytest.raises(ValueError, match="load a fresh backbone"):
        inject(model, method, implementation, SETTINGS[method])


# --- start, gradients, counts ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "implementation"),
    [("full", "scratch"), ("adapter", "scratch"), ("lora", "scratch"), ("lora", "peft")],
)
def test_the_first_output_is_the_backbones(method: str, implementation: str) -> None:
    batch = inputs(method, implementation)
    assert torch.equal(injected(method, implementation)(**batch).logits, tiny()(**batch).logits)


def test_the_prompt_starts_as_the_first_rows_of_the_embedding() -> None:
    model = injected("soft-prompt", "scratch")
    prompt = trained(model)["encoder.embed_tokens.prompt"]
    assert torch.equal(prompt, model.shared.weight[:TOKENS])
    assert prompt.data_ptr() != model.shared.weight.data_ptr()


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
    }[method]
    model = injected(method, implementation)
    assert sum(p.numel() for p in model.parameters()) - tiny().num_parameters() == added
    if method != "full":
        assert sum(tensor.numel() for tensor in trained(model).values()) == added


# --- ours equals theirs ------------------------------------------------------------------------


def theirs_to_ours(method: str, name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """A library's tensor under our name and in our shape."""
    if method == "soft-prompt":
        return "encoder.embed_tokens.prompt", tensor
    if method == "adapter":
        for theirs, ours in (
            (".adapters.imdb.adapter_down.0", ".down"),
            (".adapters.imdb.adapter_up", ".up"),
        ):
            name = name.replace(theirs, ours)
        return name, tensor
    for letter in "AB":
        name = name.replace(f".lora_{letter}.default.weight", f".{letter}")
    return name, tensor.T


@pytest.mark.parametrize("method", LIBRARY)
def test_ours_equals_theirs(method: str) -> None:
    """The same weights give the same logits and the same gradients, to float32 accuracy."""
    ours, theirs = injected(method, "scratch"), injected(method, LIBRARY[method])
    perturb(theirs)
    mine = trained(ours)
    for name, tensor in trained(theirs).items():
        our_name, value = theirs_to_ours(method, name, tensor)
        mine.pop(our_name).copy_(value)
    assert not mine, "every one of our tensors has a counterpart"

    our_output = ours(**inputs(method, "scratch"))
    their_output = theirs(**inputs(method, LIBRARY[method]))
    torch.testing.assert_close(our_output.logits, their_output.logits, rtol=1e-5, atol=1e-5)

    our_output.loss.backward()
    their_output.loss.backward()
    gradients = {name: p.grad for name, p in ours.named_parameters() if p.requires_grad}
    for name, parameter in theirs.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            our_name, gradient = theirs_to_ours(method, name, parameter.grad)
            torch.testing.assert_close(gradients[our_name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("method", "implementation"), PEFT)
def test_no_method_brings_dropout_of_its_own(method: str, implementation: str) -> None:
    def places(model: torch.nn.Module) -> int:
        return sum(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())

    assert places(injected(method, implementation)) == places(tiny())


def test_loras_a_starts_as_a_linear_map_of_d_in_does() -> None:
    """Kaiming-uniform with a = sqrt(5): it fills the range of 1 / sqrt(d_in) to both sides."""
    layer = lora.LoRALinear(torch.nn.Linear(400, 300, bias=False), rank=8, alpha=4.0)
    assert layer.A.abs().max().item() == pytest.approx(1 / 20, rel=0.02)
    assert not layer.B.any()
