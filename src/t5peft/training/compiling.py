"""A run's training step, compiled: on a GPU, where that is worth its time and where it can be.

No CPU compiles, so this room decides none of its runs and is not in `deciding.TRAINING`. Inductor
draws dropout otherwise than PyTorch's own kernels: a trace says whether its steps were compiled.
"""

from __future__ import annotations

import torch

from t5peft.base import machine
from t5peft.base.errors import first_line
from t5peft.base.progress import say
from t5peft.base.studies import Study
from t5peft.methods.table import Run
from t5peft.training import jobs, loop
from t5peft.training.jobs import Job

DEVICES = {"cuda"}
"""Devices for which the loss of whole batches is compiled,"""

FROM_STEPS = 4_000
"""where a run has so many steps: compiling one takes a minute, on two cores at least."""


def prepared(run: Run, study: Study) -> Job:
    """A run's job, its step compiled."""
    return compiled(jobs.prepare(run, study))


def compiled(job: Job) -> Job:
    """The same job, its step compiled before any clock runs; or a line that says why it is not."""
    run, study = job.run, job.study
    steps = study.epochs * (study.train_examples // study.batch_size)
    worth_it = job.accelerator.device.type in DEVICES and steps >= FROM_STEPS
    if worth_it and (why := in_the_way(run, study) or failing(job)):
        job.compiled = None
        say(f"{run.name}: not compiled, which is slower: {why}")
    return job


def in_the_way(run: Run, study: Study) -> str:
    """What keeps a step from being compiled, told without trying; "" for nothing."""
    if run.implementation == "opendelta":
        return "it lengthens the mask in place, a graph that inductor refuses"
    if study.max_length % 8:
        return f"max_length {study.max_length} is no multiple of 8, as its attention wants"
    if study.micro_batch_size and study.batch_size % study.micro_batch_size:
        return f"parts of {study.micro_batch_size} do not fill a batch of {study.batch_size}"
    return "" if machine.has_compiler() else "there is no C compiler, or none of Python's headers"


def failing(job: Job) -> str:
    """Compile the step by a batch that changes nothing, as each epoch sets the seed anew.

    Says why that failed, "" where it did not.
    """
    torch.compiler.reset()  # of the runs before: it keeps eight versions of a function
    job.compiled = torch.compile(job.wrapped, dynamic=False)
    job.model.train()
    try:
        loop.add_gradients(job, loop.order(job.study, 1)[: job.study.batch_size])
    except Exception as error:  # of dynamo, inductor, Triton and the C compiler
        if machine.out_of_memory(error):
            raise
        return first_line(error)
    finally:
        job.optimizer.zero_grad(set_to_none=True)
    return ""
