"""On a GPU the numbers are those of transformers' own float32 on a CPU.

The tests of loss and answers run on a CPU too, so that they are known to work where a GPU is.
"""

from __future__ import annotations

import dataclasses
import shutil
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import distance, dry, run_of
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import T5ForConditionalGeneration

from t5peft.base import machine, paths, studies
from t5peft.base.studies import Study
from t5peft.inputs import backbone, data, int8, tokenizers
from t5peft.methods.table import Run, runs_of
from t5peft.pretrain import loop as pretraining
from t5peft.pretrain import recipe, settings
from t5peft.runs import make, reopen
from t5peft.training import compiling, evaluation, fast, jobs, loop
from t5peft.training.jobs import Job

GPU = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
    ],
)
RUNS = runs_of(studies.load(paths.CHECKOUT / "params" / "smoke.yaml"))
BOUNDS = {"fp32": 1e-3, "bf16": 3e-2}
"""How far gradients may be from float32's, relative to their length."""


@pytest.fixture(params=["cpu", GPU])
def device(request: pytest.FixtureRequest) -> str:
    """Where jobs are; the CPU is asked for where a GPU would be taken."""
    if request.param == "cpu":
        request.getfixturevalue("on_the_cpu")
    return request.param


def first_batch(run: Run, study: Study) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, mask and label words of the first batch, on the CPU."""
    reviews, picked = data.tokens(study, "train"), loop.order(study, 1)[: study.batch_size]
    ids, mask = reviews.batch(picked, study.max_length, run.placeholders)
    targets = evaluation.targets(tokenizers.load(study.tokenizer))
    return ids, mask, targets[reviews.labels[picked]]


def exact(run: Run, study: Study) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of the first batch, by transformers in float32 on the CPU."""
    model: Any = dry(jobs.build(run, study)).train()
    ids, mask, labels = first_batch(run, study)
    loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
    loss.backward()
    return float(loss.detach()), gradients(model)


def gradients(model: torch.nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.cpu() for n, p in model.named_parameters() if p.grad is not None}


def ours(run: Run, study: Study, device: str) -> Job:
    """The run's job as it is trained, but for dropout."""
    job = compiling.prepared(run, study)
    assert job.model.device.type == device
    dry(job.model).train()
    return job


@pytest.mark.parametrize("precision", list(BOUNDS))
@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_loss_and_gradients_are_float32s(
    run: Run, precision: Any, device: str, smoke: Study
) -> None:
    loss, wanted = exact(run, smoke)
    study = dataclasses.replace(smoke, precision=precision)
    job = ours(run, study, device)
    found = loop.add_gradients(job, loop.order(study, 1)[: study.batch_size])
    assert float(found) == pytest.approx(loss, rel=BOUNDS[precision])
    assert distance(gradients(job.model), wanted) < BOUNDS[precision]


