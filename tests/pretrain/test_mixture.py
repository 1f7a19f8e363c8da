"""What a backbone reads."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from t5peft.base import machine
from t5peft.base.errors import InputError
from t5peft.inputs import data
from t5peft.pretrain import loop, mixture, spans
from t5peft.pretrain.settings import BackboneParams

STREAM = np.arange(100, 3_000).astype(np.uint16)
PAIRS = data.read(data.MADE_UP, "train")[:40]


def test_no_test_review_is_ever_read(
    small: BackboneParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, asked = data.read, []

    def watched(source: str, split: str) -> data.Reviews:
        asked.append(split)
        return read(source, split)

    monkeypatch.setattr(data, "read", watched)
    loop.pretrain(small)
    assert set(asked) == {"train", "unsupervised"}
    texts = {
        split: {data.normalize(text) for text, _ in read("made-up", split)}
        for split in ("train", "unsupervised", "test")
    }
    seen = set(mixture.corpus("made-up"))
    assert seen == texts["train"] | texts["unsupervised"]
    assert texts["test"] - seen, "or nothing is shown"


def test_sentences_are_cleaned_as_the_reviews_are(sst2: Path) -> None:
    wanted = [(text.lower(), label) for text, label in data.read(data.MADE_UP, "train")]
    assert mixture.read_sst2(str(sst2)) == wanted[:40]


def test_a_reviews_end_stands_in_the_stream(words: Any, tmp_path: Path) -> None:
    stream = mixture.pack(["a good film", "bad"], words, tmp_path)
    assert words.decode(stream.tolist()) == "a good film</s> bad</s>"


def test_each_pass_cuts_the_text_elsewhere(small: BackboneParams, words: Any) -> None:
    passage = spans.lengths(small.input_length).text
    batches = iter(mixture.Spans(np.arange(passage * 9), small, words))  # two batches a pass
    starts = [next(batches)[0][:, 0] % passage for _ in range(12)]
    assert all(len(of_one.unique()) == 1 for of_one in starts)
    assert len({int(of_one[0]) for of_one in starts}) > 2


def test_a_text_fills_a_batch_wherever_a_pass_begins(small: BackboneParams) -> None:
    passage = spans.lengths(small.input_length).text
    stream = np.arange(passage * (small.batch_size + 1) - 1)
    mixture.Spans(stream, small, None)
    with pytest.raises(InputError, match=r"batch_size: found 4, expected at most the 3 passages"):
        mixture.Spans(stream[:-1], small, None)


def test_a_worker_draws_the_same_batches(small: BackboneParams, words: Any) -> None:
    batches = mixture.Spans(STREAM, small, words)
    alone, ahead = iter(batches), mixture.ahead(batches)
    for _ in range(40):  # more than one pass over the text
        for ours, theirs in zip(next(alone), next(ahead), strict=True):
            assert torch.equal(ours, theirs)


def test_a_worker_does_not_outlive_its_training(
    small: BackboneParams, words: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would keep the lock."""
    monkeypatch.setattr(machine, "end_with_parent", (tmp_path / "told").touch)
    next(mixture.ahead(mixture.Spans(STREAM, small, words)))
    assert (tmp_path / "told").exists()


@pytest.mark.parametrize("first", [0, 1, 7, 40])
def test_batches_from_a_number_on_are_those_that_come_there(
    small: BackboneParams, words: Any, first: int
) -> None:
    for batches, source in ((mixture.Spans, STREAM), (mixture.sst2_batches, PAIRS)):
        all_of_them: Any = iter(batches(source, small, words))
        later: Any = iter(batches(source, small, words, first))
        for _ in range(first):
            next(all_of_them)
        for _ in range(30):  # into another pass
            for one, same in zip(next(later), next(all_of_them), strict=True):
                assert torch.equal(one, same)


def test_on_a_gpu_all_sentences_are_of_one_width(small: BackboneParams, words: Any) -> None:
    narrow = mixture.sst2_batches(PAIRS, small, words)
    wide = mixture.sst2_batches(PAIRS, small, words, wide=True)
    for _ in range(8):
        (some, target), (all_, same) = next(narrow), next(wide)
        assert all_.shape == (small.sst2_batch_size, small.sst2_length)
        assert torch.equal(all_[:, : some.shape[1]], some)
        assert (all_[:, some.shape[1] :] == data.PAD).all()
        assert torch.equal(target, same)


def test_a_sentence_keeps_its_label(small: BackboneParams, words: Any) -> None:
    known = {tuple(words(text)["input_ids"]): data.LABELS[label] for text, label in PAIRS}
    batches = mixture.sst2_batches(PAIRS, dataclasses.replace(small, sst2_length=99), words)
    for _ in range(12):
        for row, target in zip(*next(batches), strict=True):
            text = tuple(x for x in row.tolist() if x != data.PAD)
            assert words.decode(target, skip_special_tokens=True) == known[text]


def test_sentences_are_found_from_the_root_too(
    home: Path, sst2: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sst2.rename(home / "sentences")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(mixture.read_sst2("sentences")) == 40


def test_sentences_of_another_layout_are_refused(sst2: Path) -> None:
    path = sst2 / "train-00000-of-00001.parquet"
    rows = pd.read_parquet(path)
    rows.assign(label=2).to_parquet(path)
    with pytest.raises(InputError, match=r"split train: found label 2, expected labels 0 and 1"):
        mixture.read_sst2(str(sst2))
    rows.rename(columns={"sentence": "text"}).to_parquet(path)
    (sst2 / "validation-00000-of-00001.parquet").unlink()
    with pytest.raises(InputError, match=r"columns text, label, expected columns sentence and"):
        mixture.read_sst2(str(sst2))


@pytest.mark.parametrize("where", ["cpu", "cuda"])
@pytest.mark.parametrize("field", ["batch_size", "sst2_batch_size"])
def test_a_batch_larger_than_all_there_is_would_never_come(
    small: BackboneParams, field: str, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before a GPU compiles for it, and by no worker, whose errors are others."""
    start, cpu = loop.start, torch.device("cpu")
    monkeypatch.setattr(machine, "device", lambda: where)
    monkeypatch.setattr(loop, "start", lambda params, held, _: start(params, held, cpu))
    monkeypatch.setattr(loop, "warm", pytest.fail)
    with pytest.raises(InputError, match=f"{field}: found 100000, expected at most"):
        loop.pretrain(dataclasses.replace(small, **{field: 100_000}))
