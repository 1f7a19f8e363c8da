"""The files that the exercise asks for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import NAME, run_of

from t5peft.base.errors import InputError
from t5peft.base.studies import Study
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
