"""Records: what the code made of an identity, and whether it is still what the code would make.

    fresh     the identity is the one asked for, and so is the code that made it
    verified  the identity is, code that decides has changed since, and `t5peft verify` found the
              run's first losses and its answers within their bounds
    stale     the same, not verified: shown, with a mark
    missing   there is no record, or it is of another identity
    damaged   there is a record, but it, or a file that it describes, is not as it was written

Each is a sealed JSON file: of a run (`store`), or of what is measured beside (`measurements`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

from t5peft.base import files, paths
from t5peft.base.deciding import Code
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.methods.table import Facts

if TYPE_CHECKING:
    from t5peft.training.jobs import Epoch


RECORD = "record.json"


class Parameters(TypedDict):
    """How many parameters a run's model has."""

    total: int
    trained: int
    added: int


class Memory(TypedDict):
    """Bytes: AdamW's state, and the most that was held."""

    optimizer_bytes: int
    peak_bytes: int


class Speed(TypedDict):
    """All epochs together."""

    train_examples_per_second: float
    test_examples_per_second: float
    train_seconds: float
    test_seconds: float


class File(TypedDict):
    """A file beside the record."""

    bytes: int
    sha256: str


class Planned(TypedDict):
    """What is known of a run that may be missing."""

    run: Facts


class Made(Planned):
    """What a run came to."""

    study: str
    identity: dict[str, Any]
    params: dict[str, Any]  # all settings of the study
    backbone: dict[str, Any]  # `backbone.described`
    history: list[Epoch]
    best_epoch: int
    best_accuracy: float
    last_accuracy: float
    test_examples: int
    parameters: Parameters
    memory: Memory
    speed: Speed
    stored_bytes: int
    environment: dict[str, Any]


class Coded(TypedDict):
    """The code that made something: the digest, and those of its definitions, one by one."""

    source: str
    definitions: str


class Taken(TypedDict, total=False):
    """What a record alone has that was taken over from another study."""

    trained_for: str


class Stored(Made, Coded, Taken):
    """The same as its file holds it: with its code, its files and its seal."""

    files: dict[str, File]
    seal: str


class Verified(TypedDict):
    """What `verify` found of a run (losses in nats), and within what bounds it may be."""

    result: str  # `store.result` of the run
    source: str
    steps: int
    largest_difference: float
    median_difference: float
    loss_bound: float
    reviews: int
    answers_differing: int
    answers_bound: int
    traced_by: str
    machine: str


class Record(Stored):
    """The same as it is shown: why it is stale, or ""; what was found by `verify`, if it was."""

    stale: str
    verified: Verified | None


AS_MADE = ("fresh", "verified")
SHOWN = (*AS_MADE, "stale")
"""The states of what need not be made again, and of what may be shown."""


@dataclass(frozen=True)
class Status:
    """One of the states, and why."""

    state: Literal["fresh", "verified", "stale", "missing", "damaged"]
    reason: str
    replaces: bool = False  # a whole record with other settings lies in its place
    verified: Verified | None = field(default=None, hash=False)  # with the code as it is

    def __str__(self) -> str:
        return f"{self.state}: {self.reason}"


def status(record: Mapping[str, Any], identity: dict[str, Any], code: Code) -> Status:
    """Fresh, stale or missing: is a record of this identity, and of this code?"""
    there = record["identity"]
    changes = [
        f"{key} {_short(there, key)} -> {_short(identity, key)}"
        for key in sorted(identity.keys() | there.keys())
        if there.get(key) != identity.get(key)
    ]
    if changes:
        reason = "stored with other settings: " + ", ".join(changes)
        return Status("missing", reason, replaces=True)
    if record["source"] == code.digest:
        return Status("fresh", "as the code makes it")
    names = changed(record, code)
    told = f": {', '.join(names[:4])}{', ...' if names[4:] else ''}" if names else ""
    return Status("stale", f"code that decides has changed since{told}")


def mark(status: Status) -> str:
    """Why what is shown is stale, or ""."""
    return status.reason if status.state == "stale" else ""


def _short(identity: dict[str, Any], key: str) -> str:
    return str(identity.get(key, ""))[:12] or "none"


def made_by(code: Code) -> Coded:
    """What a record says of its code."""
    return {
        "source": code.digest,
        "definitions": " ".join(each.digest for each in code.definitions),
    }


def changed(record: Mapping[str, Any], code: Code) -> list[str]:
    """The definitions that count now and are none of those that made a record, by name."""
    known = record["definitions"]
    return [each.name for each in code.definitions if each.digest not in known]


def since(record: Mapping[str, Any], code: Code) -> set[str]:
    """The digests of the definitions that have changed since, as they were and as they are."""
    return {*record["definitions"].split()} ^ {each.digest for each in code.definitions}


# --- files -------------------------------------------------------------------------------------


def read(path: Path, keys: Set[str]) -> dict[str, Any]:
    """A record with these keys, every byte as it was written; else `InputError` names the file."""
    try:
        content = path.read_bytes().decode()
        record = json.loads(content)
        if path.is_symlink() or as_text(record) != content or seal(record) != record["seal"]:
            found = "contents that do not match its seal"
        elif keys - record.keys():
            found = f"no {min(keys - record.keys())} (another version's record)"
        else:
            return record
    except OSError as error:
        found = error.strerror or "no file"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        found = "no whole record"
    raise InputError(f"record {path}", found, "what t5peft wrote", "make it again") from None


def read_run(where: Path) -> Stored:
    """The record in a folder, every byte as it was written; else `InputError` names it."""
    return cast(Stored, read(where / RECORD, Stored.__required_keys__))


def stored_with(study: Study, part: str) -> Iterator[Stored]:
    """The records of a study's runs on its backbone, or the like, as far as they are whole."""
    for path in (paths.weights() / study.study).glob(f"*/{RECORD}"):
        with suppress(InputError):
            record = read_run(path.parent)
            if record["params"][part] == getattr(study, part):
                yield record


def write(path: Path, record: Any) -> None:
    """Seal a record and store it, whole or not at all."""
    record["seal"] = seal(json.loads(json.dumps(record)))
    files.write_text(path, as_text(record))


def as_text(record: Mapping[str, Any]) -> str:
    """A record as its file holds it."""
    return json.dumps(record, indent=1) + "\n"


def seal(record: Mapping[str, Any]) -> str:
    """The digest of a record without its seal: any changed figure shows."""
    return digest({key: value for key, value in record.items() if key != "seal"})


def digest(content: Mapping[str, Any]) -> str:
    """SHA-256 of an identity, or of a record."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
