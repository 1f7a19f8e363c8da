"""Promise 3: no stale number is shown unseen."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import NAME, change_backbone, edit, read_code_anew, run_of

from t5peft.__main__ import main
from t5peft.base import paths, studies
from t5peft.base.studies import Study
from t5peft.inputs import tokenizers
from t5peft.runs import make, store


def change_setting(study: Study, code: Path) -> Study:
    return dataclasses.replace(study, lora_alpha=study.lora_alpha + 1)


def change_data(study: Study, code: Path) -> Study:
    path = next((paths.root() / "imdb" / "test" / "pos").iterdir())
    path.write_text(path.read_text() + "!")
    return study


def change_tokenizer(study: Study, code: Path) -> Study:
    path = paths.root() / "t5" / tokenizers.MODEL_FILE
    path.write_bytes(path.read_bytes() + b"\0")
    return study


def change_code(study: Study, code: Path) -> Study:
    edit(code / "methods/lora.py", "self.scale = alpha / rank", "self.scale = alpha * rank")
    return study


def change_comment(study: Study, code: Path) -> Study:
    edit(code / "methods/lora.py", "# x W + (alpha / r) x A B", "# the sum")
    return study


CHANGES: dict[Callable[[Study, Path], Study], str] = {
    change_setting: "missing",
    change_data: "missing",
    change_backbone: "missing",
    change_tokenizer: "missing",
    change_code: "stale",
    change_comment: "fresh",
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(
    change: Callable[[Study, Path], Study], on_folders: Study, code: Path
) -> None:
    make.train_alone(run_of(on_folders), on_folders)
    assert store.status(run_of(on_folders), on_folders).state == "fresh"
    changed = change(on_folders, code)
    read_code_anew()
    state = store.status(run_of(changed), changed)
    assert state.state == CHANGES[change], state.reason
    if state.state == "missing":
        assert "->" in state.reason
    if state.state == "stale":
        assert state.reason == "code that decides has changed since: methods.lora.LoRALinear"


def test_why_a_run_is_stale_is_told_definition_by_definition(
    study: Study, stored: Path, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(code / "methods/lora.py", "self.scale = alpha / rank", "self.scale = alpha * rank")
    read_code_anew()
    assert main(["status", *studies.arguments(study).split(), "--why", NAME]) == 0
    first, _, *listed = capsys.readouterr().out.splitlines()
    assert first.split()[1:3] == [NAME, "stale"]
    assert [line.split()[1] for line in listed if line.startswith("*")] == [
        "methods.lora.LoRALinear"
    ]
    assert any(line.split()[0] == "training.loop.epochs" for line in listed)
