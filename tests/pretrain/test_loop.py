"""Pre-training: span corruption is T5's, no test review is seen, a stopped training goes on."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from t5peft.__main__ import CHANGES, main
from t5peft.base import files, paths, studies
from t5peft.base.errors import InputError
from t5peft.base.settings import build, read_yaml
from t5peft.inputs import backbone, data, tokenizers
from t5peft.pretrain import loop, mixture, spans
from t5peft.pretrain.settings import BackboneParams
from t5peft.runs import pack
from t5peft.training import fast

SPAN = torch.randint(3, 100, (4, 20)), torch.randint(3, 100, (4, 8))
SENTENCES = torch.full((2, 5), 3), torch.tensor([[3, 1], [3, 1]])


def test_one_pretraining_of_a_name_at_a_time(small: BackboneParams) -> None:
    with (
        files.lock(paths.cache() / "pretrain" / small.name / "lock"),
        pytest.raises(InputError, match="a pre-training of it that runs now"),
    ):
        loop.pretrain(small)


def test_a_loss_that_is_not_finite_ends_the_training_and_leaves_the_checkpoint(
    small: BackboneParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.pretrain(small)
    (checkpoint,) = (paths.cache() / "pretrain" / small.name).glob("checkpoint.pt")
    before = checkpoint.read_bytes()
    monkeypatch.setattr(loop, "update", lambda *_: {"span": torch.tensor(math.nan)})
    with pytest.raises(InputError, match=r"losses before step 14: found .*nan"):
        loop.pretrain(dataclasses.replace(small, steps=14))
    assert checkpoint.read_bytes() == before


def test_pieces_without_label_words_name_the_setting_that_mends_it(
    small: BackboneParams, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("T5PEFT_HOME", str(tmp_path))
    with pytest.raises(InputError, match=r"pieces: found the label words .* raise vocabulary"):
        loop.pretrain(dataclasses.replace(small, vocabulary=60))


def test_the_stored_backbone_is_what_a_study_loads(small: BackboneParams) -> None:
    folder = loop.pretrain(small)
    model = backbone.load(str(folder))
    rows = model.shared.weight
    scale = rows.abs().amax(dim=1, keepdim=True) / 127
    torch.testing.assert_close(rows / scale, (rows / scale).round(), atol=1e-3, rtol=0)
    assert model.config.dropout_rate == 0.1
    assert tokenizers.load(str(folder))("positive")["input_ids"][1] == data.EOS
    record = json.loads((folder / "pretraining.json").read_text())
    assert record["steps"] == 12
    stretch = spans.lengths(small.input_length).text
    assert record["seen_tokens"] == 12 * small.batch_size * stretch
    assert record["parameters"] == model.num_parameters()
    assert backbone.card(str(folder)) == record
    assert record["losses"].keys() == {"span", "sst2"}
    for name in ("zero_shot_sst2", "zero_shot_imdb_train"):
        assert 0 <= record[name] <= 1
    assert f"{record['zero_shot_sst2']:.1%}" in (folder / "README.md").read_text()
    assert 0 < record["span_loss"] < 20
    assert record["span_loss_other_input"] > 0
    assert json.loads((folder / "history.json").read_text())[-1]["step"] == 12


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 3])
def test_a_stopped_training_goes_on_and_ends_the_same(
    every: int, small: BackboneParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = dataclasses.replace(small, sst2_every=every)
    whole = loop.pretrain(dataclasses.replace(small, name="whole"))
    monkeypatch.setattr(loop, "LOG_SECONDS", 0)
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0)
    stopped, update = dataclasses.replace(small, name="stopped"), loop.update

    def stops_at_five(state: loop.State, *rest: Any) -> dict[str, torch.Tensor]:
        if state.step == 5:
            raise KeyboardInterrupt
        return update(state, *rest)

    monkeypatch.setattr(loop, "update", stops_at_five)
    with pytest.raises(KeyboardInterrupt):
        loop.pretrain(stopped)
    monkeypatch.setattr(loop, "update", update)
    assert _weights(loop.pretrain(stopped)) == _weights(whole)


def _weights(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("int8-*"))]


def test_a_training_ends_after_its_minutes_also_where_it_was_stopped_before(
    small: BackboneParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(step=10)
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    for minutes in (1.0, 2.0):
        folder = loop.pretrain(dataclasses.replace(small, steps=1000, minutes=minutes))
        record = json.loads((folder / "pretraining.json").read_text())
        assert (record["steps"], record["seconds"]) == (6 * minutes, 60 * minutes)


def test_a_backbone_is_not_asked_for_spans_that_it_was_trained_to_fill(
    small: BackboneParams, words: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[int]] = []
    monkeypatch.setattr(loop, "reading", lambda *found: asked.extend(found[2].tolist()) or {})
    monkeypatch.setattr(loop, "zero_shot", lambda *_: {})
    stream, state = np.arange(3, 2_000), loop.start(small, Path("none"), torch.device("cpu"))
    loop.measure(state, small, stream, words)
    trained, _ = next(iter(mixture.Spans(stream, small, words)))
    assert len(asked) > len(trained)
    assert not [text for text in trained.tolist() if text in asked]


def test_a_checkpoint_of_other_settings_is_refused_by_name(small: BackboneParams) -> None:
    loop.pretrain(small)
    for key, own, other in (("batch_size", 4, 8), ("seed", 0, 1)):
        with pytest.raises(InputError, match=f"{key} {own}, expected {key} {other}"):
            loop.pretrain(dataclasses.replace(small, **{key: other}))
    longer = dataclasses.replace(small, steps=14)
    record = json.loads((loop.pretrain(longer) / "pretraining.json").read_text())
    assert record["steps"] == 14, "a later end is the same training"


def test_a_damaged_checkpoint_is_named_and_left(small: BackboneParams) -> None:
    loop.pretrain(small)
    (checkpoint,) = (paths.cache() / "pretrain" / small.name).glob("checkpoint.pt")
    whole = checkpoint.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for damaged in (whole[:-100], flipped):
        checkpoint.write_bytes(damaged)
        with pytest.raises(InputError, match=r"found a damaged file .*; remove it to begin anew"):
            loop.pretrain(small)
        assert checkpoint.read_bytes() == damaged


def test_a_model_that_does_not_read_shows(small: BackboneParams) -> None:
    """Without cross-attention, another text's input changes nothing."""
    state = loop.start(small, Path("none"), torch.device("cpu"))
    sources, targets = (torch.randint(3, 100, shape) for shape in ((6, 20), (6, 8)))
    reads = loop.reading(state.model, small, sources, targets)
    assert reads["span_loss"] != reads["span_loss_other_input"]
    blocks: Any = state.model.decoder.block
    for block in blocks:
        torch.nn.init.zeros_(block.layer[1].EncDecAttention.o.weight)
    idle = loop.reading(state.model, small, sources, targets)
    assert idle["span_loss"] == idle["span_loss_other_input"]


