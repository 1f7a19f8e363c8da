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

import dataclasses
import io

import torch
from accelerate.state import AcceleratorState
from helpers import ANSWERS, SOURCE, acl_imdb, read_code_anew, run_of, trained_once

from t5peft.base import bfloat16, deciding, paths, studies
from t5peft.base.studies import Study
from t5peft.inputs import backbone, data, int8, tokenizers
from t5peft.methods.table import Run, runs_of
from t5peft.runs import make, store

PIECES = 110


@pytest.fixture(autouse=True)
def a_precision_of_its_own() -> Iterator[None]:
    """No test keeps the bf16 that another was provided with, nor accelerate's precision, device."""
    yield
    while bfloat16.provided:
        bfloat16.provided.pop().__exit__(None, None, None)
    os.environ.pop("ACCELERATE_MIXED_PRECISION", None)  # transformers' training arguments set it
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job is on the CPU, also where there is a GPU."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(scope="session")
def words_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer whose vocabulary has both label words as one piece."""
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [data.normalize(text) for text, _ in data.read(data.MADE_UP, "train")]
    labels = [f"{a} {word} {b}" for word in data.LABELS for a in "ax " for b in "by "]
    tokenizers.train(texts + 100 * labels, PIECES, folder)
    return folder


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
def taught(babbler: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each backbone that is loaded has the weights of `babbler`."""
    load = backbone.load

    def loaded(*which: Any) -> Any:
        model = load(*which)
        model.load_state_dict(babbler)
        return model

    monkeypatch.setattr(backbone, "load", loaded)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project folder with the shipped params/; the project's root while the test runs."""
    folder = tmp_path / "home"
    shutil.copytree(paths.CHECKOUT / "params", folder / "params")
    monkeypatch.setenv("T5PEFT_HOME", str(folder))
    return folder


@pytest.fixture
def smoke(home: Path, words_folder: Path) -> Study:
    """The smoke study with the session's tokenizer."""
    return studies.load("smoke", {"tokenizer": str(words_folder)})


# --- records made up -----------------------------------------------------------------------------

BARE = 1_000_000
"""Parameters of the made-up backbone."""

ADDED = {"full": 0, "soft-prompt": 10, "adapter": 100, "lora": 1000}


@pytest.fixture
def exercise() -> Study:
    return studies.load(paths.CHECKOUT / "params" / "assignment.yaml")


@pytest.fixture
def records(exercise: Study) -> list[Any]:
    """Ten runs of two epochs; run k ends at (60 + k)%, one point below its first epoch."""
    identity = {"data": exercise.data_fingerprint}  # what is looked at of it here
    return [record(run) | {"identity": identity} for run in runs_of(exercise)]


@pytest.fixture
def kept(records: list[Any]) -> dict[str, dict[str, Any]]:
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
def one_epoch(records: list[Any]) -> list[Any]:
    """The same runs, had they ended after their first epoch."""
    for record in records:
        del record["history"][1:]
        record["last_accuracy"] = record["best_accuracy"]
    return records


def record(run: Run) -> Any:
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
        },
        "stale": "the training source has changed" if run.number == 4 else "",
    }


@pytest.fixture
def study(smoke: Study) -> Study:
    """The smoke study, with a rate at which LoRA's accuracy moves."""
    return dataclasses.replace(smoke, lora_learning_rate=0.03, epochs=4)


@pytest.fixture
def stored(study: Study) -> Path:
    """The folder of a stored run."""
    return trained_once(run_of(study), study)


@pytest.fixture
def on_folders(study: Study, home: Path) -> Study:
    """A study whose data and backbone are folders, so that both can be changed."""
    acl_imdb(home / "imdb")
    int8.save(backbone.load("random:tiny"), home / "t5")
    shutil.copy(Path(study.tokenizer) / tokenizers.MODEL_FILE, home / "t5")
    return dataclasses.replace(study, data="imdb", backbone="t5", tokenizer="", epochs=1)


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package's source, which counts as the source while the test runs."""
    copy = tmp_path / "source"
    shutil.copytree(SOURCE, copy)
    monkeypatch.setattr(deciding, "FOLDER", copy)
    yield copy
    read_code_anew()


@pytest.fixture
def begun(study: Study, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run that was stopped before its record."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(make, "described", stop)
        with pytest.raises(KeyboardInterrupt):
            make.train_alone(run_of(study), study)
    (path,) = store.folder(run_of(study), study).glob("checkpoint-*.pt")
    return path


@pytest.fixture
def place(home: Path, words_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's root, its smoke study with a tokenizer that is there; no input on stdin."""
    path = home / "params" / "smoke.yaml"
    lines = [x for x in path.read_text().splitlines() if not x.startswith("tokenizer:")]
    path.write_text("\n".join([*lines, f"tokenizer: {words_folder}"]))
    (home / "report.qmd").write_text("# Report\n")
    (home / "folder").mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    return home
