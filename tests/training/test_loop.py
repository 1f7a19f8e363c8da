"""One epoch, and what it comes to."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from helpers import run_of

from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import data
from t5peft.runs import make, store
from t5peft.training import evaluation, jobs, loop


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone(smoke: Study) -> None:
    first = loop.order(smoke, 1)
    assert sorted(first) == list(range(smoke.train_examples))
    assert np.array_equal(first, loop.order(smoke, 1))
    assert not np.array_equal(first, loop.order(smoke, 2))
    assert not np.array_equal(first, loop.order(dataclasses.replace(smoke, seed=1), 1))


def test_an_order_is_shared_by_all_runs_or_each_runs_own(smoke: Study) -> None:
    own = dataclasses.replace(smoke, order="own")
    assert np.array_equal(loop.order(smoke, 1, 1), loop.order(smoke, 1, 2))
    assert not np.array_equal(loop.order(own, 1, 1), loop.order(own, 1, 2))
    assert np.array_equal(loop.order(own, 1, 2), loop.order(own, 1, 2))


def test_a_run_takes_the_order_of_its_number(smoke: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    own = dataclasses.replace(smoke, order="own")
    run, seen = run_of(own), []
    monkeypatch.setattr(loop, "add_gradients", lambda _, batch: seen.extend(batch))
    list(loop.steps(jobs.prepare(run, own), 2))
    assert seen == loop.order(own, 2, run.number).tolist()


@pytest.mark.parametrize(("decay", "last"), [("none", 1.0), ("linear", 1 / 8)])
def test_a_rate_is_constant_or_falls_evenly_over_all_epochs(
    decay: Any, last: float, smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = dataclasses.replace(smoke, decay=decay, epochs=2)  # of four steps each
    job = jobs.prepare(run_of(study), study)
    rates: list[float] = []
    step = job.optimizer.step
    group = job.optimizer.param_groups[0]
    monkeypatch.setattr(job.optimizer, "step", lambda: (rates.append(group["lr"]), step()))
    for epoch in (1, 2):
        loop.train_epoch(job, epoch)
    falling = np.linspace(1, last, 8) * job.run.learning_rate
    assert rates == pytest.approx(falling.tolist())


def test_a_loss_that_is_no_number_stops_the_run(smoke: Study) -> None:
    study = dataclasses.replace(smoke, full_learning_rate=1e30, epochs=3)
    with pytest.raises(
        InputError, match=r"loss of full, epoch \d, step \d+, reviews .*found (nan|inf)"
    ):
        make.train(run_of(study, "full"), study)
    assert store.status(run_of(study, "full"), study).state == "missing"


def test_each_step_of_an_epoch_has_dropout_and_fresh_gradients(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.prepare(run_of(smoke), smoke)
    job.model.eval()  # as an evaluation leaves it
    add, seen = loop.add_gradients, []

    def watched(job: jobs.Job, batch: np.ndarray) -> torch.Tensor:
        seen.append((job.model.training, all(p.grad is None for p in job.model.parameters())))
        return add(job, batch)

    monkeypatch.setattr(loop, "add_gradients", watched)
    loop.train_epoch(job, 1)
    assert seen == 4 * [(True, True)]


def test_the_loss_of_an_epoch_is_the_mean_of_its_reviews(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = dataclasses.replace(smoke, train_examples=20)  # batches of 16 and of 4
    job = jobs.prepare(run_of(study), study)
    monkeypatch.setattr(
        loop, "add_gradients", lambda _, batch: torch.tensor({16: 1.0, 4: 6.0}[len(batch)])
    )
    losses = loop.train_epoch(job, 1)
    assert losses.tolist() == [1.0, 6.0]
    assert loop.mean_loss(losses, study) == 2.0


def test_both_accuracies_are_of_the_reviews_that_they_are_said_to_be_of(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    right_of_four = {"test": [2, 1], "train": [3, 3]}

    def noted(job: jobs.Job, tokens: data.Tokens, title: str) -> list[str]:
        asked.append((tokens is job.test, tokens.ids is job.train.ids, len(tokens)))
        time.sleep(0.01)
        part = "test" if tokens is job.test else "train"
        right = len(tokens) // 4 * right_of_four[part].pop(0)
        return [data.LABELS[label] if i < right else "" for i, label in enumerate(tokens.labels)]

    monkeypatch.setattr(loop, "answers", noted)
    record = make.train_alone(run_of(smoke), smoke)
    assert asked == 2 * [(True, False, smoke.test_examples), (False, True, smoke.train_sample)]
    history: list[Any] = record["history"]
    assert [(e["test_accuracy"], e["train_accuracy"]) for e in history] == [
        (0.5, 0.75),
        (0.25, 0.75),
    ]
    assert (record["best_accuracy"], record["last_accuracy"]) == (0.5, 0.25)
    speed: Any = record["speed"]
    for part in ("train", "test"):
        spent = sum(epoch[f"{part}_seconds"] for epoch in history)
        rate = speed[f"{part}_examples_per_second"]
        assert rate == pytest.approx(2 * 64 / spent, rel=0.01)


def test_the_first_loss_that_is_no_number_is_named_with_its_reviews(smoke: Study) -> None:
    job = jobs.prepare(run_of(smoke), smoke)
    batches = [np.array([1, 2]), np.array([3, 4]), np.array([5, 6])]
    losses = [0.1, 0.5, math.nan, math.inf]
    with pytest.raises(InputError, match=r"epoch 7, step 3, reviews 3, 4, \.\.\.: found nan"):
        loop.check_finite(job, 7, losses, batches)


def test_answers_are_given_in_the_studys_precision_and_twice_as_many_at_once_as_are_trained_on(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def noted(model: Any, words: Any, tokens: data.Tokens, *given: Any) -> list[str]:
        seen.append((torch.is_autocast_enabled(model.device.type), given[-1]))
        return len(tokens) * ["positive"]

    monkeypatch.setattr(evaluation, "predict", noted)
    for precision in ("bf16", "fp32"):
        AcceleratorState._reset_state()  # it keeps one precision a process
        study = dataclasses.replace(smoke, precision=precision, micro_batch_size=4)
        job = jobs.prepare(run_of(study), study)
        loop.accuracy(job, job.test, "test")
    assert seen == [(True, 8), (False, 8)]


def test_each_seed_and_each_epoch_draws_its_own_dropout(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def draw(*_: Any) -> torch.Tensor:
        drawn.append(float(torch.rand(1)))
        return torch.tensor(0.0)

    monkeypatch.setattr(loop, "add_gradients", draw)
    for seed in (0, 1):
        study = dataclasses.replace(smoke, seed=seed)
        job = jobs.prepare(run_of(study), study)
        for epoch in (1, 2):
            loop.train_epoch(job, epoch)
    assert len(set(drawn)) == len(drawn) == 2 * 2 * 4
