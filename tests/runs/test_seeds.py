"""Other seeds of a run: kept beside the study, found by the report, part of no other result."""

from __future__ import annotations

import dataclasses

import pytest
from helpers import NAME, run_of

from t5peft.__main__ import WRONG_INPUT, main
from t5peft.base import paths, studies
from t5peft.base.errors import InputError
from t5peft.base.studies import Study, with_seed
from t5peft.report.evidence import Evidence
from t5peft.runs import store

pytestmark = pytest.mark.slow


def test_a_run_with_other_seeds_is_stored_and_found_beside_its_own(smoke: Study) -> None:
    command = ["train", *studies.arguments(smoke).split(), "--only", NAME]
    assert Evidence(smoke).seeds == []
    assert main(command) == 0
    assert Evidence(smoke).seeds == [], "one seed has no spread"
    side_by_side = [*command, "--seed", "1", "--jobs", "2", "--only", NAME, "lora-peft-r8"]
    assert main(side_by_side) == 0
    (paths.weights() / "smoke-seed-0").mkdir()
    ((own, other),) = Evidence(smoke).seeds
    assert (own["run"]["name"], own["params"]["seed"]) == (NAME, 0)
    assert (other["run"]["name"], other["params"]["seed"]) == (NAME, 1)
    assert own["history"][0]["loss"] != other["history"][0]["loss"]
    run = run_of(smoke)
    assert store.load(run, smoke)["seal"] == own["seal"], "the study's own is untouched"
    assert store.status(run, with_seed(smoke, 2)).state == "missing"


def test_a_report_never_trains_in_the_place_of_a_stored_run(smoke: Study) -> None:
    before = Evidence(smoke).records("lora")
    for train in ("auto", "yes"):
        other = dataclasses.replace(smoke, seed=3, train=train)
        with pytest.raises(InputError, match=r"seed 0 -> 3.*--replace.*--set study=NAME keeps"):
            Evidence(other).records("lora")
    assert Evidence(smoke).records("lora") == before
    beside = Evidence(dataclasses.replace(smoke, seed=3, study="mine")).records("lora")
    assert [one["params"]["seed"] for one in beside] == [3, 3, 3]


def test_the_command_trains_in_the_place_of_a_stored_run_where_it_is_told_to(
    smoke: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    study = studies.arguments(smoke).split()
    command = ["train", *study, "--only", NAME]
    changes = ("--set", "lora_learning_rate=0.5")
    assert main(command) == 0
    kept = Evidence(smoke).records("lora")[0]
    assert main([*command, *changes]) == WRONG_INPUT
    assert "learning_rate 0.0001 -> 0.5" in capsys.readouterr().err
    assert Evidence(smoke).records("lora")[0] == kept
    capsys.readouterr()
    assert main([*command, *changes, "--replace"]) == 0
    assert capsys.readouterr().out.startswith(f"train {NAME}")
    assert main(["status", *study, *changes]) == 0
    told = [line.split()[:3] for line in capsys.readouterr().out.splitlines()]
    assert told[7:9] == [["8", NAME, "fresh"], ["9", "lora-peft-r1", "missing"]]
