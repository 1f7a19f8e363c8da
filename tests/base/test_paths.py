"""Folders are found from the root, and names from the working folder first."""

from __future__ import annotations

from pathlib import Path

import pytest

from t5peft.base import paths


def test_the_root_is_the_checkout_unless_it_is_moved(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = (paths.params(), paths.weights(), paths.cache(), paths.output())
    assert {folder.parent for folder in folders} == {paths.root()} == {home}
    monkeypatch.delenv("T5PEFT_HOME")
    assert paths.root() == paths.CHECKOUT
    assert (paths.root() / "pyproject.toml").exists()


def test_a_name_is_looked_for_here_then_from_the_root(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "elsewhere"
    here.mkdir()
    monkeypatch.chdir(here)
    assert paths.local("weights/t5") is None
    assert paths.local("") is None, "and not the folder itself"
    (home / "weights" / "t5").mkdir(parents=True)
    assert paths.local("weights/t5") == home / "weights" / "t5"
    (here / "weights" / "t5").mkdir(parents=True)
    found = paths.local("weights/t5")
    assert found is not None
    assert found.resolve() == here / "weights" / "t5"


@pytest.mark.parametrize(
    "name", ["someone/t5", "/data/t5", "../../data/t5", "./data/t5", "x/../../t5"]
)
def test_in_a_packed_folder_a_name_is_what_it_was_elsewhere(name: str, home: Path) -> None:
    assert ".." not in paths.packed(name).parts
    (home / paths.packed(name)).mkdir(parents=True)
    assert paths.local(name) == home / paths.packed(name)
