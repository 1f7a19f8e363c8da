"""One loop and one evaluation for every method and every implementation.

AdamW (Loshchilov and Hutter, 2019) with PyTorch's defaults and a constant rate, as the exercise
says, unless the study has it fall. The order of epoch e and its dropout masks are drawn from
(seed, e) alone, with the run's number if each has its own order: a run that is killed goes on from
its last whole epoch and ends with the same numbers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import islice
from typing import cast

import numpy as np
import torch
from accelerate.utils import gather_object, set_seed
from torch import Tensor

from t5peft.base.errors import InputError
from t5peft.base.progress import Progress
from t5peft.base.studies import Study
from t5peft.inputs import data
from t5peft.inputs.data import Tokens
from t5peft.training import evaluation, jobs
from t5peft.training.jobs import Epoch, Job

CHECK_EVERY = {"cpu": 1}
"""Steps between two looks at the losses, 20 on a GPU: each look waits for it."""

REVIEWS_AT_ONCE = {"cpu": 8}
"""On a CPU a batch goes through the model in parts of similar length that the caches hold: less
padding, a fraction of the memory, the same gradients. A GPU takes the batch whole, unless the study
says otherwise (`micro_batch_size`): gradients are accumulated over the parts."""


# --- one epoch ---------------------------------------------------------------------------------


def order(study: Study, epoch: int, run: int = 0) -> np.ndarray:
    """The training reviews in the order of epoch `epoch` (from 1); run: its number."""
    drawn_from = [study.seed, epoch, *([run] if study.order == "own" else [])]
    return np.random.default_rng(drawn_from).permutation(study.train_examples)


def rate(job: Job, epoch: int, done: int) -> float:
    """The learning rate after so many reviews of an epoch: the run's, or what is left of it."""
    if job.study.decay == "none":
        return job.run.learning_rate
    passed = epoch - 1 + done / job.study.train_examples
    return job.run.learning_rate * (1 - passed / job.study.epochs)


def loss_of(job: Job, picked: np.ndarray, multiple: int = data.MULTIPLE) -> Tensor:
    """Mean cross-entropy of the picked reviews' label words, each with its end: a scalar."""
    max_length, model = job.study.max_length, job.wrapped
    whole = job.study.micro_batch_size or job.study.batch_size
    if job.compiled is not None and len(picked) == whole:  # of one shape
        model, multiple = job.compiled, max_length
    ids, mask = job.train.batch(picked, max_length, job.run.placeholders, multiple)
    labels = job.targets[job.train.labels[picked]].to(ids.device, non_blocking=True)
    return model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss


