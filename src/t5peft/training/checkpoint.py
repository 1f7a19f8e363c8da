"""What a killed run needs to go on after its last whole epoch, in a file that runs nothing."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from t5peft.base import files, machine
from t5peft.training import jobs
from t5peft.training.jobs import Job
from t5peft.training.trace import unpack


def save(job: Job, path: Path, key: str) -> None:
    """What a killed run needs to go on after its last whole epoch, straight to the disk.

    key: of what decides the run, see `store.key`.
    """
    held = {
        "key": key,
        "history": job.history,
        "trace": job.trace.packed(),
        "trained": jobs.trained(job.model),
        "best": job.best,
        "optimizer": job.optimizer.state_dict(),
    }
    files.write(path, lambda file: torch.save(held, file))


def restore(job: Job, path: Path | None, key: str) -> None:
    """Go on from a checkpoint of this very run; one of another, or a damaged one, is left aside."""
    if path is None:
        return
    try:
        held = read(path, job.accelerator.device)
        if held["key"] != key:
            return
    except Exception as error:  # zipfile and pickle raise many kinds
        if machine.out_of_memory(error):
            raise
        warnings.warn(
            f"{path} is damaged: the run goes on from an earlier one, or begins anew", stacklevel=2
        )
        return
    with torch.no_grad():
        for name, parameter in job.model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(held["trained"][name])
    job.optimizer.load_state_dict(held["optimizer"])
    job.history, job.best = held["history"], held["best"]
    job.trace = unpack(held["trace"])


def read(path: Path, device: torch.device) -> dict[str, Any]:
    """What `save` wrote, no bit of it changed, nothing in it run or inflated.

    Raises ValueError, or what zipfile and pickle raise, for anything else.
    """
    with zipfile.ZipFile(path) as parts:
        if sum(part.file_size for part in parts.infolist()) > path.stat().st_size:
            raise ValueError("parts that inflate")
        if parts.testzip():
            raise ValueError("a part whose check sum is wrong")
    return torch.load(path, map_location=device, weights_only=True)
