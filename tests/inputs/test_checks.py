"""A backbone is whole, or refused before hours are spent."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from helpers import lacking, refused
from transformers import T5ForConditionalGeneration, T5Model

from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import backbone, checks, int8


@pytest.mark.parametrize("command", ["tune smoke --reviews 8", "baselines smoke", "bench smoke"])
def test_no_command_takes_a_backbone_that_lacks_tensors(
    command: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking(place / "folder")
    line = refused(f"{command} --set backbone=folder", capsys)
    assert "found no decoder.block.1.layer.0.SelfAttention.k.weight (1" in line


def check_backbone(study: Study, folder: Path | str) -> None:
    """`checks.check_backbone` of a folder whose tokenizer is the study's."""
    checks.check_backbone(dataclasses.replace(study, backbone=str(folder)))


def test_a_backbone_of_the_hub_that_is_not_here_is_not_asked_for(smoke: Study) -> None:
    check_backbone(smoke, "google-t5/t5-small")  # a report of stored runs needs none


def test_a_bottleneck_wider_than_the_model_is_allowed_but_warned(smoke: Study) -> None:
    wide = dataclasses.replace(smoke, bottleneck=33)
    with pytest.warns(UserWarning, match="bottleneck = 33 is wider than .* d_model = 32: no bott"):
        checks.check(wide)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checks.check(dataclasses.replace(smoke, bottleneck=32))


def test_a_head_of_its_own_must_be_there(smoke: Study, tmp_path: Path) -> None:
    """Where the output projection shares the embedding's weights, no file has it."""
    model = backbone.load("random:tiny")
    model.config.tie_word_embeddings = False
    kept = {name: x.clone() for name, x in model.state_dict().items() if "lm_head" not in name}
    model.save_pretrained(tmp_path, state_dict=kept)
    with pytest.raises(InputError, match=r"found no lm_head\.weight"):
        check_backbone(smoke, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("feed_forward_proj", "gelu", "dense_act_fn gelu, expected dense_act_fn relu"),
        ("decoder_start_token_id", None, "decoder_start_token_id None, expected decoder_start_to"),
        ("decoder_start_token_id", 5, "decoder_start_token_id 5, expected decoder_start_token_id"),
        ("pad_token_id", 3, "pad_token_id 3, expected pad_token_id 0"),
        ("eos_token_id", 2, "eos_token_id 2, expected eos_token_id 1"),
        ("return_dict", False, "use_return_dict False"),
        ("output_attentions", True, "output_attentions True"),
        ("is_encoder_decoder", False, "is_encoder_decoder False, expected is_encoder_decoder True"),
    ],
)
@pytest.mark.parametrize("ours", [False, True])
def test_what_a_configuration_wants_and_we_do_otherwise_is_refused(
    key: str, value: Any, found: str, ours: bool, smoke: Study, tmp_path: Path
) -> None:
    """Before anything is trained; in our own int8 folders too."""
    (int8.save if ours else save)(backbone.load("random:tiny"), tmp_path)
    path = tmp_path / "config.json"
    said = {**json.loads(path.read_text()), key: value}
    del said["dense_act_fn"]  # it would go before `feed_forward_proj`
    path.write_text(json.dumps({x: y for x, y in said.items() if y is not None}))
    with pytest.raises(InputError, match=f"found {found}.*mend config.json"):
        check_backbone(smoke, tmp_path)


@pytest.mark.parametrize("wrapper", ["module", "_orig_mod"])
def test_a_backbone_that_was_saved_wrapped_is_told_so(
    wrapper: str, smoke: Study, tmp_path: Path
) -> None:
    model = backbone.load("random:tiny")
    state = {f"{wrapper}.{name}": x for name, x in model.state_dict().items()}
    model.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(
        InputError, match=rf"found tensors named {wrapper}\.\.\., as of a model that"
    ):
        check_backbone(smoke, tmp_path)


def save(model: T5ForConditionalGeneration, folder: Path) -> None:
    """As transformers writes it."""
    model.save_pretrained(folder)


def test_a_whole_backbone_is_taken_however_it_was_saved(smoke: Study, tmp_path: Path) -> None:
    model = backbone.load("random:tiny")
    for name, kind in (("whole", model), ("base", T5Model(model.config))):
        kind.save_pretrained(tmp_path / name)
        check_backbone(smoke, tmp_path / name)
    model.save_pretrained(tmp_path / "shards", max_shard_size="40KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    check_backbone(smoke, tmp_path / "shards")
    int8.save(model, tmp_path / "whole")  # as the project stores its own, beside the other
    check_backbone(smoke, tmp_path / "whole")
