"""A stored run opened again."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import change_backbone, run_of

from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import backbone, hub
from t5peft.measure import predict
from t5peft.runs import make, reopen
from t5peft.training import jobs


def test_a_stored_run_is_not_put_into_another_backbone(on_folders: Study, code: Path) -> None:
    make.train_alone(run_of(on_folders), on_folders)
    reopen.load("smoke/lora-scratch-r8")
    change_backbone(on_folders, code)
    with pytest.raises(InputError, match="backbone of run smoke/lora-scratch-r8"):
        reopen.load("smoke/lora-scratch-r8")


def test_tensors_of_another_shape_or_name_are_refused(smoke: Study) -> None:
    model = jobs.build(run_of(smoke), smoke)
    own = {name: tensor.clone() for name, tensor in jobs.trained(model).items()}
    name = next(iter(own))
    for wrong, found in (
        ({k: v for k, v in own.items() if k != name}, f"no tensor {name}"),
        ({**own, "x": torch.zeros(1)}, "unexpected tensor x"),
        ({**own, name: own[name][:1]}, f"shape {name}"),
    ):
        with pytest.raises(InputError, match=found):
            reopen.put(model, wrong, "here")
    reopen.put(model, own, "here")


@pytest.mark.parametrize(("holds", "taken"), [("its own", "newest"), ("other weights", "c0ffee")])
def test_a_backbone_is_asked_for_as_the_run_was_made_of_it(
    holds: str, taken: str, smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where what lies here has changed since: at the run's commit."""
    record: Any = {"identity": {"backbone": "its own"}, "backbone": {"commit": "c0ffee"}}
    monkeypatch.setattr(hub, "at_hand", lambda *_: Path("newest"))
    monkeypatch.setattr(hub, "fetch", lambda *_, revision=None: Path(str(revision)))
    monkeypatch.setattr(backbone, "contents", lambda *_: holds)
    study = dataclasses.replace(smoke, backbone="somebody/a-t5", tokenizer="")
    assert reopen.at_hand(study, record).backbone == taken


def test_a_tokenizer_that_moved_is_found_by_its_new_folder(
    smoke: Study, words_folder: Path, tmp_path: Path
) -> None:
    make.train_alone(run_of(smoke), smoke)
    (before,) = predict.predict("smoke/lora-scratch-r8", ["good"])
    moved = shutil.copytree(words_folder, tmp_path / "moved")
    (after,) = predict.predict("smoke/lora-scratch-r8", ["good"], {"tokenizer": str(moved)})
    assert after == before
    with pytest.raises(InputError, match=r"backbone of run smoke/lora-scratch-r8: .*give its own"):
        reopen.load("smoke/lora-scratch-r8", {"backbone": "random:t5-small"})
    with pytest.raises(InputError, match="--set lora_rank: found a setting that the run fixes"):
        reopen.load("smoke/lora-scratch-r8", {"lora_rank": 4})


def test_no_tokenizer_is_given_to_a_backbone_that_has_its_own(
    on_folders: Study, words_folder: Path
) -> None:
    make.train_alone(run_of(on_folders), on_folders)
    with pytest.raises(InputError, match=r"--set tokenizer: .*, as its backbone has its own"):
        reopen.load("smoke/lora-scratch-r8", {"tokenizer": str(words_folder)})
