"""A stored run opened again: its model with the trained tensors in place, or its job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from t5peft.base import paths
from t5peft.base.errors import InputError
from t5peft.base.settings import build
from t5peft.base.studies import Study
from t5peft.inputs import backbone, hub, tokenizers
from t5peft.methods.table import Run
from t5peft.runs import records, store
from t5peft.runs.records import Stored
from t5peft.training import compiling, jobs
from t5peft.training.jobs import Job


def job(run: Run, study: Study) -> Job:
    """A stored PEFT run as it was after its best epoch."""
    model = jobs.build(run, study)
    where = store.folder(run, study)
    put(model, store.tensors(where)[1], str(where))
    return jobs.with_fast_model(run, study, model)


def anew(run: Run, study: Study, record: Stored) -> Job:
    """A stored run's job before its first step: in parts, and compiled where it can be, as it was.

    Dropout is drawn for each part, and otherwise where a step is compiled.
    """
    study = replace(study, micro_batch_size=record["params"].get("micro_batch_size", 0))
    compiled = "compiled" in store.trace(record).losses_by
    return (compiling.prepared if compiled else jobs.prepare)(run, study)


def find(name: str) -> Path:
    """The folder of `STUDY/RUN` in weights/, or any folder with a record; `InputError` for none."""
    for path in (paths.weights() / name, Path(name)):
        if (path / records.RECORD).is_file():
            return path
    known = [path.parent for path in sorted(paths.weights().glob(f"*/*/{store.DELTA}"))]
    of_each = {path.parent: path for path in known}.values()
    near = [path for path in known if path.parent.name == Path(name).parent.name] or of_each
    names = ", ".join(f"{path.parent.name}/{path.name}" for path in near)
    raise InputError(
        f"run {name}",
        "no stored run of that name",
        f"STUDY/RUN, as in {names or '(none is stored)'}",
        "name one of them, or train it first",
    )


MAY_MOVE = ("backbone", "tokenizer")
"""Settings that a stored run may be given anew: where a file lies, not what it holds."""


def load(
    name: str, changes: Mapping[str, Any] | None = None
) -> tuple[Run, Study, T5ForConditionalGeneration]:
    """A stored run with its trained tensors in place, in evaluation mode.

    `changes` say where its backbone or tokenizer lies now. Raises `InputError` where these are not
    the run's own, and for another setting.
    """
    changes = changes or {}
    for key in changes.keys() - MAY_MOVE:
        raise InputError(
            f"--set {key}", "a setting that the run fixes", " or ".join(MAY_MOVE), "leave it out"
        )
    folder = find(name).resolve()
    record, tensors = store.tensors(folder)
    own = paths.weights().resolve() / record["study"] / record["run"]["name"]
    if folder.parent.parent == paths.weights().resolve() and folder != own:
        raise InputError(f"run {name}", f"the record of {own.name}", "its own", "train it again")
    if "tokenizer" in changes and not record["params"]["tokenizer"]:
        expected = "none, as its backbone has its own"
        raise InputError("--set tokenizer", changes["tokenizer"], expected, "leave it out")
    run, study = settings(record, f"record of run {name}", changes)
    study = at_hand(study, record)
    words = tokenizers.fingerprint(study.tokenizer) if study.tokenizer else ""
    for part, found in (("backbone", backbone.fingerprint(study)), ("tokenizer", words)):
        stored = record["identity"].get(part)
        if found != stored:
            way_out = f"give its own with --set {part}=FOLDER"
            raise InputError(f"{part} of run {name}", found[:12], str(stored)[:12], way_out)
    model = jobs.build(run, study)
    put(model, tensors, str(folder))
    return run, study, model.eval()


def settings(
    record: Stored, thing: str, changes: Mapping[str, Any] | None = None
) -> tuple[Run, Study]:
    """The run and the study of a record. Raises `InputError` for another version's."""
    own = {key: value for key, value in record["run"].items() if key != "name"}
    return build(Run, own, thing), build(Study, record["params"], thing, changes)


def at_hand(study: Study, record: Stored) -> Study:
    """A run's settings with the folders of its backbone, at the commit that it was made of, and of
    its tokenizer; what is not on this machine is fetched. Raises `InputError`.
    """
    places = {}
    if not study.backbone.startswith(backbone.RANDOM):
        name, parts = study.backbone, backbone.needed(study)
        own, commit = record["identity"]["backbone"], record["backbone"].get("commit")
        here = hub.at_hand(name, *parts)
        if not here or (commit and backbone.contents(here, parts) != own):
            here = hub.fetch(name, *parts, revision=commit or None)
        places["backbone"] = str(here)
    if study.tokenizer:
        places["tokenizer"] = str(hub.fetch(study.tokenizer, *hub.PIECES))
    return replace(study, **places)


def put(model: torch.nn.Module, tensors: dict[str, Tensor], thing: str) -> None:
    """Copy stored tensors over the trained ones; names and shapes must agree both ways.

    Raises `InputError` where they do not.
    """
    wanted = jobs.trained(model)
    missing, unexpected = sorted(wanted.keys() - tensors), sorted(tensors.keys() - wanted.keys())
    shapes = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(wanted[name].shape)}"
        for name in wanted.keys() & tensors.keys()
        if tensors[name].shape != wanted[name].shape
    ]
    for found in (
        f"no tensor {', '.join(missing[:3])}" if missing else "",
        f"unexpected tensor {', '.join(unexpected[:3])}" if unexpected else "",
        f"shape {shapes[0]}" if shapes else "",
    ):
        if found:
            raise InputError(
                f"weights {thing}",
                found,
                f"{len(wanted)} tensors of the method",
                "give the weights of this very run",
            )
    for name, tensor in wanted.items():
        tensor.copy_(tensors[name])
