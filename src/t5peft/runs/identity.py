"""What decides a run: its method and settings, the study's, and what backbone and data hold."""

from __future__ import annotations

from typing import Any

from t5peft.base.errors import InputError
from t5peft.base.studies import Study, arguments
from t5peft.inputs import backbone, data, tokenizers
from t5peft.methods.table import Run
from t5peft.runs import records

STUDY_SETTINGS = [
    "train_examples",
    "test_examples",
    "train_sample",
    "max_length",
    "batch_size",
    "epochs",
    "seed",
    "precision",
]
"""The settings of a study that enter every run's identity,"""

CHOICES = ["decay", "order"]
"""and those that do where they are not the usual ones."""


def identity_of(run: Run, study: Study) -> dict[str, Any]:
    """Everything that decides a run's result, flat.

    Raises `InputError` where backbone, tokenizer or data are neither at hand nor pinned, or are
    other than the study pins.
    """
    return of_run(run) | of_study(study)


def of_run(run: Run) -> dict[str, Any]:
    """What a run alone has of its identity."""
    return {
        "method": run.method,
        "implementation": run.implementation,
        **run.settings,
        "learning_rate": run.learning_rate,
    }


def of_study(study: Study) -> dict[str, Any]:
    """What all runs of a study share of it; raises what `identity_of` does."""
    words = study.tokenizer
    return {
        **{name: getattr(study, name) for name in STUDY_SETTINGS},
        **{name: x for name in CHOICES if (x := getattr(study, name)) != getattr(Study, name)},
        "backbone": backbone.fingerprint(study) or pinned(study, "backbone"),
        "tokenizer": words and (tokenizers.fingerprint(words) or pinned(study, "tokenizer")),
        "data": data.fingerprint(study) or pinned(study, "data"),
    }


def pinned(study: Study, part: str) -> str:
    """Backbone, tokenizer or data of a study, not at hand: what all its stored runs name.

    Raises `InputError` where there are none, or they name several.
    """
    names = {record["identity"][part] for record in records.stored_with(study, part)}
    if len(names) == 1:
        return names.pop()
    raise InputError(
        f"{part} {getattr(study, part)}",
        f"not on this machine, and {len(names)} named by the stored runs of study {study.study}",
        f"{part} at hand, or one that all runs name",
        f"t5peft train {arguments(study)} asks the hub for it; or give --set {part}=FOLDER",
    )
