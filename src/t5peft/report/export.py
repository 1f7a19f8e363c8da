"""The three weight files that the exercise asks for, from a study's stored runs."""

from __future__ import annotations

import io
from pathlib import Path

import torch

from t5peft.base import files
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.methods.table import runs_of
from t5peft.runs import store

FILES = {"lora": "lora.pt", "adapter": "adapter.pt", "soft-prompt": "prompts.pt"}
"""What a from-scratch method's file is called."""


def export(study: Study, folder: Path) -> list[Path]:
    """Write plain state dicts that `torch.load(..., weights_only=True)` opens; returns their paths.

    A stale run is written as it is stored. Raises `InputError` where one is missing or damaged, a
    file cannot be written, or the study lists several runs that would be the same file.
    """
    ours = [run for run in runs_of(study) if run.implementation == "scratch"]
    wanted, contents = [run for run in ours if run.method in FILES], {}
    if not wanted or len({run.method for run in wanted}) < len(wanted):
        found = ", ".join(run.name for run in wanted) or "no from-scratch run of a PEFT method"
        expected = f"one run for each file: {', '.join(FILES.values())}"
        raise InputError(f"study {study.study}", found, expected, "export a study that has these")
    store.require(wanted, study)
    for run in wanted:
        content = io.BytesIO()
        tensors = store.tensors(store.folder(run, study))[1]
        torch.save(dict(sorted(tensors.items())), content)
        contents[folder / FILES[run.method]] = content.getvalue()
    for path in contents:  # all three are written, or none
        if path.is_dir():
            raise InputError(f"file {path}", "a folder of that name", "a file", "give another -o")
    for path, content in contents.items():
        files.write_bytes(path, content)
    return list(contents)
