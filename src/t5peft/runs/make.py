"""From a study to a stored record: inputs, method, training, evaluation, record."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from typing import Any

import torch

from t5peft.base import files, machine, studies
from t5peft.base.errors import InputError
from t5peft.base.progress import say
from t5peft.base.studies import Study
from t5peft.inputs import backbone
from t5peft.methods.table import Run, facts
from t5peft.runs import launch, store
from t5peft.runs.identity import identity_of
from t5peft.runs.records import AS_MADE, Made, Record, Speed
from t5peft.training import checkpoint, compiling, jobs, loop
from t5peft.training.jobs import Job


def train(run: Run, study: Study) -> None:
    """Train a run to its end and store it. Call again after a kill: it goes on."""
    gc.collect()  # of the run before: the faster forward refers to its own module
    machine.reset_peak_memory()
    identity, held = identity_of(run, study), backbone.described(study)  # as they are loaded
    where, key = store.folder(run, study), store.key(store.numbered(identity, run.number))
    # A compiled step is of whole batches: of these each process of a launch has a part.
    job = (jobs.prepare if machine.launched() else compiling.prepared)(run, study)
    for path in reversed(store.checkpoints(where, key, study.epochs)):
        checkpoint.restore(job, path, key)
        if job.history:  # else it is damaged, and an earlier one may be whole
            break
    by = machine.kind() + ", compiled" * (job.compiled is not None)
    job.trace.losses_by = job.trace.losses_by or by
    for done in loop.epochs(job):  # training, evaluation
        checkpoint.save(job, store.checkpoint(where, key, done["epoch"]), key)
        say(
            f"{run.name}: epoch {done['epoch']} of {study.epochs}, loss {done['loss']:.4f}, "
            f"test accuracy {100 * done['test_accuracy']:.2f}%"
        )
        store.drop_checkpoints(where, key, done["epoch"] - 1)
    store.save(run, study, described(job, identity, held), job.best, job.trace.packed())
    store.drop_checkpoints(where, key, study.epochs)


def described(job: Job, identity: dict[str, Any], held: dict[str, Any]) -> Made:
    """What a finished run came to; held: what is said of its backbone."""
    best, trained = loop.best_epoch(job), jobs.trained(job.model).values()
    total = sum(p.numel() for p in job.model.parameters())
    bare = backbone.load_on_meta(job.study.backbone).num_parameters()
    state = job.optimizer.state_dict()["state"].values()
    slots = sum(x.nbytes for slots in state for x in slots.values() if torch.is_tensor(x))
    return {
        "run": facts(job.run),
        "study": job.study.study,
        "identity": identity,
        "params": studies.plain(job.study),
        "backbone": held,
        "history": job.history,
        "best_epoch": best["epoch"],
        "best_accuracy": best["test_accuracy"],
        "last_accuracy": job.history[-1]["test_accuracy"],
        "test_examples": len(job.test),
        "parameters": {
            "total": total,
            "trained": sum(tensor.numel() for tensor in trained),
            "added": total - bare,
        },
        "memory": {"optimizer_bytes": slots, "peak_bytes": machine.peak_memory()},
        "speed": speed(job),
        "stored_bytes": sum(x.nbytes for x in trained),
        "environment": machine.environment(job.study.precision),
    }


def speed(job: Job) -> Speed:
    """How fast a finished run was."""
    train = sum(epoch["train_seconds"] for epoch in job.history)
    test = sum(epoch["test_seconds"] for epoch in job.history)
    return {
        "train_examples_per_second": round(len(job.history) * len(job.train) / train, 1),
        "test_examples_per_second": round(len(job.history) * len(job.test) / test, 1),
        "train_seconds": round(train, 1),
        "test_seconds": round(test, 1),
    }


def attempt(run: Run, study: Study) -> Record | None:
    """Train a run under its lock, unless it is whole by now, or another study has the same.

    None where another process has the lock. All processes of a launch do what the main one finds
    to do. Raises `InputError` where the last batch of an epoch has no review for each of them.
    """
    count, last = launch.state().num_processes, study.train_examples % study.batch_size
    if count > (last or study.batch_size):
        reviews = f"at most {last or study.batch_size}, the reviews of an epoch's last batch"
        raise InputError("processes of the launch", count, reviews, "give fewer --num_processes")
    main = machine.is_main_process()
    with store.lock(run, study) if main else nullcontext(True) as mine:
        kept = mine and (store.status(run, study).state in AS_MADE or store.take_over(run, study))
        mine, kept = launch.from_main([mine, kept])
        if not mine:
            return None
        if not kept:
            train(run, study)
        launch.state().wait_for_everyone()  # the others read what the main one stored
        return store.load(run, study)


def train_alone(run: Run, study: Study) -> Record:
    """`attempt`, and where another process has the run, wait and take its record."""
    files.share([run], lambda run: attempt(run, study) is not None)
    return store.load(run, study)
