"""The faster forward computes what transformers' own does, for every method and library."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from helpers import distance, dry
from torch import Tensor, nn

from t5peft.base import bfloat16, machine, paths, studies
from t5peft.base.studies import TARGETS, Study
from t5peft.inputs import backbone
from t5peft.methods.table import METHODS, Run, runs_of
from t5peft.training import compiling, evaluation, fast, jobs, loop
from t5peft.training.jobs import Job

RUNS = runs_of(studies.load(paths.CHECKOUT / "params" / "smoke.yaml"))
RUNS += [Run(n, "ia3", kind, {}, 0.003) for n, kind in ((11, "scratch"), (12, "peft"))]
WIDE = {"rank": 8, "alpha": 4.0, "targets": [*TARGETS]}
RUNS += [Run(n, "lora", kind, WIDE, 1e-4) for n, kind in ((13, "scratch"), (14, "peft"))]


def made(run: Run, study: Study, quick: bool, dropout: bool = False) -> Job:
    """A run's job with the fast forward or transformers' own."""
    AcceleratorState._reset_state()  # it keeps one precision a process
    model = jobs.build(run, study)
    if quick:
        fast.speed_up(model)
    if not dropout:
        dry(model)
    return jobs.with_model(run, study, model)


def gradients(job: Job) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of the first batch."""
    job.model.train()
    loss = loop.add_gradients(job, loop.order(job.study, 1)[: job.study.batch_size])
    found = {n: p.grad.clone() for n, p in job.model.named_parameters() if p.grad is not None}
    job.optimizer.zero_grad()
    return float(loss), found


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_loss_and_gradients_are_those_of_transformers(run: Run, smoke: Study) -> None:
    """In float32, whole or accumulated over parts of one to five reviews of similar length."""
    loss, wanted = gradients(made(run, smoke, quick=False))
    for at_once in (smoke.batch_size, 5, 1):
        parts = dataclasses.replace(smoke, micro_batch_size=at_once)
        ours, found = gradients(made(run, parts, quick=True))
        assert ours == pytest.approx(loss, rel=1e-5)
        assert distance(found, wanted) < 1e-4


