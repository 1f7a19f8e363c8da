"""The exercise's own loop and transformers' trainer against ours, side by side in one run.

The exercise's loop: float32, batches of the study's size in the reviews' order, padded to their
longest, and `generate` over the test reviews. The trainer: `Seq2SeqTrainer` with reviews grouped by
length and answers by `generate`, in the study's precision. Ours: what `loop.py` and `evaluation.py`
do, in that precision. Model, reviews, optimizer and dropout's rate are the same; what differs in
the mathematics is the precision, and nothing else.

Each side lives in a process of its own, which shows its peak memory; they are timed in turns on the
same reviews, but for the training reviews that the trainer draws itself. An epoch is put together
from its parts.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import statistics
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5ForConditionalGeneration

from t5peft.base import bfloat16, machine, studies
from t5peft.base.studies import Study
from t5peft.inputs import backbone, data, tokenizers
from t5peft.inputs.data import Tokens
from t5peft.measure import trainer
from t5peft.measure.measurements import Bench
from t5peft.methods.table import Run, ours
from t5peft.training import compiling, evaluation, jobs, loop
from t5peft.training.jobs import Job

EXERCISE, TRAINER, OURS = "exercise", "trainer", "ours"
TRAINER_STEPS = 4
"""Steps of the trainer that a turn times: their reviews are of different lengths."""

TEST_BLOCKS = 4
"""Blocks of test reviews that an evaluation is timed on."""

LESSONS = 30
"""Steps on eight short reviews that teach a random backbone to answer with a label word."""


# --- in the process of one side ----------------------------------------------------------------

job: Job
"""The side's model, reviews and optimizer."""


def start(run: Run, study: Study, name: str) -> None:
    """Make the side's job; only ours is told how to take memory."""
    global job
    machine.end_with_parent()
    if name == OURS:
        machine.keep_freed_memory()
    if name != EXERCISE:
        bfloat16.provide(study.precision)
    model = jobs.build(run, study)
    if study.backbone.startswith(backbone.RANDOM):
        teach(model, run, study)
    study = dataclasses.replace(study, precision="fp32" if name == EXERCISE else study.precision)
    if name == OURS:
        job = compiling.compiled(jobs.with_fast_model(run, study, model))
    else:
        job = jobs.with_model(run, study, model)
    machine.reset_peak_memory()


