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
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertConfig, MT5Config, T5Config, UMT5Config

from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import backbone
from t5peft.methods import counting
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
    assert backbone.described(study)["commit"] == "", "it is no snapshot"
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


def seen(as_another: Callable[[Tensor], Tensor]) -> Callable[[Path], None]:
    """The same bytes as another tensor."""

    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors[NORM] = as_another(tensors[NORM])
        save_file(tensors, folder / "model.safetensors")

    return change


NORM = "encoder.final_layer_norm.weight"
CHANGES: dict[str, Callable[[Path], object]] = {
    "a tensor": lambda folder: backbone.load("random:tiny", 4).save_pretrained(folder),
    "the dropout": set_in("config.json", "dropout_rate", 0.2),
    "the norms": set_in("config.json", "layer_norm_epsilon", 1e-3),
    "a shape": seen(lambda x: x[None]),
    "a type": seen(lambda x: x.view(torch.int32)),
    "added tokens": lambda folder: (folder / "added_tokens.json").write_text('{"film": 8100}'),
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


def test_a_later_size_is_not_trained_even_at_random(smoke: Study) -> None:
    study = dataclasses.replace(smoke, backbone="random:flan-t5-small")
    for refusing in (
        lambda: backbone.load(study.backbone),
        lambda: backbone.load_on_meta(study.backbone),
        lambda: backbone.fingerprint(study),
    ):
        with pytest.raises(InputError, match="found size 'flan-t5-small', expected one of t5-sm"):
            refusing()


# --- what is to be counted -----------------------------------------------------------------------

ODD = {"d_model": 50, "d_kv": 3, "num_heads": 7, "d_ff": 11, "num_layers": 2, "vocab_size": 101}
ODD |= {"num_decoder_layers": 5, "relative_attention_num_buckets": 6}


@pytest.mark.parametrize("name", ["t5-small", "google-t5/t5-small", "org/of/t5-small"])
def test_a_size_may_carry_its_organisation(name: str) -> None:
    assert backbone.sized(name) == "t5-small"


def test_a_folder_goes_before_a_size_with_an_organisation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    T5Config(**ODD).save_pretrained(tmp_path / "google" / "t5-small")
    T5Config(**ODD).save_pretrained(tmp_path / "t5-small")
    assert backbone.sized("google/t5-small").d_model == 50
    assert backbone.sized("./t5-small").d_model == 50
    assert backbone.sized("t5-small") == "t5-small"


@pytest.mark.parametrize("kind", [T5Config, MT5Config])
@pytest.mark.parametrize("inner", ["relu", "silu", "gated-gelu", "gated-silu"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_folder_of_any_form_is_counted(kind: Any, inner: str, tied: bool, tmp_path: Path) -> None:
    saved = kind(**ODD, feed_forward_proj=inner, tie_word_embeddings=tied)
    saved.save_pretrained(tmp_path)
    found = backbone.sized(str(tmp_path))
    assert {key: getattr(found, key) for key in ODD} == ODD
    assert (found.is_gated_act, found.tie_word_embeddings) == (inner.startswith("gated"), tied)
    assert counting.parameters(counting.hollow(found)) == counting.parameters(
        counting.hollow(saved)
    )


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (BertConfig(), "bert"),
        (UMT5Config(), "umt5"),
        (T5Config(d_model="wide"), "d_model 'wide', expected a whole number"),
        (T5Config(d_kv=0), "d_kv 0, expected a whole number from 1"),
        (T5Config(num_heads=True), "num_heads True"),
        (T5Config(vocab_size=10**6), "vocab_size 1000000"),
        (T5Config(relative_attention_num_buckets=None), "relative_attention_num_buckets None"),
    ],
)
def test_what_would_be_counted_wrongly_is_refused(config: Any, found: str, tmp_path: Path) -> None:
    config.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=f"size {tmp_path}: found {found}"):
        backbone.sized(str(tmp_path))


def test_what_names_no_t5_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"found 'google/t6', expected one of t5-small, .*folder"):
        backbone.sized("google/t6")
    with pytest.raises(InputError, match=r"found no config.json, expected a folder whose"):
        backbone.sized(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=f"size {tmp_path}: found .*, expected a folder whose"):
        backbone.sized(str(tmp_path))
