"""Stored runs: where a run lies, and whether it is what the code would make.

Nothing here needs torch until tensors are read or written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from t5peft.base import deciding, files, machine, paths
from t5peft.base.errors import InputError, Missing
from t5peft.base.studies import Study, arguments
from t5peft.methods.table import Run, facts, runs_of
from t5peft.runs import records
from t5peft.runs.identity import of_run, of_study
from t5peft.runs.records import AS_MADE, SHOWN, Made, Record, Status, Stored, Verified

if TYPE_CHECKING:
    from torch import Tensor

    from t5peft.training.trace import Trace

CHECKPOINT = "checkpoint"
DELTA, TRACE, VERIFIED = "delta.safetensors", "trace.npz", "verified.json"

REPLACE = "--replace (it gives up what is stored; --set study=NAME keeps both)"
"""How a person says so, and what else they can do."""


# --- where it lies, and what state it is in ----------------------------------------------------


def folder(run: Run, study: Study) -> Path:
    """weights/<study>/<run>."""
    return paths.weights() / study.study / run.name


def status(run: Run, study: Study) -> Status:
    """A run's state; needs no torch. Raises what `identity_of` does."""
    return look([run], study)[run.name][0]


class Found(dict[str, tuple[Status, Stored | None]]):
    """The state and the record, where it is whole, of some runs of a study, by name."""

    def __init__(self, study: Study) -> None:
        super().__init__()
        self.shared = cache(partial(of_study, study))  # of their identity, read once, if need be


def look(runs: Iterable[Run], study: Study) -> Found:
    """The same for several runs of a study."""
    found = Found(study)
    found |= {run.name: _look(run, study, found.shared) for run in runs}
    return found


def _look(
    run: Run, study: Study, shared: Callable[[], dict[str, Any]]
) -> tuple[Status, Stored | None]:
    """A run's status, and the record that it is about; shared: `of_study`, asked if need be."""
    where, code = folder(run, study), deciding.code()  # as it is before a training
    if not (where / records.RECORD).exists():
        if not (others := len([*where.glob(f"{CHECKPOINT}-*.pt")])):
            return Status("missing", "never trained"), None
        own = key(numbered(of_run(run) | shared(), run.number))
        if held := checkpoints(where, own, study.epochs):
            return Status("missing", f"begun, goes on after epoch {epochs_in(held[-1])}"), None
        told = f"{others} checkpoint{'s' * (others > 1)} of other settings or code"
        return Status("missing", f"never trained; beside it {told}"), None
    try:
        record, _ = whole(where)
    except InputError as error:
        return Status("damaged", str(error)), None
    there = {**record, "identity": numbered(record["identity"], record["run"]["number"])}
    status = records.status(there, numbered(of_run(run) | shared(), run.number), code)
    if status.state == "stale" and (found := verification(where, record)):
        told = "verified" if holds(found) else "stale"
        status = Status(told, compared(found), verified=found)
    if status.state == "fresh":
        status = replace(status, reason=f"best test accuracy {100 * record['best_accuracy']:.1f}%")
    return status, record


def numbered(identity: dict[str, Any], number: int) -> dict[str, Any]:
    """An identity with the run's number, where that decides too: in an order of its own."""
    return identity | ({"number": number} if identity.get("order") == "own" else {})


# --- checkpoints -------------------------------------------------------------------------------


def key(identity: Mapping[str, Any]) -> str:
    """Of what decides a run's epochs, whose number is none of it: with the rate constant, epoch e
    depends on the seed and e alone.
    """
    left_out = "" if "decay" in identity else "epochs"
    each = {name: value for name, value in identity.items() if name != left_out}
    return records.digest({**each, "source": deciding.code().digest})[:16]


def checkpoint(where: Path, key: str, epoch: int) -> Path:
    """Where a run waits after an epoch; none of another run has the name."""
    return where / f"{CHECKPOINT}-{key}-{epoch}.pt"


