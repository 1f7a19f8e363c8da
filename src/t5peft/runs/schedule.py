"""Which runs of a study are to be trained: one after the other, or some side by side."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from t5peft.base import files, machine
from t5peft.base.errors import WRONG_INPUT, InputError
from t5peft.base.progress import say
from t5peft.base.studies import Study, arguments
from t5peft.inputs import checks, data
from t5peft.methods.table import Run
from t5peft.runs import launch, store
from t5peft.runs.records import AS_MADE

THREADS = ("OMP_NUM_THREADS", "TORCHINDUCTOR_COMPILE_THREADS")
"""What runs side by side share, unless the user says how many each takes: it would take all."""


def train(wanted: Sequence[Run], study: Study, jobs: int = 1, replace: bool = False) -> int:
    """Train what is missing or stale of some runs, after saying so; returns the exit code.

    jobs: processes side by side; replace: also in the place of runs with other settings, else
    `InputError`.
    """
    try:
        found = store.look(wanted, study)
    except InputError:  # of a backbone or data that lie nowhere here, and that no run names
        checks.fetch(study)
        found = store.look(wanted, study)
    todo = [run for run in wanted if found[run.name][0].state not in AS_MADE]
    for run in wanted:
        verb = "train" if run in todo else "keep "
        print(f"{verb} {run.name:27} {found[run.name][0]}", flush=True)
    if machine.launched():
        (todo,) = launch.from_main([todo])
    if not todo:
        return 0
    checks.check(study)
    from t5peft.runs import estimate  # with torch

    if not replace:
        keep_others(store.look(todo, study), study)
    print(estimate.told(todo, study, min(jobs, len(todo))), flush=True)
    if jobs > 1 and len(todo) > 1:
        return side_by_side(todo, study, jobs, replace)
    return one_by_one(todo, study)


def keep_others(found: store.Found, study: Study) -> None:
    """Refuse to train in the place of runs that are stored with other settings."""
    others = {name: state.reason for name, (state, _) in found.items() if state.replaces}
    if others:
        raise InputError(
            f"{', '.join(others)} of study {study.study}",
            " and ".join(sorted({*others.values()})),
            "none, or runs of these settings",
            f"give {store.REPLACE}",
        )


def attempt(run: Run, study: Study) -> bool:
    """Train and store a run, alone or with the launch's processes; False where another has it."""
    from t5peft.runs import make  # with torch: where nothing is trained, nobody waits for it

    record = make.attempt(run, study)
    if record:
        told = f", trained for study {x}" if (x := record.get("trained_for")) else ""
        print(f"stored {run.name}: best {100 * record['best_accuracy']:.2f}%{told}", flush=True)
    return record is not None


def one_by_one(todo: Sequence[Run], study: Study) -> int:
    """In this process, or a launch's; the exit code. Where one fails, the rest is trained."""
    failed: list[Run] = []

    def one(run: Run) -> bool:
        try:
            return attempt(run, study)
        except InputError as error:
            if machine.launched():  # the other processes may not have met it
                raise
            say(f"t5peft: {error}")
            failed.append(run)
            return True

    files.share(todo, one)
    return WRONG_INPUT if failed else 0


def side_by_side(todo: Sequence[Run], study: Study, jobs: int, replace: bool) -> int:
    """One process a run, some at a time; the exit code is the worst of theirs."""
    import torch

    for split in data.SPLITS:
        data.tokens(study, split)  # once, for all of them
    started: list[subprocess.Popen[str]] = []
    command = [sys.executable, "-m", "t5peft", "train", *shlex.split(arguments(study))]
    command += ["--replace"] if replace else []
    share = str(max(1, torch.get_num_threads() // min(jobs, len(todo))))
    environment = dict.fromkeys(THREADS, share) | os.environ

    def one(run: Run) -> int:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*command, "--only", run.name], stdout=pipe, stderr=pipe, text=True, env=environment
        )
        started.append(process)
        with ThreadPoolExecutor(1) as beside:  # whole lines: theirs would run into each other
            beside.submit(lambda: [say(line) for line in process.stderr or ()])
            for line in process.stdout or ():
                print(line, end="", flush=True)
        return abs(process.wait())  # negative where a signal ended it

    with ThreadPoolExecutor(jobs) as pool:
        try:
            return max(pool.map(one, todo))
        except KeyboardInterrupt:
            for process in started:
                process.terminate()  # they may have been started with Ctrl-C ignored, as by `&`
            raise
