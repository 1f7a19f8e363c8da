"""How long runs take: named for all of a study's at once, from steps that were really made."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import pytest
from helpers import run_named

from t5peft.base import machine
from t5peft.base.errors import Missing
from t5peft.base.studies import Study
from t5peft.methods.table import Run, runs_of
from t5peft.report import evidence
from t5peft.report.evidence import Evidence
from t5peft.runs import estimate, make, store
from t5peft.runs.records import Status
from t5peft.training import jobs, loop


@pytest.mark.slow
def test_an_estimate_is_of_the_order_of_the_run(smoke: Study) -> None:
    study = dataclasses.replace(smoke, train_examples=400, test_examples=400, epochs=2)
    run = run_named(study, "lora-scratch-r8")
    told = estimate.measured(run, study)
    job = jobs.prepare(run, study)
    began = time.perf_counter()
    assert len([*loop.epochs(job)]) == 2
    assert told / 3 < time.perf_counter() - began < 3 * told


def test_what_is_not_at_hand_is_estimated_by_arithmetic(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "matrix_peak", lambda precision: 3e9)
    monkeypatch.setattr(jobs, "prepare", None)  # nothing is built
    large = dataclasses.replace(smoke, backbone="random:t5-small", data="nobody/nothing")
    large = dataclasses.replace(large, max_length=256)
    assert not estimate.at_hand(large)
    encoder = 6 * (4 * 512 * 512 + 2 * 512 * 2048 + 2 * 512) + 32 * 8  # with its position biases
    reads = encoder + 6 * 2 * 512 * 512  # and the decoder's keys and values
    assert estimate.supposed(large) == pytest.approx(2 * reads * 256 / 1e9)
    full, lora = (run_named(large, name) for name in ("full", "lora-scratch-r8"))
    times = estimate.seconds([full, lora], large)
    reviews = large.epochs * large.train_examples
    share = (times["full"] - times["lora-scratch-r8"]) / estimate.supposed(large)
    assert share == pytest.approx(reviews), "a third pass through the model"


@pytest.mark.parametrize(
    ("train", "seconds", "trains"),
    [("auto", 60, True), ("auto", 3600, False), ("yes", 3600, True), ("no", 60, False)],
)
def test_missing_runs_are_trained_where_they_may_be(
    train: Any, seconds: float, trains: bool, smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        estimate, "seconds", lambda wanted, study: {run.name: seconds for run in wanted}
    )
    monkeypatch.setattr(machine, "has_accelerator", lambda: False)
    asked: list[str] = []

    def noted(run: Run, study: Study) -> tuple[Status, None]:
        asked.append(run.name)
        return Status("fresh", "just now"), None

    monkeypatch.setattr(evidence, "trained", noted)
    monkeypatch.setattr(Evidence, "record", lambda self, run: run.name)
    study = dataclasses.replace(smoke, train=train)
    names = [run.name for run in runs_of(study) if run.method == "lora"]
    if trains:
        assert Evidence(study).records("lora") == names == asked
        return
    with pytest.raises(Missing) as refused:
        Evidence(study).records("lora")
    line = str(refused.value)
    assert "study smoke: found 10 of 10 runs missing (never trained): full, " in line
    assert "expected stored runs; t5peft train smoke " in line
    assert f"takes about {'3 min' if seconds == 60 else '3.0 h'} here" in line


def test_runs_of_other_settings_are_named_with_the_way_to_replace_them(smoke: Study) -> None:
    make.train(run_named(smoke, "lora-scratch-r8"), smoke)
    other = dataclasses.replace(smoke, epochs=1, train="yes")
    with pytest.raises(Missing, match=r"other settings: epochs 2 -> 1\): .*--replace") as refused:
        Evidence(other).records("lora")
    assert "--set epochs=1" in str(refused.value), "the way out carries what was set"
    assert store.status(run_named(smoke, "lora-scratch-r8"), smoke).state == "fresh"