def epochs_in(path: Path) -> int:
    """After which epoch a checkpoint was written."""
    return int(path.stem.rpartition("-")[2])


def checkpoints(where: Path, key: str, last: int) -> list[Path]:
    """Those of a run up to its epoch `last`, the latest at the end."""
    named = where.glob(f"{CHECKPOINT}-{key}-*.pt")
    found = [path for path in named if path.stem.rpartition("-")[2].isdecimal()]
    return sorted((path for path in found if epochs_in(path) <= last), key=epochs_in)


def drop_checkpoints(where: Path, key: str, last: int) -> None:
    """Remove those that a later one, or the record, stands for."""
    for path in checkpoints(where, key, last):
        path.unlink(missing_ok=True)


# --- verification ------------------------------------------------------------------------------


def verification(where: Path, record: Stored) -> Verified | None:
    """What `verify.verify` found of this very run with the code as it is, if it did."""
    with suppress(InputError):  # none, or damaged
        found = records.read(where / VERIFIED, Verified.__required_keys__)
        if (found["result"], found["source"]) == (result(record), deciding.code().digest):
            return cast(Verified, found)
    return None


def holds(found: Verified) -> bool:
    """Is what was found within its bounds? Where the bound is 0, no loss may differ."""
    exact = found["loss_bound"] == 0
    difference = found["largest_difference" if exact else "median_difference"]
    same = difference <= found["loss_bound"]
    return same and found["answers_differing"] <= found["answers_bound"]


def compared(found: Verified) -> str:
    """What was found, in words."""
    told = (
        f"{found['steps']} steps trained anew, losses differ by {found['largest_difference']:.2g} "
        f"at most, median {found['median_difference']:.2g} (bound {found['loss_bound']:.2g})"
    )
    if not found["reviews"]:
        return f"{told}; no answers compared"
    differing, bound = found["answers_differing"], found["answers_bound"]
    return f"{told}; of {found['reviews']:,} answers {differing} differ (bound {bound})"


def whole(where: Path) -> tuple[Stored, dict[str, bytes]]:
    """The record in a folder and what its files hold, if they are its own; else `InputError`.

    Where the run is replaced while we look, the new one is looked at.
    """
    while True:
        record = records.read_run(where)
        try:
            held = record["files"].items()
            return record, {name: content(where, name, x["sha256"]) for name, x in held}
        except InputError:
            if records.read_run(where) == record:
                raise


def result(record: Stored) -> str:
    """A digest of what a run came to: what is measured of it later belongs to that."""
    tensors = record["files"].get(DELTA, {}).get("sha256")
    return records.digest(
        {"tensors": tensors, **{key: record[key] for key in ("identity", "history")}}
    )


def staged(name: str, sha256: str) -> str:
    """Where a file with this SHA-256 waits until the record that names it stands.

    So that a new file never takes the place of one that a record still needs.
    """
    stem, dot, suffix = name.partition(".")
    return f"{stem}-{sha256[:16]}{dot}{suffix}"


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
    way_out = "restore the file or make it again"
    raise InputError(f"file {where / name}", found, f"SHA-256 {sha256[:12]}...", way_out)


def trace(record: Stored) -> Trace:
    """A stored run's trace; an empty one where it has none."""
    from t5peft.training.trace import Trace, unpack  # with NumPy

    where = paths.weights() / record["study"] / record["run"]["name"]
    file = record["files"].get(TRACE)
    return unpack(content(where, TRACE, file["sha256"])) if file else Trace()


def load(run: Run, study: Study) -> Record:
    """The record of a stored run, marked; under `verified` what was found of it.

    Raises `InputError` where it is missing or damaged.
    """
    return shown(run, study, *look([run], study)[run.name])


