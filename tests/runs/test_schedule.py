"""What is missing is trained, what is stored is kept, and nobody's run is given up unasked."""

from __future__ import annotations

import dataclasses
import io
import subprocess
from typing import Any

import pytest
import torch
from helpers import NAME, run_of, trained_once

from t5peft.__main__ import main
from t5peft.base import machine, paths, studies
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import checks
from t5peft.methods.table import Run
from t5peft.runs import launch, schedule

OTHER = "lora-peft-r1"


@pytest.fixture
def attempted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The runs that would be trained, by name."""
    names: list[str] = []

    def attempt(run: Run, study: Study) -> bool:
        names.append(run.name)
        return True

    monkeypatch.setattr(schedule, "attempt", attempt)
    return names


def test_what_is_stored_is_kept(
    study: Study, attempted: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    trained_once(run_of(study), study)
    wanted = [run_of(study, name) for name in (NAME, OTHER)]
    assert schedule.train(wanted, study) == 0
    assert attempted == [OTHER]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [["keep", NAME], ["train", OTHER]]
    assert lines[-1].startswith("memory: about ")
    assert schedule.train(wanted[:1], study) == 0
    assert attempted == [OTHER], "nothing was to be done"


def test_a_run_with_other_settings_is_replaced_only_if_a_person_says_so(
    study: Study, attempted: list[str]
) -> None:
    trained_once(run_of(study), study)
    other = dataclasses.replace(study, batch_size=8)
    wanted = [run_of(other)]
    with pytest.raises(InputError, match=f"{NAME} of study smoke: found .*batch_size.*--replace"):
        schedule.train(wanted, other)
    assert not attempted
    assert schedule.train(wanted, other, replace=True) == 0
    assert attempted == [NAME]


def test_what_is_neither_here_nor_named_by_a_stored_run_is_asked_of_the_hub(
    study: Study, attempted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_once(run_of(study), study)
    other = dataclasses.replace(study, backbone="somebody/a-t5")
    wanted, asked = [run_of(other)], []

    def fetch(study: Study) -> None:
        asked.append(study.backbone)
        raise InputError(f"backbone {study.backbone}", "404", "a T5", "is it misspelt?")

    monkeypatch.setattr(checks, "fetch", fetch)
    with pytest.raises(InputError, match="is it misspelt"):
        schedule.train(wanted, other, replace=True)
    assert asked == ["somebody/a-t5"]
    assert not attempted


def test_the_rest_is_trained_where_one_run_fails(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As side by side."""
    begun: list[str] = []

    def attempt(run: Run, study: Study) -> bool:
        begun.append(run.name)
        if run.name == NAME:
            raise InputError(f"loss of {run.name}", "nan", "a number", "lower its learning rate")
        return True

    monkeypatch.setattr(schedule, "attempt", attempt)
    assert schedule.train([run_of(study, name) for name in (NAME, OTHER)], study) == 2
    assert begun == [NAME, OTHER]
    assert f"t5peft: loss of {NAME}: found nan" in capsys.readouterr().err
    monkeypatch.setattr(machine, "launched", lambda: True)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(launch, "from_main", lambda found: found)
    with pytest.raises(InputError, match=f"loss of {NAME}"):  # the other processes would wait
        schedule.train([run_of(study, name) for name in (NAME, OTHER)], study)


def test_side_by_side_each_run_is_a_command_and_the_worst_exit_code_counts(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes = {NAME: 0, OTHER: -9, "full": 1}
    commands: list[list[str]] = []
    threads: list[str] = []

    class Process:
        def __init__(self, command: list[str], env: dict[str, str], **_: Any) -> None:
            commands.append(command)
            threads.append(env["OMP_NUM_THREADS"])
            self.code = codes[command[-1]]
            self.stdout = io.StringIO(f"told {command[-1]}\nmore\n")
            self.stderr = io.StringIO("a warning\n")

        def wait(self) -> int:
            return self.code

    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 9)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    words = ["train", *studies.arguments(study).split(), "--jobs", "2", "--replace", "--only"]
    assert main([*words, *codes]) == 9, "where a signal ended it"
    assert sorted(command[-1] for command in commands) == sorted(codes)
    assert all(command[-3:-1] == ["--replace", "--only"] for command in commands)
    out, err = capsys.readouterr()
    *_, memory = begun = out.splitlines()[: len(codes) + 1]
    assert memory.startswith("memory: about ")
    told = out.splitlines()[len(begun) :]
    assert sorted(told) == sorted([*(f"told {name}" for name in codes), *["more"] * 3])
    assert err.splitlines() == ["a warning"] * 3
    assert [*(paths.cache() / "tokens").iterdir()], "made before the runs are begun"
    assert threads == ["4"] * 3, "two at a time share nine"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    main([*words, *codes])
    assert threads[3:] == ["7"] * 3, "the user's word"
