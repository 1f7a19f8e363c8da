"""What several tests need."""

from __future__ import annotations

import errno
import json
import math
import multiprocessing
import os
import random
import re
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from t5peft.__main__ import main
from t5peft.base import deciding, files, paths, studies
from t5peft.base.studies import Study
from t5peft.inputs import backbone, data
from t5peft.methods.table import Run, runs_of
from t5peft.runs import make, records, store

NAME = "lora-scratch-r8"
SOURCE = deciding.FOLDER

CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["t5peft.runs.make", "t5peft.methods.libraries"])


def change_code(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if this definition of the deciding code had been changed."""
    code = deciding.code

    def changed(entries: tuple[str, ...] = deciding.TRAINING) -> deciding.Code:
        found = code(entries).definitions
        return deciding.Code(
            "another",
            tuple(x._replace(digest="another") if x.name == name else x for x in found),
        )

    monkeypatch.setattr(deciding, "code", changed)


def read_code_anew() -> None:
    """The source has changed since this process first asked."""
    deciding.code.cache_clear()
    deciding.sources.cache_clear()


def run_of(study: Study, name: str = NAME) -> Run:
    """One of the study's ten runs."""
    return next(run for run in runs_of(study) if run.name == name)


def dry(model: torch.nn.Module) -> torch.nn.Module:
    """The model without dropout, in place: where two loops must agree to the bit."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, T5Attention):
            module.dropout = 0.0
    return model


def acl_imdb(folder: Path) -> Path:
    """The made-up reviews as an extracted aclImdb."""
    for split in data.SPLITS:
        for number, (text, label) in enumerate(data.read(data.MADE_UP, split)):
            path = folder / split / ("neg", "pos")[label] / f"{number}_1.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return folder


def lacking(folder: Path) -> None:
    """A sound T5 whose second decoder block was lost."""
    model = backbone.load("random:tiny")
    kept = {k: v for k, v in model.state_dict().items() if not k.startswith("decoder.block.1.")}
    model.save_pretrained(folder, state_dict=kept)


def edit(path: Path, old: str, new: str) -> None:
    """Replace what stands once in a file."""
    text = path.read_text()
    assert text.count(old) == 1, f"{text.count(old)} times in {path.name}: {old}"
    path.write_text(text.replace(old, new))


ANSWERS = ("positive", "negative", "positive positive", "film", "negative film", "")
"""What `babbler` writes."""


def cells(table: str) -> list[list[str]]:
    """The body of a pipe table, which may stand among other lines."""
    return rows(table)[2:]


def column(table: str, name: str) -> list[str]:
    return [row[rows(table)[0].index(name)] for row in cells(table)]


def rows(table: str) -> list[list[str]]:
    lines = [line for line in table.split("\n") if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


SHELF: dict[str, Path] = {}
ROOM = tempfile.TemporaryDirectory()


def trained_once(run: Run, study: Study) -> Path:
    """The folder of a stored run: trained for the first test that asks, copied for the others."""
    folder, key = store.folder(run, study), repr((run, study))
    if key in SHELF:
        shutil.copytree(SHELF[key], folder)
    else:
        make.train_alone(run, study)
        SHELF[key] = shutil.copytree(folder, Path(ROOM.name) / str(len(SHELF)))
    return folder


ADDED = ("speed", "environment", "seal", "stale", "verified")


def figures(record: Any) -> dict[str, Any]:
    """A record without times, peak of memory, seal and marks; weights by their SHA-256."""
    kept = {k: v for k, v in record.items() if k not in ADDED}
    history = [{k: v for k, v in x.items() if "seconds" not in k} for x in record["history"]]
    return kept | {"history": history, "memory": record["memory"]["optimizer_bytes"]}


def tensors_in(folder: Path) -> Path:
    return folder / store.DELTA


def forge(folder: Path, **changes: Any) -> None:
    """Change a record and seal it anew: what a forger would do, and another version."""
    record = {**json.loads((folder / records.RECORD).read_text()), **changes}
    record["seal"] = records.seal(record)
    (folder / records.RECORD).write_text(records.as_text(record))


def without_trace(folder: Path) -> None:
    """Store a run as it was before there were traces."""
    record = json.loads((folder / records.RECORD).read_text())
    (folder / store.TRACE).unlink()
    del record["files"][store.TRACE]
    store.put(folder, record, {})


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No text can be written any more."""

    def full_disk(path: Path, _: object) -> None:
        raise files.unwritable(path, OSError(errno.ENOSPC, "No space left on device"))

    monkeypatch.setattr(files, "write_text", full_disk)


def train_in(home: Path, study: Study, fatal: tuple[str, str] | None = None) -> None:
    """In a process of its own: train the run, or die while a file is written."""
    os.environ["T5PEFT_HOME"] = str(home)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    torch.set_num_threads(1)
    if fatal:
        die_at(*fatal)
    make.train_alone(run_of(study), study)


def die_at(name: str, stage: str) -> None:
    """Kill this process while `files.write` writes the file that begins with `name`."""
    write, replace = files.write, Path.replace

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def half(descriptor: int) -> None:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        die()

    def deadly(path: Path, fill: Callable[[Any], object]) -> None:
        if path.name.startswith(name):
            if stage == "half written":
                os.fsync = half
            elif stage == "not renamed":
                Path.replace = die  # type: ignore[method-assign]
            else:
                Path.replace = lambda *both: die(replace(*both))  # type: ignore[method-assign]
        write(path, fill)

    files.write = deadly


def child(*arguments: Any, seconds: float | None = None) -> int | None:
    """Train in a process of its own; after `seconds` it is killed. Returns its exit code."""
    process = CHILDREN.Process(target=train_in, args=arguments)
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode


def flip(draw: random.Random, content: bytes) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def change_backbone(study: Study, code: Path) -> Study:
    path = next((paths.root() / "t5").glob("int8-*"))
    path.write_bytes(flip(random.Random(0), path.read_bytes()))
    return study


class Trap:
    """Unpickled, it writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


SHARED = ["soft-prompt-scratch-n10", "adapter-scratch-b8", "lora-peft-r1", NAME]


def train_together(home: Path, study: Study, log: Path) -> None:
    """In a process of its own: the command that trains all, each training noted in `log`."""
    os.environ["T5PEFT_HOME"] = str(home)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    torch.set_num_threads(1)
    train = make.train

    def noted(run: Run, study: Study) -> None:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {run.name}\n")
        train(run, study)

    make.train = noted
    raise SystemExit(main(["train", *studies.arguments(study).split(), "--only", *SHARED]))


def written(root: Path) -> dict[str, bytes]:
    """What the project keeps: all files but the cache's and the locks."""
    kept = [p for p in root.rglob("*") if p.is_file() and ".cache" not in p.parts]
    return {str(p): p.read_bytes() for p in kept if p.name != "lock"}


def refused(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command prints before it exits with 2; nothing is written."""
    before = written(paths.root())
    capsys.readouterr()
    assert main(shlex.split(command)) == 2
    said = capsys.readouterr().err.splitlines()
    waits = re.compile(r": (at work, |[\d,]+ of [\d,]+ reviews)")  # as told on a busy machine
    lines = [line for line in said if not waits.search(line)]
    assert len(lines) == 1, lines
    assert written(paths.root()) == before
    return lines[0]


def assert_complete(line: str) -> None:
    """The thing, what was found, what was expected, the way out."""
    thing, found, rest = line.partition(": found ")
    found, expected, rest = rest.partition(", expected ")
    wanted, _, way_out = rest.rpartition("; ")
    assert thing.startswith("t5peft: ")
    assert all([found, expected, wanted, way_out]), line


def parameters_cell() -> str:
    """The cell of report.qmd in which papermill and Quarto find the settings."""
    from t5peft.report.render import notebook  # a machine that trains alone has no Jupyter

    text = (paths.CHECKOUT / "report.qmd").read_text()
    (cell,) = [
        cell for cell in notebook.cells(text) if "parameters" in cell.metadata.get("tags", [])
    ]
    return cell.source


def seeded(record: Any, accuracies: dict[int, float]) -> list[Any]:
    """A run with several seeds, by seed."""
    return [
        {**record, "params": {"seed": seed}, "best_accuracy": x} for seed, x in accuracies.items()
    ]


def distance(these: dict[str, torch.Tensor], those: dict[str, torch.Tensor]) -> float:
    """Root of the summed squares of all differences, relative to `those`."""
    assert these.keys() == those.keys()
    off = sum(float((these[name] - those[name]).square().sum()) for name in those)
    return math.sqrt(off / sum(float(x.square().sum()) for x in those.values()))
