"""One run by several processes, as `accelerate launch` or torchrun starts them on several GPUs.

Each takes its share of every batch (`loop.add_gradients`). The main process alone holds the
run's lock, speaks and stores the run.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from t5peft.base import machine


def from_main(found: list[Any]) -> list[Any]:
    """What the main process found, in all of them: each may have looked at another moment."""
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    PartialState(cpu=not machine.has_accelerator())
    return broadcast_object_list(found)


def leave() -> None:
    """Leave the launch's group before the process ends: gloo's threads else abort some."""
    if machine.launched():
        from accelerate import PartialState

        PartialState().destroy_process_group()


@contextmanager
def one_voice() -> Iterator[None]:
    """The main process alone prints and warns."""
    if machine.is_main_process():
        yield
        return
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield
