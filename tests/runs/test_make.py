"""From a study to a stored record."""

from __future__ import annotations

import dataclasses
import json

import pytest
from helpers import run_of

from t5peft.base import machine
from t5peft.base.studies import Study
from t5peft.inputs import backbone
from t5peft.runs import make, reopen, store
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
    job = make.prepared(run_of(study, name), study)
    assert (job.compiled is None) == bool(why)
    assert (f"{name}: not compiled, which is slower: {why}" in capsys.readouterr().err) == bool(why)


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