@pytest.mark.parametrize("name", ["variance_epsilon", "eps"])
def test_the_norm_is_the_same_with_a_gradient_and_without_and_is_apexs_too(name: str) -> None:
    """apex, where it is installed, has its own in T5LayerNorm's place."""
    torch.manual_seed(0)
    x, weight = 3 * torch.randn(2, 5, 512), torch.rand(512)
    norm: Any = SimpleNamespace(weight=weight, **{name: 1e-2})
    wanted = x / (x.square().mean(-1, keepdim=True) + 1e-2).sqrt() * weight
    assert torch.allclose(fast.rms_norm(norm, x), wanted, rtol=1e-5)
    with torch.no_grad():
        assert torch.allclose(fast.rms_norm(norm, x), wanted, rtol=1e-5)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_one_kernel_for_the_attention_computes_the_same(
    run: Run, smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The GPU's path, on whatever is here."""
    loss, wanted = gradients(made(run, smoke, quick=True))
    monkeypatch.setattr(fast, "FUSED", {"cpu", "cuda"})
    ours, found = gradients(made(run, smoke, quick=True))
    assert ours == pytest.approx(loss, rel=1e-5)
    assert distance(found, wanted) < 1e-4


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_the_loss_of_a_whole_batch_is_one_graph_and_the_same_once_compiled(
    run: Run, precision: Any, smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, whose own code is made of this graph."""
    study = dataclasses.replace(smoke, precision=precision)
    monkeypatch.setitem(loop.REVIEWS_AT_ONCE, "cpu", study.batch_size)
    monkeypatch.setattr(fast, "FUSED", {"cpu", "cuda"})
    monkeypatch.setattr(compiling, "FROM_STEPS", 1)
    monkeypatch.setattr(compiling, "in_the_way", lambda *_: "")
    graph = partial(torch.compile, fullgraph=True, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", graph)
    found = []
    for where in ((), ("cpu", "cuda")):
        monkeypatch.setattr(compiling, "DEVICES", where)
        AcceleratorState._reset_state()
        job = jobs.with_fast_model(run, study, cast(Any, dry(jobs.build(run, study))))
        job = compiling.compiled(job)
        assert (job.compiled is not None) == bool(where)
        job.wrapped = None if where else job.wrapped  # which is not asked
        found.append(gradients(job))
    (loss, wanted), (ours, compiled) = found
    assert ours == pytest.approx(loss, rel=1e-6)
    assert distance(compiled, wanted) < 1e-6


@pytest.mark.parametrize("fused", [(), ("cpu",)], ids=["parts", "one kernel"])
@pytest.mark.parametrize("queries", [fast.FEW, fast.FEW + 1])
def test_targets_of_any_length_look_at_the_states_alike(
    queries: int, fused: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two ways of the cross-attention, where a part of the states is padding."""
    monkeypatch.setattr(fast, "FUSED", fused)
    ids, labels = torch.randint(3, 100, (4, 20)), torch.randint(3, 100, (4, queries))
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    found = []
    for change in (lambda model: model, fast.speed_up):
        model: Any = change(dry(backbone.load("random:tiny"))).train()
        loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
        loss.backward()
        found.append((float(loss.detach()), {n: p.grad for n, p in model.named_parameters()}))
    (loss, wanted), (ours, gradients_of_ours) = found
    assert ours == pytest.approx(loss, rel=1e-5)
    assert distance(gradients_of_ours, wanted) < 1e-4


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_rounding_frozen_projections_once_changes_no_bit(run: Run, smoke: Study) -> None:
    """Autocast would round them to the same numbers at every use."""
    study = dataclasses.replace(smoke, precision="bf16")
    every_time, once = made(run, study, quick=True), made(run, study, quick=True)
    fast.round_frozen(once.model)
    kinds = {parameter.dtype for parameter in once.model.parameters()}
    assert (torch.bfloat16 in kinds) == (run.method != "full")
    assert all(x.dtype == torch.float32 for x in jobs.trained(once.model).values())
    (loss, wanted), (ours, found) = gradients(every_time), gradients(once)
    assert ours == loss
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def logits(job: Job, padding: int) -> Tensor:
    """What one step answers to the first reviews of the test, whose last one is padded."""
    ids, mask = job.test.batch(np.arange(4), 12, job.run.placeholders)
    mask[:] = 1
    mask[-1, len(mask[-1]) - padding :] = 0
    start = torch.zeros_like(ids[:, :1])
    with torch.no_grad(), job.accelerator.autocast():
        return job.model.eval()(input_ids=ids, attention_mask=mask, decoder_input_ids=start).logits


def replaced(model: nn.Module) -> list[nn.Module]:
    """Projections whose forward is no longer their class's."""
    return [m for m in model.modules() if type(m) is nn.Linear and "forward" in vars(m)]


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_packed_projections_answer_the_same_and_are_given_back(
    run: Run, padding: int, smoke: Study
) -> None:
    """Each time as the weights are by then; reviews without padding are answered alike."""
    job, theirs = made(run, smoke, quick=True), made(run, smoke, quick=False)
    for scale in (1.0, 0.7):
        for parameter in [*job.model.parameters(), *theirs.model.parameters()]:
            parameter.data.mul_(scale)
        before = logits(job, padding)
        with fast.packed(job.model):
            assert bool(replaced(job.model)) == (job.model.device.type == "cpu")
            found = logits(job, padding)
        assert torch.equal(logits(job, padding), before)
        for other in (before, logits(theirs, padding)):
            assert torch.allclose(found, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("lacking", [False, True], ids=["bf16", "a processor without"])
def test_packed_projections_are_of_the_precision_of_autocast(
    lacking: bool, smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a processor lacks bf16, sums are float32's, and their factors and results rounded."""
    if machine.lacks_bf16() > lacking:
        pytest.skip("this processor has no bf16")
    monkeypatch.setattr(machine, "lacks_bf16", lambda: lacking)
    study = dataclasses.replace(smoke, precision="bf16")
    bfloat16.provide(study.precision)
    assert bool(bfloat16.provided) == lacking
    for run in (RUNS[0], RUNS[5]):
        job = made(run, study, quick=True)
        fast.round_frozen(job.model)
        wanted = logits(job, 3)
        with fast.packed(job.model):
            found = logits(job, 3)
        assert found.dtype == wanted.dtype
        assert (found - wanted).norm() < 0.01 * wanted.norm()


def test_packed_projections_are_given_back_when_an_answer_breaks_off(smoke: Study) -> None:
    job = made(RUNS[0], smoke, quick=False)
    with pytest.raises(KeyboardInterrupt), fast.packed(job.model):
        raise KeyboardInterrupt
    assert not replaced(job.model)


@pytest.mark.parametrize("method", METHODS)
def test_in_bf16_it_is_as_close_to_float32_as_transformers_is(method: str, smoke: Study) -> None:
    run = next(run for run in RUNS if run.method == method)
    _, exact = gradients(made(run, smoke, quick=False))
    rounded = dataclasses.replace(smoke, precision="bf16")
    ours, theirs = (distance(gradients(made(run, rounded, q))[1], exact) for q in (True, False))
    assert 0 < ours < 1.5 * theirs


@pytest.mark.usefixtures("taught")
def test_it_answers_like_transformers(smoke: Study) -> None:
    """Soft prompts and LoRA in a backbone that writes words of all kinds, in float32."""
    for run in (RUNS[1], RUNS[3], RUNS[7]):
        plain, quick = made(run, smoke, quick=False), made(run, smoke, quick=True)
        wanted, found = (
            evaluation.predict(j.model, j.tokenizer, j.test, smoke.max_length, run.placeholders)
            for j in (plain, quick)
        )
        assert found == wanted
        assert len({*found, ""}) > 2, "several words, or nothing is shown"


@pytest.mark.slow
def test_fifty_steps_with_dropout_stay_within_the_spread_of_seeds(smoke: Study) -> None:
    """Other dropout draws are like another seed: losses and final accuracy differ no more."""
    run = RUNS[0]
    study = dataclasses.replace(smoke, full_learning_rate=1e-3)
    run = dataclasses.replace(run, learning_rate=1e-3)

    def fifty(quick: bool, seed: int) -> tuple[np.ndarray, float]:
        job = made(run, dataclasses.replace(study, seed=seed), quick, dropout=True)
        torch.manual_seed(100 + seed)
        job.model.train()
        losses = []
        for step in range(50):
            batch = loop.order(study, 1 + step)[: study.batch_size]
            losses.append(float(loop.add_gradients(job, batch)))
            job.optimizer.step()
            job.optimizer.zero_grad()
        return np.array(losses), loop.accuracy(job, job.test, "test")

    (plain, plain_right), (quick, quick_right) = (
        map(np.array, zip(*(fifty(q, seed) for seed in range(4)), strict=True))
        for q in (False, True)
    )
    assert plain[:, -5:].mean() < 0.7 * plain[:, :5].mean(), "they learn, or nothing is compared"
    for these, those in ((plain.mean(axis=1), quick.mean(axis=1)), (plain_right, quick_right)):
        assert abs(these.mean() - those.mean()) < 3 * these.std(ddof=1) * math.sqrt(2 / 4)


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_dropout_drops_its_share_and_scales_the_rest(p: float, kind: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(3, 70_001, dtype=kind, requires_grad=True)  # no multiple of 4
    y: Any = fast.dropout(x, p, training=True)
    share = float((y == 0).float().mean())
    assert share == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / x.numel()))
    assert set(y.unique().tolist()) == {0.0, float(torch.tensor(1 / (1 - p)).to(kind))}
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach()), "the gradient passes where the value did"


def test_dropout_follows_the_seed_and_leaves_evaluation_alone() -> None:
    x = torch.ones(1000)

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return fast.dropout(x, 0.1, training=True)

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert not torch.equal(drawn(1)[:500], drawn(1)[500:])
    assert fast.dropout(x, 0.1, training=False) is x


@pytest.mark.usefixtures("on_the_cpu")  # a GPU's one kernel has dropout inside
def test_dropout_falls_where_transformers_has_it(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dropped(quick: bool) -> list[tuple[tuple[int, ...], float]]:
        job, seen = made(RUNS[0], smoke, quick, dropout=True), []
        with monkeypatch.context() as patched:
            for place in (fast, torch.nn.functional):  # the decoder's self-attention stays as it is

                def noted(
                    x: Tensor,
                    p: float,
                    training: bool,
                    *rest: Any,
                    original: Any = place.dropout,
                ) -> Tensor:
                    seen.append((tuple(x.shape), p if training else 0.0))
                    return original(x, p, training, *rest)

                patched.setattr(place, "dropout", noted)
            gradients(job)
        return sorted(seen)

    assert dropped(quick=True) == dropped(quick=False)


def test_the_one_kernel_drops_in_training_alone(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fast, "FUSED", {"cpu", "cuda"})
    job, seen = made(RUNS[0], smoke, quick=True, dropout=True), set()
    kernel = torch.nn.functional.scaled_dot_product_attention

    def noted(*tensors: Tensor, dropout_p: float, scale: float) -> Tensor:
        seen.add(dropout_p)
        return kernel(*tensors, dropout_p=dropout_p, scale=scale)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", noted)
    gradients(job)
    assert seen == {job.model.config.dropout_rate}
    seen.clear()
    loop.accuracy(job, job.test, "test")
    assert seen == {0.0}