def shown(run: Run, study: Study, state: Status, record: Stored | None) -> Record:
    """The same of a run that was looked at."""
    if state.state not in SHOWN or record is None:
        kind = Missing if state.state == "missing" else InputError
        raise kind(
            f"run {run.name} of study {study.study}",
            f"{state.state} ({state.reason})",
            "a stored run",
            f"run: t5peft train {arguments(study)} --only {run.name}"
            + (f" {REPLACE}" if state.replaces else ""),
        )
    verified = state.verified if state.state == "verified" else None
    return {**record, "stale": records.mark(state), "verified": verified}


def require(wanted: Iterable[Run], study: Study) -> list[Record]:
    """What `load` gives of several runs; `Missing` names all that the study lacks."""
    found = look(runs_of(study), study)
    if any(found[run.name][0].state == "missing" for run in wanted):
        raise missing(study, found)
    return [shown(run, study, *found[run.name]) for run in wanted]


def missing(study: Study, found: Found, takes: str = "makes them") -> Missing:
    """The line about all missing runs of a study; takes: what is said of the command."""
    states = {name: state for name, (state, _) in found.items() if state.state == "missing"}
    reasons = "; ".join(sorted({state.reason for state in states.values()}))
    replaces = any(state.replaces for state in states.values())
    return Missing(
        f"study {study.study}",
        f"{len(states)} of {len(found)} runs missing ({reasons}): {', '.join(states)}",
        "stored runs",
        f"t5peft train {arguments(study)}{f' {REPLACE}' if replaces else ''} {takes}",
    )


# --- save --------------------------------------------------------------------------------------


def save(run: Run, study: Study, made: Made, tensors: dict[str, Tensor], trace: bytes) -> None:
    """Store a run: tensors and trace first, the record last; each whole or not at all.

    Of several processes that trained the run together, only the main one stores it.
    """
    if not machine.is_main_process():
        return
    from safetensors.torch import save as serialize

    held = {TRACE: trace}
    if tensors:
        held[DELTA] = serialize({name: t.cpu().contiguous() for name, t in tensors.items()})
        made["stored_bytes"] = len(held[DELTA])
    code = records.made_by(deciding.code())
    put(folder(run, study), {**made, **code, "files": {}, "seal": ""}, held)


def put(where: Path, record: Stored, made: dict[str, bytes]) -> None:
    """Store files of a run and then its record, which names them and is sealed."""
    hashes = {name: hashlib.sha256(held).hexdigest() for name, held in made.items()}
    for name, held in made.items():
        record["files"][name] = {"bytes": len(held), "sha256": hashes[name]}
        files.write_bytes(where / staged(name, hashes[name]), held)
    records.write(where / records.RECORD, record)
    for name, sha256 in hashes.items():
        (where / staged(name, sha256)).replace(where / name)
    for pattern in ("delta-*", "trace-*", ".*.tmp", VERIFIED):
        for left in where.glob(pattern):  # by a kill, or of the run before
            left.unlink(missing_ok=True)


def take_over(run: Run, study: Study) -> bool:
    """Store the same run of another study, if there is one: the name of a study decides nothing."""
    shared = Found(study).shared
    for path in sorted(paths.weights().glob(f"*/{run.name}/{records.RECORD}")):
        state, record = _look(run, replace(study, study=path.parent.parent.name), shared)
        if record and state.state in AS_MADE:
            copy(
                path.parent,
                folder(run, study),
                run=facts(run),
                study=study.study,
                params=record["params"] | {"study": study.study},
                trained_for=record.get("trained_for", record["study"]),
            )
            return True
    return False


def copy(where: Path, to: Path, **changes: Any) -> None:
    """Store a whole run in another folder too, its record changed, with what `verify` found."""
    record, held = whole(where)
    found = verification(where, record)
    put(to, cast(Stored, {**record, **changes}), held)
    if found:
        records.write(to / VERIFIED, found)


def lock(run: Run, study: Study) -> AbstractContextManager[bool]:
    """Take a run: `files.lock` on its folder."""
    return files.lock(folder(run, study) / "lock")


# --- tensors -----------------------------------------------------------------------------------


def tensors(where: Path) -> tuple[Stored, dict[str, Tensor]]:
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
