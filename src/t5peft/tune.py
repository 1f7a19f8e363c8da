"""Learning rates for a backbone that the exercise's were not made for.

Each from-scratch method is trained once for every rate of its grid on the study's first training
reviews, and scored on the study's last tenth of them, which it has not seen. Test reviews are never
looked at. The rates enter a study by hand, in its YAML; this is the record of why.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from t5peft import data, files, intact, machine, methods, paths, runs, training
from t5peft.data import Tokens
from t5peft.errors import InputError
from t5peft.methods import Run
from t5peft.params import Params

GRID = {
    "full": (1e-5, 1e-4, 3e-4, 5e-4, 1e-3),
    "soft-prompt": (0.1, 0.3, 1.0, 3.0),
    "adapter": (1e-3, 3e-3, 1e-2),
    "lora": (1e-4, 1e-3, 3e-3, 1e-2),
}
"""Rates a factor of about 3 apart, one more for full fine-tuning, and the exercise's own."""


KEYS = {"run", "method", "learning_rate", "reviews", "held_out", "loss", "accuracy", "identity"}
"""What the report needs of a trial."""


def folder(params: Params) -> Path:
    """Where a study's trials are kept, one file each."""
    return paths.weights() / params.study / "tuning"


def tune(params: Params, reviews: int, only: list[str]) -> list[dict[str, Any]]:
    """Make the trials that are missing or of another identity, one epoch over `reviews` reviews.

    Raises `InputError` where the reviews would reach into the tenth that is held out, and where a
    trial is to be made and `intact.check` refuses the study.
    """
    held_out = params.train_examples // 10
    if held_out < 1:
        raise InputError(
            "train_examples", params.train_examples, "10 or more, to hold a tenth out", "give more"
        )
    if not 0 < reviews <= params.train_examples - held_out:
        raise InputError(
            "--reviews",
            reviews,
            f"1 to {params.train_examples - held_out}, as {held_out} are held out",
            "give another number",
        )
    candidates = {
        folder(params) / f"{run.name}-{rate:g}-{reviews}.json": dataclasses.replace(
            run, learning_rate=rate
        )
        for run in methods.runs(params)
        if run.implementation == "scratch" and run.method in only
        for rate in GRID[run.method]
    }

    def missing(path: Path) -> bool:
        return read(path).get("identity") != identity(candidates[path], params, reviews)

    todo = list(filter(missing, candidates))
    if todo:
        intact.check(params)
    for path in files.in_turn(todo, missing, folder(params) / "lock"):
        files.write_json(path, trial(candidates[path], params, reviews))
    return [x for x in trials(params) if x["reviews"] == reviews and x["method"] in only]


def identity(run: Run, params: Params, reviews: int) -> dict[str, Any]:
    """What decides a trial: a run's identity, on other numbers of reviews, without the test's."""
    decided = runs.identity(run, params)
    del decided["test_examples"]
    return decided | {
        "train_examples": reviews,
        "held_out": params.train_examples // 10,
        "epochs": 1,
    }


def trial(run: Run, params: Params, reviews: int) -> dict[str, Any]:
    """Train for one epoch and score on the held-out reviews."""
    everything = data.tokens(params, "train")
    cut = len(everything) - len(everything) // 10
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
        "identity": identity(run, params, reviews),
        "environment": machine.environment(params.precision),
    }


def trials(params: Params) -> list[dict[str, Any]]:
    """The stored trials of the study as it is, on any number of reviews, in the grid's order."""
    runs_of = {r.method: r for r in methods.runs(params) if r.implementation == "scratch"}

    def wanted(trial: dict[str, Any]) -> dict[str, Any]:
        run = dataclasses.replace(runs_of[trial["method"]], learning_rate=trial["learning_rate"])
        return identity(run, params, trial["reviews"])

    found = [read(path) for path in folder(params).glob("*.json")]
    found = [trial for trial in found if trial["identity"] == wanted(trial)]
    return sorted(found, key=lambda x: (methods.METHODS.index(x["method"]), x["learning_rate"]))


def read(path: Path) -> dict[str, Any]:
    """A stored trial; {} where there is none."""
    return files.read_json(path, KEYS, "t5peft tune")