def teach(model: T5ForConditionalGeneration, run: Run, study: Study) -> None:
    """Train a random backbone until it answers with a label word, as one that was trained does.

    Its own answers are of any length, which would be what an evaluation's time measures.
    """
    everything = list(model.parameters())
    frozen = [p for p in everything if not p.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(everything, lr=1e-3)
    reviews = data.tokens(study, "train")
    ids, mask = reviews.batch(np.arange(min(8, len(reviews))), 16, run.placeholders)
    targets = evaluation.targets(tokenizers.load(study.tokenizer or study.backbone))
    for _ in range(LESSONS):
        model(
            input_ids=ids, attention_mask=mask, labels=targets[reviews.labels[:8]]
        ).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for parameter in frozen:
        parameter.requires_grad_(False)


def train_batch(name: str, turn: int) -> None:
    """One training step."""
    size, reviews = job.study.batch_size, loop.order(job.study, 1)
    at = turn * size % max(1, len(reviews) - size + 1)
    job.model.train()
    if name == EXERCISE:
        loop.loss_of(job, reviews[at : at + size], multiple=1).backward()
    else:
        loop.add_gradients(job, reviews[at : at + size])
    job.optimizer.step()
    job.optimizer.zero_grad(set_to_none=True)


def step(name: str, turn: int) -> float:
    """Seconds of one training step."""
    if name == TRAINER:
        return trainer.step(job, TRAINER_STEPS)
    return machine.seconds(lambda: train_batch(name, turn))


def operations(name: str) -> int:
    """Floating-point operations of the matrix products of one training step, there and back."""
    with FlopCounterMode(display=False) as counter:
        train_batch(name, 0)
    return counter.get_total_flops()


def sample(test: Tokens, max_length: int, device: torch.device) -> Tokens:
    """Test reviews in a random order: blocks of neighbours by length, evenly spread.

    Ours answers reviews in such blocks. Reviews drawn one by one would lie farther apart, and so be
    padded more than all test reviews are.
    """
    blocks = list(evaluation.by_length(test, max_length, device))
    count = min(TEST_BLOCKS, len(blocks))
    spread = [blocks[(2 * block + 1) * len(blocks) // (2 * count)] for block in range(count)]
    return test.picked(np.random.default_rng(0).permutation(np.concatenate(spread)))


def evaluate(name: str) -> float:
    """Seconds of answering a test review as one side does."""
    test = sample(job.test, job.study.max_length, job.model.device)
    if name == TRAINER:
        return trainer.evaluate(job, test) / len(test)
    answer = by_generate if name == EXERCISE else evaluation.predict
    with job.accelerator.autocast():
        seconds = machine.seconds(
            lambda: answer(
                job.model, job.tokenizer, test, job.study.max_length, job.run.placeholders
            )
        )
    return seconds / len(test)


@torch.inference_mode()
def by_generate(
    model: T5ForConditionalGeneration,
    tokenizer: Any,
    test: Tokens,
    max_length: int,
    placeholders: int,
) -> list[str]:
    """The exercise's evaluation: batches in the reviews' order through `generate`."""
    model.eval()
    answers = []
    for picked in np.array_split(np.arange(len(test)), -(-len(test) // job.study.batch_size)):
        ids, mask = test.batch(picked, max_length, placeholders)
        answers += evaluation.generate(model, tokenizer, ids, mask)
    return answers


# --- all sides ---------------------------------------------------------------------------------


def measure(run: Run, study: Study, repeats: int) -> dict[str, dict[str, float]]:
    """Each side's figures for one run's method, in a process of its own."""
    with started(run, study) as sides:
        return timed(sides, study, repeats)


@contextmanager
def started(run: Run, study: Study) -> Iterator[dict[str, ProcessPoolExecutor]]:
    """A process for each side; all are gone afterwards, whatever they were at."""
    spawn = multiprocessing.get_context("spawn")
    sides = {name: ProcessPoolExecutor(1, spawn) for name in (EXERCISE, TRAINER, OURS)}
    try:
        with machine.without_ctrl_c():
            ready = [side.submit(start, run, study, name) for name, side in sides.items()]
        for side in ready:
            side.result()
        yield sides
    finally:
        for process in multiprocessing.active_children():
            process.kill()
        for side in sides.values():
            side.shutdown()


def timed(
    sides: Mapping[str, ProcessPoolExecutor], study: Study, repeats: int
) -> dict[str, dict[str, float]]:
    """Each side's medians, taken in turns; the first turn warms up."""
    steps: dict[str, list[float]] = {name: [] for name in sides}
    tests: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 1):
        for name, side in sides.items():
            steps[name].append(side.submit(step, name, turn).result())
            tests[name].append(side.submit(evaluate, name).result())
            print(
                f"  {f'turn {turn} of {repeats}' if turn else 'warm-up'}, {name}: "
                f"a step {steps[name][-1]:.2f} s, a test review {1e3 * tests[name][-1]:.1f} ms",
                flush=True,
            )
    figures = {}
    for name, side in sides.items():
        figures[name] = summary(steps[name][1:], tests[name][1:], study) | {
            "peak_bytes": side.submit(machine.peak_memory).result()
        }
    for name in (EXERCISE, OURS):
        figures[name] |= {
            "operations": sides[name].submit(operations, name).result(),
            "matrix_rate": sides[name].submit(machine.matrix_peak).result(),
        }
    return figures


def summary(steps: list[float], tests: list[float], study: Study) -> dict[str, float]:
    """Medians in seconds: a step, the evaluation of all test reviews, an epoch of both.

    steps: seconds of each; tests: seconds of a review.
    """
    one_step = statistics.median(steps)
    whole_test = statistics.median(tests) * study.test_examples
    count = -(-study.train_examples // study.batch_size)
    return {"step": one_step, "evaluation": whole_test, "epoch": count * one_step + whole_test}


def bench(study: Study, repeats: int) -> Bench:
    """Measure each from-scratch method.

    Raises `InputError` for wrong settings here: a side's process would only break.
    """
    measured = {}
    tokenizer = tokenizers.load(study.tokenizer or study.backbone)
    for split in data.SPLITS:
        data.tokens(study, split)
    for method, run in ours(study).items():
        jobs.check_tokenizer(tokenizer, run, study)
        print(f"{run.name} ...", flush=True)
        measured[method] = measure(run, study, repeats)
    return {
        "methods": measured,
        "repeats": repeats,
        "params": studies.plain(study),
    }


# --- what it has shown ---------------------------------------------------------------------------


def peak(record: Bench) -> float:
    """The machine's `matrix_peak`: the median of what our sides' processes measured."""
    return statistics.median(sides[OURS]["matrix_rate"] for sides in record["methods"].values())


def shares(record: Bench) -> dict[str, float]:
    """How near our training step is to the machine's `matrix_peak` (MFU), by method."""
    ours = {method: sides[OURS] for method, sides in record["methods"].items()}
    return {m: x["operations"] / x["step"] / x["matrix_rate"] for m, x in ours.items()}


def rows(record: Bench) -> Iterator[dict[str, Any]]:
    """Method, figure, each side's, and the exercise's by ours."""
    units = {
        "step": ("training step (s)", 1),
        "evaluation": ("all test reviews (min)", 60),
        "epoch": ("whole epoch (min)", 60),
        "peak_bytes": ("peak memory (GB)", 1e9),
    }
    for method, sides in record["methods"].items():
        for key, (what, unit) in units.items():
            each = {name: figures[key] / unit for name, figures in sides.items()}
            ratio = each[EXERCISE] / each[OURS]
            yield {"method": method, "figure": what, **each, "exercise / ours": ratio}
