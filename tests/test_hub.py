"""A backbone of the hub: fetched once; stored runs outlive what the hub or its cache does."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import transformers.utils.hub
from conftest import run_named
from huggingface_hub import constants, file_download, snapshot_download
from huggingface_hub.utils._http import reset_sessions
from loopback import NAME, Hub

from t5peft import about, backbone, cli, export, findings, hub, params, prediction, report, runs
from t5peft.errors import InputError
from t5peft.params import Params

LORA = "lora-scratch-r8"
PEFT = ("soft-prompt", "adapter", "lora")
PARTS = (*hub.WEIGHTS, *hub.PIECES)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, words_folder: Path) -> dict[str, bytes]:
    """The files of a tiny T5, and two that are no part of it."""
    folder = tmp_path_factory.mktemp("tiny")
    backbone.load("random:tiny", seed=3).save_pretrained(folder)
    shutil.copy(words_folder / "spiece.model", folder)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    return files | {"README.md": b"a T5", "pytorch_model.bin": b"the same tensors"}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub's client."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(transformers.utils.hub, "TRANSFORMERS_CACHE", str(folder))
    return folder


@pytest.fixture
def served(tiny: dict[str, bytes], cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub with the tiny T5, and a client that asks it."""
    there = Hub()
    there.commit(tiny)
    with there.serve():
        reachable(there.url, monkeypatch)
        yield there
    reset_sessions()


