"""One run by several processes."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import NAME, run_of

from t5peft.__main__ import main
from t5peft.base import machine, studies
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.runs import launch, make, store

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parents[1]
LAUNCH = """
import json, sys
from helpers import dry, run_of
from t5peft.base import studies
from t5peft.inputs import backbone
from t5peft.runs import launch
from t5peft.training import evaluation, jobs, loop
load, predict, asked = backbone.load, evaluation.predict, []
def share(model, words, tokens, *rest):
    asked.append(len(tokens))
    return predict(model, words, tokens, *rest)
evaluation.predict = share
backbone.load = lambda name, seed=0: dry(load(name, seed))
study = studies.load("smoke", json.loads(sys.argv[1]))
job = jobs.prepare(run_of(study), study)
losses = [loop.mean_loss(loop.train_epoch(job, epoch), study) for epoch in (1, 2)]
answers = loop.answers(job, job.test, "test")
if job.accelerator.is_main_process:
    print("FOUND", json.dumps([job.accelerator.num_processes, losses, answers, asked]))
launch.leave()
"""


def launched(count: int, *command: str) -> subprocess.CompletedProcess[str]:
    """A command in `count` processes on the CPU, by `accelerate launch` as on GPUs."""
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    launch += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    launch += [f"--num_processes={count}", *(["--multi_gpu"] if count > 1 else ["--cpu"])]
    launch += ["--main_process_port=0"]
    search = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*launch, *command],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_processes_give_what_one_gives(smoke: Study, tmp_path: Path) -> None:
    """Batches of 20, each share in two parts, and a rest of 5; of the answers each its share."""
    script = tmp_path / "launch.py"
    script.write_text(LAUNCH)
    study = vars(smoke) | {"train_examples": 45, "batch_size": 20, "lora_learning_rate": 0.1}
    losses, answers = [], []
    for count in (1, 2):
        done = launched(count, str(script), json.dumps(study))
        lines = [x for x in done.stdout.splitlines() if x.startswith("FOUND")]
        assert lines, done.stderr[-2000:]
        processes, found, said, asked = json.loads(lines[0].removeprefix("FOUND"))
        assert processes == count, "or nothing is compared"
        assert asked == [smoke.test_examples // count]
        losses.append(found)
        answers.append(said)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert answers[0] == answers[1]
    assert len(answers[0]) == smoke.test_examples


def test_two_processes_train_and_store_one_run(smoke: Study) -> None:
    command = ["-m", "t5peft", "train", *studies.arguments(smoke).split(), "--only", NAME]
    first, second = launched(2, *command), launched(2, *command)
    assert first.returncode == 0, first.stderr[-2000:]
    assert first.stdout.count("stored lora-scratch-r8") == 1, "one voice"
    assert first.stderr.count("epoch 2 of 2, loss") == 1
    assert second.stdout.split()[:2] == ["keep", "lora-scratch-r8"]
    run = run_of(smoke)
    assert store.status(run, smoke).state == "fresh"
    left = {path.name for path in store.folder(run, smoke).iterdir()}
    assert left == {"record.json", "delta.safetensors", "trace.npz", "lock"}


@pytest.mark.parametrize("first", [True, False])
def test_the_main_process_alone_prints_and_warns(
    first: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "is_main_process", lambda: first)
    with launch.one_voice():
        print("train")
        print("warning", file=sys.stderr)
    heard = capsys.readouterr()
    assert (heard.out, heard.err) == (("train\n", "warning\n") if first else ("", ""))


def test_what_the_main_process_found_holds_in_all(tmp_path: Path) -> None:
    """Each may have looked at another moment: they would wait for each other for ever."""
    script = tmp_path / "launch.py"
    script.write_text(
        "import os, pathlib; from t5peft.runs import launch\n"
        "rank = os.environ['RANK']\n"
        "found = launch.from_main([{'0': 'full', '1': 'lora'}[rank], rank == '0'])\n"
        "pathlib.Path(__file__).with_name(rank).write_text(str(found))\n"
        "launch.leave()\n"
    )
    done = launched(2, str(script))
    assert done.returncode == 0, done.stderr[-2000:]
    assert [(tmp_path / rank).read_text() for rank in "01"] == 2 * ["['full', True]"]


def test_a_launch_has_a_review_for_each_process_in_every_batch(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "state", lambda: SimpleNamespace(num_processes=2))
    one_left = dataclasses.replace(smoke, train_examples=33)  # batches of 16, 16 and 1
    with pytest.raises(InputError, match=r"processes of the launch: found 2, expected at most 1"):
        make.attempt(run_of(one_left), one_left)


def test_a_run_is_either_split_or_beside_others(
    smoke: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(["train", "smoke", "--jobs", "2"]) == 2
    assert "--jobs: found 2, expected 1" in capsys.readouterr().err


def test_a_rank_alone_makes_no_launch(smoke: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler may number processes that know nothing of each other: each stores its run."""
    monkeypatch.setenv("RANK", "1")
    run = run_of(smoke, "soft-prompt-scratch-n10")
    make.train_alone(run, smoke)
    assert store.status(run, smoke).state == "fresh"
