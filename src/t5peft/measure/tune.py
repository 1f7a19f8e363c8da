"""Learning rates for a backbone that the exercise's were not made for.

Each from-scratch method is trained once for every rate of its grid on the study's first training
reviews, and scored on the study's last tenth of them, which it has not seen. Test reviews are never
looked at. The rates enter a study by hand, in its YAML; this is the record of why.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection

from t5peft.base.errors import InputError
from t5peft.base.settings import require
from t5peft.base.studies import Study
from t5peft.inputs import data
from t5peft.inputs.data import Tokens
from t5peft.measure import measurements
from t5peft.measure.measurements import Trial, held_out
from t5peft.methods.table import Run, ours, runs_of
from t5peft.runs import store
from t5peft.training import jobs, loop

USUAL = 9600
"""Reviews of a trial, where there are so many."""


def tune(study: Study, reviews: int | None, only: Collection[str]) -> list[Trial]:
    """The trials of the methods, one epoch over `reviews` reviews each; see `measurements.made`.

    Raises `InputError` where the reviews would reach into those that are held out, and where the
    study has no from-scratch run of the methods.
    """
    most = study.train_examples - held_out(study)
    require(study, "train_examples", most > 0, "2 or more, as a tenth, one at least, is held out")
    reviews = min(USUAL, most) if reviews is None else reviews
    if not 0 < reviews <= most:
        expected = f"1 to {most}, as {held_out(study)} are held out"
        raise InputError("--reviews", reviews, expected, "give another number")
    if not {*only} & ours(study).keys():
        found, expected = " ".join(only), f"some of {', '.join(ours(study))}, as the study runs"
        raise InputError("--only", found, expected, "name one of these")
    found = store.look(runs_of(study), study)
    return measurements.made(measurements.trials(study, found, reviews, only))


def trial(run: Run, study: Study, reviews: int) -> Trial:
    """Train for one epoch and score on the held-out reviews."""
    everything = data.tokens(study, "train")
    cut = len(everything) - held_out(study)
    job = jobs.prepare(run, dataclasses.replace(study, train_examples=reviews, epochs=1))
    job.test = Tokens(everything.ids, everything.starts[cut:], everything.labels[cut:])
    began = time.perf_counter()
    losses = loop.train_epoch(job, 1)
    accuracy = loop.accuracy(job, job.test, f"rate {run.learning_rate:g}, held out")
    return {
        "run": run.name,
        "method": run.method,
        "learning_rate": run.learning_rate,
        "reviews": reviews,
        "held_out": len(job.test),
        "loss": loop.mean_loss(losses, job.study),
        "accuracy": accuracy,
        "seconds": round(time.perf_counter() - began, 1),
    }
