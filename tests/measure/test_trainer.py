"""The trainer trains the same model on the same reviews, and writes the same answers."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from helpers import run_of

from t5peft.base.studies import Study
from t5peft.inputs.data import EOS, LABELS
from t5peft.measure import trainer
from t5peft.training import jobs, loop

pytestmark = pytest.mark.slow


@pytest.fixture
def job(smoke: Study) -> jobs.Job:
    """Soft prompts from scratch, whose placeholders stand before each review."""
    run = run_of(smoke, "soft-prompt-scratch-n10")
    return jobs.with_model(run, smoke, jobs.build(run, smoke))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_in_the_studys_precision_groups_by_length_and_clips_nothing(
    precision: Any, smoke: Study
) -> None:
    study = dataclasses.replace(smoke, precision=precision)
    job = jobs.prepare(run_of(study), study)
    arguments = trainer.trainer(job, trainer.rows(job, job.test)).args
    assert arguments.bf16 == (precision == "bf16")
    assert arguments.group_by_length
    assert arguments.max_grad_norm == 0


def test_rows_are_the_reviews_of_our_batches(job: jobs.Job) -> None:
    rows: Any = trainer.rows(job, job.train)
    assert len(rows) == len(job.train)
    ids, mask = job.train.batch(np.arange(3), job.study.max_length, job.run.placeholders)
    for row, its_ids, its_mask, label in zip(rows, ids, mask, job.train.labels, strict=False):
        assert row["input_ids"] == its_ids[its_mask == 1].tolist()
        assert row["input_ids"][-1] == EOS
        assert row["attention_mask"] == [1] * int(its_mask.sum())
        assert row["labels"] == job.targets[label].tolist()


@pytest.mark.usefixtures("taught")
def test_it_writes_our_answers(job: jobs.Job) -> None:
    """In the order of lengths, as its sampler has the reviews: labels tell them apart."""
    rows: Any = trainer.rows(job, job.test)
    said = trainer.trainer(job, rows).predict(rows)
    theirs, labels = (
        job.tokenizer.batch_decode(side, skip_special_tokens=True)
        for side in (said.predictions, said.label_ids)
    )
    wanted = zip(loop.answers(job, job.test, "test"), job.test.labels, strict=True)
    assert Counter(zip(theirs, labels, strict=True)) == Counter(
        (answer, LABELS[label]) for answer, label in wanted
    )
    assert len(set(theirs)) > 2


def test_a_step_trains_what_the_method_trains(job: jobs.Job) -> None:
    before = {name: p.detach().clone() for name, p in job.model.named_parameters()}
    assert trainer.step(job, 2) > 0
    changed = {n for n, p in job.model.named_parameters() if not torch.equal(p, before[n])}
    assert changed == set(jobs.trained(job.model))
    assert trainer.evaluate(job, job.test) > 0
