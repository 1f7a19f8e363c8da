"""Promise 1: killed at any moment, a run goes on and ends as if undisturbed."""

from __future__ import annotations

import dataclasses
import errno
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import NAME, child, figures, run_of

from t5peft.__main__ import main
from t5peft.base import deciding, files, paths, studies
from t5peft.base.studies import Study
from t5peft.runs import make, records, store

pytestmark = pytest.mark.slow

KILLS = 25


STAGES = ("half written", "not renamed", "renamed")


@pytest.fixture
def undisturbed(home: Path, study: Study) -> tuple[dict[str, Any], float]:
    """The figures of a run that nobody killed, and how long it took."""
    elsewhere = home.with_name("undisturbed")
    shutil.copytree(home, elsewhere)
    child(home, dataclasses.replace(study, epochs=1))  # the server's start, the tokens' cache
    shutil.rmtree(home / "weights")
    began = time.perf_counter()
    assert child(elsewhere, study) == 0
    seconds = time.perf_counter() - began
    record = json.loads((elsewhere / "weights" / "smoke" / NAME / records.RECORD).read_text())
    return figures(record), seconds


def test_killed_at_random_moments_a_run_ends_as_if_undisturbed(
    home: Path, study: Study, undisturbed: tuple[dict[str, Any], float]
) -> None:
    wanted, duration = undisturbed
    assert len({epoch["test_accuracy"] for epoch in wanted["history"]}) > 1, "nothing was learnt"
    draw = random.Random(0)
    kills = 0
    while kills < KILLS:
        code = child(home, study, seconds=draw.uniform(0, duration))
        kills += code == -signal.SIGKILL
        if code == 0:  # it was through before: look at it, and begin again
            assert figures(store.load(run_of(study), study)) == wanted
            shutil.rmtree(home / "weights")
    assert child(home, study) == 0
    assert figures(store.load(run_of(study), study)) == wanted


def test_killed_while_it_writes_a_run_ends_as_if_undisturbed(
    home: Path, study: Study, undisturbed: tuple[dict[str, Any], float]
) -> None:
    wanted, _ = undisturbed
    assert child(home, study, (records.RECORD, "renamed")) == -signal.SIGKILL
    assert figures(store.load(run_of(study), study)) == wanted, "the record makes it whole"
    shutil.rmtree(home / "weights")
    for name in ("checkpoint-", "trace-", "delta-", records.RECORD):
        for stage in STAGES[: 2 if name == records.RECORD else 3]:
            assert child(home, study, (name, stage)) == -signal.SIGKILL
            assert store.status(run_of(study), study).state == "missing"
    assert child(home, study) == 0
    assert figures(store.load(run_of(study), study)) == wanted
    folder = store.folder(run_of(study), study)
    left = {"lock", records.RECORD, store.DELTA, store.TRACE}
    assert {path.name for path in folder.iterdir()} == left, "nothing half-written is left"


def endless(study: Study, *options: str, interrupt: Any = signal.SIG_DFL) -> subprocess.Popen[str]:
    """A training that goes on until it is stopped; interrupt: what SIGINT does at its start."""
    command = [sys.executable, "-m", "t5peft", "train", "smoke", *options]
    return subprocess.Popen(
        [*command, "--set", f"tokenizer={study.tokenizer}", "--set", "epochs=100000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, interrupt),
    )


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "kill"])
def test_ctrl_c_ends_within_two_seconds_and_says_how_to_go_on(
    stop: signal.Signals, study: Study
) -> None:
    process = endless(study, "--only", NAME)
    assert process.stderr is not None
    assert any(": epoch 2 of" in line for line in process.stderr)
    process.send_signal(stop)
    began = time.perf_counter()
    said = process.communicate(timeout=30)[1]
    assert time.perf_counter() - began < 2
    assert process.returncode == 130
    assert "the same command goes on" in said.splitlines()[-1]
    assert "Traceback" not in said


TRAIN_PIECES = """
import os, random, sys, time
from pathlib import Path
from t5peft.inputs import tokenizers
draw = random.Random(0)
texts = [" ".join("%x" % draw.getrandbits(40) for _ in range(50)) for _ in range(20000)]
print("begun", flush=True)
try:
    tokenizers.train(texts, 8000, Path(sys.argv[1]) / "pieces")
    print("at its end", flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
os._exit(0)
"""


def test_ctrl_c_stops_the_training_of_pieces_too(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", TRAIN_PIECES, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    began = time.perf_counter()
    assert process.communicate(timeout=60)[0] == "stopped\n"
    assert time.perf_counter() - began < 2


def test_a_checkout_that_cannot_be_written_answers(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make.train(run_of(study), study)
    shutil.rmtree(paths.cache())

    def read_only(*given: Any, **named: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("mkdir", "write_bytes", "unlink", "replace"):
        monkeypatch.setattr(Path, name, read_only)
    monkeypatch.setattr(files.tempfile, "NamedTemporaryFile", read_only)
    deciding.code.cache_clear()
    command = ["status", *studies.arguments(study).split()]
    assert main(command) == 0
    assert f"{NAME:27} fresh" in capsys.readouterr().out
    assert main([*command, "--why", NAME]) == 0


@pytest.mark.parametrize(
    ("stop", "interrupt"),
    [(signal.SIGINT, signal.SIG_DFL), (signal.SIGTERM, signal.SIG_IGN)],
    ids=["ctrl-c", "kill of what `&` started"],
)
def test_all_runs_that_are_side_by_side_are_stopped(
    stop: signal.Signals, interrupt: Any, study: Study
) -> None:
    names = {"lora-scratch-r8", "adapter-scratch-b8"}
    process = endless(study, "--jobs", "2", "--only", *names, interrupt=interrupt)
    assert process.stderr is not None
    begun: set[str] = set()
    for line in process.stderr:
        begun |= {name for name in names if line.startswith(f"{name}: epoch 2 of")}
        if begun == names:
            break
    process.send_signal(stop)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    for name in names:
        with store.lock(run_of(study, name), study) as free:
            assert free, "no child trains on"
