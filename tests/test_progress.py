"""Progress of long work, where there is no terminal."""

from __future__ import annotations

import time

import pytest

from t5peft import progress


def test_progress_is_a_line_with_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([0.0, 4.0, 10.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    bar = progress.Progress("a run", 200)
    bar.add(20)
    assert capsys.readouterr().err == "", "not more than a line every few seconds"
    bar.add(30, "loss 1")
    assert capsys.readouterr().err == "a run: 50 of 200 reviews, 5/s, 30 s left  loss 1\n"
