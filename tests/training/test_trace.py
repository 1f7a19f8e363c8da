"""What a run keeps of its way: the loss of each step, and each answer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from helpers import run_of, without_trace
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from t5peft.base.studies import Study
from t5peft.inputs import data
from t5peft.runs import make, records, store
from t5peft.training import evaluation, loop, trace
from t5peft.training.trace import OTHER, Trace

EPOCHS, STEPS, REVIEWS = 3, 4, 64


@pytest.fixture
def study(smoke: Study) -> Study:
    return dataclasses.replace(smoke, epochs=EPOCHS, lora_learning_rate=0.03)


@pytest.fixture
def folder(study: Study) -> Path:
    """Of a run that was trained and stored."""
    make.train_alone(run_of(study), study)
    return store.folder(run_of(study), study)


def test_a_run_keeps_the_loss_of_each_step_and_the_answers_after_each_epoch(
    study: Study, folder: Path
) -> None:
    record = records.read_run(folder)
    held = store.trace(record)
    assert held.losses.shape == (EPOCHS * STEPS,)
    assert held.answers.shape == (EPOCHS, REVIEWS)
    assert held.epochs.tolist() == [1, 2, 3]
    labels = data.tokens(study, "test").labels
    by_epoch = held.losses.reshape(EPOCHS, STEPS)
    for losses, epoch in zip(by_epoch, record["history"], strict=True):
        assert loop.mean_loss(losses, study) == pytest.approx(epoch["loss"], abs=1e-6)
        answers = held.after(epoch["epoch"])
        assert np.array_equal(held.right_after(epoch["epoch"]), answers == labels)
        assert (answers == labels).mean() == epoch["test_accuracy"]
        assert (answers == OTHER).mean() == epoch["other_words"]


def test_the_record_names_the_trace_and_its_bytes(folder: Path) -> None:
    facts = records.read_run(folder)["files"][store.TRACE]
    assert facts["bytes"] == (folder / store.TRACE).stat().st_size
    assert store.whole(folder)[1].keys() == {store.DELTA, store.TRACE}


def test_a_run_without_a_trace_is_as_valid(study: Study, folder: Path) -> None:
    without_trace(folder)
    assert store.status(run_of(study), study).state == "fresh"
    assert not store.trace(records.read_run(folder)).losses.size


def test_the_answers_to_all_test_reviews_take_a_few_kilobytes() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (1, 25_000), np.uint8)
    assert len(Trace(answers=labels).packed()) < 6_000
    wrong = np.random.default_rng(1).random(25_000) < 0.14
    held = Trace(answers=labels ^ wrong)
    held.right = held.answers == labels[0]
    assert 6_000 < len(held.packed()) < 9_000, "and which are right, some 3 kB more"


@given(
    losses=arrays.arrays(np.float32, st.integers(0, 9)),
    answers=arrays.arrays(np.uint8, st.tuples(st.integers(1, 3), st.integers(1, 9))),
    by=st.text(max_size=9).filter(lambda text: "\0" not in text),
)
def test_what_is_packed_is_unpacked(losses: np.ndarray, answers: np.ndarray, by: str) -> None:
    held = Trace(losses, by, np.arange(len(answers)), answers, by)
    held.right = held.answers == answers[0]
    assert held.right_after(0).all()
    for name, value in vars(trace.unpack(held.packed())).items():
        assert np.array_equal(value, getattr(held, name), equal_nan=name == "losses")


def test_a_code_is_the_label_of_a_label_word_and_one_more_for_the_rest() -> None:
    said = [*data.LABELS, "film", "", "negative film"]
    labels = np.array([0, 1, 0, 1, 0])
    assert trace.codes(said).tolist() == [0, 1, OTHER, OTHER, OTHER]
    right, other = evaluation.score(said, labels)
    assert ((trace.codes(said) == labels).mean(), (trace.codes(said) == OTHER).mean()) == (
        right,
        other,
    )
