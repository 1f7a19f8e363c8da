"""The same texts give the same tokens, wherever they come from; a damaged file is named."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import acl_imdb

from t5peft.base import deciding, studies
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import data, tokenizers


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    """The made-up reviews as the hub lays out its parquet files."""
    folder = tmp_path / "parquet" / "plain_text"
    folder.mkdir(parents=True)
    for split in data.SPLITS:
        table = pd.DataFrame(data.read(data.MADE_UP, split), columns=["text", "label"])
        table.sample(frac=1, random_state=0).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder.parent


@pytest.fixture
def acl(tmp_path: Path) -> Path:
    """The made-up reviews in a folder."""
    return acl_imdb(tmp_path / "aclImdb")


def test_every_layout_gives_the_same_texts_tokens_and_fingerprint(
    smoke: Study, parquet: Path, acl: Path
) -> None:
    layouts = [
        studies.load("smoke", vars(smoke) | {"data": str(x)}) for x in ("made-up", parquet, acl)
    ]
    made_up, *others = ([data.tokens(study, split) for split in data.SPLITS] for study in layouts)
    for other in others:
        for one, two in zip(made_up, other, strict=True):
            assert np.array_equal(one.ids, two.ids)
            assert np.array_equal(one.labels, two.labels)
    assert len({data.fingerprint(study) for study in layouts}) == 1


def test_one_changed_letter_changes_the_fingerprint(smoke: Study, acl: Path) -> None:
    before = data.fingerprint(studies.load("smoke", vars(smoke) | {"data": str(acl)}))
    path = next((acl / "train" / "neg").iterdir())
    path.write_text(path.read_text() + "!")
    assert data.fingerprint(studies.load("smoke", vars(smoke) | {"data": str(acl)})) != before


def test_text_is_lower_cased_and_line_breaks_are_spaces() -> None:
    assert data.normalize("A Film.<br /><br />GOOD") == "a film.  good"


def test_tokens_are_made_once(smoke: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    data.tokens(smoke, "train")
    monkeypatch.setattr(tokenizers, "load", lambda name: pytest.fail("tokenized again"))
    assert len(data.tokens(smoke, "train")) == smoke.train_examples
    monkeypatch.setattr(deciding, "digest", lambda *_: "other code")
    with pytest.raises(pytest.fail.Exception, match="tokenized again"):
        data.tokens(smoke, "train")


def of_lengths(*lengths: int) -> data.Tokens:
    """Reviews of so many tokens, numbered from 100."""
    number = itertools.count(100)
    ids = [[next(number) for _ in range(length)] for length in lengths]
    return data.Tokens.of(ids, np.zeros(len(ids), np.int8))


@pytest.mark.parametrize("placeholders", [0, 3])
def test_a_batch_is_cut_ended_padded_and_masked(placeholders: int) -> None:
    room, tokens = 8, of_lengths(2, 20, 5)
    ids, mask = tokens.batch(np.array([1, 0]), room, placeholders)
    long = [data.PAD] * placeholders + list(range(102, 102 + room - placeholders - 1)) + [data.EOS]
    short = [data.PAD] * placeholders + [100, 101, data.EOS]
    assert ids.tolist() == [long, short + [data.PAD] * (room - len(short))]
    assert mask.tolist() == [[1] * room, [1] * len(short) + [0] * (room - len(short))]


@pytest.mark.parametrize(("lengths", "width"), [([2, 3], 4), ([2, 4], 8), ([2, 20], 10)])
def test_a_batch_is_as_wide_as_a_multiple_or_the_room(lengths: list[int], width: int) -> None:
    tokens = of_lengths(*lengths)
    exact, exact_mask = tokens.batch(np.array([0, 1]), max_length=10)
    ids, mask = tokens.batch(np.array([0, 1]), max_length=10, multiple=4)
    assert ids.shape == mask.shape == (2, width)
    longest = exact.shape[1]
    assert (ids[:, :longest] == exact).all()
    assert (mask[:, :longest] == exact_mask).all()
    assert (ids[:, longest:] == data.PAD).all()
    assert not mask[:, longest:].any()


def test_truncation_is_the_tokenizers_own(words: Any, smoke: Study) -> None:
    texts = [data.normalize(text) for text, _ in data.read(data.MADE_UP, "test")]
    ids, mask = data.tokens(smoke, "test").batch(np.arange(64), 12)
    theirs = words(texts[:64], max_length=12, truncation=True, padding=True, return_tensors="pt")
    assert np.array_equal(ids, theirs["input_ids"])
    assert np.array_equal(mask, theirs["attention_mask"])


def test_a_truncated_file_is_named(parquet: Path) -> None:
    path = next(parquet.rglob("train-*"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=path.name):
        data.read(str(parquet), "train")


def test_a_pinned_fingerprint_stands_for_data_that_are_not_here(smoke: Study) -> None:
    away = studies.load("smoke", vars(smoke) | {"data": "some/where", "data_fingerprint": "f" * 64})
    assert data.fingerprint(away) == "f" * 64


def test_a_review_with_another_label_changes_the_fingerprint(smoke: Study, acl: Path) -> None:
    study = dataclasses.replace(smoke, data=str(acl))
    before = data.fingerprint(study)
    path = next((acl / "train" / "neg").iterdir())
    path.rename(acl / "train" / "pos" / "moved.txt")
    assert data.fingerprint(study) != before


def test_a_change_of_the_same_size_changes_fingerprint_and_tokens(smoke: Study, acl: Path) -> None:
    study = dataclasses.replace(smoke, data=str(acl), train_examples=400)
    before, ids = data.fingerprint(study), data.tokens(study, "train").ids.clone()
    path = next((acl / "train" / "neg").iterdir())
    path.write_text(path.read_text().replace("Review", "Rewiev"))
    assert data.fingerprint(study) != before
    assert not np.array_equal(data.tokens(study, "train").ids, ids)


def test_another_tokenizer_has_tokens_of_its_own(smoke: Study, tmp_path: Path) -> None:
    texts = [text for text, _ in data.read(data.MADE_UP, "train")]
    tokenizers.train(texts, 60, tmp_path / "other")
    before = data.tokens(smoke, "train").ids
    other = dataclasses.replace(smoke, tokenizer=str(tmp_path / "other"))
    ids = data.tokens(other, "train").ids.clone()
    assert not np.array_equal(ids, before)
    tokenizers.train(texts, 80, tmp_path / "other")  # in the same folder
    assert not np.array_equal(data.tokens(other, "train").ids, ids)


@pytest.mark.parametrize("labels", [[0, 1], [1, 0]])
def test_one_text_with_both_labels_is_read_alike_in_any_order(
    labels: list[int], tmp_path: Path
) -> None:
    pd.DataFrame({"text": ["a", "a"], "label": labels}).to_csv(tmp_path / "train.csv")
    assert data.read(str(tmp_path), "train") == [("a", 0), ("a", 1)]


@pytest.mark.usefixtures("home")
def test_a_review_in_the_other_split_changes_the_fingerprint(tmp_path: Path) -> None:
    """Though all follow each other as before."""
    reviews, found = data.read(data.MADE_UP, "train"), set()
    for first in (100, 300):
        for split, part in zip(data.SPLITS, (reviews[:first], reviews[first:]), strict=True):
            frame = pd.DataFrame(part, columns=["text", "label"])
            frame.to_csv(tmp_path / f"{split}.csv")
        found.add(data.contents(str(tmp_path)))
    assert len(found) == 2


def test_all_reviews_that_there_are_may_be_taken(smoke: Study) -> None:
    assert len(data.tokens(dataclasses.replace(smoke, train_examples=400), "train")) == 400


def test_the_unlabelled_reviews_of_acl_imdb_are_those_of_unsup(acl: Path) -> None:
    (acl / "train" / "unsup").mkdir()
    (acl / "train" / "unsup" / "0_0.txt").write_text("no label")
    assert data.read(str(acl), "unsupervised") == [("no label", -1)]
