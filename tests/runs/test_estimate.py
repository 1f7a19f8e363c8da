"""How long runs take: named for all of a study's at once, from steps that were really made."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers import run_of

from t5peft.base import machine
from t5peft.base.errors import Missing
from t5peft.base.studies import Study
from t5peft.inputs import data
from t5peft.methods.table import runs_of
from t5peft.report.evidence import Evidence
from t5peft.runs import estimate, make, store
from t5peft.training import jobs, loop


def test_answered_are_the_test_reviews_and_the_sample(smoke: Study) -> None:
    sizes = {"train_examples": 50, "test_examples": 70}
    for sample, answered in ((20, 90), (1000, 120)):
        study = dataclasses.replace(smoke, **sizes, train_sample=sample)
        assert estimate.answered(study) == answered


@pytest.mark.slow
def test_an_estimate_is_of_the_order_of_the_run(smoke: Study) -> None:
    study = dataclasses.replace(smoke, train_examples=400, test_examples=400, epochs=2)
    run = run_of(study)
    told = estimate.measured(run, study)
    job = jobs.prepare(run, study)
    began = time.perf_counter()
    assert len([*loop.epochs(job)]) == 2
    assert told / 3 < time.perf_counter() - began < 3 * told


MEASURE = """
import sys
from t5peft.base import machine, studies
from t5peft.methods.table import runs_of
from t5peft.runs import estimate
from t5peft.training import jobs, loop

changes = {"backbone": "random:t5-small", "tokenizer": sys.argv[1], "train": "no"}
changes |= {"max_length": 128, "micro_batch_size": int(sys.argv[3]), "data": sys.argv[4]}
study = studies.load("smoke", changes)
run = next(run for run in runs_of(study) if run.name == sys.argv[2])
machine.reset_peak_memory()
told, _ = estimate.memory(run, study), loop.train_epoch(jobs.prepare(run, study), 1, 2)
print(told, machine.peak_memory())
"""


@pytest.mark.slow
@pytest.mark.parametrize("parts", [0, 2])
@pytest.mark.parametrize("name", ["full", "lora-scratch-r8"])
def test_the_memory_that_is_told_is_what_is_taken(
    name: str, parts: int, smoke: Study, tmp_path: Path
) -> None:
    """On reviews that fill the length."""
    rows = [(20 * text, label) for text, label in data.read(data.MADE_UP, "train")]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(path := tmp_path / "long.csv")
    command = [sys.executable, "-c", MEASURE, smoke.tokenizer, name, str(parts), str(path)]
    there = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}  # a GPU's peak is that of the answering
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=there)
    told, taken = done.stdout.split()
    assert float(told) == pytest.approx(float(taken), rel=0.25)


def test_what_there_is_of_memory_is_told_beside(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "memory", lambda run, study: 1e9 * run.number)
    monkeypatch.setattr(machine, "resident_memory", lambda: 10**9)
    monkeypatch.setattr(machine, "free_memory", lambda: 9 * 10**9)
    runs = runs_of(smoke)[:6]
    assert estimate.told(runs, smoke) == (
        "memory: about 6.0 GB (adapter-adapterhub-b8) of 10.0 GB free"
    )
    assert estimate.told(runs[4:], smoke, 2) == (
        "memory: about 11.0 GB (adapter-scratch-b8, adapter-adapterhub-b8) of 9.0 GB free: it may "
        "not do; give a small micro_batch_size or a lower max_length, or fewer --jobs"
    )


def test_a_smaller_part_of_a_batch_wants_less_memory(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "resident_memory", lambda: 0)
    run, sizes = run_of(smoke), []
    for parts in (1, 2, 4):
        study = dataclasses.replace(smoke, micro_batch_size=parts, max_length=512)
        sizes.append(estimate.memory(run, study))
    assert sizes[2] - sizes[1] == pytest.approx(2 * (sizes[1] - sizes[0]))
    assert sizes[1] > sizes[0]


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
    full, lora = (run_of(large, name) for name in ("full", "lora-scratch-r8"))
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

    monkeypatch.setattr(make, "train_alone", lambda run, study: asked.append(run.name))
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
    assert line.endswith("or render with train=yes, or --partial")
    assert "--replace" not in line


def test_runs_of_other_settings_are_named_with_the_way_to_replace_them(smoke: Study) -> None:
    make.train(run_of(smoke), smoke)
    other = dataclasses.replace(smoke, epochs=1, train="yes")
    with pytest.raises(Missing, match=r"other settings: epochs 2 -> 1\): .*--replace") as refused:
        Evidence(other).records("lora")
    assert "--set epochs=1" in str(refused.value), "the way out carries what was set"
    assert str(refused.value).endswith("or render with --partial"), "no render replaces"
    assert store.status(run_of(smoke), smoke).state == "fresh"
