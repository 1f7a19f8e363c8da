"""A project with the real report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from t5peft.base import paths
from t5peft.report.render import render

REPORT = ("report.qmd", "_quarto.yml", "references.bib", "chapters", "params", "src")
"""What a render reads."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project folder with the real report and no stored run; no Quarto."""
    folder = tmp_path_factory.mktemp("report")
    for name in REPORT:
        source = paths.CHECKOUT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, folder / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("T5PEFT_HOME", str(folder))
        patch.setenv("PATH", os.defpath)
        patch.delenv("QUARTO", raising=False)
        yield folder


@pytest.fixture(scope="module")
def tokenizer(words_folder: Path) -> dict[str, Any]:
    return {"tokenizer": str(words_folder)}


@pytest.fixture(scope="module")
def rendered(home: Path, tokenizer: dict[str, Any]) -> Path:
    """The whole report; its cells train the ten runs, which take seconds."""
    return render.render("smoke", tokenizer)
