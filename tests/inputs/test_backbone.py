"""T5s from folders and by size; what is no classic T5 is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, T5Config

from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import backbone
from t5peft.runs.identity import of_study


@pytest.fixture
def folder(tmp_path: Path, words_folder: Path) -> Path:
    """A checkpoint as `save_pretrained` writes it, its tokenizer beside it."""
    backbone.load("random:tiny", seed=3).save_pretrained(tmp_path / "t5")
    shutil.copy(words_folder / "spiece.model", tmp_path / "t5")
    return tmp_path / "t5"


def test_a_folder_is_loaded_as_it_was_saved(folder: Path) -> None:
    saved, loaded = backbone.load("random:tiny", seed=3), backbone.load(str(folder))
    for name, parameter in saved.named_parameters():
        assert torch.equal(parameter, dict(loaded.named_parameters())[name])
    assert not loaded.training


def test_random_weights_depend_on_the_seed_and_leave_the_draw_alone() -> None:
    torch.manual_seed(0)
    first = backbone.load("random:tiny", seed=1).shared.weight
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))
    assert torch.equal(first, backbone.load("random:tiny", seed=1).shared.weight)
    assert not torch.equal(first, backbone.load("random:tiny", seed=2).shared.weight)


def test_the_fingerprint_is_of_the_files(folder: Path, smoke: Study) -> None:
    study = dataclasses.replace(smoke, backbone=str(folder))
    before = backbone.fingerprint(study)
    assert backbone.fingerprint(dataclasses.replace(study, backbone_fingerprint=before)) == before
    (folder / "README.md").write_text("no part of the model")
    assert backbone.fingerprint(study) == before
    backbone.load("random:tiny", seed=4).save_pretrained(folder)
    assert backbone.fingerprint(study) != before
    with pytest.raises(InputError, match="as the study pins them"):
        backbone.fingerprint(dataclasses.replace(study, backbone_fingerprint=before))


def test_the_fingerprint_is_of_what_decides(folder: Path, tmp_path: Path, smoke: Study) -> None:
    """Another cut into files, another layout of the configuration, files beside: the same."""
    study = dataclasses.replace(smoke, tokenizer="", backbone=str(folder))
    before = backbone.fingerprint(study)
    other = tmp_path / "other"
    backbone.load(str(folder)).save_pretrained(other, max_shard_size="40KB")
    shutil.copy(folder / "spiece.model", other)
    config = json.loads((folder / "config.json").read_text())
    left_out = ("dropout_rate", "num_decoder_layers", "initializer_factor", "pad_token_id")
    less = {key: value for key, value in config.items() if key not in left_out}
    (other / "config.json").write_text(json.dumps(less | {"note": "no part of the model"}))
    assert len(list(other.glob("*.safetensors"))) > 1
    assert backbone.fingerprint(dataclasses.replace(study, backbone=str(other))) == before


def test_what_stands_for_an_entry_left_out_is_the_librarys() -> None:
    theirs = T5Config().to_dict()
    given = {key: value for key, value in backbone.COMPUTING.items() if value is not None}
    assert given == {key: theirs[key] for key in given}
    assert theirs["num_decoder_layers"] == theirs["num_layers"]


def set_in(name: str, key: str, value: Any) -> Callable[[Path], object]:
    """A change of one entry of a JSON file."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | {key: value}))

    return change


CHANGES: dict[str, Callable[[Path], object]] = {
    "a tensor": lambda folder: backbone.load("random:tiny", 4).save_pretrained(folder),
    "the dropout": set_in("config.json", "dropout_rate", 0.2),
    "the first token": set_in("config.json", "decoder_start_token_id", 1),
    "the pieces": lambda folder: (folder / "spiece.model").write_bytes(b"others"),
    "pieces that go before": lambda folder: (folder / "tokenizer.json").write_text("{}"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_thing_that_decides_is_in_the_fingerprint(
    change: str, folder: Path, smoke: Study
) -> None:
    study = dataclasses.replace(smoke, tokenizer="", backbone=str(folder))
    before = backbone.fingerprint(study)
    CHANGES[change](folder)
    assert backbone.fingerprint(study) != before


def test_the_hubs_name_wants_a_pin_where_the_hub_is_away(smoke: Study) -> None:
    study = dataclasses.replace(smoke, backbone="google-t5/t5-small")
    assert backbone.fingerprint(study) == ""
    with pytest.raises(InputError, match=r"not on this machine.*--set backbone=FOLDER"):
        of_study(study)
    pinned = dataclasses.replace(study, backbone_fingerprint="f" * 64)
    assert backbone.fingerprint(pinned) == "f" * 64


@pytest.mark.parametrize(
    ("config", "found"),
    [(BertConfig(), "bert"), (T5Config(feed_forward_proj="gated-gelu"), "gated-gelu")],
)
def test_what_is_no_classic_t5_is_refused(config: T5Config, found: str, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=found):
        backbone.load(str(tmp_path))
