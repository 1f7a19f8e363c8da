"""The fast evaluation writes what `generate` writes, wrong words included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import ANSWERS
from tiny import EVERY, TOKENS, injected, tiny
from transformers import GenerationConfig, T5ForConditionalGeneration

from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import data
from t5peft.training import evaluation


def reviews() -> data.Tokens:
    """Texts of every length, each with an answer of its own."""
    draw = np.random.default_rng(0)
    rows = [[10 + i % len(ANSWERS)] * draw.integers(1, 12) for i in range(150)]
    return data.Tokens.of(rows, np.zeros(len(rows), np.int8))


def by_generate(model: T5ForConditionalGeneration, words: Any, placeholders: int) -> list[str]:
    """One review at a time, as a reader of the exercise would."""
    tokens, answers = reviews(), []
    for review in range(len(tokens)):
        ids, mask = tokens.batch(np.array([review]), 10, placeholders)
        written = model.generate(input_ids=ids, attention_mask=mask, max_length=5)
        answers += words.batch_decode(written, skip_special_tokens=True)
    return answers


@pytest.mark.parametrize(("method", "implementation"), EVERY)
@pytest.mark.usefixtures("taught")
def test_the_answers_are_those_of_generate(method: str, implementation: str, words: Any) -> None:
    model = injected(method, implementation)
    placeholders = TOKENS if (method, implementation) == ("soft-prompt", "scratch") else 0
    fast = evaluation.predict(model, words, reviews(), 10, placeholders)
    assert fast == by_generate(model, words, placeholders)
    assert {"positive", "negative"} < set(fast), "label words and others, or nothing is shown"


@pytest.mark.usefixtures("taught")
def test_no_more_reviews_are_read_at_once_than_fit(words: Any) -> None:
    model = tiny()
    wanted, sizes = evaluation.predict(model, words, reviews(), 10), []
    model.encoder.register_forward_pre_hook(
        lambda _, args, given: sizes.append(len(given["input_ids"])), with_kwargs=True
    )
    assert evaluation.predict(model, words, reviews(), 10, at_once=3) == wanted
    assert set(sizes) <= {1, 2, 3}


@pytest.mark.usefixtures("taught")
def test_a_backbones_own_ways_of_writing_do_not_count(words: Any) -> None:
    """The exercise's is greedy, of five tokens: what is left to `generate` is written so too."""
    model = tiny()
    plain = evaluation.predict(model, words, reviews(), 10)
    own = {"num_beams": 3, "min_length": 5, "repetition_penalty": 9.0, "max_length": 40}
    own |= {"do_sample": True, "suppress_tokens": words("film")["input_ids"], "eos_token_id": 7}
    model.generation_config = GenerationConfig(**own)
    assert evaluation.predict(model, words, reviews(), 10) == plain


def test_score_counts_exact_words_only() -> None:
    answers = ["positive", "negative", "positive positive", "Positive", ""]
    labels = np.array([1, 1, 1, 1, 0])
    assert evaluation.score(answers, labels) == (1 / 5, 3 / 5)


def test_short_reviews_come_first_and_every_review_once(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(evaluation.BATCH, "cpu", 10)
    tokens = data.tokens(smoke, "test")
    batches = list(evaluation.by_length(tokens, 32, tokens.ids.device))
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(tokens)))
    longest = [tokens.lengths(32)[batch].max() for batch in batches]
    assert longest == sorted(longest)


def test_a_label_word_of_two_pieces_is_refused() -> None:
    with pytest.raises(InputError, match="one piece and </s> each"):
        evaluation.word_ids(lambda word: {"input_ids": [5, 6, 1]})
