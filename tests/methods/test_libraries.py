"""Ours equals theirs."""

from __future__ import annotations

import pytest
import torch
from tiny import PEFT, injected, inputs, perturb, tiny
from torch import Tensor

from t5peft.methods.table import LIBRARY
from t5peft.training.jobs import trained


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
    if method == "ia3":
        return name.replace(".ia3_l.default", ".scale"), tensor.flatten()
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
