"""From a study to a stored record."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import torch
from helpers import run_of

from t5peft.base import machine
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import backbone
from t5peft.runs import make, reopen, store, verify
from t5peft.training import evaluation, jobs, loop


def test_a_record_holds_what_a_chapter_shows(smoke: Study) -> None:
    run = run_of(smoke)
    record = make.train_alone(run, smoke)
    assert record == json.loads(json.dumps(record)), "a record is plain JSON"
    assert [epoch["epoch"] for epoch in record["history"]] == [1, 2]
    assert record["best_accuracy"] == max(e["test_accuracy"] for e in record["history"])
    assert record["last_accuracy"] == record["history"][-1]["test_accuracy"]
    counts = record["parameters"]
    assert counts["trained"] == counts["added"] == 12 * 8 * (32 + 32)
    assert counts["total"] == backbone.load("random:tiny").num_parameters() + counts["added"]
    two_moments = 2 * 4 * counts["trained"]
    steps = 4 * len(jobs.trained(jobs.build(run, smoke)))  # one float a tensor
    assert record["memory"]["optimizer_bytes"] == two_moments + steps
    assert record["memory"]["peak_bytes"] > two_moments
    assert record["files"].keys() == {store.DELTA, store.TRACE}
    assert record["stored_bytes"] == record["files"][store.DELTA]["bytes"]
    assert store.status(run, smoke).state == "fresh"
    assert store.load(run, smoke) == record
    assert (record["stale"], record["verified"]) == ("", None)


def test_full_fine_tuning_stores_no_weights(smoke: Study) -> None:
    run = run_of(smoke, "full")
    record = make.train_alone(run, dataclasses.replace(smoke, epochs=1))
    assert record["files"].keys() == {store.TRACE}
    assert record["stored_bytes"] == 4 * record["parameters"]["total"]
    assert record["parameters"]["added"] == 0


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
    monkeypatch.setattr(jobs, "COMPILED", {"cpu", "cuda"})
    monkeypatch.setattr(jobs, "COMPILE_FROM", 1)
    monkeypatch.setattr(machine, "has_compiler", lambda: compiler)
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    job = make.prepared(run_of(study, name), study)
    assert (job.compiled is None) == bool(why)
    assert (f"{name}: not compiled, which is slower: {why}" in capsys.readouterr().err) == bool(why)


@pytest.fixture
def compiling(smoke: Study, monkeypatch: pytest.MonkeyPatch) -> Study:
    """As on a GPU with a compiler, in a run of many steps."""
    monkeypatch.setattr(jobs, "COMPILED", {"cpu", "cuda"})
    monkeypatch.setattr(jobs, "COMPILE_FROM", 1)
    monkeypatch.setattr(machine, "has_compiler", lambda: True)
    monkeypatch.setitem(loop.REVIEWS_AT_ONCE, "cpu", smoke.batch_size)
    return dataclasses.replace(smoke, max_length=32)


def test_a_step_is_compiled_before_any_clock_and_changes_nothing(
    compiling: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`torch.compile` itself only promises."""
    asked = []
    monkeypatch.setattr(
        torch, "compile", lambda model, **_: lambda **x: asked.append(x) or model(**x)
    )
    run = run_of(compiling)
    job, fresh = make.prepared(run, compiling), jobs.prepare(run, compiling)
    assert len(asked) == 1
    assert asked[0]["input_ids"].shape == (compiling.batch_size, compiling.max_length)
    assert all(p.grad is None for p in job.model.parameters())
    for mine, other in zip(job.model.parameters(), fresh.model.parameters(), strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("error", [RuntimeError("no Triton\nat all"), MemoryError()])
def test_a_step_that_fails_to_compile_is_taken_as_it_stands(
    error: Exception,
    compiling: Study,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: Any) -> None:
        raise error

    monkeypatch.setattr(torch, "compile", lambda model, **_: fail)
    run = run_of(compiling)
    if isinstance(error, MemoryError):  # the study is too large, compiled or not
        with pytest.raises(MemoryError):
            make.prepared(run, compiling)
        return
    assert make.prepared(run, compiling).compiled is None
    assert f"{run.name}: not compiled, which is slower: no Triton\n" in capsys.readouterr().err


def test_a_trace_says_whether_its_steps_were_compiled(
    compiling: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout is drawn otherwise then: `verify` trains them as they were, or refuses."""
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    run = run_of(compiling)
    held = store.trace(make.train_alone(run, compiling))
    assert held.losses_by == f"{machine.kind()}, compiled"
    losses = verify.first_losses(run, compiling, 3, held.losses_by)
    np.testing.assert_allclose(losses, held.losses[:3], rtol=1e-5)
    others = verify.first_losses(run, compiling, 3, machine.kind())
    with monkeypatch.context() as plain:
        plain.setattr(jobs, "COMPILED", set())
        plainly = verify.first_losses(run, compiling, 3, machine.kind())
        np.testing.assert_allclose(others, plainly, rtol=1e-5)
        with pytest.raises(InputError, match=r"compiled, expected a step that can be compiled he"):
            verify.first_losses(run, compiling, 3, held.losses_by)


def test_stored_weights_are_those_of_the_best_epoch(smoke: Study) -> None:
    """The accuracy of a record can be had again from its file."""
    study = dataclasses.replace(smoke, prompt_learning_rate=3.0, epochs=3)
    run = run_of(study, "soft-prompt-scratch-n10")
    record = make.train_alone(run, study)
    _, _, model = reopen.load(f"smoke/{run.name}")
    job = jobs.prepare(run, study)
    answers = evaluation.predict(model, job.tokenizer, job.test, study.max_length, run.placeholders)
    assert evaluation.score(answers, job.test.labels)[0] == record["best_accuracy"]
    best = job
    best.history = record["history"]
    assert loop.best_epoch(best)["epoch"] == record["best_epoch"]
