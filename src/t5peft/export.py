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

    A stale run is written as it is stored. Raises `InputError` where one is missing or damaged.
    """
    contents = {}
    for run in methods.runs(params):
        if run.implementation == "scratch" and run.method in FILES:
            runs.load(run, params)
            content = io.BytesIO()
            torch.save(runs.tensors(runs.folder(run, params))[1], content)
            contents[folder / FILES[run.method]] = content.getvalue()
    for path, content in contents.items():  # all three, or none where a run is missing
        files.write_bytes(path, content)
    return list(contents)
