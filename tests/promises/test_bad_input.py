"""Every wrong input ends in one line that names it, exit code 2, and nothing half-written."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from accelerate.state import AcceleratorState, PartialState
from helpers import assert_complete, lacking, refused, tensors_in, trained_once
from transformers import T5EncoderModel

from t5peft.__main__ import main
from t5peft.base import studies
from t5peft.base.studies import Study
from t5peft.inputs import backbone, data, int8, tokenizers
from t5peft.methods.table import runs_of

Make = Callable[[Path], object]
"""Puts something wrong into a folder."""

REVIEWS = {"text": ["a good film", "a bad film"], "label": [1, 0]}


SETTINGS = {
    "runs=lora": "setting runs: found 'lora', expected a list",
    "runs=[{method: bitfit}]": "run 1 of study smoke: found method 'bitfit', expected one of full",
    "runs=[{metod: lora}]": "did you mean 'method'?",
    "lora_rnak=8": "setting lora_rnak: found no such setting, expected one of the settings that",
    "lora_rank": "no '='",
    "lora_rank=eight": "lora_rank: found 'eight', expected a whole number",
    "lora_rank=": "lora_rank: found '', expected a whole number",
    "backbone=a/b/c": "found no folder, and no name that the hub could have, expected a folder "
    "with a T5 in safetensors, or a name on the hub; mend the name",
    "backbone=": "backbone: found '', expected a name or a folder",
    "epochs=true": "epochs: found True, expected a whole number",
    "epochs=0": "epochs: found 0, expected a positive number",
    "epochs=99999999999999999999": "expected less than 10^9",
    "epochs=2020-13-45": "no YAML value",
    "seed=-1": "seed: found -1, expected a whole number from 0",
    "seed=99999999999": "seed: found 99999999999, expected a whole number from 0 to",
    "lora_targets=[]": "lora_targets: found (), expected some of q, k, v, o, wi, wo, each once",
    "lora_targets=q": "lora_targets: found 'q', expected a list",
    "backbone=random:flan-t5-small": "found size 'flan-t5-small', expected one of t5-small",
    "lora_alpha=.nan": "lora_alpha: found nan, expected a finite number",
    "lora_learning_rate=fast": "expected a finite number",
    "precision=fp16": "t5peft: setting precision: found 'fp16', expected one of 'fp32'",
    "train=maybe": "expected one of 'auto', 'yes', 'no'",
    "study=../elsewhere": "study: found '../elsewhere', expected letters",
    "prompt_tokens=31": "expected at most max_length - 2 = 30",
    "train_examples=401": "at most the 400 reviews",
    "tokenizer=": "a random backbone has none",
    "max_length=8": "smoke.yaml with another max_length: prompt_tokens: found 10, expected at most",
    "lora_rank=1": "smoke.yaml with another lora_rank: lora_rank_small: found 1, expected another",
    "epochs=[1": "no YAML value",
    "epochs=!!python/object/apply:os.system [ls]": "no YAML value",
    "data=imbd.csv": "data imbd.csv: found no such folder or file, expected a folder with the rev",
    "data=nobody/nothing": "data nobody/nothing: found not on this machine, and HF_HUB_OFFLINE",
    "data_fingerprint=f00d": "expected f00d, as the study pins them",
    "backbone=random:giant": "backbone random:giant: found size 'giant', expected one of t5-small",
    "backbone=nobody/nothing": "backbone nobody/nothing: found not on this machine",
    "backbone=no/such/folder": "no folder, and no name that the hub could have",
    "backbone=weights/backbone/small": "on the hub; t5peft pretrain backbone-small",
    "data=a/b/small": "the reviews, or a name on the hub; mend the name",
    "backbone_fingerprint=f00d": "expected f00d, as the study pins them",
    "tokenizer=nobody/nothing": "tokenizer nobody/nothing: found not on this machine",
    "lora_learning_rate=1e30": "loss of lora-scratch-r8, epoch 1, step ",
}


@pytest.mark.parametrize("change", SETTINGS)
@pytest.mark.usefixtures("place")
def test_a_wrong_setting(change: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(f"train smoke --only lora-scratch-r8 --set {shlex.quote(change)}", capsys)
    assert SETTINGS[change] in line
    assert_complete(line)


COMMANDS = {
    "trian smoke": "invalid choice: 'trian'",
    "train": "the following arguments are required: study",
    "train smoke --jobs x": "invalid int value: 'x'",
    "train smoke --jobs 0": "--jobs: found 0, expected a number from 1",
    "verify smoke --steps 0": "--steps: found 0, expected a number from 1",
    "verify smoke --reviews 0": "--reviews: found 0, expected a number from 1",
    "retention smoke --reviews 0": "--reviews: found 0, expected 1 to the study's 64",
    "bench smoke --repeats 0": "--repeats: found 0, expected a number from 1",
    "train smoke --only": "argument --only: expected at least one argument",
    "train smoke --only lora-scratch-r9": "run lora-scratch-r9: found no such run, expected one of",
    "verify smoke --only x --set data=nobody/nothing": "run x: found no such run, expected one of",
    "train smoke --rep": "unrecognized arguments: --rep",
    "train smoke --speed 2": "unrecognized arguments: --speed 2",
    "train nowhere": "nowhere.yaml: found no such file, expected a params file; give a path",
    "status nowhere.yaml": "nowhere.yaml: found no such file",
    "status 'a\0b.yaml'": "embedded null byte",
    "count lora --rank 0": "rank: found 0, expected a whole number from 1",
    "count lora --rank -3": "rank: found -3",
    "count lora --rank 99999999999999999999": "expected a whole number from 1, below 10^9",
    "count lora --rank 1.5": "invalid int value: '1.5'",
    "count lora --tokens 3": "setting tokens: found 3, expected settings of lora",
    "count full --rank 3": "setting rank: found 3",
    "count full --implementation library": "implementation: found library, expected scratch",
    "count soft-prompt --tokens 99999999": "expected at most the vocabulary's 32128",
    "count prefix": "invalid choice: 'prefix'",
    "count lora --targets x": "argument --targets: invalid choice: 'x'",
    "count lora --targets q q": "targets: found ['q', 'q'], expected some of q, k, v, o, wi, wo",
    "count ia3 --targets q": "setting targets: found ['q'], expected settings of ia3: none",
    "count lora --size folder": "size folder: found no config.json, expected a folder whose",
    "count lora --size t5-huge": "size: found 't5-huge', expected one of t5-small",
    "check lora.pt --method lora --reviews 5": "unrecognized arguments: --reviews 5",
    "check nowhere.pt --method lora": "file nowhere.pt: found No such file",
    "check nowhere.safetensors --method lora": "file nowhere.safetensors: found No such file",
    "check lora.pt --method lora --set seed=1": "--set without the --study that it is of",
    "pack smoke -o x --set-pretrain seed=1": "--set-pretrain without the --pretrain that it is of",
    "predict smoke/lora-scratch-r8 text": "found no stored run of that name",
    "predict ../../etc text": "run ../../etc: found no stored run of that name",
    "predict smoke/full /no/review": "file /no/review: found none, expected one of reviews",
    "export smoke": "the following arguments are required: -o/--output",
    "export smoke -o x": "found 10 of 10 runs missing (never trained): full, soft-prompt",
    "train smoke --set study=backbone": "study: found 'backbone', expected another name",
    "notebook lora -o report.qmd": "--output: found report.qmd, expected a name that ends",
    "notebook nowhere -o x.ipynb": "chapter: found 'nowhere'",
    "notebook -o folder": "folder, expected a name that ends in .ipynb",
    "notebook": "the following arguments are required: -o/--output",
    "render smoke --chapter nowhere": "chapter: found 'nowhere'",
    "render smoke --to docx": "invalid choice: 'docx'",
    "render nowhere": "nowhere.yaml: found no such file",
    "render smoke --set epochs=many": "setting epochs: found 'many'",
    "pretrain nowhere": "nowhere.yaml: found no such file",
    "pretrain params/smoke.yaml": "found a study, expected a backbone's settings",
    "train backbone-small": "found a backbone, expected a study's settings; give it to t5peft",
    "pretrain params/backbone-small.yaml --set size=giant": "size: found 'giant', expected one of",
    "pretrain backbone-mini-long --set vocabulary=9000": "found 9000, expected at most 8028",
    "pretrain backbone-small --set name=../mini": "name: found '../mini', expected letters",
    "pretrain backbone-small --set name=": "name: found ''",
    "pretrain backbone-small --set steps=0": "steps: found 0, expected a positive number",
    "pretrain backbone-small --set minutes=-1": "minutes: found -1.0",
    "pretrain backbone-small --set dropout=7": "dropout: found 7.0, expected a number from 0",
    "pretrain backbone-small --set input_length=4": "input_length: found 4, expected 10 to 1,809",
    "pretrain backbone-small --set input_length=1810": "input_length: found 1810",
    "pretrain backbone-small --set input_length=99999999": "input_length: found 99999999",
    "pretrain backbone-small --set vocabulary=1": "vocabulary: found 1, expected 50 pieces or more",
    "pretrain backbone-small --set seed=-1": "seed: found -1",
    "pretrain backbone-small --set sst2_weight=-1": "sst2_weight: found -1.0, expected a number",
    "pretrain backbone-small --set name=x --set data=made-up --set sst2=no": "SST-2 no: found",
    "tune smoke --set train_examples=5 --reviews 5": "--reviews: found 5, expected 1 to 4, as 1",
    "tune smoke --only ia3": "--only: found ia3, expected some of full, soft-prompt, adapter, lora",
    "baselines smoke --set train_examples=1": "training reviews: found",
    "handin smoke --name '' --number 1 -o x": "--name: found ''",
    "handin smoke --name A --number=-1 -o x": "--number: found '-1'",
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.usefixtures("place")
def test_a_wrong_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(command, capsys)
    assert COMMANDS[command] in line
    assert_complete(line)


@pytest.mark.parametrize(
    "half",
    [{"LOCAL_RANK": "0"}, {"RANK": "0", "WORLD_SIZE": "2"}, {"RANK": "x", "WORLD_SIZE": "x"}],
    ids=str,
)
@pytest.mark.usefixtures("place")
def test_half_a_launch(
    half: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an environment may have it that some other launcher made."""
    monkeypatch.setattr(os, "environ", os.environ | half)
    for state in (PartialState, AcceleratorState):
        monkeypatch.setattr(state, "_shared_state", {})
    line = refused("train smoke --only lora-scratch-r8", capsys)
    assert "expected RANK, LOCAL_RANK, WORLD_SIZE and MASTER_ADDR" in line
    assert_complete(line)


