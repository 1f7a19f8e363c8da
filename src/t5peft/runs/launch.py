"""One run by several processes, as `accelerate launch` or torchrun starts them on several GPUs.

Each takes its share of every batch (`loop.add_gradients`). The main process alone holds the
run's lock, speaks and stores the run.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING, Any

from t5peft.base import machine
from t5peft.base.errors import InputError, first_line

if TYPE_CHECKING:
    from accelerate import PartialState


def state() -> PartialState:
    """Who takes part. Raises `InputError` where the environment has half of a launch."""
    from accelerate import PartialState

    try:
        return PartialState(cpu=not machine.has_accelerator())
    except ValueError as error:
        expected = "RANK, LOCAL_RANK, WORLD_SIZE and MASTER_ADDR as accelerate launch sets them"
        way_out = "start by it, or unset them"
        raise InputError("environment", first_line(error), expected, way_out) from None


def from_main(found: list[Any]) -> list[Any]:
    """What the main process found, in all of them: each may have looked at another moment."""
    from accelerate.utils import broadcast_object_list

    state()
    return broadcast_object_list(found)


def leave() -> None:
    """Leave the launch's group before the process ends: gloo's threads else abort some."""
    if machine.launched():
        state().destroy_process_group()


@contextmanager
def one_voice() -> Iterator[None]:
    """The main process alone prints and warns."""
    if machine.is_main_process():
        yield
        return
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield
