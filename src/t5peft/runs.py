"""Stored runs: what a run is, where it lies, and whether it is still what the code would make.

    fresh     the identity is the one asked for, and so is the code that made it
    verified  the identity is, code that decides has changed since, and `t5peft verify` found that
              the run's first losses and its answers have not
    stale     the same, not verified: shown, with a mark
    missing   there is no record, or it is of another identity
    damaged   there is a record, but a file of the run is not the one that it describes

Nothing here needs torch until tensors are read or written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from t5peft import backbone, data, deciding, files, machine, paths, tokenizer
from t5peft.errors import InputError
from t5peft.methods import Run
from t5peft.params import Params, arguments

if TYPE_CHECKING:
    from torch import Tensor

RECORD, CHECKPOINT = "record.json", "checkpoint.pt"
DELTA, TRACE, VERIFIED = "delta.safetensors", "trace.npz", "verified.json"

STUDY_SETTINGS = [
    "train_examples",
    "test_examples",
    "train_sample",
    "max_length",
    "batch_size",
    "epochs",
    "seed",
    "precision",
]
"""The settings of a study that enter every run's identity."""


AS_MADE = ("fresh", "verified")
SHOWN = (*AS_MADE, "stale")
"""The states of a run that need not be trained again, and of one that may be shown."""

KEYS = {
    *("run", "study", "identity", "fingerprint", "source", "params", "backbone", "history"),
    *("best_epoch", "best_accuracy", "last_accuracy", "test_examples", "parameters", "memory"),
    *("speed", "stored_bytes", "environment", "files", "seal"),
}
"""What a record holds."""


@dataclass(frozen=True)
class Status:
    """One of the states, and why."""

    state: Literal["fresh", "verified", "stale", "missing", "damaged"]
    reason: str
    replaces: bool = False  # a whole run with other settings lies in its place


# --- identity ----------------------------------------------------------------------------------


def identity(run: Run, params: Params) -> dict[str, Any]:
    """Everything that decides a run's result, flat.

    Raises `InputError` where backbone, tokenizer or data are neither at hand nor pinned, or are
    other than the study pins.
    """
    return of_run(run) | of_study(params)


def of_run(run: Run) -> dict[str, Any]:
    """What a run alone has of its identity."""
    return {
        "method": run.method,
        "implementation": run.implementation,
        **run.settings,
        "learning_rate": run.learning_rate,
    }


def of_study(params: Params) -> dict[str, Any]:
    """What all runs of a study share of it; raises what `identity` does."""
    return {
        **{name: getattr(params, name) for name in STUDY_SETTINGS},
        "backbone": backbone.fingerprint(params),
        "tokenizer": tokenizer.fingerprint(params.tokenizer) if params.tokenizer else "",
        "data": data.fingerprint(params),
    }


def digest(identity: dict[str, Any]) -> str:
    """The SHA-256 of an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def source() -> str:
    """The digest of the code that makes a run."""
    return deciding.code().digest


def definitions() -> str:
    """The digests of its definitions, one by one, which tell a later code what has changed."""
    return " ".join(each.digest for each in deciding.code().definitions)


def changed(record: dict[str, Any]) -> list[str]:
    """The definitions that count now and are none of those that made a run, by name.

    [] for a run that was stored before its definitions were.
    """
    known = record.get("definitions", "")
    now = deciding.code().definitions if known else ()
    return [each.name for each in now if each.digest not in known]


# --- where it lies, and what state it is in ----------------------------------------------------


def folder(run: Run, params: Params) -> Path:
    """weights/<study>/<run>."""
    return paths.weights() / params.study / run.name


def status(run: Run, params: Params) -> Status:
    """Fresh, stale, missing or damaged; needs no torch. Raises what `identity` does."""
    return statuses([run], params)[run.name]


def statuses(runs: Iterable[Run], params: Params) -> dict[str, Status]:
    """The same for several runs of a study by name, whose shared files are read once."""
    shared = cache(lambda: of_study(params))
    return {run.name: _look(run, params, shared)[0] for run in runs}


def _look(
    run: Run, params: Params, shared: Callable[[], dict[str, Any]]
) -> tuple[Status, dict[str, Any]]:
    """A run's status, and the record that it is about; shared: `of_study`, asked if need be."""
    where, now = folder(run, params), source()  # of the code as it is before a training
    if not (where / RECORD).exists():
        begun = (where / CHECKPOINT).exists()
        return Status("missing", "begun, goes on" if begun else "never trained"), {}
    try:
        record, _ = whole(where)
    except InputError as error:
        return Status("damaged", str(error)), {}
    wanted = of_run(run) | shared()
    changes = [
        f"{key} {_short(record['identity'].get(key))} -> {_short(wanted.get(key))}"
        for key in sorted(wanted.keys() | record["identity"].keys())
        if record["identity"].get(key) != wanted.get(key)
    ]
    if changes:
        reason = "stored with other settings: " + ", ".join(changes)
        return Status("missing", reason, replaces=True), record
    if record["source"] != now:
        if found := verification(where, record):
            return Status("verified" if holds(found) else "stale", compared(found)), record
        names = changed(record)
        told = f": {', '.join(names[:4])}{', ...' if names[4:] else ''}" if names else ""
        return Status("stale", f"code that decides has changed since{told}"), record
    return Status("fresh", f"best test accuracy {100 * record['best_accuracy']:.1f}%"), record


