"""What is remembered can be made again."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from t5peft.base import files, paths
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import data


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"a": 1', b"[" * 9999])
def test_a_damaged_cache_is_made_again(content: bytes, study: Study) -> None:
    wanted, tokens = data.fingerprint(study), data.tokens(study, "test").ids.clone()
    for path in paths.cache().rglob("*"):
        if path.is_file():
            path.write_bytes(content)
    assert data.fingerprint(study) == wanted
    assert (data.tokens(study, "test").ids == tokens).all()


def test_other_content_of_the_same_size_and_time_is_computed_anew(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As archives set times back; a name that is relative is of its folder."""

    def told() -> str:
        return files.remembered("x", [Path("x.csv")], Path("x.csv").read_text)

    def put(folder: str, content: str) -> None:
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        Path("x.csv").write_text(content)
        os.utime("x.csv", (1, 1))

    for folder, content in (("a", "one"), ("b", "two"), ("a", "six")):
        put(folder, content)
        assert told() == told() == content
    monkeypatch.setattr(files, "write_json", None)  # what is remembered is not computed
    assert told() == "six"


def test_what_is_written_others_may_read(tmp_path: Path) -> None:
    files.write_text(tmp_path / "x", "a text")
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(files.fcntl, "flock", refuse)
    told = r"lock: found Function not implemented, expected a file system that locks files; set T5"
    with pytest.raises(InputError, match=told), files.lock(tmp_path / "lock"):
        pass
