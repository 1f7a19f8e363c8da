"""Learning rates for a backbone that the exercise's were not made for.

Each from-scratch method is trained once for every rate of its grid on the study's first training
reviews, and scored on the study's last tenth of them, which it has not seen. Test reviews are never
looked at. The rates enter a study by hand, in its YAML; this is the record of why.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection
from functools import partial
from typing import Any

from t5peft import data, measured, methods, runs, training
from t5peft.data import Tokens
from t5peft.errors import InputError
from t5peft.measured import Measurement
from t5peft.methods import Run
from t5peft.params import Params

GRID = {
    "full": (1e-5, 1e-4, 3e-4, 5e-4, 1e-3),
    "soft-prompt": (0.1, 0.3, 1.0, 3.0),
    "adapter": (1e-3, 3e-3, 1e-2),
    "lora": (1e-4, 1e-3, 3e-3, 1e-2),
}
"""Rates a factor of about 3 apart, one more for full fine-tuning, and the exercise's own."""

KEYS = {"run", "method", "learning_rate", "reviews", "held_out", "loss", "accuracy"}
"""What the report needs of a trial."""

CODE = ("tune.trial", "methods.Run")


def tune(params: Params, reviews: int, only: Collection[str]) -> list[dict[str, Any]]:
    """The trials of the methods, one epoch over `reviews` reviews each; see `measured.made`.

    Raises `InputError` where the reviews would reach into those that are held out.
    """
    most = params.train_examples - held_out(params)
    if not 0 < reviews <= most:
        expected = f"1 to {most}, as {held_out(params)} are held out"
        raise InputError("--reviews", reviews, expected, "give another number")
    return measured.made(trials(params, reviews, only))


def held_out(params: Params) -> int:
    """How many of the training reviews, the last, no trial sees: a tenth."""
    return max(1, params.train_examples // 10)


def stored(params: Params) -> list[dict[str, Any]]:
    """The stored trials of the study as it is, those on most reviews; [] where there are none."""
    for reviews in measured.reviews(params, "tuning"):
        if found := [held for each in trials(params, reviews) if (held := each.load())]:
            return found
    return []


def trials(
    params: Params, reviews: int, only: Collection[str] = methods.METHODS
) -> list[Measurement]:
    """A trial for each from-scratch run of the methods and each rate of its grid."""
    tried = [
        dataclasses.replace(run, learning_rate=rate)
        for run in methods.runs(params)
        if run.implementation == "scratch" and run.method in only
        for rate in GRID[run.method]
    ]
    return [
        Measurement(
            params,
            f"tuning/{run.name}-{run.learning_rate:g}-{reviews}",
            identity(run, params, reviews),
            KEYS,
            CODE,
            partial(trial, run, params, reviews),
        )
        for run in tried
    ]


def identity(run: Run, params: Params, reviews: int) -> dict[str, Any]:
    """What decides a trial: a run's identity, on other numbers of reviews, without the test's."""
    decided = runs.identity(run, params)
    del decided["test_examples"]
    return decided | {
        "train_examples": reviews,
        "held_out": held_out(params),
        "epochs": 1,
    }


def trial(run: Run, params: Params, reviews: int) -> dict[str, Any]:
    """Train for one epoch and score on the held-out reviews."""
    everything = data.tokens(params, "train")
    cut = len(everything) - held_out(params)
    job = training.prepare(run, dataclasses.replace(params, train_examples=reviews))
    job.test = Tokens(everything.ids, everything.starts[cut:], everything.labels[cut:])
    began = time.perf_counter()
    losses = training.train_epoch(job, 1)
    accuracy = training.accuracy(job, job.test, f"rate {run.learning_rate:g}, held out")
    return {
        "run": run.name,
        "method": run.method,
        "learning_rate": run.learning_rate,
        "reviews": reviews,
        "held_out": len(job.test),
        "loss": training.mean_loss(losses, job.params),
        "accuracy": accuracy,
        "seconds": round(time.perf_counter() - began, 1),
    }