def add_gradients(job: Job, batch: np.ndarray) -> Tensor:
    """Gradients of the mean loss of a batch, over all processes; returns that loss.

    Each process takes its share in parts of similar length; gradients are exchanged at the last.
    """
    count = job.accelerator.num_processes
    mine = batch[job.accelerator.process_index :: count]
    mine = mine[np.argsort(job.train.lengths(job.study.max_length)[mine], kind="stable")]
    usual = REVIEWS_AT_ONCE.get(job.accelerator.device.type, len(mine))
    at_once = job.study.micro_batch_size or usual
    parts = np.array_split(mine, -(-len(mine) // at_once))
    total = torch.zeros((), device=job.accelerator.device)
    for number, part in enumerate(parts, 1):
        last = number == len(parts)
        with nullcontext() if last else job.accelerator.no_sync(job.wrapped):
            loss = loss_of(job, part) * (len(part) * count / len(batch))
            job.accelerator.backward(loss)
        total += loss.detach()
    return cast(Tensor, job.accelerator.reduce(total, "mean"))


def steps(job: Job, epoch: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    """One pass over the training reviews, a step at a time: its reviews and their mean loss."""
    set_seed(1000 * job.study.seed + epoch)
    job.model.train()
    reviews = order(job.study, epoch, job.run.number)
    for at in range(0, len(reviews), job.study.batch_size):
        batch = reviews[at : at + job.study.batch_size]
        loss = add_gradients(job, batch)
        job.optimizer.param_groups[0]["lr"] = rate(job, epoch, at)
        job.optimizer.step()
        job.optimizer.zero_grad(set_to_none=True)
        yield batch, loss


def train_epoch(job: Job, epoch: int, most: int | None = None) -> np.ndarray:
    """The loss of each step (nats) of one pass, or of its first steps: `most` of them."""
    reviews = min(len(job.train), job.study.batch_size * (most or len(job.train)))
    losses: list[float] = []
    todo, size = islice(steps(job, epoch), most), CHECK_EVERY.get(job.accelerator.device.type, 20)
    with Progress(f"{job.run.name}, epoch {epoch} of {job.study.epochs}", reviews) as progress:
        while some := [*islice(todo, size)]:
            losses += torch.stack([loss for _, loss in some]).tolist()
            check_finite(job, epoch, losses, [batch for batch, _ in some])
            progress.add(sum(len(batch) for batch, _ in some), f"loss {losses[-1]:.4f}")
    return np.array(losses, np.float32)


def mean_loss(losses: np.ndarray, study: Study) -> float:
    """The mean loss of a review, from the losses of an epoch's steps."""
    starts = range(0, study.train_examples, study.batch_size)
    sizes = np.diff([*starts, study.train_examples])
    return float(np.average(losses.astype(float), weights=sizes))


def check_finite(job: Job, epoch: int, losses: list[float], batches: list[np.ndarray]) -> None:
    """Stop the run at its first loss that is no number, and name the step and its reviews.

    losses: all so far; batches: the reviews of the last of them.
    """
    first = len(losses) - len(batches)
    for step, (value, batch) in enumerate(zip(losses[first:], batches, strict=True), first + 1):
        if not math.isfinite(value):
            raise InputError(
                f"loss of {job.run.name}, epoch {epoch}, step {step}, "
                f"reviews {', '.join(map(str, batch[:4]))}, ...",
                value,
                "a finite number",
                "lower the learning rate or set precision=fp32",
            )


def answers(job: Job, tokens: Tokens, title: str) -> list[str]:
    """What the model as it is answers to each review; each process asks it about its share."""
    max_length, placeholders = job.study.max_length, job.run.placeholders
    every = np.arange(len(tokens))
    mine = every[job.accelerator.process_index :: job.accelerator.num_processes]
    with Progress(f"{job.run.name}, {title}", len(mine)) as progress, job.accelerator.autocast():
        found = evaluation.predict(
            job.model,
            job.tokenizer,
            tokens.picked(mine),
            max_length,
            placeholders,
            progress.add,
            2 * job.study.micro_batch_size,  # twice as many fit, as no gradients are kept
        )
    said = dict(gather_object([*zip(mine.tolist(), found, strict=True)]))
    return [said[review] for review in every.tolist()]


def accuracy(job: Job, tokens: Tokens, title: str) -> float:
    """The share of right ones among them."""
    return evaluation.score(answers(job, tokens, title), tokens.labels)[0]


def epochs(job: Job) -> Iterator[Epoch]:
    """The epochs that are still to come, one by one, and what came of each.

    It is noted in the job's history and trace, and its tensors are kept if it is the best so far.
    """
    sample = job.train.first(min(job.study.train_sample, len(job.train)), "train")
    for number in range(len(job.history) + 1, job.study.epochs + 1):
        began = time.perf_counter()
        losses = train_epoch(job, number)
        middle = time.perf_counter()
        said = answers(job, job.test, f"test after epoch {number}")
        ended = time.perf_counter()
        test_accuracy, other = evaluation.score(said, job.test.labels)
        job.history.append(
            {
                "epoch": number,
                "loss": mean_loss(losses, job.study),
                "train_accuracy": accuracy(job, sample, f"sample after epoch {number}"),
                "test_accuracy": test_accuracy,
                "other_words": other,
                "train_seconds": round(middle - began, 3),
                "test_seconds": round(ended - middle, 3),
            }
        )
        job.trace.add(number, losses, said, job.test.labels)
        keep_best(job)
        yield job.history[-1]


def best_epoch(job: Job) -> Epoch:
    """The exercise's choice: the epoch of the highest test accuracy, the first of equals."""
    return max(job.history, key=lambda epoch: epoch["test_accuracy"])


def keep_best(job: Job) -> None:
    """Remember the trained tensors of the best epoch; full fine-tuning stores no weights."""
    if job.run.method != "full" and best_epoch(job) is job.history[-1]:
        job.best = {name: tensor.cpu().clone() for name, tensor in jobs.trained(job.model).items()}
