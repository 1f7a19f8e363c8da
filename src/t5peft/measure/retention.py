"""Claim 3: what a run keeps of its backbone's pre-training, and what it has learned by heart.

Measured with a run's trained tensors in place: the loss of span corruption, T5's own objective, on
test reviews, which neither saw in training; and the accuracy on more training reviews than a run's
history has. Full fine-tuning stores no weights: it is trained once more, to its best epoch, and its
accuracy on the test reviews is measured again, as other hardware gives other last digits.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import backbone, data
from t5peft.measure import measurements
from t5peft.measure.measurements import Retention
from t5peft.methods.table import Run, runs_of
from t5peft.pretrain import spans
from t5peft.runs import reopen, store
from t5peft.runs.records import Record
from t5peft.training import jobs, loop
from t5peft.training.jobs import Job

STRETCHES = 256
"""Stretches of the test reviews' text on which the span loss is measured."""

INPUT = 256
"""Tokens of a corrupted stretch at most: as `mini-long` read in pre-training; Google's had 512."""

AT_ONCE = 16

USUAL = 10_000
"""Training reviews that are scored, where there are so many."""


def measure(study: Study, reviews: int | None) -> list[Retention]:
    """What is measured of a study's runs; see `measurements.made`.

    Raises `InputError` where a run is not stored or there are fewer training reviews.
    """
    reviews = min(USUAL, study.train_examples) if reviews is None else reviews
    if not 0 < reviews <= study.train_examples:
        there = f"1 to the study's {study.train_examples:,}"
        raise InputError("--reviews", reviews, there, "give another number")
    store.require(runs_of(study), study)
    found = store.look(runs_of(study), study)
    return measurements.made(measurements.retention(study, reviews, found))


def of_run(run: Run, study: Study, reviews: int) -> Retention:
    """One run's measurement; losses in nats a target token."""
    record = store.load(run, study)
    bare = jobs.with_fast_model(run, study, backbone.load(study.backbone, study.seed))
    job = finished(run, study, record)
    sources, targets = stretches(job)
    sample = job.train.first(reviews, "train")
    test_accuracy = record["best_accuracy"]  # of the stored tensors
    if run.method == "full":
        test_accuracy = loop.accuracy(job, job.test, "test reviews")
    return {
        "run": run.name,
        "reviews": reviews,
        "train_accuracy": loop.accuracy(job, sample, "training reviews"),
        "test_accuracy": test_accuracy,
        "stretches": len(sources),
        "span_loss": span_loss(job, sources, targets, run.placeholders),
        "span_loss_before": span_loss(bare, sources, targets, 0),
    }


def finished(run: Run, study: Study, record: Record) -> Job:
    """The run as it was after its best epoch: from its tensors, or trained again."""
    if run.method == "full":
        job = reopen.anew(run, study, record)
        for epoch in range(1, record["best_epoch"] + 1):
            loop.train_epoch(job, epoch)
        return job
    return reopen.job(run, study)


def stretches(job: Job) -> tuple[Tensor, Tensor]:
    """Corrupted stretches of the test reviews and their targets, (S, T) and (S, targets).

    Drawn alike for all runs of a study. Raises `InputError` where the text is too short.
    """
    size, tokenizer = spans.lengths(min(job.study.max_length, INPUT)), job.tokenizer
    stream = job.test.ids[: job.test.starts[-1]].cpu().numpy()
    draw = np.random.default_rng(0)
    count = len(stream) // size.text
    if not count:
        found = f"{len(stream)} tokens of test reviews"
        raise InputError("test_examples", found, f"{size.text} or more", "give more test reviews")
    starts = size.text * draw.choice(count, min(count, STRETCHES), replace=False)
    return spans.corrupt_batch(stream, starts, size, tokenizer, draw)


@torch.inference_mode()
def span_loss(job: Job, sources: Tensor, targets: Tensor, placeholders: int) -> float:
    """Mean span loss of the stretches, nats a target token, as the study's precision has it."""
    job.model.eval()
    ids = torch.nn.functional.pad(sources, (placeholders, 0), value=data.PAD)
    total = 0.0
    for source, target in zip(ids.split(AT_ONCE), targets.split(AT_ONCE), strict=True):
        source, target = (side.to(job.accelerator.device) for side in (source, target))
        seen = torch.ones_like(source)
        loss = job.model(input_ids=source, attention_mask=seen, labels=target).loss
        total += float(loss) * len(source)
    return total / len(ids)
