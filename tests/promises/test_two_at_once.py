"""Promise 5: two at once share the work, and a reader sees whole runs."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import CHILDREN, SHARED, forge, run_of, train_together

from t5peft.base import studies
from t5peft.base.studies import Study
from t5peft.inputs import data
from t5peft.runs import make, store

pytestmark = pytest.mark.slow


def test_two_trainings_share_a_study_and_a_reader_sees_whole_runs(
    home: Path, study: Study, tmp_path: Path
) -> None:
    study = studies.load("smoke", {"tokenizer": study.tokenizer, "epochs": 4})
    data.tokens(study, "train")
    log = tmp_path / "log"
    both = [CHILDREN.Process(target=train_together, args=(home, study, log)) for _ in range(2)]
    for process in both:
        process.start()
    seen = set()
    while any(process.is_alive() for process in both):
        seen |= {store.status(run_of(study, name), study).state for name in SHARED}
        time.sleep(0.01)
    assert [process.exitcode for process in both] == [0, 0]
    assert seen <= {"missing", "fresh"}
    trained = [line.split() for line in log.read_text().splitlines()]
    assert sorted(name for _, name in trained) == sorted(SHARED), "each run once"
    assert {int(pid) for pid, _ in trained} == {process.pid for process in both}
    assert {store.status(run_of(study, name), study).state for name in SHARED} == {"fresh"}


def test_a_run_that_is_replaced_is_whole_at_every_moment(
    study: Study, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge(stored, source="of another day")
    states = []

    def watch(name: str) -> None:
        original = getattr(Path, name)

        def watched(self: Path, *rest: Any, **options: Any) -> Any:
            done = original(self, *rest, **options)
            states.append(store.status(run_of(study), study).state)
            return done

        monkeypatch.setattr(Path, name, watched)

    for name in ("replace", "unlink"):
        watch(name)
    make.train_alone(run_of(study), dataclasses.replace(study, seed=1))
    make.train_alone(run_of(study), study)
    assert len(states) > 8
    assert "damaged" not in states


def test_a_reader_that_is_overtaken_looks_again(
    study: Study, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is replaced after its old record has been read, before its tensors have."""
    check = store.content

    def overtaken(*file: Any) -> bytes:
        monkeypatch.setattr(store, "content", check)
        make.train(run_of(study), dataclasses.replace(study, seed=1))
        return check(*file)

    monkeypatch.setattr(store, "content", overtaken)
    assert store.status(run_of(study), dataclasses.replace(study, seed=1)).state == "fresh"
