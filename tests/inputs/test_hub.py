"""A backbone of the hub: fetched once; stored runs outlive what the hub or its cache does."""

from __future__ import annotations

import dataclasses
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pandas as pd
import pytest
import transformers.utils.hub
from helpers import NAME as LORA
from helpers import run_of
from huggingface_hub import constants, file_download, snapshot_download
from huggingface_hub.utils._http import reset_sessions
from loopback import DATA, NAME, Hub

from t5peft.__main__ import WRONG_INPUT, main
from t5peft.base import paths, progress, studies
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import backbone, checks, data, hub, tokenizers
from t5peft.measure import predict
from t5peft.report import about, learned
from t5peft.report.evidence import Evidence
from t5peft.runs import export, make, pack, records, store

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


@pytest.fixture(scope="session")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The made-up reviews in the hub's files."""
    folder = tmp_path_factory.mktemp("reviews")
    for split in data.SPLITS:
        table = pd.DataFrame(data.read(data.MADE_UP, split), columns=["text", "label"])
        table.to_parquet(folder / f"{split}.parquet")
    return {
        f"plain_text/{split}-00000-of-00001.parquet": (folder / f"{split}.parquet").read_bytes()
        for split in data.SPLITS
    }


@pytest.fixture
def study(smoke: Study) -> Study:
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


def test_of_shards_each_one_must_be_there(served: Hub, tmp_path: Path) -> None:
    whole = backbone.contents(hub.fetch(NAME, *hub.WEIGHTS), hub.WEIGHTS)
    backbone.load("random:tiny", seed=3).save_pretrained(tmp_path / "t5", max_shard_size="40KB")
    files = {path.name: path.read_bytes() for path in (tmp_path / "t5").iterdir()}
    shards = sorted(name for name in files if name.endswith(".safetensors"))
    served.commit({name: held for name, held in files.items() if name != shards[-1]})
    assert hub.lacking(Path(snapshot_download(NAME)), hub.WEIGHTS) == shards[-1]
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


@pytest.mark.slow
def test_of_a_whole_snapshot_everything_is_loaded_without_a_question(
    served: Hub, study: Study, reviews: dict[str, bytes]
) -> None:
    served.give_data(reviews)
    study = dataclasses.replace(study, data=DATA)
    checks.check(study)
    served.asked.clear()
    checks.check(study)
    assert backbone.load(NAME).num_parameters() == backbone.load_on_meta(NAME).num_parameters()
    assert tokenizers.load(NAME)("a film")["input_ids"]
    assert len(data.read(DATA, "test")) == 400
    assert make.train_alone(run_of(study), study)["backbone"]["commit"] == served.main
    Evidence(study).records("lora")
    predict.predict(f"smoke/{LORA}", ["A film."])
    assert served.asked == []


def test_a_configuration_alone_does_not_fetch_the_weights(served: Hub) -> None:
    assert backbone.read_config(NAME).model_type == "t5"
    assert not [each for each in served.asked if "safetensors" in each]


# --- the cause is told ---------------------------------------------------------------------------

CAUSES = {
    401: "found no such folder or file, and of the hub 401 Unauthorized, .* is it misspelt",
    403: "found 403 Forbidden, .* ask for access",
    404: "found no such folder or file, and of the hub 404 Not Found, .* is it misspelt",
    429: "found 429 Too Many Requests, .* wait some minutes; the same command goes on",
    500: "found 500 Internal Server Error, .* the same command goes on",
}


@pytest.mark.parametrize("status", CAUSES)
def test_what_the_hub_answers_is_told(status: int, served: Hub) -> None:
    served.fails = {"/api/": status}
    for fetch in (
        lambda: hub.fetch(NAME, *PARTS),
        lambda: hub.fetch(DATA, *hub.REVIEWS),
        lambda: backbone.load(NAME),
    ):
        with pytest.raises(InputError, match=CAUSES[status]) as refused:
            fetch()
        assert "Error:" not in str(refused.value), "no name of a class"


def test_a_gated_file_is_told_too(served: Hub) -> None:
    served.fails = {"/resolve/": 403}
    with pytest.raises(InputError, match=CAUSES[403]):
        hub.fetch(NAME, *PARTS)


