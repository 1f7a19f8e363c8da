"""The files that the exercise asks for."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from helpers import NAME, run_of

from t5peft.base.errors import InputError
from t5peft.base.studies import Listed, Study
from t5peft.report import export
from t5peft.runs import make

pytestmark = pytest.mark.slow


def test_exported_weights_open_without_unpickling(study: Study, tmp_path: Path) -> None:
    for name in ("soft-prompt-scratch-n10", "adapter-scratch-b8", NAME):
        make.train_alone(run_of(study, name), study)
    clash = tmp_path / "clash"
    (clash / "prompts.pt").mkdir(parents=True)
    with pytest.raises(InputError, match=r"prompts.pt: found a folder of that name"):
        export.export(study, clash)
    assert [path.name for path in clash.iterdir()] == ["prompts.pt"], "all three, or none"
    written = export.export(study, tmp_path)
    assert [path.name for path in written] == ["prompts.pt", "adapter.pt", "lora.pt"]
    for path in written:
        assert all(map(torch.is_tensor, torch.load(path, weights_only=True).values()))


def test_two_sizes_of_a_method_are_not_one_file(study: Study, tmp_path: Path) -> None:
    runs = tuple(Listed("lora", settings={"rank": rank}) for rank in (1, 2))
    with pytest.raises(InputError, match=r"found lora-scratch-r1, lora-scratch-r2, expected one"):
        export.export(dataclasses.replace(study, runs=runs), tmp_path)
    with pytest.raises(InputError, match="found no from-scratch run of a PEFT method"):
        export.export(dataclasses.replace(study, runs=(Listed("full"),)), tmp_path)
    assert not list(tmp_path.glob("*.pt"))
