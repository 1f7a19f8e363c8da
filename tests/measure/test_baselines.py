"""The baselines beside the runs: measured on what the runs see, shown only where they belong."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from t5peft.__main__ import main
from t5peft.base import machine, studies
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import backbone, data
from t5peft.measure import baselines, measurements
from t5peft.measure.measurements import Baselines, Measurement
from t5peft.runs.identity import of_study
from t5peft.training import evaluation


def baselines_of(study: Study) -> Measurement[Baselines]:
    return measurements.baselines(study, of_study(study))


def test_baselines_are_measured_stored_and_found_again(
    smoke: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    assert baselines_of(smoke).load() is None
    assert main(["baselines", *studies.arguments(smoke).split()]) == 0
    capsys.readouterr()
    assert main(["status", *studies.arguments(smoke).split()]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    assert last.split()[:2] == ["baselines", "fresh"]
    record = baselines_of(smoke).load()
    assert record is not None
    assert record["bag_of_words_accuracy"] > 0.9, "the made-up reviews say it in a word"
    assert record["zero_shot_accuracy"] == 0, "a random backbone writes no label word"
    assert record["zero_shot_other_words"] == 1
    assert record["test_examples"] == smoke.test_examples


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_backbone_is_scored_as_a_run_is(
    precision: Any, words: Any, smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    smoke = dataclasses.replace(smoke, precision=precision)
    test = data.tokens(smoke, "test")
    answers = [data.LABELS[label] for label in test.labels]
    answers[:16] = 16 * ["something else"]

    def predict(*_: object, **__: object) -> list[str]:
        assert torch.is_autocast_enabled(machine.device()) == (precision == "bf16")
        return answers

    monkeypatch.setattr(evaluation, "predict", predict)
    assert baselines.zero_shot_accuracy(smoke, words, test) == (0.75, 0.25)


def test_baselines_of_other_settings_are_not_shown(smoke: Study) -> None:
    def stored(**changes: Any) -> Baselines | None:
        return baselines_of(dataclasses.replace(smoke, **changes)).load()

    measurements.made([baselines_of(smoke)])
    assert stored(epochs=9) == stored() is not None
    assert stored(max_length=20) is None
    assert stored(seed=1) is None, "another random backbone"


def test_the_baselines_of_a_backbone_that_is_stored_know_no_seed() -> None:
    study = studies.load(studies.DEFAULT)
    stored = baselines_of(study).load()
    assert stored is not None
    assert baselines_of(dataclasses.replace(study, seed=1)).load() == stored


def test_texts_are_cut_to_what_the_runs_see(words: Any, smoke: Study) -> None:
    test, room = data.tokens(smoke, "test"), 9
    ids, mask = test.batch(np.arange(len(test)), room)
    seen = words.batch_decode([row[: kept - 1] for row, kept in zip(ids, mask.sum(1), strict=True)])
    assert baselines.truncated(words, test, room) == seen


def test_a_test_review_that_is_a_training_review_too_is_counted(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, test = data.tokens(smoke, "train"), data.tokens(smoke, "test")

    def counted(held: data.Tokens) -> int:
        monkeypatch.setattr(data, "tokens", lambda _, split: train if split == "train" else held)
        return baselines.measure(smoke)["test_reviews_in_training"]

    few = np.arange(5)
    assert (counted(test), counted(train.picked(few))) == (0, 5)


def test_the_bag_learns_from_the_training_labels_alone(words: Any, smoke: Study) -> None:
    train, test = data.tokens(smoke, "train"), data.tokens(smoke, "test")
    texts, asked = (baselines.truncated(words, x, smoke.max_length) for x in (train, test))
    assert baselines.bag_of_words_accuracy(texts, 1 - train.labels, asked, test.labels) < 0.1


def test_the_bag_learns_nothing_from_words_that_come_once() -> None:
    once, labels = ["great film", "bad plot"], np.array([0, 1])
    with pytest.raises(InputError, match=r"expected reviews .* with words that come twice"):
        baselines.bag_of_words_accuracy(once, labels, once, labels)


def test_a_tokenizer_with_more_pieces_than_the_backbone_is_refused(
    smoke: Study, home: Path
) -> None:
    few = backbone.load("random:tiny")
    few.resize_token_embeddings(150)
    few.save_pretrained(home / "few")
    with pytest.raises(InputError, match="found 210 pieces, expected at most the backbone's 150"):
        baselines.measure(dataclasses.replace(smoke, backbone="few"))
