"""Promise 4: what is loaded runs nothing and asks no hub that is away."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import zipfile
from pathlib import Path

import pytest
import torch
from helpers import NAME, SOURCE, Trap, forge, run_of, tensors_in

from t5peft.__main__ import main
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.runs import make, reopen, store
from t5peft.training import checkpoint


def test_a_checkpoint_with_a_program_is_left_aside(
    study: Study, begun: Path, tmp_path: Path
) -> None:
    held = checkpoint.read(begun, torch.device("cpu"))
    torch.save({**held, "trap": Trap(tmp_path / "ran")}, begun)
    with pytest.warns(
        UserWarning, match="is damaged: the run goes on from an earlier one, or begins anew"
    ):
        make.train_alone(run_of(study), study)
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_that_inflates_is_left_aside(study: Study, begun: Path) -> None:
    held = checkpoint.read(begun, torch.device("cpu"))
    torch.save({**held, "bomb": torch.zeros(10_000_000)}, begun)
    with zipfile.ZipFile(begun) as parts:
        contents = {part: parts.read(part) for part in parts.namelist()}
    with zipfile.ZipFile(begun, "w", zipfile.ZIP_DEFLATED) as parts:
        for part, content in contents.items():
            parts.writestr(part, content)
    assert begun.stat().st_size < 10_000_000
    with pytest.warns(
        UserWarning, match="is damaged: the run goes on from an earlier one, or begins anew"
    ):
        make.train_alone(run_of(study), study)


def test_tensors_that_are_a_pickle_are_refused(stored: Path, tmp_path: Path) -> None:
    tensors_in(stored).unlink()
    scratch = stored / "pickle"
    torch.save({"A": Trap(tmp_path / "ran")}, scratch)
    sha256 = hashlib.sha256(scratch.read_bytes()).hexdigest()
    scratch.rename(stored / store.DELTA)
    forge(stored, files={store.DELTA: {"bytes": 1, "sha256": sha256}})
    with pytest.raises(InputError, match="expected safetensors"):
        reopen.load(f"smoke/{NAME}")
    assert not (tmp_path / "ran").exists()


def test_a_trap_is_a_trap(tmp_path: Path) -> None:
    torch.save(Trap(tmp_path / "ran"), tmp_path / "trap.pt")
    torch.load(tmp_path / "trap.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


def test_the_source_opens_nothing_that_could_run() -> None:
    text = "\n".join(path.read_text() for path in SOURCE.rglob("*.py"))
    loads = re.findall(r"torch\.load\((?!\.\.\.).*", text)  # but for a docstring's
    assert loads
    assert all("weights_only=True" in line for line in loads)
    assert set(re.findall(r"trust_remote_code\W*\w+", text)) == {"trust_remote_code=False"}
    unsafe = (r"import pickle", "allow_pickle=True", r"yaml\.(load\((?!text, _Loader)|unsafe|full)")
    for word in unsafe:
        assert not re.search(word, text), word


def test_an_offline_hub_is_not_called(
    home: Path,
    words_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    called: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, where: called.append(where))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: called.append(where))
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    here = "--set backbone=random:tiny"
    changes = {
        "": "backbone google-t5/t5-small",
        f"{here} --set tokenizer=nobody/nothing": "tokenizer nobody/nothing",
        f"{here} --set tokenizer={words_folder}": "data stanfordnlp/imdb",
    }
    for change, asked in changes.items():
        command = f"train assignment --only full {change}"
        assert main(command.split()) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert asked in line.partition(": found")[0]
    assert called == []
