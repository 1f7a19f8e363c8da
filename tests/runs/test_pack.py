"""Packed here, trained where neither the project nor a network is, unpacked here."""

from __future__ import annotations

import dataclasses
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers import NAME, flip, forge, run_of, tensors_in, trained_once, written

from t5peft.__main__ import main
from t5peft.base import files, paths, studies
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import backbone, data, int8, tokenizers
from t5peft.methods.table import runs_of
from t5peft.runs import make, pack, records, store
from t5peft.runs.identity import identity_of

NO_NETWORK = """
import socket

def refuse(*_):
    raise AssertionError("asked for the network")

socket.socket.connect = socket.getaddrinfo = refuse
"""


@pytest.fixture
def folder(study: Study, tmp_path: Path) -> Path:
    """The study, packed."""
    return pack.pack(study, None, tmp_path / "packed")


def at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a folder be the project's root."""
    monkeypatch.setenv("T5PEFT_HOME", str(folder))


def trained_there(folder: Path, study: Study) -> Path:
    """The folder of a run that was trained in a packed folder."""
    with pytest.MonkeyPatch.context() as patched:
        at(folder, patched)
        return trained_once(run_of(study), study)


@pytest.mark.slow
def test_ten_runs_come_back_fresh(smoke: Study, tmp_path: Path) -> None:
    """From the packed code alone, where every connection is refused."""
    there = pack.pack(smoke, None, tmp_path / "packed")
    shutil.copytree(there, moved := tmp_path / "elsewhere" / "moved")
    shutil.rmtree(there)
    (moved / "src" / "sitecustomize.py").write_text(NO_NETWORK)
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    run = [sys.executable, "-m", "t5peft", "train", "smoke"]
    subprocess.run(run, cwd=moved, env={**kept, "PYTHONPATH": "src"}, check=True, timeout=300)
    assert len(list(pack.unpack(moved))) == 10
    found = store.look(runs_of(smoke), smoke).values()
    assert [state.state for state, _ in found] == 10 * ["fresh"]