def _short(value: object) -> str:
    return str(value)[:12] if value != "" else "none"


def verification(where: Path, record: dict[str, Any]) -> dict[str, Any]:
    """What `verify.verify` found of this very run with the code as it is; {} where it never did."""
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        found = json.loads((where / VERIFIED).read_text())
        mine = (found["result"], found["source"]) == (result(record), source())
        if mine and found["seal"] == seal(found):
            return found
    return {}  # none, of another run or code, or damaged


def holds(found: dict[str, Any]) -> bool:
    """Is what was found within its bounds? Where the bound is 0, no loss may differ."""
    exact = found["loss_bound"] == 0
    difference = found["largest_difference" if exact else "median_difference"]
    same = difference <= found["loss_bound"]
    return same and found["answers_differing"] <= found["answers_bound"]


def compared(found: dict[str, Any]) -> str:
    """What was found, in words."""
    told = (
        f"{found['steps']} steps trained anew, losses differ by {found['largest_difference']:.2g} "
        f"at most, median {found['median_difference']:.2g} (bound {found['loss_bound']:.2g})"
    )
    if not found["reviews"]:
        return f"{told}; no answers compared"
    differing, bound = found["answers_differing"], found["answers_bound"]
    return f"{told}; of {found['reviews']:,} answers {differing} differ (bound {bound})"


