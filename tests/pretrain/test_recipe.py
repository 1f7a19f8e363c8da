"""How a T5 of our own starts and steps: near heads, the same token, matrices that only turn."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import T5ForConditionalGeneration

from t5peft.inputs.sizes import config
from t5peft.pretrain import recipe

T = 40  # tokens


@pytest.fixture
def model() -> T5ForConditionalGeneration:
    """A fresh tiny T5 of four heads, started by the recipe."""
    torch.manual_seed(0)
    fresh = T5ForConditionalGeneration(config("tiny", dropout_rate=0.0))
    recipe.start(fresh)
    return fresh


def test_heads_start_by_looking_left_right_and_near(model: T5ForConditionalGeneration) -> None:
    first: Any = model.encoder.block[0]
    attention = first.layer[0].SelfAttention
    left, right, near, wide = attention.compute_bias(T, T)[0].detach()
    middle = T // 2
    assert (left[middle, middle + 1 :] == recipe.LOWEST).all()
    assert (right[middle, :middle] == recipe.LOWEST).all()
    assert left[middle, middle - 3 :][:4].tolist() == pytest.approx([-2.1, -1.4, -0.7, 0.0])
    assert right[middle, middle:][:4].tolist() == pytest.approx([0.0, -0.7, -1.4, -2.1])
    for both, slope in ((near, 0.3), (wide, 0.05)):
        assert both[middle, middle - 5].item() == pytest.approx(-5 * slope)
        assert both[middle, middle + 5].item() == pytest.approx(-5 * slope)


@given(st.sampled_from([4, 6, 8, 12]), st.sampled_from([8, 32]), st.sampled_from([64, 128]))
def test_no_head_is_blind_and_none_favours_the_far(heads: int, buckets: int, far: int) -> None:
    bias = recipe.near(buckets, heads, far)
    assert bias.shape == (buckets, heads)
    assert bias.min() >= recipe.LOWEST
    assert (bias[0] == 0).all(), "a token's own place is the best one"
    assert bias.max() == 0
    assert torch.equal(bias[1, 6::4], bias[1, 2:-4:4] / 2), "further heads see twice as far"


def test_cross_attention_starts_by_finding_the_decoders_own_token(
    model: T5ForConditionalGeneration,
) -> None:
    first: Any = model.decoder.block[0]
    cross = first.layer[1].EncDecAttention
    x = torch.randn(200, model.config.d_model)
    x /= x.square().mean(-1, keepdim=True).sqrt()
    q, k = (p(x).view(200, 4, -1).transpose(0, 1) for p in (cross.q, cross.k))
    scores = q @ k.transpose(1, 2)
    same = scores.diagonal(dim1=1, dim2=2)
    assert same.mean().item() == pytest.approx(recipe.SAME, rel=0.3)
    assert same.mean() > scores.mean() + 2 * scores.std()


def test_matrices_turn_and_keep_their_length(model: T5ForConditionalGeneration) -> None:
    optimizer = recipe.Optimizer(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    ids = torch.randint(3, 100, (4, 12))
    for _ in range(3):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step(0.02)
    inside = {f"{name}.weight" for name, m in model.named_modules() if type(m) is torch.nn.Linear}
    for name, p in model.named_parameters():
        assert p.grad is None
        assert not torch.equal(p, before[name]), name
        if name in inside:
            torch.testing.assert_close(recipe.rms(p), recipe.rms(before[name]), rtol=1e-4, atol=0)
            turned = recipe.rms(p - before[name]) / recipe.rms(p)
            assert 0.005 < turned < 0.08, name


def test_nothing_moves_without_a_gradient(model: T5ForConditionalGeneration) -> None:
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    recipe.Optimizer(model).step(0.02)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), before[name], msg=name)


def test_muon_of_all_matrices_at_once_is_torchs_own(model: T5ForConditionalGeneration) -> None:
    """Apart from the length, which torch's does not hold."""
    matrices = list(recipe.Optimizer(model).muon.groups.values())
    ours = [matrix for group in matrices for matrix in group]
    theirs = [torch.nn.Parameter(matrix.detach().clone()) for matrix in ours]
    sizes = [recipe.rms(matrix.detach()) for matrix in ours]
    muon = recipe.Muon(ours)
    groups = [
        {"params": [matrix], "lr": 0.02 * rms.item() / 0.2}
        for matrix, rms in zip(theirs, sizes, strict=True)
    ]
    torchs = torch.optim.Muon(groups, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(3):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = 0.01 * torch.randn_like(mine)
            other.grad = mine.grad.clone()
        muon.step(0.02)
        torchs.step()
        for mine, other, rms in zip(ours, theirs, sizes, strict=True):
            other.data.mul_(rms / recipe.rms(other.data))
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-6)


class Launches(TorchDispatchMode):
    """Counts what would be kernels on a GPU: all operations but views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not (func.is_view or func is torch.ops.aten._unsafe_view.default)
        return func(*args, **(kwargs or {}))


def test_muon_is_some_sixty_launches_however_many_matrices() -> None:
    """As in every T5 of ours all projections are d x d, and wi and wo each other's turned shape."""
    deep = T5ForConditionalGeneration(config("tiny", num_layers=6, num_decoder_layers=6))
    muon = recipe.Optimizer(deep).muon
    matrices = [matrix for group in muon.groups.values() for matrix in group]
    assert len(matrices) == 6 * 4 + 6 * 8 + 12 * 2
    for matrix in matrices:
        matrix.grad = torch.randn_like(matrix)
    with Launches() as launches:
        muon.step(0.02)
    assert launches.count <= 70


def test_an_optimizer_goes_on_from_its_state(model: T5ForConditionalGeneration) -> None:
    ids = torch.randint(3, 100, (4, 12))
    first = recipe.Optimizer(model)
    model(input_ids=ids, labels=ids).loss.backward()
    first.step(0.02)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    state = copy.deepcopy(first.state_dict())
    model(input_ids=ids, labels=ids).loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    first.step(0.02)
    wanted = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.load_state_dict(weights, strict=False)
    second = recipe.Optimizer(model)
    second.load_state_dict(state)
    for name, p in model.named_parameters():
        p.grad = gradients.get(name)
    second.step(0.02)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.detach(), wanted[name], msg=name)


@pytest.mark.parametrize(
    ("progress", "step", "share"),
    [(0.0, 0, 0.1), (0.0, 9, 1.0), (0.5, 500, 0.505), (1.0, 999, 0.01), (2.0, 1999, 0.01)],
)
def test_the_rate_rises_and_falls(progress: float, step: int, share: float) -> None:
    assert recipe.rate(0.02, 10, progress, step) == pytest.approx(0.02 * share)
