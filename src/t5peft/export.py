"""The three weight files that the exercise asks for, from a study's stored runs."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from t5peft import files, methods, runs
from t5peft.params import Params

FILES = {"lora": "lora.pt", "adapter": "adapter.pt", "soft-prompt": "prompts.pt"}
"""What a from-scratch method's file is called."""


def export(params: Params, folder: Path) -> list[Path]:
    """Write plain state dicts that `torch.load(..., weights_only=True)` opens; returns their paths.

    Raises `InputError` where a run is missing.
    """
    written = []
    for run in methods.runs(params):
        if run.implementation == "scratch" and run.method in FILES:
            runs.load(run, params)
            content = io.BytesIO()
            torch.save(runs.tensors(runs.folder(run, params)), content)
            written.append(folder / FILES[run.method])
            files.write_bytes(written[-1], content.getvalue())
    return written
