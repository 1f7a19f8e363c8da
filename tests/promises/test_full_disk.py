"""Promise 6: a full disk, or one that cannot be written, keeps what was there."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import NAME, forge, run_of

from t5peft.__main__ import main
from t5peft.base import files, studies
from t5peft.base.studies import Study
from t5peft.runs import make, records, store

pytestmark = pytest.mark.slow


def mount(*options: str) -> None:
    done = subprocess.run(["mount", *options], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no tmpfs may be mounted here: the injected errors below stand for it")


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A disk of 1 MiB where the weights lie."""
    folder = home / "weights"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def refused(study: Study, capsys: pytest.CaptureFixture[str]) -> str:
    """The line that `t5peft train` ends with; the stored run is as it was."""
    folder = store.folder(run_of(study), study)
    before = {p: p.read_bytes() for p in folder.iterdir() if p.name in (records.RECORD, "lock")}
    state = store.status(run_of(study), study)
    capsys.readouterr()
    assert main(["train", *studies.arguments(study).split(), "--only", NAME]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert {p: p.read_bytes() for p in before} == before
    assert store.status(run_of(study), study) == state
    assert not list(folder.glob(".*.tmp"))
    return line


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_keeps_what_was_there(
    study: Study, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make.train_alone(run_of(study), study)
    forge(store.folder(run_of(study), study), source="of another day")
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(2**20))
    line = refused(study, capsys)
    assert "No space left on device, expected a folder that can be written" in line
    assert "what was there is unchanged" in line


def test_a_disk_that_cannot_be_written_keeps_what_was_there(
    study: Study, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make.train_alone(run_of(study), study)
    forge(store.folder(run_of(study), study), source="of another day")
    mount("-o", "remount,ro", str(small_disk))
    assert "Read-only file system, expected a folder" in refused(study, capsys)


@pytest.mark.parametrize("how", ["--merge", "--backbone", "--format peft"])
def test_a_full_disk_leaves_no_half_of_an_export(
    how: str, study: Study, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the library that writes it says of that."""
    make.train_alone(run_of(study), study)
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free))
    target = small_disk / "exported"
    command = ["export", *studies.arguments(study).split(), "--only", NAME, "-o", str(target)]
    assert main([*command, *how.split()]) == 2
    assert "No space left on device, expected a folder" in capsys.readouterr().err
    assert not [path for path in target.rglob("*") if path.is_file()]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("name", ["checkpoint-", "delta-", records.RECORD])
def test_an_error_while_a_file_is_written_keeps_what_was_there(
    name: str,
    code: int,
    study: Study,
    stored: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    forge(stored, source="of another day")
    write = files.write

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    def failing(path: Path, fill: Callable[[Any], object]) -> None:
        with monkeypatch.context() as patched:
            if path.name.startswith(name):
                patched.setattr(os, "fsync", fail)
            write(path, fill)

    monkeypatch.setattr(files, "write", failing)
    line = refused(study, capsys)
    assert f"file {stored / name}" in line
    assert os.strerror(code) in line
