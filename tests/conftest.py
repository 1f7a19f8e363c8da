"""A home of its own for every test: no hub, no shared folders, a tokenizer made on the spot."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

# Before the first import that reads it.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import torch
from transformers.models.t5.modeling_t5 import T5Attention

from t5peft import data, methods, params, paths, tokenizer
from t5peft.methods import Run
from t5peft.params import Params

PIECES = 110


def run_named(study: Params, name: str) -> Run:
    """One of the study's ten runs."""
    return next(run for run in methods.runs(study) if run.name == name)


def dry(model: torch.nn.Module) -> torch.nn.Module:
    """The model without dropout, in place: where two loops must agree to the bit."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, T5Attention):
            module.dropout = 0.0
    return model


@pytest.fixture(scope="session")
def words_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer whose vocabulary has both label words as one piece."""
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [data.normalize(text) for text, _ in data.read(data.MADE_UP, "train")]
    labels = [f"{a} {word} {b}" for word in data.LABELS for a in "ax " for b in "by "]
    tokenizer.train(texts + 100 * labels, PIECES, folder)
    return folder


@pytest.fixture
def home(tmp_path: Path, words_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder with the shipped params/; the project's root while the test runs."""
    folder = tmp_path / "home"
    shutil.copytree(paths.CHECKOUT / "params", folder / "params")
    monkeypatch.setenv("T5PEFT_HOME", str(folder))
    return folder


@pytest.fixture
def smoke(home: Path, words_folder: Path) -> Params:
    """The smoke study with the session's tokenizer."""
    return params.load("smoke", {"tokenizer": str(words_folder)})
