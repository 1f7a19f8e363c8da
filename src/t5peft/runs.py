"""Stored runs: what a run is, where it lies, and whether it is still what the source would make.

    fresh     the identity is the one asked for, and so is the source that trained it
    stale     the identity is, but the training source has changed since: shown, with a mark
    missing   there is no record, or it is of another identity
    damaged   there is a record, but a file of the run is not the one that it describes

Nothing here needs torch until tensors are read or written.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5peft import backbone, data, files, paths, tokenizer
from t5peft.errors import InputError
from t5peft.methods import Run
from t5peft.params import Params

if TYPE_CHECKING:
    from torch import Tensor

RECORD, DELTA = "record.json", "delta.safetensors"

DECIDING = (
    "adapter backbone data evaluation inject library lora methods sizes soft_prompt tokenizer training"
).split()
"""The modules whose code can change a result."""

STUDY_SETTINGS = (
    "train_examples test_examples train_sample max_length batch_size epochs seed precision"
).split()
"""The settings of a study that enter every run's identity."""


@dataclass(frozen=True)
class Status:
    """fresh, stale, missing or damaged, and why."""

    state: str
    reason: str


# --- identity ----------------------------------------------------------------------------------


def identity(run: Run, params: Params) -> dict[str, Any]:
    """Everything that decides a run's result, flat."""
    return {
        "method": run.method,
        "implementation": run.implementation,
        **run.settings,
        "learning_rate": run.learning_rate,
        **{name: getattr(params, name) for name in STUDY_SETTINGS},
        "backbone": backbone.fingerprint(params),
        "tokenizer": tokenizer.fingerprint(params.tokenizer) if params.tokenizer else "",
        "data": data.fingerprint(params),
    }


def digest(identity: dict[str, Any]) -> str:
    """The SHA-256 of an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


@cache
def source() -> str:
    """SHA-256 of the deciding modules' syntax trees: comments, layout and docstrings do not count."""
    total = hashlib.sha256()
    for name in DECIDING:
        total.update(tree(Path(__file__).with_name(f"{name}.py").read_text()).encode())
    return total.hexdigest()


def tree(code: str) -> str:
    """The syntax tree of Python code, without comments, positions and docstrings."""
    module = ast.parse(code)
    for node in ast.walk(module):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [line for line in body if not _is_text(line)]  # type: ignore[attr-defined]
    return ast.dump(module)


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


# --- where it lies, and what state it is in ----------------------------------------------------


def folder(run: Run, params: Params) -> Path:
    """weights/<study>/<run>."""
    return paths.weights() / params.study / run.name


def status(run: Run, params: Params) -> Status:
    """Fresh, stale, missing or damaged; needs no torch."""
    path = folder(run, params) / RECORD
    if not path.exists():
        return Status("missing", "never trained")
    try:
        record = read(path)
        check_files(path.parent, record)
    except InputError as error:
        return Status("damaged", str(error))
    wanted = identity(run, params)
    changes = [
        f"{key} {_short(record['identity'].get(key))} -> {_short(wanted.get(key))}"
        for key in sorted(wanted.keys() | record["identity"].keys())
        if record["identity"].get(key) != wanted.get(key)
    ]
    if changes:
        return Status("missing", "stored with other settings: " + ", ".join(changes))
    if record["source"] != source():
        return Status("stale", "the training source has changed since")
    return Status("fresh", f"best test accuracy {100 * record['best_accuracy']:.1f}%")


def _short(value: object) -> str:
    return str(value)[:12] if value != "" else "none"


def read(path: Path) -> dict[str, Any]:
    """A record whose identity and fingerprint agree, or an `InputError` that names the file."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if digest(record["identity"]) != record["fingerprint"] or seal(record) != record["seal"]:
            raise ValueError("contents that do not match its seal")
    except OSError as error:
        found = error.strerror or "no file"
    except (ValueError, KeyError, TypeError) as error:
        found = str(error) if str(error).startswith("contents") else "no whole record"
    else:
        return record
    raise InputError(
        f"record {path}", found, "what training wrote", "train the run again"
    ) from None


def seal(record: dict[str, Any]) -> str:
    """SHA-256 of a record without its seal: any changed figure shows."""
    rest = {key: value for key, value in record.items() if key != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def check_files(where: Path, record: dict[str, Any]) -> None:
    """Refuse a run whose files are not those of its record."""
    for name, facts in record["files"].items():
        path = where / name
        plain = name == DELTA and path.is_file() and not path.is_symlink()
        if not plain or files.sha256(path) != facts["sha256"]:
            raise InputError(
                f"file {path}",
                "other bytes than were stored" if plain else "no plain file of that name",
                f"SHA-256 {facts['sha256'][:12]}...",
                "restore the file or train the run again",
            )


def load(run: Run, params: Params) -> dict[str, Any]:
    """The record of a stored run that is fresh or stale; `InputError` where it is neither."""
    state = status(run, params)
    if state.state not in ("fresh", "stale"):
        raise InputError(
            f"run {run.name} of study {params.study}",
            f"{state.state} ({state.reason})",
            "a stored run",
            f"run: t5peft train {params.study} --only {run.name}",
        )
    return read(folder(run, params) / RECORD)


# --- save --------------------------------------------------------------------------------------


def save(run: Run, params: Params, record: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Store a run: tensors first, the record last; each whole or not at all."""
    from safetensors.torch import save as serialize

    where = folder(run, params)
    record["files"] = {}
    if tensors:
        content = serialize({name: t.cpu().contiguous() for name, t in tensors.items()})
        sha = hashlib.sha256(content).hexdigest()
        record["files"] = {DELTA: {"bytes": len(content), "sha256": sha}}
        record["stored_bytes"] = len(content)
        files.write_bytes(where / DELTA, content)
    record["seal"] = seal(json.loads(json.dumps(record)))
    files.write_text(where / RECORD, json.dumps(record, indent=1) + "\n")


@contextmanager
def lock(run: Run, params: Params) -> Iterator[bool]:
    """Take a run: yields False where another process has it. A lock dies with its holder."""
    path = folder(run, params) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


# --- tensors -----------------------------------------------------------------------------------


def tensors(where: Path) -> dict[str, Tensor]:
    """The trained tensors of the run in a folder, after its files have been checked."""
    from safetensors.torch import load_file

    record = read(where / RECORD)
    check_files(where, record)
    if DELTA not in record["files"]:
        raise InputError(
            f"run {where}",
            "a record alone (full fine-tuning stores no weights)",
            "a run with trained tensors",
            "name a PEFT run, or train it again",
        )
    return load_file(where / DELTA)
