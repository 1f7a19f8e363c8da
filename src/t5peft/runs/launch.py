"""One run by several processes, as `accelerate launch` or torchrun starts them on several GPUs.

Each takes its share of every batch (`loop.add_gradients`). The main process alone holds the
run's lock, speaks and stores the run.
"""

from __future__ import annotations

import io
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from typing import Any

from t5peft.base import machine
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.methods.table import Run
from t5peft.runs import store
from t5peft.runs.records import AS_MADE, Record


def from_main(found: list[Any]) -> list[Any]:
    """What the main process found, in all of them: each may have looked at another moment."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    PartialState(cpu=not machine.has_accelerator())
    return broadcast_object_list(found)


def attempt(run: Run, study: Study) -> Record | None:
    """`make.attempt` by all processes of a launch: all do what the main one finds to do.

    Raises `InputError` where the last batch of an epoch has no review for each of them.
    """
    from accelerate import PartialState

    from t5peft.runs import make

    count, last = PartialState().num_processes, study.train_examples % study.batch_size
    if count > (last or study.batch_size):
        reviews = f"at most {last or study.batch_size}, the reviews of an epoch's last batch"
        raise InputError("processes of the launch", count, reviews, "give fewer --num_processes")
    main = machine.is_main_process()
    with store.lock(run, study) if main else nullcontext(True) as mine:
        mine, kept = from_main([mine, store.status(run, study).state in AS_MADE])
        if not mine:
            return None
        if not kept:
            with nullcontext() if main else redirect_stderr(io.StringIO()):
                make.train(run, study)
        PartialState().wait_for_everyone()  # the others read what the main one stored
        return store.load(run, study)


def leave() -> None:
    """Leave the launch's group before the process ends: gloo's threads else abort some."""
    if machine.launched():
        from accelerate import PartialState

        PartialState().destroy_process_group()


def one_voice() -> redirect_stdout[io.StringIO] | nullcontext[None]:
    """The main process alone prints."""
    return nullcontext() if machine.is_main_process() else redirect_stdout(io.StringIO())
