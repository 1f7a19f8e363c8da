"""bf16 by float32's products gives what bf16's own give."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable

import pytest
import torch
from accelerate.state import AcceleratorState
from helpers import run_of
from torch import Tensor

from t5peft.base import bfloat16, machine
from t5peft.base.studies import Study
from t5peft.inputs import checks
from t5peft.training import jobs, loop

BATCH, ROWS, INNER, COLUMNS = 3, 5, 64, 7


@pytest.fixture(autouse=True)
def a_processor_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "lacks_bf16", lambda: True)


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, requires_grad=True)


PRODUCTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "matmul": lambda x, w: x @ w,
    "bmm": lambda x, w: torch.bmm(x, w.expand(BATCH, INNER, COLUMNS)),
    "linear": lambda x, w: torch.nn.functional.linear(x, w.T),
    "einsum": lambda x, w: torch.einsum("bri,ic->brc", x, w),
    "baddbmm": lambda x, w: torch.baddbmm(
        torch.ones(BATCH, ROWS, COLUMNS), x, w.expand(BATCH, INNER, COLUMNS)
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_and_its_gradients_are_bf16s_but_for_the_order_of_sums(name: str) -> None:
    torch.manual_seed(0)
    x, w = drawn(BATCH, ROWS, INNER), drawn(INNER, COLUMNS)

    def product() -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16):
            out = PRODUCTS[name](x, w)
        return [out, *torch.autograd.grad(out.float().square().sum(), (x, w))]

    theirs = product()
    bfloat16.provide("bf16")
    ours = product()
    for one, other in zip(ours, theirs, strict=True):
        assert one.dtype == other.dtype
        assert torch.allclose(one.float(), other.float(), rtol=2**-7, atol=0.05)
    exact = PRODUCTS[name](x.bfloat16().float(), w.bfloat16().float())
    assert torch.equal(ours[0], exact.bfloat16()), "rounded once, after the sum in float32"


def test_products_outside_of_autocast_are_as_ever() -> None:
    x = drawn(ROWS, INNER)
    plain = x @ x.T
    bfloat16.provide("bf16")
    assert torch.equal(x @ x.T, plain)
    assert (x.bfloat16() @ x.T.bfloat16()).dtype == torch.bfloat16


def test_a_study_in_float32_and_a_processor_with_bf16_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bfloat16.provide("fp32")
    assert not bfloat16.provided
    monkeypatch.setattr(machine, "lacks_bf16", lambda: False)
    bfloat16.provide("bf16")
    assert not bfloat16.provided


def test_it_is_provided_before_a_study_is_trained_or_measured(smoke: Study) -> None:
    checks.check(dataclasses.replace(smoke, precision="bf16"))
    assert bfloat16.provided


def test_it_is_provided_once() -> None:
    bfloat16.provide("bf16")
    bfloat16.provide("bf16")
    assert len(bfloat16.provided) == 1


@pytest.mark.parametrize("name", ["full", "soft-prompt-opendelta-n1", "adapter-adapterhub-b8"])
def test_a_training_in_bf16_goes_as_bf16s_own(name: str, smoke: Study) -> None:
    study = dataclasses.replace(smoke, precision="bf16")
    run = run_of(study, name)

    def losses() -> Tensor:
        AcceleratorState._reset_state()
        return torch.tensor(loop.train_epoch(jobs.prepare(run, study), 1))

    theirs = losses()
    bfloat16.provide("bf16")
    assert torch.allclose(losses(), theirs, atol=1e-2)


@pytest.mark.parametrize(
    ("gpu", "has", "told"), [(True, False, 1), (True, True, 0), (False, False, 0)]
)
def test_a_gpu_without_bf16_gets_a_line(
    gpu: bool, has: bool, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "has_accelerator", lambda: gpu)
    monkeypatch.setattr(machine, "lacks_bf16", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has)
    with warnings.catch_warnings(record=True) as lines:
        warnings.simplefilter("always")
        bfloat16.provide("fp32")
        assert not lines
        bfloat16.provide("bf16")
    assert ["this GPU has no bf16" in str(line.message) for line in lines] == [True] * told
