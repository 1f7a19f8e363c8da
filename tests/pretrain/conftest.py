"""Seconds of pre-training, on made-up texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from t5peft.base.settings import build, read_yaml
from t5peft.inputs import data, tokenizers
from t5peft.pretrain.settings import BackboneParams


@pytest.fixture
def sst2(tmp_path: Path) -> Path:
    folder = tmp_path / "sst2"
    folder.mkdir()
    read = data.read("made-up", "train")
    rows = [{"sentence": f"{text} ", "label": label} for text, label in read]  # as in the hub's
    pd.DataFrame(rows[:40]).to_parquet(folder / "train-00000-of-00001.parquet")
    pd.DataFrame(rows[40:48]).to_parquet(folder / "validation-00000-of-00001.parquet")
    return folder


@pytest.fixture
def small(home: Path, sst2: Path) -> BackboneParams:
    """Seconds of pre-training on made-up reviews."""
    shipped = read_yaml(home / "params" / "backbone-mini-long.yaml")
    changes: dict[str, Any] = {
        "name": "small-test",
        "size": "tiny",
        "data": "made-up",
        "sst2": str(sst2),
        "vocabulary": 110,
        "input_length": 24,
        "batch_size": 4,
        "warmup_steps": 5,
        "steps": 12,
        "precision": "fp32",
    }
    return build(BackboneParams, {**shipped, **changes}, "test")


@pytest.fixture(autouse=True)
def a_tokenizer_with_label_words(words_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The made-up reviews hold no label words; the session's tokenizer knows them."""
    model = (words_folder / tokenizers.MODEL_FILE).read_bytes()

    def copy(texts: Any, vocabulary: int, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / tokenizers.MODEL_FILE).write_bytes(model)

    monkeypatch.setattr(tokenizers, "train", copy)
