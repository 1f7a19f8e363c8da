"""A home of its own for every test: no hub, no shared folders, a tokenizer made on the spot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# Before the first import that reads it.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

import torch
from accelerate.state import AcceleratorState
from transformers.models.t5.modeling_t5 import T5Attention

from t5peft.base import bfloat16, paths, studies
from t5peft.base.studies import Params
from t5peft.inputs import backbone, data, tokenizers
from t5peft.methods.table import Run, runs_of

PIECES = 110


def run_named(study: Params, name: str) -> Run:
    """One of the study's ten runs."""
    return next(run for run in runs_of(study) if run.name == name)


def dry(model: torch.nn.Module) -> torch.nn.Module:
    """The model without dropout, in place: where two loops must agree to the bit."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, T5Attention):
            module.dropout = 0.0
    return model


def edit(path: Path, old: str, new: str) -> None:
    """Replace what stands once in a file."""
    text = path.read_text()
    assert text.count(old) == 1, f"{text.count(old)} times in {path.name}: {old}"
    path.write_text(text.replace(old, new))


@pytest.fixture(autouse=True)
def a_precision_of_its_own() -> Iterator[None]:
    """Of bf16 no test keeps what another was provided with, nor accelerate's one precision."""
    yield
    bfloat16.leave()
    AcceleratorState._reset_state()


@pytest.fixture(scope="session")
def words_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer whose vocabulary has both label words as one piece."""
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [data.normalize(text) for text, _ in data.read(data.MADE_UP, "train")]
    labels = [f"{a} {word} {b}" for word in data.LABELS for a in "ax " for b in "by "]
    tokenizers.train(texts + 100 * labels, PIECES, folder)
    return folder


ANSWERS = ("positive", "negative", "positive positive", "film", "negative film", "")
"""What `babbler` writes."""


@pytest.fixture(scope="session")
def words(words_folder: Path) -> Any:
    return tokenizers.load(str(words_folder))


@pytest.fixture(scope="session")
def babbler(words: Any) -> dict[str, torch.Tensor]:
    """The weights of a tiny T5 that was taught to write label words, other words and nothing."""
    model = backbone.load("random:tiny").train()
    targets = words(list(ANSWERS), padding=True, return_tensors="pt")["input_ids"]
    targets[targets == data.PAD] = -100
    texts = torch.arange(10, 10 + len(ANSWERS))[:, None].repeat(
        1, 4
    )  # a text is one piece, repeated
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    torch.manual_seed(0)
    for _ in range(60):
        model(input_ids=texts, labels=targets).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


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
    return studies.load("smoke", {"tokenizer": str(words_folder)})


# --- records made up -----------------------------------------------------------------------------

BARE = 1_000_000
"""Parameters of the made-up backbone."""

ADDED = {"full": 0, "soft-prompt": 10, "adapter": 100, "lora": 1000}


@pytest.fixture
def exercise() -> Params:
    return studies.load(paths.CHECKOUT / "params" / "assignment.yaml")


@pytest.fixture
def records(exercise: Params) -> list[dict[str, Any]]:
    """Ten runs of two epochs; run k ends at (60 + k)%, one point below its first epoch."""
    return [record(run) for run in runs_of(exercise)]


@pytest.fixture
def kept(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What `t5peft retention` measured of these runs, all alike."""
    measured = {
        "train_accuracy": 0.7,
        "test_accuracy": 0.62,
        "reviews": 1000,
        "stretches": 9,
        "span_loss": 4.0,
        "span_loss_before": 3.5,
    }
    return {record["run"]["name"]: dict(measured) for record in records}


@pytest.fixture
def one_epoch(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same runs, had they ended after their first epoch."""
    for record in records:
        del record["history"][1:]
        record["last_accuracy"] = record["best_accuracy"]
    return records


def record(run: Run) -> dict[str, Any]:
    last = 0.60 + run.number / 100
    added = ADDED[run.method]
    history = [
        {"epoch": 1, "loss": 0.7, "train_accuracy": 0.75, "test_accuracy": last + 0.01},
        {"epoch": 2, "loss": 0.5, "train_accuracy": 0.80, "test_accuracy": last},
    ]
    return {
        "run": {"name": run.name, **vars(run)},
        "history": [{**epoch, "other_words": 0.02} for epoch in history],
        "best_epoch": 1,
        "best_accuracy": last + 0.01,
        "last_accuracy": last,
        "test_examples": 25_000,
        "parameters": {"total": BARE + added, "trained": added or BARE, "added": added},
        "memory": {"optimizer_bytes": 8 * (added or BARE), "peak_bytes": 10**9 + 4 * BARE},
        "speed": {
            "train_examples_per_second": 100.0,
            "test_examples_per_second": 300.0,
            "train_seconds": 500.0,
            "test_seconds": 100.0,
        },
        "stored_bytes": 4 * (added or BARE),
        "environment": {"python": "3.11", "threads": 2},
        "params": {
            "train_sample": 1000,
            "train_examples": 25_000,
            "study": "made-up",
            "seed": 0,
            "prompt_tokens_small": 1,
            "bottleneck_small": 1,
            "lora_rank_small": 1,
        },
        "stale": "the training source has changed" if run.number == 4 else "",
    }


def cells(table: str) -> list[list[str]]:
    """The body of a pipe table, which may stand among other lines."""
    return rows(table)[2:]


def column(table: str, name: str) -> list[str]:
    return [row[rows(table)[0].index(name)] for row in cells(table)]


def rows(table: str) -> list[list[str]]:
    lines = [line for line in table.split("\n") if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