def reachable(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the client ask this address."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(transformers.utils.hub, "_is_offline_mode", False)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(file_download, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    reset_sessions()  # they know whether the client is offline


@pytest.fixture
def study(smoke: Params) -> Params:
    """The smoke study on the hub's T5, with that one's pieces."""
    least = {"epochs": 1, "train_examples": 16, "test_examples": 16}
    return dataclasses.replace(smoke, backbone=NAME, tokenizer="", **least)


def commit() -> str:
    """Which commit is at hand."""
    folder = hub.at_hand(NAME, *PARTS)
    assert folder
    return folder.name


def lost(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another machine: nothing in its cache, and no network."""
    shutil.rmtree(cache)
    reachable("http://127.0.0.1:9", monkeypatch)  # where nobody answers
    monkeypatch.setattr(transformers.utils.hub, "_is_offline_mode", True)


# --- fetched once --------------------------------------------------------------------------------


def test_what_is_needed_is_fetched_and_then_not_asked_for_again(served: Hub) -> None:
    assert hub.at_hand(NAME, *PARTS) is None
    folder = hub.fetch(NAME, *PARTS)
    assert folder.name == commit() == served.main
    held = {path.name for path in folder.iterdir()}
    assert {"config.json", "model.safetensors", "spiece.model"} <= held
    assert not held & {"README.md", "pytorch_model.bin"}
    served.asked.clear()
    assert hub.fetch(NAME, *PARTS) == hub.at_hand(NAME, *PARTS) == folder
    assert served.asked == []


def test_a_cut_is_told_and_the_next_one_has_the_rest(served: Hub) -> None:
    served.cut = "model.safetensors"
    with pytest.raises(InputError, match=f"backbone {NAME}: found "):
        hub.fetch(NAME, *PARTS)
    assert hub.at_hand(NAME, *PARTS) is None
    assert hub.fetch(NAME, *PARTS).name == served.main


@pytest.mark.parametrize("part", ["config.json", "model.safetensors", "spiece.model"])
def test_a_model_without_a_part_is_none(part: str, served: Hub, tiny: dict[str, bytes]) -> None:
    served.commit({name: held for name, held in tiny.items() if name != part})
    with pytest.raises(InputError, match=f"backbone {NAME}: found no "):
        hub.fetch(NAME, *PARTS)
    needed = hub.WEIGHTS if part == "spiece.model" else hub.PIECES
    if part == "spiece.model":
        assert hub.fetch(NAME, *needed), "a study may have a tokenizer of its own"


def test_of_shards_each_one_must_be_there(served: Hub, tmp_path: Path, study: Params) -> None:
    whole = backbone.contents(hub.fetch(NAME, *hub.WEIGHTS), hub.WEIGHTS)
    backbone.load("random:tiny", seed=3).save_pretrained(tmp_path / "t5", max_shard_size="40KB")
    files = {path.name: path.read_bytes() for path in (tmp_path / "t5").iterdir()}
    shards = sorted(name for name in files if name.endswith(".safetensors"))
    served.commit({name: held for name, held in files.items() if name != shards[-1]})
    (folder,) = [Path(snapshot_download(NAME))]
    assert hub.lacking(folder, hub.WEIGHTS) == shards[-1]
    index = "model.safetensors.index.json"
    for damaged in (b"{", b"[]", b"{}"):
        served.commit(files | {index: damaged})
        assert hub.lacking(Path(snapshot_download(NAME)), hub.WEIGHTS) == index
    served.commit(files)
    assert backbone.contents(Path(snapshot_download(NAME)), hub.WEIGHTS) == whole


def test_a_tokenizer_is_named_as_one(served: Hub, tiny: dict[str, bytes]) -> None:
    served.commit({"config.json": tiny["config.json"]})
    with pytest.raises(InputError, match=f"tokenizer {NAME}: found no .*--set tokenizer=FOLDER"):
        hub.fetch(NAME, *hub.PIECES)


# --- stored runs are kept ------------------------------------------------------------------------


def test_another_commit_of_the_same_contents_is_the_same_backbone(
    served: Hub, study: Params, tiny: dict[str, bytes]
) -> None:
    hub.fetch(NAME, *PARTS)
    first, before = backbone.fingerprint(study), commit()
    served.commit(tiny | {"README.md": b"another text", "flax_model.msgpack": b"a new format"})
    snapshot_download(NAME)
    assert commit() == served.main != before
    assert backbone.fingerprint(study) == first
    other = dict(tiny, **{"spiece.model": b"other pieces"})
    served.commit(other)
    snapshot_download(NAME)
    assert backbone.fingerprint(study) != first


def test_a_flipped_bit_in_the_cache_is_refused(served: Hub, study: Params) -> None:
    weights = (hub.fetch(NAME, *PARTS) / "model.safetensors").resolve()
    backbone.fingerprint(study)
    held = bytearray(weights.read_bytes())
    held[-1] ^= 1
    weights.write_bytes(held)
    with pytest.raises(InputError, match=r"model\.safetensors in the hub's cache: found SHA-256"):
        backbone.fingerprint(study)
    weights.unlink()
    hub.fetch(NAME, *PARTS)
    assert backbone.fingerprint(study)


def test_stored_runs_outlive_what_the_hub_and_its_cache_do(
    served: Hub,
    study: Params,
    tiny: dict[str, bytes],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    kept = report.results(study, *PEFT)
    assert {record["backbone"]["commit"] for record in kept} == {served.main}
    assert served.main[:12] in about.backbone_section(study, kept[0]["backbone"])
    run, own = run_named(study, LORA), served.main

    served.commit(tiny | {"README.md": b"another text", "config.json": tiny["config.json"] + b" "})
    huggingface_hub.hf_hub_download(NAME, "config.json")  # what another program may ask for
    assert hub.at_hand(NAME, *PARTS) is None, "half a snapshot"
    assert runs.status(run, study).state == "fresh"
    assert report.results(dataclasses.replace(study, train="yes"), *PEFT) == kept

    lost(cache, monkeypatch)
    assert runs.status(run, study).state == "fresh"
    assert report.results(study, *PEFT) == kept
    assert len(export.export(study, tmp_path / "out")) == 3
    record, start, end = report.prompt_rms(study)
    assert "not on this machine" in findings.prompt_sentence(record, start, end)
    with pytest.raises(InputError, match=f"backbone {NAME}: found "):
        prediction.predict(f"smoke/{LORA}", ["A film."])

    reachable(served.url, monkeypatch)
    assert len(prediction.predict(f"smoke/{LORA}", ["A film."])) == 1
    assert hub.at_hand(NAME, *PARTS) is None, "not the latest,"
    assert hub.at_hand(NAME, *PARTS, revision=own), "but that of the run"


def test_of_a_backbone_that_is_away_the_stored_runs_must_say_one_thing(
    served: Hub, study: Params, cache: Path, monkeypatch: pytest.MonkeyPatch, tiny: dict[str, bytes]
) -> None:
    report.results(study, "lora")
    served.commit(tiny | {"spiece.model": tiny["spiece.model"] + b"\0"})
    snapshot_download(NAME)
    assert runs.status(run_named(study, LORA), study).state == "missing", "another backbone"
    changes = params.arguments(study).split()[1:]
    assert cli.main(["train", "smoke", "--only", LORA, *changes]) == cli.WRONG_INPUT
    where = runs.folder(run_named(study, LORA), study)
    record = runs.read(where)
    record["identity"]["backbone"] = "f" * 64
    runs.records.write(where / runs.RECORD, record)
    lost(cache, monkeypatch)
    with pytest.raises(InputError, match="not on this machine, and 2 named by the stored runs"):
        runs.status(run_named(study, LORA), study)