def test_another_name_is_none_of_the_hubs(served: Hub, home: Path) -> None:
    with pytest.raises(InputError, match=r"someone/tiny-t6: found no such .* 401 Unauthorized"):
        hub.fetch("someone/tiny-t6", *PARTS)
    (home / "weights" / "backbone" / "tiny-t7").mkdir(parents=True)
    with pytest.raises(InputError, match=r"tiny-t7: found no such .*; give weights/backbone/tiny"):
        hub.fetch("tiny-t7", *PARTS)
    with pytest.raises(InputError, match=r"data imbd.csv: found no such folder or file, .*mend it"):
        hub.fetch("imbd.csv", *hub.REVIEWS)
    for name in ("no/such/folder", "a b", "../no-t5"):
        with pytest.raises(InputError, match="no folder, and no name that the hub could have"):
            hub.fetch(name, *PARTS)
    assert all("tiny-t6" in each for each in served.asked)


def test_a_full_disk_is_told(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: object, **named: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(file_download, "http_get", full)
    with pytest.raises(InputError, match=r"No space left on device, .* free space, or set HF_HOME"):
        hub.fetch(NAME, *PARTS)


def test_a_hub_that_does_not_answer_is_not_waited_for(
    served: Hub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hub, "PATIENCE", 1.0)
    monkeypatch.setattr(progress, "SECONDS", 0.2)
    served.waits = 3
    with pytest.raises(InputError, match="timed out"):
        hub.fetch(NAME, *PARTS)
    assert f"{NAME} from the hub: 0.0 MB, " in capsys.readouterr().err, "while it waits"
    reachable("http://127.0.0.1:9", monkeypatch)
    with pytest.raises(InputError, match=r"no such .* no answer .*refused.* same command goes on"):
        hub.fetch(NAME, *PARTS)

    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    reachable("http://huggingface.invalid", monkeypatch)
    with pytest.raises(InputError, match=r"no such .* no answer .*not known.*; is it misspelt\? E"):
        hub.fetch(NAME, *PARTS)


# --- the hub's reviews ---------------------------------------------------------------------------


def test_the_hubs_reviews_are_the_same(
    served: Hub, smoke: Study, reviews: dict[str, bytes]
) -> None:
    served.give_data(reviews)
    study = dataclasses.replace(smoke, data=DATA)
    assert data.fingerprint(study) == "", "not at hand, and the hub is not asked"
    checks.fetch(study)
    assert data.fingerprint(study) == data.fingerprint(smoke)
    assert np.array_equal(data.tokens(study, "test").ids, data.tokens(smoke, "test").ids)


def test_of_the_files_of_a_split_each_one_must_be_there(
    served: Hub, reviews: dict[str, bytes]
) -> None:
    train, test = reviews
    two = {train.replace("of-00001", "of-00002"): reviews[train]}
    for lacking, files in ((f"no {hub.REVIEWS[1]}", [train]), (f"no {hub.REVIEWS[0]}", [test])):
        served.give_data({name: reviews[name] for name in files})
        with pytest.raises(InputError, match=re.escape(f"data {DATA}: found {lacking}")):
            hub.fetch(DATA, *hub.REVIEWS)
    served.give_data(two | {test: reviews[test]})
    with pytest.raises(InputError, match=re.escape(f"found no {hub.REVIEWS[0]}")):
        hub.fetch(DATA, *hub.REVIEWS)


def test_training_refuses_other_reviews_than_the_study_pins(
    served: Hub, smoke: Study, reviews: dict[str, bytes]
) -> None:
    served.give_data(reviews)
    pins = dataclasses.replace(smoke, data=DATA, data_fingerprint=data.fingerprint(smoke))
    checks.check(pins)
    other = dataclasses.replace(pins, data_fingerprint="f" * 64)
    told = ("tokenizer", "data", "data_fingerprint")
    changes = [f"--set={name}={getattr(other, name)}" for name in told]
    assert main(["train", "smoke", "--only", LORA, *changes]) == WRONG_INPUT
    assert store.status(run_of(other), other).state == "missing"
    with pytest.raises(InputError, match="expected ffffffffffff, as the study pins them"):
        Evidence(dataclasses.replace(other, train="yes")).records("lora")


@pytest.mark.slow
@pytest.mark.parametrize("pinned", [True, False])
def test_a_report_of_stored_runs_needs_no_reviews(
    pinned: bool,
    served: Hub,
    smoke: Study,
    reviews: dict[str, bytes],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    served.give_data(reviews)
    own = data.fingerprint(smoke) if pinned else ""
    study = dataclasses.replace(smoke, data=DATA, data_fingerprint=own, train="yes")
    made = Evidence(study).records("lora")
    shutil.rmtree(paths.cache())
    lost(cache, monkeypatch)
    assert Evidence(study).records("lora") == made


# --- stored runs are kept ------------------------------------------------------------------------


def test_a_packed_snapshot_keeps_its_commit(
    served: Hub,
    study: Study,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reviews: dict[str, bytes],
) -> None:
    """And its fingerprint; the hub is not asked where it lies."""
    served.give_data(reviews)
    study = dataclasses.replace(study, data=DATA)
    folder = pack.pack(study, None, tmp_path / "packed")
    before = backbone.fingerprint(study), data.fingerprint(study)
    lost(cache, monkeypatch)
    monkeypatch.setenv("T5PEFT_HOME", str(folder))
    packed = studies.load("smoke")
    assert (backbone.fingerprint(packed), data.check(packed)) == before
    assert backbone.described(packed)["commit"] == served.main
    assert backbone.described(packed)["name"] == NAME
    checks.check(packed)


def test_another_commit_of_the_same_contents_is_the_same_backbone(
    served: Hub, study: Study, tiny: dict[str, bytes]
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


def test_a_flipped_bit_in_the_cache_is_refused(served: Hub, study: Study) -> None:
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


@pytest.mark.slow
def test_stored_runs_outlive_what_the_hub_and_its_cache_do(
    served: Hub,
    study: Study,
    tiny: dict[str, bytes],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    kept = Evidence(study).records(*PEFT)
    assert {record["backbone"]["commit"] for record in kept} == {served.main}
    assert served.main[:12] in about.backbone(study, kept[0])
    run, own = run_of(study), served.main

    served.commit(tiny | {"README.md": b"another text", "config.json": tiny["config.json"] + b" "})
    huggingface_hub.hf_hub_download(NAME, "config.json")  # what another program may ask for
    assert hub.at_hand(NAME, *PARTS) is None, "half a snapshot"
    assert store.status(run, study).state == "fresh"
    assert Evidence(dataclasses.replace(study, train="yes")).records(*PEFT) == kept

    lost(cache, monkeypatch)
    assert store.status(run, study).state == "fresh"
    assert Evidence(study).records(*PEFT) == kept
    assert len(export.export(study, tmp_path / "out")) == 3
    assert learned.Learned(Evidence(study)).prompt_rms()[0] is None
    with pytest.raises(InputError, match=f"backbone {NAME}: found "):
        predict.predict(f"smoke/{LORA}", ["A film."])

    reachable(served.url, monkeypatch)
    assert len(predict.predict(f"smoke/{LORA}", ["A film."])) == 1
    assert hub.at_hand(NAME, *PARTS) is None, "not the latest,"
    assert hub.at_hand(NAME, *PARTS, revision=own), "but that of the run"


@pytest.mark.slow
def test_of_a_backbone_that_is_away_the_stored_runs_must_say_one_thing(
    served: Hub, study: Study, cache: Path, monkeypatch: pytest.MonkeyPatch, tiny: dict[str, bytes]
) -> None:
    Evidence(study).records("lora")
    served.commit(tiny | {"spiece.model": tiny["spiece.model"] + b"\0"})
    snapshot_download(NAME)
    assert store.status(run_of(study), study).state == "missing", "another backbone"
    changes = studies.arguments(study).split()[1:]
    assert main(["train", "smoke", "--only", LORA, *changes]) == WRONG_INPUT
    where = store.folder(run_of(study), study)
    record = records.read_run(where)
    record["identity"]["backbone"] = "f" * 64
    store.records.write(where / records.RECORD, record)
    lost(cache, monkeypatch)
    with pytest.raises(InputError, match="not on this machine, and 2 named by the stored runs"):
        store.status(run_of(study), study)