def test_the_sentences_loss_is_weighed(small: BackboneParams) -> None:
    after = []
    for last in (3, 4):
        state = loop.start(small, Path("none"), torch.device("cpu"))
        sentences = torch.full((2, 5), last), torch.tensor([[last, 1], [last, 1]])
        loop.update(state, SPAN, sentences, 0.02, dataclasses.replace(small, sst2_weight=0.0))
        after.append(state.model.encoder.final_layer_norm.weight.detach().clone())
    assert torch.equal(*after)


def test_a_gradient_is_cut_to_length_one(
    small: BackboneParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = loop.start(small, Path("none"), torch.device("cpu"))
    lengths = []

    def step(rate: float) -> None:
        grads = [p.grad.norm() for p in state.model.parameters() if p.grad is not None]
        lengths.append(float(torch.stack(grads).norm()))

    monkeypatch.setattr(state.optimizer, "step", step)
    heavy = dataclasses.replace(small, sst2_weight=1000.0)
    loop.update(state, SPAN, SENTENCES, 0.02, heavy)
    assert lengths == [pytest.approx(1.0, abs=1e-3)]


def test_sentences_come_every_so_many_steps_and_weigh_so_much_more(
    small: BackboneParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    update = loop.update

    def noted(*arguments: Any) -> dict[str, torch.Tensor]:
        losses = update(*arguments)
        seen.append(list(losses))
        return losses

    monkeypatch.setattr(loop, "update", noted)
    folder = loop.pretrain(dataclasses.replace(small, sst2_every=5))
    assert [len(kinds) for kinds in seen] == [2, 1, 1, 1, 1, 2, 1, 1, 1, 1, 2, 1]
    record = json.loads((folder / "pretraining.json").read_text())
    assert record["sst2_sentences"] == 3 * small.sst2_batch_size
    weights = []
    for often, weight in ((1, 1.0), (4, 0.25)):
        state = loop.start(small, Path("none"), torch.device("cpu"))
        settings = dataclasses.replace(small, sst2_every=often, sst2_weight=weight)
        update(state, SPAN, SENTENCES, 0.02, settings)
        weights.append(state.model.shared.weight.detach().clone())
    assert torch.equal(*weights)


def test_the_loss_is_one_graph_and_the_same_once_compiled(
    small: BackboneParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU, whose own code is made of this graph."""
    monkeypatch.setattr(fast, "FUSED", {"cpu", "cuda"})
    source, target = torch.randint(3, 100, (4, 20)), torch.randint(3, 100, (4, 8))
    source[1, 12:] = data.PAD
    found = []
    for compiled in (False, True):
        state = loop.start(small, Path("none"), torch.device("cpu"))
        loss = state.loss
        if compiled:
            loss = torch.compile(loss, dynamic=False, fullgraph=True, backend="aot_eager")
        value = loss(source, target)
        value.backward()
        gradients = [p.grad.clone() for p in state.model.parameters() if p.grad is not None]
        found.append([value.detach(), *gradients])
    for mine, other in zip(*found, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("wrong", [2.0, math.nan, "no Triton"])
def test_a_compiled_gradient_that_is_another_is_not_taken(
    wrong: float | str, small: BackboneParams, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor one that fails to compile."""
    state = loop.start(small, Path("none"), torch.device("cpu"))
    loss = state.loss
    loop.warm(state, small)
    assert state.loss is loss

    def other(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if isinstance(wrong, str):
            raise RuntimeError(wrong)
        return wrong * loss(source, target)

    state.loss = other
    loop.warm(state, small)
    why = wrong if isinstance(wrong, str) else "its gradient is"
    assert f"not compiled, which is slower: {why}" in capsys.readouterr().out
    assert all(p.grad is None for p in state.model.parameters())
    assert torch.equal(state.loss(*SPAN), loss(*SPAN))


def test_to_warm_up_changes_nothing(small: BackboneParams) -> None:
    state = loop.start(small, Path("none"), torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    shapes: list[tuple[int, ...]] = []
    loss = state.loss

    def noted(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        shapes.extend([tuple(source.shape), tuple(target.shape)])
        return loss(source, target)

    state.loss = noted
    loop.warm(state, small)
    size = spans.lengths(small.input_length)
    sentences = small.sst2_batch_size
    assert shapes == [
        *((small.batch_size, size.input), (small.batch_size, size.target)),
        *((sentences, small.sst2_length), (sentences, 2)),
    ]
    assert all(p.grad is None for p in state.model.parameters())
    assert all(torch.equal(before[name], x) for name, x in state.model.state_dict().items())


def test_padding_changes_no_loss(small: BackboneParams) -> None:
    ids, word = torch.randint(3, 100, (2, 5)), torch.tensor([[40, 1], [50, 1]])
    losses = []
    for wide in (ids, torch.nn.functional.pad(ids, (0, 7))):
        state = loop.start(small, Path("none"), torch.device("cpu"))
        losses.append(loop.update(state, SPAN, (wide, word), 0.02, small))
    torch.testing.assert_close(*losses)


def test_a_stored_backbone_is_not_written_over(small: BackboneParams) -> None:
    folder = loop.pretrain(small)
    before = _weights(folder)
    shutil.rmtree(paths.cache() / "pretrain")  # as in a clone
    with pytest.raises(InputError, match="expected a name that is free; give --set name=NAME"):
        loop.pretrain(small)
    assert _weights(folder) == before


def test_sentences_that_are_asked_for_at_the_end_are_asked_about_at_once(
    small: BackboneParams, sst2: Path
) -> None:
    (sst2 / "validation-00000-of-00001.parquet").unlink()
    with pytest.raises(InputError, match=r"found Unknown split .validation"):
        loop.pretrain(small)
    assert not loop.work(small).joinpath("checkpoint.pt").exists()


def test_a_backbone_made_in_a_packed_folder_comes_back(
    small: BackboneParams, sst2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its texts and its tokenizer go along; the study that waits for it is not refused."""
    own = studies.load("smoke", {"backbone": f"weights/backbone/{small.name}", "tokenizer": ""})
    folder = pack.pack(own, small, tmp_path / "first")
    (pieces,) = (paths.cache() / "pretrain" / small.name).glob("*/")
    (pieces / "stream.npy").touch()  # as a training here leaves it
    folder = pack.pack(own, small, tmp_path / "packed")
    assert not [*folder.rglob("stream.npy")]
    shutil.rmtree(sst2)
    with monkeypatch.context() as there:
        there.setenv("T5PEFT_HOME", str(folder))
        there.setattr(tokenizers, "train", None)  # it is there
        values = read_yaml(folder / "params" / f"backbone-{small.name}.yaml")
        made = loop.pretrain(build(BackboneParams, values, "packed"))
        assert made.is_relative_to(folder)
        there_is = backbone.fingerprint(studies.load("smoke"))
    shard = next(made.glob("int8-*"))
    held = shard.read_bytes()
    shard.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    with pytest.raises(InputError, match=r"small-test: found fingerprint .*, as pretraining.json"):
        list(pack.unpack(folder))
    assert not loop.folder(small).exists()
    shard.write_bytes(held)
    settings, line = pack.unpack(folder)
    assert settings == f"stored params/backbone-{small.name}.yaml"
    assert line.split()[:3] == ["stored", "backbone", small.name]
    assert backbone.fingerprint(own) == there_is
    assert {path.name for path in loop.folder(small).iterdir()} == {x.name for x in made.iterdir()}


@pytest.mark.slow
def test_a_backbone_is_replaced_whole_or_not_at_all(
    small: BackboneParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = loop.pretrain(small)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    longer, card = dataclasses.replace(small, steps=14), loop.model_card
    monkeypatch.setattr(loop, "model_card", None)  # the last of its files cannot be written
    with pytest.raises(TypeError):
        loop.pretrain(longer)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    monkeypatch.setattr(loop, "model_card", card)
    loop.pretrain(longer)
    assert json.loads((folder / "pretraining.json").read_text())["steps"] == 14
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]


def test_other_texts_are_not_gone_on_with(small: BackboneParams, sst2: Path) -> None:
    loop.pretrain(small)
    rows = pd.read_parquet(sst2 / "train-00000-of-00001.parquet")
    rows[:30].to_parquet(sst2 / "train-00000-of-00001.parquet")
    with pytest.raises(InputError, match="the work on other texts or pieces"):
        loop.pretrain(small)


def test_a_packed_study_is_of_the_backbone_that_is_made_there(
    small: BackboneParams, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unless it has runs of another."""
    files.write_text(paths.params() / "mine.yaml", yaml.safe_dump(dataclasses.asdict(small)))
    folder = tmp_path / "packed"
    command = ["pack", "smoke", "--pretrain", "mine", "--set", "tokenizer=", "-o"]
    assert main([*command, str(folder)]) == 0
    assert read_yaml(folder / "params" / "smoke.yaml")["backbone"] == "weights/backbone/small-test"
    assert capsys.readouterr().out.index("pretrain backbone-small") > 0
    (paths.weights() / "smoke").mkdir(parents=True)
    assert main([*command, str(tmp_path / "again")]) == 2
    assert "study smoke: found something stored, of another backbone" in capsys.readouterr().err
    assert main([*command[:4], "-o", str(tmp_path / "again")]) == 2
    assert not CHANGES["default"], "the next command has its own settings"
