"""Progress of long work, where there is no terminal, and where there is one."""

from __future__ import annotations

import sys
import time

import pytest

from t5peft.base import machine, progress
from t5peft.base.progress import Progress


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line is due after a tenth of a second."""
    monkeypatch.setattr(progress, "SECONDS", 0.1)


def said(capsys: pytest.CaptureFixture[str], text: str) -> str:
    """What stands on standard error once `text` is there."""
    found, until = "", time.perf_counter() + 10
    while text not in found and time.perf_counter() < until:
        time.sleep(0.01)
        found += capsys.readouterr().err
    return found


def test_a_line_tells_how_many_how_fast_and_how_long_still(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(time, "perf_counter", lambda: 0.0)
    bar = Progress("a run", 200)
    assert bar.counted() == "0 of 200 reviews"
    bar.add(20)
    bar.add(30, "loss 1")
    monkeypatch.setattr(time, "perf_counter", lambda: 10.0)
    assert bar.counted() == "50 of 200 reviews, 5/s, 30 s left  loss 1"
    bar.add(999)
    assert bar.counted().startswith("200 of 200 reviews, 20/s, 0 s left")


def test_work_tells_of_itself_the_innermost_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("outside", state=lambda: "3 MB"):
        with Progress("a run", 200):
            assert "outside" not in said(capsys, "a run: 0 of 200 reviews\n")
        assert "a run" not in said(capsys, "outside: 3 MB, 0 s\n").partition("outside")[2]
    time.sleep(0.3)
    assert capsys.readouterr().err.count("\n") <= 1, "once it is done nothing is told"


def test_of_a_launch_the_main_process_alone_tells(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "is_main_process", lambda: False)
    with Progress("a run", 200):
        time.sleep(0.3)
        assert capsys.readouterr().err == ""


def test_work_that_fails_is_told_of_no_more(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="x"), Progress("outside"), Progress("a run", 5):
        raise ValueError("x")
    assert Progress.open == []


def test_a_terminal_shows_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("a run", 200) as bar:
        bar.add(50, "loss 1")
        assert "50/200" in said(capsys, "50/200")
    with Progress("outside", state=lambda: "3 MB"):
        assert "outside, 3 MB, 0 s" in said(capsys, "3 MB")
