"""What the exercise wants handed in."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
import torch

from t5peft.__main__ import main
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.methods.table import runs_of
from t5peft.report import handin
from t5peft.runs import store
from t5peft.runs.records import Status

pytestmark = pytest.mark.slow


def without_train(page: Path) -> str:
    """The rendered text but for the one setting that a hand-in changes."""
    return re.sub(r"(`train` *\|) *\w+ *", r"\1", page.read_text())


TITLES = {
    "1": "Full fine-tuning",
    "2": "Soft prompt",
    "3": "Adapter",
    "4": "Adapter",
    "5": "LoRA",
}


def test_handin_is_what_the_exercise_wants(
    rendered: Path, home: Path, tokenizer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handin, "void", lambda _: [])  # smoke's T5 is random
    before = without_train(rendered.with_suffix(".md"))
    pdf, books, weights = handin.handin(
        "smoke", tokenizer, "Émilie_du_Châtelet", "42", home / "out"
    )
    assert without_train(rendered.with_suffix(".md")) == before, "stored runs, the same text"
    assert pdf.name == "Émilie_du_Châtelet_42.pdf"
    assert "[Émilie du Châtelet, 42]," in rendered.with_suffix(".typ").read_text()
    with zipfile.ZipFile(books) as archive:
        assert archive.namelist() == [f"{name}.ipynb" for name in handin.NOTEBOOKS]
        for name in archive.namelist():
            book = nbformat.reads(archive.read(name).decode(), as_version=4)
            code = [cell for cell in book.cells if cell.cell_type == "code"]
            assert all(cell.execution_count for cell in code), name
            outputs = [output for cell in code for output in cell.outputs]
            printed = "".join(x.text for x in outputs if x.get("name") == "stdout")
            assert "|" not in printed, "a table, not its source"
            assert ("Number of parameters: 60," in printed) == (name[0] != "1"), name
            texts = [cell.source for cell in book.cells if cell not in code]
            texts += [
                x.data["text/markdown"] for x in outputs if "text/markdown" in x.get("data", {})
            ]
            assert not re.search(r":::|\{#|@(sec|fig|tbl|eq)-|@[a-z]+\d{4}", "\n".join(texts)), name
            tables = [x for x in outputs if "|:--" in x.get("data", {}).get("text/markdown", "")]
            assert tables, name
            assert not any(x.get("name") == "stderr" for x in outputs), "red"
            assert not any(cell.source.startswith("#|") for cell in book.cells)
            assert "def " in "".join(cell.source for cell in code), "what is graded, to be run"
            assert "found.records(" in "".join(cell.source for cell in code), "the training"
            titles = [c.source for c in book.cells if re.match("# ", c.source) and c not in code]
            own = titles[-1].splitlines()[0]
            assert own == f"# {TITLES[name[0]]}", name
        ours, theirs = (archive.read(archive.namelist()[i]).decode() for i in (2, 3))
    assert "## Our implementation" in ours
    assert "## With the library" not in ours
    assert "## With the library" in theirs
    assert "## Our implementation" not in theirs
    with zipfile.ZipFile(weights) as archive:
        assert sorted(archive.namelist()) == ["adapter.pt", "lora.pt", "prompts.pt"]
        archive.extractall(home / "unpacked")
    prompts = torch.load(home / "unpacked" / "prompts.pt", weights_only=True)
    assert {name: tuple(x.shape) for name, x in prompts["state_dict"].items()} == {
        "encoder.embed_tokens.prompt": (10, 32)
    }


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "study smoke: found a random T5 and made-up reviews"),
        ({"backbone": "weights/backbone/mini-long"}, "study smoke: found made-up reviews"),
    ],
)
def test_handin_refuses_numbers_that_mean_nothing(
    changes: dict[str, str], told: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=told):
        handin.handin("smoke", changes, "A", "1", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_handin_refuses_while_a_run_is_missing(
    rendered: Path,
    home: Path,
    tokenizer: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handin, "void", lambda _: [])
    wanted = ["handin", "smoke", "--set", f"tokenizer={tokenizer['tokenizer']}"]
    wanted += ["--set", "bottleneck=9", "--name", "A", "--number", "1", "-o", str(home / "none")]
    assert main(wanted) == 2
    assert "adapter-scratch-b9" in capsys.readouterr().err
    assert not (home / "none").exists()


def test_handin_refuses_a_stale_run(smoke: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = Status("stale", "the source has changed"), {}
    names = [run.name for run in runs_of(smoke)]
    monkeypatch.setattr(store, "look", lambda *_: dict.fromkeys(names, stale))
    monkeypatch.setattr(
        store, "shown", lambda run, *_: {"run": {"name": run.name}, "stale": stale[0].reason}
    )
    with pytest.raises(InputError, match=r"study smoke: found 10 of 10 runs stale: full, "):
        handin.require_as_made(smoke)