@pytest.mark.parametrize("named", ["absolute", "upwards", "relative", "a model file"])
def test_what_a_study_names_is_found_by_its_name(
    named: str, on_folders: Study, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it lay: the same identity, with nothing but the folder."""
    (work := tmp_path / "work").mkdir()
    monkeypatch.chdir(work)
    prefix = {"absolute": f"{home}/", "upwards": "../home/"}.get(named, "")
    study = dataclasses.replace(on_folders, data=f"{prefix}imdb", backbone=f"{prefix}t5")
    if named == "a model file":
        study = dataclasses.replace(study, tokenizer=f"t5/{tokenizers.MODEL_FILE}")
    own = identity_of(run_of(study), study)
    (home / "t5" / "optimizer.pt").write_bytes(b"of another training")
    there = pack.pack(study, None, tmp_path / "packed")
    assert not [*there.rglob("optimizer.pt")], "what is read alone travels"
    for gone in ("t5", "imdb"):
        shutil.rmtree(home / gone)
    at(there, monkeypatch)
    packed = studies.load("smoke")
    same = dataclasses.replace(packed, backbone_fingerprint="", data_fingerprint="")
    assert same == study
    assert identity_of(run_of(packed), packed) == own
    assert own["backbone"] == packed.backbone_fingerprint
    assert own["data"] == packed.data_fingerprint
    assert backbone.load(packed.backbone).num_parameters()
    assert len(data.tokens(packed, "test")) == packed.test_examples
    spoilt = next((there / paths.packed(packed.data)).glob("test-*"))
    shutil.copy(spoilt.with_name(spoilt.name.replace("test", "train")), spoilt)
    with pytest.raises(InputError, match="as the study pins them"):
        identity_of(run_of(packed), packed)


def test_a_table_is_packed_with_its_columns(
    on_folders: Study, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its two halves: what comes back reads the table as it lies here."""
    rows = [(text, 1 + 4 * label) for text, label in data.read(data.MADE_UP, "train")]
    pd.DataFrame(rows, columns=["body", "stars"]).to_csv(home / "films.csv")
    named = {"text_column": "body", "label_column": "stars", "labels": ("1", "5")}
    sizes = {"train_examples": 200, "test_examples": 200, "train_sample": 20}
    study = dataclasses.replace(on_folders, data=f"{home}/films.csv", **named, **sizes)
    own = identity_of(run_of(study), study)
    there = pack.pack(study, None, tmp_path / "packed")
    (home / "films.csv").rename(home / "aside.csv")
    at(there, monkeypatch)
    packed = studies.load("smoke")
    assert identity_of(run_of(packed), packed) == own
    assert len(data.tokens(packed, "test")) == 200
    (home / "aside.csv").rename(home / "films.csv")
    at(home, monkeypatch)
    assert identity_of(run_of(packed), packed) == own


def test_each_file_has_its_digest(folder: Path) -> None:
    """As `sha256sum --check` reads them."""
    held = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert pack.sums(folder).keys() == held - {pack.SUMS}
    assert all(files.sha256(folder / name) == sha for name, sha in pack.sums(folder).items())
    assert "src/t5peft/runs/pack.py" in held
    assert not [name for name in held if "__pycache__" in name]


def test_what_is_stored_goes_along_and_comes_back_only_if_made_anew(
    study: Study, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = pack.pack(study, None, tmp_path / "packed")
    with monkeypatch.context() as patched:
        at(there, patched)
        assert store.status(run_of(study), study).state == "fresh"
    forge(stored, best_epoch=2)  # here, since then
    before = written(paths.root())
    assert list(pack.unpack(there)) == ["nothing was finished there since it was packed"]
    assert written(paths.root()) == before


def test_what_was_begun_there_is_named(study: Study, begun: Path, tmp_path: Path) -> None:
    there = pack.pack(study, None, tmp_path / "packed")
    shutil.copytree(begun.parent, there / begun.parent.relative_to(paths.root()))
    assert f"begun  smoke/{NAME}: not stored" in list(pack.unpack(there))[-1]


def test_another_run_that_was_made_here_meanwhile_stays(
    folder: Path, study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    there = trained_there(folder, study)
    here = trained_once(run_of(study), study)
    assert list(pack.unpack(folder)), "the same run: nothing is lost"
    forge(here, best_epoch=2)
    before = written(paths.root())
    assert main(["unpack", str(folder)]) == 2
    assert "another one here, made since the folder was packed" in capsys.readouterr().err
    assert written(paths.root()) == before
    assert main(["unpack", str(folder), "--replace"]) == 0
    assert (here / records.RECORD).read_bytes() == (there / records.RECORD).read_bytes()


def test_all_is_checked_before_the_first_is_stored(folder: Path, study: Study) -> None:
    there = trained_there(folder, study)
    other = there.with_name("lora-peft-r8")
    shutil.copytree(there, other)
    with pytest.raises(InputError, match=f"lora-peft-r8: found the record of smoke/{NAME}"):
        list(pack.unpack(folder))
    shutil.rmtree(other)
    records.write(folder / "weights" / "smoke" / "tuning" / "x.json", {"identity": 1, "source": 1})
    (folder / "weights" / "smoke" / "baselines.json").write_text("{}\n")
    with pytest.raises(InputError, match=r"baselines.json: found no whole record"):
        list(pack.unpack(folder))
    (folder / "weights" / "smoke" / "baselines.json").unlink()
    held = tensors_in(there).read_bytes()
    tensors_in(there).write_bytes(flip(random.Random(0), held))
    with pytest.raises(InputError, match="other bytes than were stored"):
        list(pack.unpack(folder))
    assert not written(paths.weights())
    tensors_in(there).write_bytes(held)
    assert [line.split()[1] for line in pack.unpack(folder)] == [f"smoke/{NAME}", "smoke/tuning/x"]
    assert store.status(run_of(study), study).state == "fresh"
    assert (paths.weights() / "smoke" / "tuning" / "x.json").exists()


def test_a_study_that_was_named_when_packed_is_known_here_afterwards(
    study: Study, tmp_path: Path
) -> None:
    mine = dataclasses.replace(study, study="mine")
    there = pack.pack(mine, None, tmp_path / "packed")
    trained_there(there, mine)
    assert "stored params/mine.yaml" in list(pack.unpack(there))
    known = studies.load("mine")
    assert store.status(run_of(known), known).state == "fresh"


def test_nothing_is_packed_over_and_no_other_folder_unpacked(
    folder: Path, study: Study, tmp_path: Path
) -> None:
    before = written(folder)
    with pytest.raises(InputError, match="found something there, expected a new folder"):
        pack.pack(study, None, folder)
    assert written(folder) == before
    with pytest.raises(
        InputError, match=r"found no SHA256SUMS .*, expected what t5peft pack wrote"
    ):
        list(pack.unpack(tmp_path))
    for damaged in (b"\xff\xfe", b""):
        (tmp_path / pack.SUMS).write_bytes(damaged)
        with pytest.raises(InputError, match=r"found no SHA256SUMS \(damaged\)"):
            list(pack.unpack(tmp_path))
    with pytest.raises(
        InputError, match=r"found texts with fingerprint 1cf1373a324c, expected 000"
    ):
        pack.pack(dataclasses.replace(study, data_fingerprint="0" * 64), None, tmp_path / "new")
    assert not [path for path in tmp_path.iterdir() if "new" in path.name], "whole, or not there"


@pytest.mark.parametrize("card", ['{"fingerprint": 5}', "{", "[]", "{}"])
def test_a_backbone_whose_card_says_something_else_is_refused(card: str, tmp_path: Path) -> None:
    folder = tmp_path / "weights" / "backbone" / "small"
    folder.mkdir(parents=True)
    int8.save(backbone.load("random:tiny"), folder)
    (folder / "pretraining.json").write_text(card)
    with pytest.raises(InputError, match=r"small: found fingerprint \w+, expected .*copy it again"):
        list(pack.backbones(tmp_path))


def test_the_runs_that_a_kill_left_unfinished_go_on_there(
    begun: Path, study: Study, tmp_path: Path
) -> None:
    """From their first epoch: a checkpoint belongs to this machine."""
    there = pack.pack(study, None, tmp_path / "packed")
    assert begun.exists()
    assert not [*there.rglob(begun.name)]
    assert not [*there.rglob("lock")]
    make.train_alone(run_of(study), study)
