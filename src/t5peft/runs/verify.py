"""Is a stored run still what the code makes of its study? Its first steps and answers tell.

The first steps are trained anew and their losses compared with the run's trace; test reviews are
answered with the stored tensors and compared with its answers. What is found is kept beside the
record, for `store.status`. Dropout's draws differ between a CPU and a GPU, and so do the losses:
steps are verified on the kind of device that made the trace.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from t5peft.base import deciding, machine
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.methods.table import Run
from t5peft.runs import records, reopen, store
from t5peft.runs.records import Record, Verified
from t5peft.training import loop, trace
from t5peft.training.jobs import Job

LOSS = {"fp32": 1e-4, "bf16": 1e-2}
"""How far the losses may be from the trace's, in nats: the median over the steps, as single ones
jump where a rate is high. With another processor's products a soft prompt of the rate 1 came to
0.003 in bf16, full fine-tuning to less than 0.00005 in float32; LoRA of the rate 1e-4 in bf16 to
0.014 with twice its scale, 0.14 with another seed, 0.31 without dropout."""

ANSWERS = {"fp32": 1e-3, "bf16": 1e-2}
"""The share of answers that may be others."""

ELSEWHERE = "another process has it: ask again"


def first_losses(run: Run, study: Study, steps: int, record: Record) -> np.ndarray:
    """The losses of a stored run's first steps (an epoch's at most), trained anew as they were.

    Raises `InputError` where a compiled step cannot be compiled: it draws dropout otherwise.
    """
    job, made_by = reopen.anew(run, study, record), store.trace(record).losses_by
    if "compiled" in made_by and job.compiled is None:
        expected, way_out = "a step that can be compiled here", "verify it on such a machine"
        raise InputError(f"trace of {run.name}", made_by, expected, way_out)
    return loop.train_epoch(job, 1, steps)


def answers(job: Job, count: int) -> np.ndarray:
    """What a job answers to the first test reviews, as `trace.codes`."""
    tokens = job.test.first(count, "test")
    return trace.codes(loop.answers(job, tokens, f"{count:,} test reviews"))


def check(
    study: Study, wanted: Iterable[Run], steps: int, reviews: int
) -> Iterator[tuple[bool, str]]:
    """`verify` each run: is it what the code makes, and a line on it."""
    for run in wanted:
        with store.lock(run, study) as mine:
            state = store.status(run, study)
            same, told = False, f"{state.state:8} {state.reason}"
            if not mine:
                told = ELSEWHERE
            elif state.state in records.SHOWN:
                try:
                    found = verify(run, study, steps, reviews)
                    same, state = store.holds(found), store.status(run, study)
                    told = f"{state.state:8} {store.compared(found)}"
                except InputError as error:  # the others may have a trace
                    told = f"{state.state:8} {error}"
        yield same, f"{run.name:27} {told}"


def verify(run: Run, study: Study, steps: int, reviews: int) -> Verified:
    """What `store.verification` reads: figures and bounds of a stored run with a trace.

    Compared are at most the steps and reviews that the trace holds. Raises `InputError` where it
    holds none, or was made on the other kind of device.
    """
    where = store.folder(run, study)
    record = store.load(run, study)
    held = store.trace(record)
    if not held.losses.size:
        expected = "the losses of its first steps"
        raise InputError(f"trace of {run.name}", "none", expected, "train the run again")
    if machine.is_gpu(held.losses_by) != machine.has_accelerator():
        here, there = ("a GPU", "a CPU") if machine.has_accelerator() else ("a CPU", "a GPU")
        expected = f"one of {here}, as here: dropout is drawn otherwise on {there}"
        raise InputError(f"trace of {run.name}", held.losses_by, expected, f"verify it on {there}")
    stored = store.DELTA in record["files"]  # full fine-tuning stores no weights to answer with
    answered = held.after(record["best_epoch"])[: reviews if stored else 0]
    known = held.losses[: min(steps, -(-study.train_examples // study.batch_size))]
    before = store.verification(where, record)
    enough = before and before["steps"] >= len(known) and before["reviews"] >= len(answered)
    if before and enough and store.holds(before):
        return before
    differences = np.abs(first_losses(run, study, len(known), record) - known)
    found: Verified = {
        "result": store.result(record),
        "source": deciding.code().digest,
        "steps": len(known),
        "largest_difference": float(differences.max()),
        "median_difference": float(np.median(differences)),
        "loss_bound": bound(LOSS, study, held.losses_by),
        "reviews": len(answered),
        "answers_differing": 0,
        "answers_bound": int(len(answered) * bound(ANSWERS, study, held.answers_by)),
        "traced_by": held.losses_by,
        "machine": machine.kind(),
    }
    if len(answered):
        said = answers(reopen.job(run, study), len(answered))
        found["answers_differing"] = int((said != answered).sum())
    records.write(where / store.VERIFIED, found)
    return found


def bound(bounds: dict[str, float], study: Study, made_by: str) -> float:
    """0 in float32 on a CPU of the same kind, which gives the same bits; else the precision's."""
    exact = study.precision == "fp32" and made_by == machine.kind()
    return 0.0 if exact and not machine.has_accelerator() else bounds[study.precision]
