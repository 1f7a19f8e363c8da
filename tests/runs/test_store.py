"""Where a run lies, that no file outside its folder is its own, and what two studies share."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import NAME, forge, run_of, tensors_in

from t5peft.base import deciding
from t5peft.base.deciding import Code
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.runs import make, records, reopen, schedule, store, verify


@pytest.mark.parametrize("name", ["../{}", "{root}/{}", "../../smoke/lora-scratch-r8/{}", "record"])
def test_a_record_names_no_file_outside_its_folder(name: str, study: Study, stored: Path) -> None:
    path = tensors_in(stored)
    shutil.copy(path, stored.parent)
    facts = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    forge(stored, files={name.format(path.name, root=stored): facts})
    for load in (lambda: store.load(run_of(study), study), lambda: reopen.load(f"smoke/{NAME}")):
        with pytest.raises(InputError, match="no plain file of that name"):
            load()


def test_links_are_refused(study: Study, stored: Path, tmp_path: Path) -> None:
    for path in (tensors_in(stored), stored / records.RECORD):
        shutil.move(path, tmp_path / "moved")
        path.symlink_to(tmp_path / "moved")
        with pytest.raises(InputError):
            store.load(run_of(study), study)
        path.unlink()
        shutil.move(tmp_path / "moved", path)
    store.load(run_of(study), study)


# --- the same run of another study ---------------------------------------------------------------


@pytest.fixture
def other(study: Study, stored: Path) -> Study:
    """Another study of the same settings, whose list has the stored run in another place."""
    runs = ({"method": "lora"}, {"method": "ia3", "rate": 0.1})
    return dataclasses.replace(study, study="other", runs=runs)


def test_a_run_is_trained_once_for_all_studies_that_list_it(
    study: Study, other: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(make, "train")
    assert schedule.train([run_of(other)], other) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(", trained for study smoke")
    assert store.status(run_of(other), other).state == "fresh"
    ours, taken = store.load(run_of(study), study), store.load(run_of(other), other)
    assert taken["speed"] == ours["speed"], "as it was measured"
    assert (taken["study"], taken["run"]["number"]) == ("other", 1)
    assert store.result(taken) == store.result(ours)
    assert taken["files"] == ours["files"]
    shutil.rmtree(store.folder(run_of(study), study))
    _, opened, _ = reopen.load(f"other/{NAME}")
    assert opened.study == "other"
    third = dataclasses.replace(other, study="third")
    record: Any = make.attempt(run_of(third), third)
    assert record["trained_for"] == "smoke", "whoever took it over before"


def test_what_verify_found_of_a_run_goes_with_it(
    study: Study, other: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deciding, "code", lambda *_: Code("another digest", ()))
    assert not store.take_over(run_of(other), other), "a stale run is trained anew"
    verify.verify(run_of(study), study, 4, 16)
    assert store.take_over(run_of(other), other)
    assert store.status(run_of(other), other) == store.status(run_of(study), study)
    assert store.status(run_of(other), other).state == "verified"
    where = store.folder(run_of(other), other)
    store.put(where, *store.whole(where))
    assert not (where / store.VERIFIED).exists(), "it was found of the run before"


def test_no_other_run_is_taken_over(study: Study, other: Study, stored: Path) -> None:
    for changes in ({"lora_learning_rate": 0.02}, {"seed": 1}, {"epochs": 3}, {"order": "own"}):
        each = dataclasses.replace(other, **changes)
        assert not store.take_over(run_of(each), each), changes
    tensors_in(stored).write_bytes(b"damaged")
    assert not store.take_over(run_of(other), other)


def test_with_an_order_of_its_own_a_run_is_another_in_another_place(
    study: Study, other: Study, stored: Path
) -> None:
    study, other = (dataclasses.replace(each, order="own") for each in (study, other))
    record = store.whole(stored)[0]
    told = store.status(run_of(study), study).reason
    assert told == "stored with other settings: number none -> 8, order none -> own"
    forge(stored, identity=record["identity"] | {"order": "own"})
    assert store.status(run_of(study), study).state == "fresh"
    assert not store.take_over(run_of(other), other)
    moved = dataclasses.replace(run_of(study), number=3)
    assert store.status(moved, study).reason == "stored with other settings: number 8 -> 3"