def whole(where: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The record in a folder and what its files hold, if they are its own; else `InputError`.

    Where the run is replaced while we look, the new one is looked at.
    """
    while True:
        record = read(where / RECORD)
        try:
            return record, contents(where, record)
        except InputError:
            if read(where / RECORD) == record:
                raise


def read(path: Path) -> dict[str, Any]:
    """A record, every byte as it was written, or an `InputError` that names the file."""
    try:
        content = path.read_bytes().decode()
        record = json.loads(content)
        sealed = as_text(record) == content and seal(record) == record["seal"]
        if path.is_symlink() or not sealed or digest(record["identity"]) != record["fingerprint"]:
            found = "contents that do not match its seal"
        elif KEYS - record.keys():
            found = f"no {min(KEYS - record.keys())} (another version's record)"
        else:
            return record
    except OSError as error:
        found = error.strerror or "no file"
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        found = "no whole record"
    raise InputError(
        f"record {path}", found, "what training wrote", "train the run again"
    ) from None


def as_text(record: dict[str, Any]) -> str:
    """A record as its file holds it."""
    return json.dumps(record, indent=1) + "\n"


def seal(record: dict[str, Any]) -> str:
    """SHA-256 of a record without its seal: any changed figure shows."""
    rest = {key: value for key, value in record.items() if key != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def result(record: dict[str, Any]) -> str:
    """A digest of what a run came to: what is measured of it later belongs to that."""
    tensors = record["files"].get(DELTA, {}).get("sha256")
    return digest({"tensors": tensors, **{key: record[key] for key in ("identity", "history")}})


def staged(name: str, sha256: str) -> str:
    """Where a file with this SHA-256 waits until the record that names it stands.

    So that a new file never takes the place of one that a record still needs.
    """
    stem, dot, suffix = name.partition(".")
    return f"{stem}-{sha256[:16]}{dot}{suffix}"


def contents(where: Path, record: dict[str, Any]) -> dict[str, bytes]:
    """What the files of a run hold, by name, as its record describes them.

    Raises `InputError` where one is not there.
    """
    return {name: content(where, name, facts["sha256"]) for name, facts in record["files"].items()}


def content(where: Path, name: str, sha256: str) -> bytes:
    """The bytes of one file of a run."""
    found = "no plain file of that name"
    names = (staged(name, sha256), name) if name in (DELTA, TRACE) else ()
    for path in [where / each for each in names]:  # the one becomes the other meanwhile
        if path.is_file() and not path.is_symlink():
            with suppress(FileNotFoundError):
                held = path.read_bytes()
                if hashlib.sha256(held).hexdigest() == sha256:
                    return held
                found = "other bytes than were stored"
    way_out = "restore the file or train the run again"
    raise InputError(f"file {where / name}", found, f"SHA-256 {sha256[:12]}...", way_out)


def load(run: Run, params: Params) -> dict[str, Any]:
    """The record of a stored run that is fresh or stale; `InputError` where it is neither."""
    state, record = _look(run, params, lambda: of_study(params))
    if state.state not in SHOWN:
        raise InputError(
            f"run {run.name} of study {params.study}",
            f"{state.state} ({state.reason})",
            "a stored run",
            f"run: t5peft train {arguments(params)} --only {run.name}",
        )
    return record


# --- save --------------------------------------------------------------------------------------


def save(
    run: Run, params: Params, record: dict[str, Any], tensors: dict[str, Tensor], trace: bytes
) -> None:
    """Store a run: tensors and trace first, the record last; each whole or not at all.

    Adds `files`, `stored_bytes` and `seal` to the record. Of several processes that trained the run
    together, only the main one stores it.
    """
    if not machine.is_main_process():
        return
    from safetensors.torch import save as serialize

    made = {TRACE: trace}
    if tensors:
        made[DELTA] = serialize({name: t.cpu().contiguous() for name, t in tensors.items()})
        record["stored_bytes"] = len(made[DELTA])
    record["files"] = {}
    put(folder(run, params), record, made)


def put(where: Path, record: dict[str, Any], made: dict[str, bytes]) -> None:
    """Store files of a run and then its record, which names them and is sealed."""
    hashes = {name: hashlib.sha256(held).hexdigest() for name, held in made.items()}
    for name, held in made.items():
        record["files"][name] = {"bytes": len(held), "sha256": hashes[name]}
        files.write_bytes(where / staged(name, hashes[name]), held)
    record["seal"] = seal(json.loads(json.dumps(record)))
    files.write_text(where / RECORD, as_text(record))
    for name, sha256 in hashes.items():
        (where / staged(name, sha256)).replace(where / name)
    for pattern in ("delta-*", "trace-*", ".*.tmp"):
        for left in where.glob(pattern):  # by a kill
            left.unlink(missing_ok=True)


def lock(run: Run, params: Params) -> AbstractContextManager[bool]:
    """Take a run: `files.lock` on its folder."""
    return files.lock(folder(run, params) / "lock")


# --- tensors -----------------------------------------------------------------------------------


def tensors(where: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The record and the trained tensors of the run in a folder, both checked.

    Raises `InputError` where either is damaged, or the run stores no tensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as deserialize

    record, held = whole(where)
    if DELTA not in held:
        raise InputError(
            f"run {where}",
            "a record alone (full fine-tuning stores no weights)",
            "a run with trained tensors",
            "name a PEFT run",
        )
    try:
        return record, deserialize(held[DELTA])
    except SafetensorError as error:
        raise InputError(
            f"file {where / DELTA}", error, "safetensors", "train the run again"
        ) from error
