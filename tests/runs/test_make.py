"""From a study to a stored record."""

from __future__ import annotations

import dataclasses
import errno
import json

import pytest
from helpers import run_of

from t5peft.base.studies import Study
from t5peft.inputs import backbone
from t5peft.runs import make, reopen, store
from t5peft.training import checkpoint, evaluation, jobs, loop


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


def test_an_epoch_is_told_once_it_is_kept(
    smoke: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        make.train_alone(run_of(smoke), smoke)
    assert "epoch 1 of 2" not in capsys.readouterr().err


def test_full_fine_tuning_stores_no_weights(smoke: Study) -> None:
    run = run_of(smoke, "full")
    record = make.train_alone(run, dataclasses.replace(smoke, epochs=1))
    assert record["files"].keys() == {store.TRACE}
    assert record["stored_bytes"] == 4 * record["parameters"]["total"]
    assert record["parameters"]["added"] == 0


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
