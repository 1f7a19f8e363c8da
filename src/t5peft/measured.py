"""What is measured beside the runs of a study: trials of rates, baselines, retention, benches.

One store for all: each measurement is a record in weights/<study>/ that holds its figures, the
identity that decides them and the digest of the code that measured them. Like a run it is fresh,
stale, missing or damaged, and shown with a mark where it is stale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t5peft import deciding, files, intact, machine, paths, records
from t5peft.errors import InputError
from t5peft.params import Params
from t5peft.records import Status


@dataclass(frozen=True)
class Measurement:
    """A measurement that a study has or may have."""

    study: Params
    name: str  # of its file
    identity: dict[str, Any]
    keys: Set[str]  # the names of its figures
    code: tuple[str, ...]  # what measures, as `deciding` names it
    figures: Callable[[], dict[str, Any]]  # measures

    @property
    def path(self) -> Path:
        """Where it is kept."""
        return paths.weights() / self.study.study / f"{self.name}.json"

    def status(self) -> Status:
        """Its state."""
        try:
            return self.look()[0]
        except InputError as error:
            return Status("damaged", str(error))

    def look(self) -> tuple[Status, dict[str, Any]]:
        """Its state, and the record in its place. Raises `InputError` for a damaged one."""
        code = deciding.code(self.code)  # as it is before anything is measured
        if not self.path.exists():
            return Status("missing", "never measured"), {}
        record = records.read(self.path, {"identity", "source", *self.keys})
        return records.status(record, self.identity, code), record

    def load(self) -> dict[str, Any]:
        """Its record, marked; {} where it is missing. Raises `InputError` for a damaged one."""
        status, record = self.look()
        return records.marked(record, status) if status.state in records.SHOWN else {}

    def announce(self) -> None:
        """Say that it is measured, and why."""
        print(f"measure {self.name:40} {self.status()}", flush=True)

    def lock(self) -> AbstractContextManager[bool]:
        """Take it: `files.lock` on a file in the cache."""
        return files.lock(paths.cache() / "locks" / self.study.study / self.name)

    def attempt(self) -> bool:
        """Measure and store it, unless it is fresh by now; False where another process has it."""
        with self.lock() as mine:
            if mine and self.status().state != "fresh":
                self.store(self.figures())
            return mine

    def store(self, figures: dict[str, Any]) -> None:
        """Keep what was measured, in the place of what was kept before."""
        environment = machine.environment(self.study.precision)
        made_by = records.made_by(deciding.code(self.code))
        made = {"identity": self.identity, **made_by, "environment": environment}
        records.write(self.path, figures | made)


def made(wanted: Sequence[Measurement]) -> list[dict[str, Any]]:
    """The records of some measurements of a study; those that are not fresh are made.

    Several processes share the work. Raises `InputError` where something is to be made and
    `intact.check` refuses the study.
    """
    todo = [one for one in wanted if one.status().state != "fresh"]
    for one in todo:
        one.announce()
    if todo:
        intact.check(todo[0].study)
    files.share(todo, Measurement.attempt)
    return [one.load() for one in wanted]


def reviews(study: Params, kind: str) -> list[int]:
    """On how many reviews measurements of a kind are stored, the most first.

    Their names end in it, as in tuning/full-0.0003-9600.
    """
    found = (paths.weights() / study.study / kind).glob("*.json")
    numbers = {path.stem.rpartition("-")[2] for path in found}
    return sorted((int(number) for number in numbers if number.isdecimal()), reverse=True)
