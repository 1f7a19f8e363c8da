"""From a study to a stored record: inputs, method, training, evaluation, record."""

from __future__ import annotations

import sys
from typing import Any

import torch

from t5peft.base import files, machine
from t5peft.base.studies import Study
from t5peft.inputs import backbone
from t5peft.methods.table import Run, facts
from t5peft.runs import store
from t5peft.runs.identity import identity_of
from t5peft.runs.records import AS_MADE, digest
from t5peft.training import checkpoint, jobs, loop
from t5peft.training.jobs import Job

# --- a whole run -------------------------------------------------------------------------------


def train(run: Run, study: Study) -> dict[str, Any]:
    """Train a run to its end and store it; returns its record. Call again after a kill."""
    machine.reset_peak_memory()
    identity, held = identity_of(run, study), backbone.described(study)  # as they are loaded
    job = jobs.prepare(run, study)
    begun = store.folder(run, study) / store.CHECKPOINT
    checkpoint.restore(job, begun, digest(identity))
    for done in loop.epochs(job):
        print(
            f"{run.name}: epoch {done['epoch']} of {study.epochs}, loss {done['loss']:.4f}, "
            f"test accuracy {100 * done['test_accuracy']:.2f}%",
            file=sys.stderr,
            flush=True,
        )
        checkpoint.save(job, begun, digest(identity))
    record = describe(job) | {"identity": identity, "backbone": held}
    store.save(run, study, record, job.best, job.trace.packed())
    begun.unlink(missing_ok=True)
    return record


def describe(job: Job) -> dict[str, Any]:
    """What a finished run came to, for its record."""
    best = loop.best_epoch(job)
    counts = {
        "total": sum(p.numel() for p in job.model.parameters()),
        "trained": sum(p.numel() for p in jobs.trained(job.model).values()),
    }
    bare = backbone.load_on_meta(job.study.backbone).num_parameters()
    state = job.optimizer.state_dict()["state"].values()
    tensors = [value for slots in state for value in slots.values() if torch.is_tensor(value)]
    seconds = {
        part: sum(epoch[f"{part}_seconds"] for epoch in job.history) for part in ("train", "test")
    }
    reviews = {"train": len(job.train), "test": len(job.test)}
    return {
        "run": facts(job.run),
        "study": job.study.study,
        "params": vars(job.study),
        "history": job.history,
        "best_epoch": best["epoch"],
        "best_accuracy": best["test_accuracy"],
        "last_accuracy": job.history[-1]["test_accuracy"],
        "test_examples": len(job.test),
        "parameters": {**counts, "added": counts["total"] - bare},
        "memory": {
            "optimizer_bytes": sum(t.numel() * t.element_size() for t in tensors),
            "peak_bytes": machine.peak_memory(),
        },
        "speed": {
            f"{part}_examples_per_second": round(len(job.history) * reviews[part] / spent, 1)
            for part, spent in seconds.items()
        }
        | {f"{part}_seconds": round(spent, 1) for part, spent in seconds.items()},
        "stored_bytes": sum(t.numel() * t.element_size() for t in jobs.trained(job.model).values()),
        "environment": machine.environment(job.study.precision),
    }


def attempt(run: Run, study: Study) -> dict[str, Any] | None:
    """Train a run under its lock, unless it is whole by now; None where another process has it."""
    with store.lock(run, study) as mine:
        if not mine:
            return None
        if store.status(run, study).state in AS_MADE:
            return store.load(run, study)
        return train(run, study)


def train_alone(run: Run, study: Study) -> dict[str, Any]:
    """`attempt`, and where another process has the run, wait and take its record."""
    files.share([run], lambda run: attempt(run, study) is not None)
    return store.load(run, study)
