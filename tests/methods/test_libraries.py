"""Ours equals theirs."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import PEFT, injected, inputs, perturb, tiny
from torch import Tensor
from transformers import T5ForConditionalGeneration

from t5peft.base.studies import TARGETS
from t5peft.inputs.sizes import config
from t5peft.methods import matching
from t5peft.methods.table import LIBRARY, inject
from t5peft.training.jobs import trained


def laid(tensor: Tensor, like: Tensor) -> Tensor:
    """Their tensor as ours lies."""
    found = matching.laid(tensor, like.shape)
    assert found is not None
    return found


@pytest.mark.parametrize("method", LIBRARY)
def test_ours_equals_theirs(method: str) -> None:
    """The same weights give the same logits and the same gradients, to float32 accuracy."""
    compare(method, injected(method, "scratch"), injected(method, LIBRARY[method]))


@settings(max_examples=12, deadline=None)
@given(st.sets(st.sampled_from(TARGETS), min_size=1), st.integers(1, 4))
def test_lora_equals_pefts_at_any_targets(targets: set[str], rank: int) -> None:
    """With d_model 32, H d_kv 28 and d_ff 64, so that no width stands for another."""
    torch.manual_seed(0)
    backbone = T5ForConditionalGeneration(config("tiny", d_kv=7)).eval()
    pair = [copy.deepcopy(backbone) for _ in range(2)]
    for model, implementation in zip(pair, ("scratch", "peft"), strict=True):
        given = {"rank": rank, "alpha": 3.0, "targets": sorted(targets)}
        inject(model, "lora", implementation, given)
    compare("lora", *pair)


def compare(method: str, ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    """Their tensors put into ours: logits and gradients are the same."""
    perturb(theirs)
    mine, other = trained(ours), trained(theirs)
    names = matching.matched(LIBRARY[method], other, mine)  # each has its counterpart
    for name, tensor in mine.items():
        tensor.copy_(laid(other[names[name]], tensor))

    our_output = ours(**inputs(method, "scratch"))
    their_output = theirs(**inputs(method, LIBRARY[method]))
    torch.testing.assert_close(our_output.logits, their_output.logits, rtol=1e-5, atol=1e-5)

    our_output.loss.backward()
    their_output.loss.backward()
    for name in mine:
        gradient, counterpart = (
            model.get_parameter(x).grad for model, x in ((ours, name), (theirs, names[name]))
        )
        assert gradient is not None
        assert counterpart is not None
        expected = laid(counterpart, gradient)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("method", "implementation"), PEFT)
def test_no_method_brings_dropout_of_its_own(method: str, implementation: str) -> None:
    def places(model: torch.nn.Module) -> int:
        return sum(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())

    assert places(injected(method, implementation)) == places(tiny())
