"""The command line: one line where it is refused, and none too many."""

from __future__ import annotations

import errno
import io
import logging
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from helpers import assert_complete, refused, run_of, trained_once

from t5peft.__main__ import TABLE, explain, main, name_of, parsed
from t5peft.base import paths, studies
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.measure import measurements, predict, retention
from t5peft.report.render import render
from t5peft.runs import export
from t5peft.training import loop

INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run behind `&`
from t5peft import __main__ as cli
from t5peft.base import studies

def every():
    LOST

studies.every = every
cli.main(["studies"])
"""
LOST = {
    "another error is made of it": """
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("half of a module") from None
""",
    "it is lost where an object goes": """
    class Goes:
        def __del__(self):
            signal.raise_signal(signal.SIGINT)
    Goes()
    return {}
""",
}


@pytest.mark.parametrize("way", LOST)
def test_ctrl_c_is_heeded_whatever_a_library_makes_of_it(way: str) -> None:
    script = INTERRUPTED.replace("    LOST", LOST[way])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.startswith("t5peft: stopped; ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.usefixtures("smoke")
def test_memory_that_runs_out_is_one_line(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = [MemoryError(), torch.OutOfMemoryError("CUDA out of memory"), RuntimeError()]
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    errors[-1] = caught.value  # PyTorch's own words on a CPU
    for error in errors:

        def fail(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(loop, "train_epoch", fail)
        line = refused("train smoke --only lora-scratch-r8", capsys)
        assert "memory: found too little" in line
        assert_complete(line)


def test_a_copy_that_fails_names_its_target() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "source", None, "target")
    assert str(explain(error)).startswith("file target: found No space left on device")


def test_another_error_is_not_hidden(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr(loop, "train_epoch", fail)
    with pytest.raises(RuntimeError, match="a fault of the program"):
        main(["train", "smoke", "--only", "lora-scratch-r8"])


@pytest.mark.slow
def test_a_reader_that_leaves_early_gets_no_traceback(home: Path) -> None:
    """As in `t5peft count lora | head -1`."""
    command = [sys.executable, "-m", "t5peft", "count", "lora"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
    assert process.returncode == 1


def test_a_hub_that_cannot_be_reached_says_nothing_before_our_line() -> None:
    """Its client tells of each of five retries unless it is told otherwise before its import."""
    code = (
        "from t5peft.__main__ import main; main(['no-such-command']); "
        "from huggingface_hub.utils import logging; print(logging.get_verbosity())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) == logging.ERROR


def test_without_a_command_all_are_listed_in_groups(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    told = capsys.readouterr().out
    groups = [line.rstrip(":") for line in told.splitlines() if line.endswith(":")]
    assert groups == ["options", *TABLE]
    for commands in TABLE.values():
        for run in commands:
            assert f"\n  {name_of(run)} " in told
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"t5peft {metadata.version('t5peft')}\n"


def test_every_command_that_a_text_of_the_project_names_is_one() -> None:
    """The ways out that the report and the errors name among them."""
    texts = [paths.CHECKOUT / "report.qmd", *paths.CHECKOUT.glob("*.md")]
    texts += [
        path for part in ("chapters", "docs", "src") for path in written_in(paths.CHECKOUT / part)
    ]
    said = re.compile(r"(?:^|[`\"])t5peft ([a-z]+)", re.MULTILINE)
    named = {name for path in texts for name in said.findall(path.read_text())}
    assert named == {name_of(run) for commands in TABLE.values() for run in commands}


def written_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.suffix in (".md", ".qmd", ".py", ".sh")]


def test_studies_are_named_with_a_line_each_and_how_many_runs_are_stored(
    smoke: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    trained_once(run_of(smoke), smoke)
    assert main(["studies"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines.keys() == studies.every().keys()
    assert " 1 of 10 runs stored  Seconds on a CPU: a random tiny T5" in lines["smoke"]
    assert " 0 of 10 runs stored " in lines["assignment"]


def test_figures_are_told_in_their_units(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    baselines = {"zero_shot_accuracy": 0.5, "bag_of_words_accuracy": 0.75}
    baselines |= {"test_reviews_in_training": 1_234}
    kept = {"run": "full", "train_accuracy": 0.9, "span_loss": 4.5, "span_loss_before": 2.25}
    monkeypatch.setattr(predict, "predict", lambda *_: [("positive", 0.25, "a\n b\tc")])
    monkeypatch.setattr(measurements, "made", lambda _: [baselines])
    monkeypatch.setattr(retention, "measure", lambda *_: [kept])
    assert main(["predict", "run", "text"]) == 0
    assert main(["baselines", "smoke"]) == 0
    assert main(["retention", "smoke"]) == 0
    one, *told, _, _, row = capsys.readouterr().out.splitlines()
    assert one == "positive\t0.250\ta b c"
    assert told == [
        "zero_shot_accuracy: 50.00%",
        "bag_of_words_accuracy: 75.00%",
        "test_reviews_in_training: 1,234",
    ]
    assert row.split() == ["full", "90.00", "4.500", "2.250"]


def test_a_pipe_with_a_mark_and_a_terminal_without_unicode_are_no_fault(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given, out = io.BytesIO("\ufeffcaf\u00e9\n".encode()), io.BytesIO()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(given, "latin-1"))
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "ascii"))
    monkeypatch.setattr(predict, "predict", lambda _, texts, __: [("negative", 0, *texts)])
    assert main(["predict", "run"]) == 0
    assert out.getvalue() == b"negative\t0.000\tcaf\\xe9\n"


@pytest.mark.parametrize(
    ("options", "written"),
    [
        ("", "pt"),
        ("--backbone", "bare"),
        ("--merge", "merged"),
        ("--merge --format peft", "peft merged"),
        ("--backbone --format pt", "pt bare"),
    ],
)
def test_an_export_is_what_was_asked_for(
    options: str,
    written: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(export, "export", lambda *_: ["pt"])
    monkeypatch.setattr(export, "in_folders", lambda study, folder, kind, runs: [kind])
    monkeypatch.setattr(export, "bare", lambda *_: "bare")
    assert main(["export", "smoke", "-o", "folder", *options.split()]) == 0
    assert capsys.readouterr().out.split() == written.split()


def test_a_partial_render_trains_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(render, "render", lambda study, changes, *_: changes)
    assert main(["render", "--set", "train=yes", "--partial"]) == 0
    assert capsys.readouterr().out == "{'train': 'partial'}\n"


def test_texts_may_stand_behind_an_option() -> None:
    lines = ("r --set a=b one -", "--set a=b r one -", "r one - --set a=b")
    for line in (f"predict {line}" for line in lines):
        options = parsed(line.split())
        assert (options.stored, options.reviews, options.set) == ("r", ["one", "-"], ["a=b"])
    for line in ("predict r one --nothing", "train smoke --nothing", "train smoke more"):
        with pytest.raises(InputError, match=r"unrecognized arguments: (--nothing|more)"):
            parsed(line.split())