@pytest.mark.slow
@pytest.mark.parametrize(
    "run", {(x.method, x.implementation): x for x in RUNS}.values(), ids=lambda x: x.name
)
def test_so_they_are_once_inductor_has_compiled_them(
    run: Run, device: str, smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a run of many steps; inductor refuses graphs that `aot_eager` takes."""
    if not (shutil.which("g++") if device == "cpu" else machine.has_compiler()):
        pytest.skip("there is no compiler")
    monkeypatch.setattr(compiling, "DEVICES", {device})
    monkeypatch.setattr(compiling, "FROM_STEPS", 1)
    monkeypatch.setattr(fast, "FUSED", {device})
    monkeypatch.setitem(loop.REVIEWS_AT_ONCE, device, smoke.batch_size)
    loss, wanted = exact(run, smoke)
    study = dataclasses.replace(smoke, precision="bf16")
    job = ours(run, study, device)
    assert (job.compiled is None) == (run.implementation == "opendelta")
    found = loop.add_gradients(job, loop.order(study, 1)[: study.batch_size])
    assert float(found) == pytest.approx(loss, rel=BOUNDS["bf16"])
    assert distance(gradients(job.model), wanted) < BOUNDS["bf16"]


@pytest.mark.parametrize("run", [RUNS[1], RUNS[3], RUNS[5], RUNS[7]], ids=lambda run: run.name)
@pytest.mark.usefixtures("taught")
def test_answers_are_those_of_generate(run: Run, device: str, smoke: Study) -> None:
    job = ours(run, smoke, device)
    model: Any = dry(jobs.build(run, smoke)).eval()
    reviews = job.test.to(model.device)
    ids, mask = reviews.batch(np.arange(len(reviews)), smoke.max_length, run.placeholders)
    wanted = evaluation.generate(model, job.tokenizer, ids, mask)
    assert loop.answers(job, job.test, "test") == wanted
    assert len({*wanted, ""}) > 2, "several words, or nothing is shown"


BACKENDS = [None, SDPBackend.MATH, SDPBackend.EFFICIENT_ATTENTION]


@pytest.mark.parametrize("length", [64, 192, 256])
@pytest.mark.parametrize(
    ("where", "backend"),
    [("cpu", None), *(pytest.param("cuda", x, marks=GPU.marks) for x in BACKENDS)],
    ids=str,
)
def test_attention_drops_the_share_that_it_is_told(where: str, backend: Any, length: int) -> None:
    """Of each backend that may be taken, and of the one that is (None).

    Of n uniform weights on values of 1, each dropped with probability p, the mean is 1 whatever p
    is, but the variance p / (1 - p) / n: cuDNN is said to round p = 0.1 to sixteenths.
    """
    make = partial(torch.zeros, 16, 8, length, device=where, dtype=torch.bfloat16)
    q, k, v, bias = make(64), make(64), make(64).add_(1).requires_grad_(), make(length)
    for dropped, as_told in ((0.1, True), (0.125, False)):
        with sdpa_kernel(backend) if backend else nullcontext():
            out = F.scaled_dot_product_attention(q, k, v, bias, dropout_p=dropped, scale=1.0)
        seen = out.detach()[..., 0].float()
        assert float(seen.mean()) == pytest.approx(1, abs=0.005)
        assert (float(seen.var()) * length == pytest.approx(0.1 / 0.9, rel=0.13)) == as_told
    out.sum().backward()
    assert v.grad is not None
    assert torch.isfinite(v.grad).all()


def test_a_stored_run_answers_as_it_did(device: str, study: Study) -> None:
    run = run_of(study)
    make.train_alone(run, study)
    job = reopen.job(run, study)
    assert job.model.device.type == device
    accuracy = loop.accuracy(job, job.test, "test")
    record = make.train_alone(run, study)
    assert accuracy == pytest.approx(record["best_accuracy"], abs=0.01)


def test_a_backbone_in_int8_is_the_same_on_the_device(device: str, tmp_path: Any) -> None:
    model = backbone.load("random:tiny")
    int8.save(model, tmp_path)
    again = int8.load(tmp_path)
    for name, tensor in model.to(device).state_dict().items():  # type: ignore[arg-type]
        rows = tensor.abs().amax(-1, keepdim=True) if tensor.ndim > 1 else tensor.abs()
        off = (again[name].to(device) - tensor).abs()
        assert (off <= rows / 127 / 2 + 1e-7).all(), name


def test_a_step_of_pretraining_is_the_cpus(device: str) -> None:
    after = []
    for where in ("cpu", device):
        model = dry(fast.speed_up(backbone.load("random:tiny")))
        torch.manual_seed(0)
        recipe.start(cast(T5ForConditionalGeneration, model))  # on the CPU: draws are the same
        model.to(where)
        ids, targets = torch.randint(3, 100, (4, 24)), torch.randint(3, 100, (4, 8))
        optimizer = recipe.Optimizer(model)
        model(input_ids=ids.to(where), labels=targets.to(where)).loss.backward()
        optimizer.step(0.02)
        after.append({name: p.detach().cpu() for name, p in model.named_parameters()})
    assert distance(after[1], after[0]) < 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_the_compiled_gradient_of_pretraining_is_taken() -> None:
    shipped = settings.load(paths.CHECKOUT / "params" / "backbone-small.yaml", {})
    params = dataclasses.replace(shipped, size="tiny", vocabulary=100)
    state = pretraining.start(params, Path("none"), torch.device("cuda"))
    compiled = state.loss
    pretraining.warm(state, params)
    assert state.loss is compiled
    assert machine.has_compiler()
