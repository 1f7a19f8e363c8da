"""A step is compiled before any clock, or a line says why not, and a trace says which it was."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from helpers import run_of

from t5peft.base import machine
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.measure import bench
from t5peft.runs import make, reopen, store, verify
from t5peft.training import compiling, jobs, loop


@pytest.mark.parametrize(
    ("name", "changes", "compiler", "why"),
    [
        ("lora-scratch-r8", {}, True, ""),
        ("lora-scratch-r8", {"micro_batch_size": 4}, True, ""),
        ("soft-prompt-opendelta-n1", {}, True, "it lengthens the mask in place"),
        ("full", {"max_length": 30}, True, "max_length 30 is no multiple of 8"),
        ("full", {"micro_batch_size": 3}, True, "parts of 3 do not fill a batch of 16"),
        ("full", {}, False, "there is no C compiler"),
    ],
)
def test_what_cannot_be_compiled_is_trained_without_and_said(
    name: str,
    changes: dict[str, int],
    compiler: bool,
    why: str,
    smoke: Study,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = dataclasses.replace(smoke, **changes)
    monkeypatch.setattr(compiling, "DEVICES", {"cpu", "cuda"})
    monkeypatch.setattr(compiling, "FROM_STEPS", 1)
    monkeypatch.setattr(machine, "has_compiler", lambda: compiler)
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    job = compiling.prepared(run_of(study, name), study)
    assert (job.compiled is None) == bool(why)
    assert (f"{name}: not compiled, which is slower: {why}" in capsys.readouterr().err) == bool(why)


@pytest.fixture
def many(smoke: Study, monkeypatch: pytest.MonkeyPatch) -> Study:
    """As on a GPU with a compiler, in a run of many steps."""
    monkeypatch.setattr(compiling, "DEVICES", {"cpu", "cuda"})
    monkeypatch.setattr(compiling, "FROM_STEPS", 1)
    monkeypatch.setattr(machine, "has_compiler", lambda: True)
    monkeypatch.setitem(loop.REVIEWS_AT_ONCE, "cpu", smoke.batch_size)
    return dataclasses.replace(smoke, max_length=32)


def test_a_step_is_compiled_before_any_clock_and_changes_nothing(
    many: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torch.compile` itself only promises."""
    asked = []
    monkeypatch.setattr(
        torch, "compile", lambda model, **_: lambda **x: asked.append(x) or model(**x)
    )
    run = run_of(many)
    job, fresh = compiling.prepared(run, many), jobs.prepare(run, many)
    assert len(asked) == 1
    assert asked[0]["input_ids"].shape == (many.batch_size, many.max_length)
    assert all(p.grad is None for p in job.model.parameters())
    for mine, other in zip(job.model.parameters(), fresh.model.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("error", [RuntimeError("no Triton\nat all"), MemoryError()])
def test_a_step_that_fails_to_compile_is_taken_as_it_stands(
    error: Exception,
    many: Study,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "compile", lambda model, **_: fail)
    run = run_of(many)
    if isinstance(error, MemoryError):  # the study is too large, compiled or not
        with pytest.raises(MemoryError):
            compiling.prepared(run, many)
        return
    assert compiling.prepared(run, many).compiled is None
    assert f"{run.name}: not compiled, which is slower: no Triton\n" in capsys.readouterr().err


def test_a_trace_says_whether_its_steps_were_compiled(
    many: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout is drawn otherwise then: `verify` trains them as they were, or refuses."""
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    run = run_of(many)
    record = make.train_alone(run, many)
    held = store.trace(record)
    assert held.losses_by == f"{machine.kind()}, compiled"
    losses = verify.first_losses(run, many, 3, record)
    np.testing.assert_allclose(losses, held.losses[:3], rtol=1e-5)
    assert reopen.anew(run, many, record).compiled
    with monkeypatch.context() as plain:
        plain.setattr(compiling, "DEVICES", set())
        with pytest.raises(InputError, match=r"compiled, expected a step that can be compiled he"):
            verify.first_losses(run, many, 3, record)
        assert not reopen.anew(run, many, record).compiled
    here = dataclasses.replace(held, losses_by=machine.kind())
    monkeypatch.setattr(store, "trace", lambda _: here)
    assert not reopen.anew(run, many, record).compiled
    np.testing.assert_allclose(verify.first_losses(run, many, 3, record), losses, rtol=1e-5)


def test_a_launch_of_several_processes_has_no_whole_batch_to_compile(
    many: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda *_, **__: pytest.fail("a minute for nothing"))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    run = run_of(many)
    make.train(run, many)
    assert store.trace(store.load(run, many)).losses_by == machine.kind()


def test_of_a_bench_ours_is_compiled_as_a_run_is(
    many: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    monkeypatch.setattr(machine, "end_with_parent", lambda: None)
    for side in (bench.EXERCISE, bench.TRAINER, bench.OURS):
        AcceleratorState._reset_state(reset_partial_state=True)
        bench.start(run_of(many), many, side)
        assert (bench.job.compiled is not None) == (side == bench.OURS)
