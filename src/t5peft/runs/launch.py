"""One run by several processes, as `accelerate launch` or torchrun starts them on several GPUs.

Each takes its share of every batch (`loop.add_gradients`). The main process alone holds the
run's lock, speaks and stores the run.
"""

from __future__ import annotations

import io
from contextlib import nullcontext, redirect_stdout
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


def one_voice() -> redirect_stdout[io.StringIO] | nullcontext[None]:
    """The main process alone prints."""
    return nullcontext() if machine.is_main_process() else redirect_stdout(io.StringIO())
