"""Files that are whole or not there: the one way in which the project writes what it keeps."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from t5peft.base import paths
from t5peft.base.errors import InputError

T = TypeVar("T")

NO_ROOM = 2**20
"""Bytes that are left on a full disk at most: what did not fit was more."""


class Target:
    """A file that remembers why it could not be written: PyTorch tells of that in its own words."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | MemoryError | None = None

    def write(self, content: Any) -> int:
        """As `file` does."""
        try:
            return self.file.write(content)
        except (OSError, MemoryError) as error:
            self.error = error
            raise

    def flush(self) -> None:
        """As `file` does."""
        self.file.flush()


def write_bytes(path: Path, content: bytes) -> None:
    """`write` of one content."""
    write(path, lambda file: file.write(content))


def write(path: Path, fill: Callable[[Any], object]) -> None:
    """Write to a temporary name beside `path`, flush to the disk, rename.

    A kill at any moment leaves the old file or the new one. Raises `InputError` where the disk is
    full or the folder cannot be written; the old file stays. fill: is given a `Target`.
    """
    scratch = target = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            dir=path.parent, prefix=f".{path.name}.", suffix=".tmp", delete=False
        ) as file:
            scratch, target = Path(file.name), Target(file)
            fill(target)
            file.flush()
            os.fsync(file.fileno())
        scratch.chmod(0o644)
        scratch.replace(path)
    except Exception as error:
        cause = (target and target.error) or error
        if isinstance(cause, OSError):
            raise unwritable(path, cause) from error
        raise cause from None
    finally:
        if scratch is not None:
            scratch.unlink(missing_ok=True)


def unwritable(path: Path, error: OSError) -> InputError:
    """The line about a file that cannot be written."""
    return InputError(
        f"file {path}",
        error.strerror or str(error),
        "a folder that can be written, with room",
        "free space or give another folder; what was there is unchanged",
    )


@contextmanager
def lock(path: Path, wait: bool = False) -> Iterator[bool]:
    """Take a file that stands for something: yields False where another process has it.

    With `wait`, when the other has let it go. A lock dies with its holder. Raises `InputError`
    where the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise unwritable(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        except OSError as error:
            found, expected = error.strerror, "a file system that locks files"
            way_out = "set T5PEFT_HOME to a folder of one"
            raise InputError(f"lock {path}", found, expected, way_out) from error
        else:
            yield True


def remembered(thing: str, held: Iterable[Path], compute: Callable[[], str]) -> str:
    """A text about files: computed once, then remembered while their sizes and times stay.

    The time of a change among them, which cannot be set back as archives do.
    """
    found = [(str(p.resolve()), p.stat()) for p in held]
    facts = [(name, x.st_size, x.st_mtime_ns, x.st_ctime_ns) for name, x in found]
    stamp = f"{thing} {hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"
    memo = paths.cache() / "fingerprints.json"
    try:
        known = json.loads(memo.read_text())
        known.get(stamp, "").encode()
    except (OSError, ValueError, AttributeError, RecursionError):  # none yet, or damaged
        known = {}
    if stamp not in known:
        known[stamp] = compute()
        with suppress(InputError):  # where nothing can be written, nothing is remembered
            write_json(memo, known)
    return known[stamp]


def share(items: Iterable[T], attempt: Callable[[T], bool]) -> None:
    """Attempt each item, until all are done by this process or by others that have them.

    What another process is at comes after the rest, and is ours where that process was stopped.
    """
    todo = [*items]
    while todo := [item for item in todo if not attempt(item)]:
        time.sleep(1)


def beside(folder: Path) -> Path:
    """An empty folder in which a new content of this one is written."""
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    return new


def put_in_place(new: Path, folder: Path) -> Path:
    """Let a folder that is whole take the place of another; a kill before leaves the old one."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill, which stands in its place once it is whole, or not at all.

    Raises `InputError` where something is there, or the disk is full.
    """
    folder = folder.resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"folder {folder}", "something there", "a new folder", "give another -o")
    try:
        new = beside(folder)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        yield new
        put_in_place(new, folder)
    except Exception as error:  # libraries tell of a full disk each in their own words
        if isinstance(error, InputError) or shutil.disk_usage(new).free > NO_ROOM:
            raise
        full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        raise unwritable(folder, full) from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def sha256(path: Path) -> str:
    """Of a file, however large."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: Path, content: Any) -> None:
    """`write_text` of JSON, a line an entry."""
    write_text(path, json.dumps(content, indent=1) + "\n")