def bomb(levels: int) -> str:
    """A YAML text of a few lines that stands for 10^levels values."""
    lines = ["a0: &a0 [" + ", ".join("x" * 10) + "]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join([*lines, f"lora_rank: *a{levels - 1}"])


STUDIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "found nothing, expected lines 'setting: value'"),
    "a list": (b"- epochs\n- 2\n", "found ['epochs', 2], expected lines"),
    "a setting twice": (b"epochs: 1\nepochs: 2\n", "given twice"),
    "one setting": (b"epochs: 1\n", "found no study, train, backbone"),
    "not text": (b"\xff\xfe\x00epochs", "expected a readable YAML file"),
    "not closed": (b"epochs: [1\n", "expected a readable YAML file"),
    "a tag": (b"epochs: !!python/name:os.system\n", "expected a readable YAML file"),
    "too deep": (b"epochs: " + 5000 * b"[", "expected a readable YAML file"),
    "an impossible date": (b"epochs: 2020-13-45\n", "expected a readable YAML file"),
    "an odd key": (b"? [epochs]\n: 2\n", "expected a readable YAML file"),
    "a bomb": (bomb(12).encode(), "'a0': found no such setting"),
}


@pytest.mark.parametrize("kind", STUDIES)
def test_a_wrong_study(kind: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, wanted = STUDIES[kind]
    (place / "wrong.yaml").write_bytes(content)
    line = refused("status wrong.yaml", capsys)
    assert wanted in line
    assert len(line) < 1500
    assert_complete(line)


def test_a_bomb_as_a_setting(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = " ".join(bomb(9).replace("lora_rank: ", "value: ").splitlines())
    text = "{" + text.replace("] a", "], a").replace("] value", "], value") + "}"
    line = refused(f"status smoke --set {shlex.quote(f'lora_rank={text}')}", capsys)
    assert ", expected a whole number" in line
    assert len(line) < 1500


def parquet(train: dict[str, Any], test: dict[str, Any] | None = None) -> Make:
    """IMDB in the hub's layout, of these columns."""

    def make(folder: Path) -> None:
        for split, columns in (("train", train), ("test", test)):
            if columns is not None:
                pd.DataFrame(columns).to_parquet(folder / f"{split}-00000-of-00001.parquet")

    return make


def cut(folder: Path) -> None:
    parquet(REVIEWS, REVIEWS)(folder)
    path = next(folder.glob("train-*"))
    path.write_bytes(path.read_bytes()[:-50])


def no_text(folder: Path) -> None:
    """An extracted aclImdb with a file that is no UTF-8."""
    for split in data.SPLITS:
        for kind in ("neg", "pos"):
            (folder / split / kind).mkdir(parents=True)
            (folder / split / kind / "0_1.txt").write_bytes(b"a film \xff")


DATA: dict[str, tuple[Make, str]] = {
    "empty": (lambda folder: None, "nothing of split train, expected a table"),
    "no test split": (
        parquet(REVIEWS),
        "nothing of split test (train-00000-of-00001.parquet), expected a table",
    ),
    "truncated": (cut, "this is not a parquet file, expected a whole .parquet file"),
    "not parquet": (
        lambda f: (f / "train-0.parquet").write_text("text"),
        "smaller than the minimum file footer",
    ),
    "other columns": (parquet({"body": ["a"], "label": [0]}), "columns body, label"),
    "one class": (
        parquet({"text": ["a"], "label": [1]}, REVIEWS),
        "split train: found positive reviews alone, expected both",
    ),
    "no rows": (parquet({"text": [], "label": []}), "no reviews"),
    "no words": (
        parquet({"text": ["", "<br />"], "label": [0, 1]}, REVIEWS),
        "split train: found reviews without a word, expected texts; name one: --set text_column",
    ),
    "other labels": (parquet({"text": ["a"], "label": [7]}), "label 7, expected labels 0 and 1"),
    "labels in words": (parquet({"text": ["a"], "label": ["good"]}), "label 'good'"),
    "labels between": (parquet({"text": ["a"], "label": [0.5]}), "label 0.5, expected labels 0"),
    "a review that is none": (parquet({"text": ["a", None], "label": [0, 1]}), "the review None"),
    "numbers for reviews": (parquet({"text": [3], "label": [0]}), "the review 3, expected texts"),
    "text in no encoding": (no_text, "train/neg/0_1.txt: found 'utf-8' codec"),
}


def configuration(**values: Any) -> Make:
    def make(folder: Path) -> None:
        (folder / "config.json").write_text(json.dumps(values))
        (folder / "model.safetensors").touch()

    return make


def whole(folder: Path) -> None:
    """A sound backbone as the project stores its own."""
    int8.save(backbone.load("random:tiny"), folder)


def damaged_record(folder: Path) -> None:
    whole(folder)
    (folder / "pretraining.json").write_text("{")


def pickled(folder: Path) -> None:
    """Weights that only unpickling would open."""
    model = backbone.load("random:tiny")
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")


def damaged(folder: Path) -> None:
    whole(folder)
    shard = next(folder.glob("int8-*"))
    shard.write_bytes(shard.read_bytes()[:-10])


def other_tensors(folder: Path) -> None:
    whole(folder)
    path = folder / "config.json"
    path.write_text(path.read_text().replace('"num_layers": 2', '"num_layers": 3'))


def encoder_alone(folder: Path) -> None:
    T5EncoderModel(backbone.load("random:tiny").config).save_pretrained(folder)


def cut_off(folder: Path) -> None:
    backbone.load("random:tiny").save_pretrained(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])


def remote_code(folder: Path) -> None:
    """A model that brings its own program."""
    configuration(model_type="mine", auto_map={"AutoConfig": "mine.Config"})(folder)
    (folder / "mine.py").write_text("open('ran', 'w')\nclass Config: pass\n")


BACKBONES: dict[str, tuple[Make, str]] = {
    "empty": (lambda folder: None, "expected a folder with a T5"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "a folder with a T5"),
    "another model": (configuration(model_type="bert"), "found bert, expected a T5"),
    "another T5": (
        configuration(model_type="t5", feed_forward_proj="gated-gelu"),
        "feed_forward_proj gated-gelu (T5 v1.1 or later)",
    ),
    "no shape": (
        configuration(model_type="t5", d_model=-3),
        "found d_model -3, expected a whole number from 1",
    ),
    "no tensors": (
        configuration(model_type="t5", decoder_start_token_id=0),
        "expected safetensors",
    ),
    "pickled weights": (
        pickled,
        "found no *.safetensors, pytorch_model.bin alone, which may run code, expected a folder",
    ),
    "damaged": (damaged, "found a damaged file, expected safetensors"),
    "a damaged record": (damaged_record, "found no JSON, expected what `t5peft pretrain` wrote"),
    "other tensors": (other_tensors, "other tensors, expected those of its config.json"),
    "tensors missing": (lacking, "found no decoder.block.1.layer.0.SelfAttention.k.weight (1"),
    "an encoder alone": (encoder_alone, "found is_encoder_decoder False, expected"),
    "cut off": (cut_off, "expected safetensors"),
    "its own program": (remote_code, "expected a folder with a T5"),
}


def wordless(folder: Path) -> None:
    """A tokenizer whose pieces are too few for the label words."""
    tokenizers.train([text for text, _ in data.read(data.MADE_UP, "train")], 60, folder)


def not_a_model(folder: Path) -> None:
    (folder / tokenizers.MODEL_FILE).write_bytes(b"no model")


TOKENIZERS: dict[str, tuple[Make, str]] = {
    "empty": (lambda folder: None, "expected a folder with spiece.model or tokenizer.json"),
    "no model": (not_a_model, "expected a folder with spiece.model or tokenizer.json"),
    "no label words": (wordless, "expected one piece and </s> each"),
}


FOLDERS = {"data": DATA, "backbone": BACKBONES, "tokenizer": TOKENIZERS}


@pytest.mark.parametrize(
    ("part", "kind"), [(part, kind) for part in FOLDERS for kind in FOLDERS[part]]
)
def test_a_wrong_folder(
    part: str, kind: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, wanted = FOLDERS[part][kind]
    make(place / "folder")
    line = refused(f"train smoke --only lora-scratch-r8 --set {part}=folder", capsys)
    assert line.startswith(f"t5peft: {part}")
    assert wanted in line
    assert_complete(line)
    assert not (place / "ran").exists()


def test_a_tokenizer_with_more_pieces_than_the_backbone(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = backbone.load("random:tiny")
    small.resize_token_embeddings(150)
    small.save_pretrained(place / "folder")
    line = refused("train smoke --only lora-scratch-r8 --set backbone=folder", capsys)
    assert "found 210 pieces, expected at most the backbone's 150" in line
    assert_complete(line)


@pytest.fixture
def stored(place: Path) -> Path:
    """The folder of a stored run, and beside it another's."""
    study = studies.load("smoke", {"epochs": 1})
    for run in runs_of(study):
        if run.name in ("full", "lora-scratch-r8", "adapter-scratch-b8"):
            trained_once(run, study)
    return place / "weights" / "smoke" / "lora-scratch-r8"


def cut_tensors(folder: Path) -> None:
    tensors_in(folder).write_bytes(tensors_in(folder).read_bytes()[:-4])


def another_run(folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("adapter-scratch-b8"), folder)


STORED: dict[str, tuple[Make, str]] = {
    "a record that is none": (lambda f: (f / "record.json").write_text("{}"), "its seal"),
    "tensors cut": (cut_tensors, "other bytes than were stored"),
    "no tensors": (lambda f: tensors_in(f).unlink(), "no plain file of that name"),
    "another run": (another_run, "found the record of adapter-scratch-b8"),
}


@pytest.mark.parametrize("kind", STORED)
def test_a_wrong_stored_run(kind: str, stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change, wanted = STORED[kind]
    change(stored)
    for name in ("smoke/lora-scratch-r8", "weights/smoke/lora-scratch-r8"):
        line = refused(f"predict {name} 'a good film'", capsys)
        assert wanted in line
        assert_complete(line)


@pytest.mark.usefixtures("stored")
def test_a_prediction_without_weights_or_reviews(capsys: pytest.CaptureFixture[str]) -> None:
    line = refused("predict smoke/full text", capsys)
    assert "a record alone (full fine-tuning stores no weights)" in line
    line = refused("predict smoke/lora-scratch-r8", capsys)
    assert "reviews: found none, expected at least one text" in line
    for nothing in (" ", "<br />", "\u200b"):
        line = refused(f"predict smoke/lora-scratch-r8 'a good film' '{nothing}'", capsys)
        assert "review 2: found no word, expected a text" in line
    line = refused("predict smoke/lora-scratch-r9 text", capsys)
    assert "as in smoke/adapter-scratch-b8, smoke/lora-scratch-r8; name" in line
    line = refused("predict smok/lora-scratch-r8 text", capsys)
    assert "as in smoke/lora-scratch-r8; name" in line, "one of each study"


def test_each_line_has_its_label(
    stored: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", ["a good film\n", "  a bad film\n"])
    assert main(["predict", str(stored)]) == 0
    shown = [line.split("\t")[2] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["a good film", "a bad film"]
    monkeypatch.setattr("sys.stdin", ["a good film\n"])
    assert main(["predict", str(stored), "-"]) == 0
    assert capsys.readouterr().out.endswith("\ta good film\n")
    monkeypatch.setattr("sys.stdin", ["a good film\n", "\n", "a bad film\n"])
    assert "review 2: found no word" in refused(f"predict {stored}", capsys)


def test_the_right_command_is_not_refused(stored: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "smoke/lora-scratch-r8", "a good film"]) == 0
    assert capsys.readouterr().out.endswith("\ta good film\n")


def test_the_smoke_study_is_a_right_input(place: Path) -> None:
    assert isinstance(studies.load("smoke"), Study)
    assert main(["status", "smoke"]) == 0
