"""The tokenizer is T5's."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from t5peft.inputs import tokenizers


def test_the_fast_tokenizer_is_the_slow_one(words_folder: Path) -> None:
    from transformers import T5Tokenizer

    slow = T5Tokenizer(str(words_folder / tokenizers.MODEL_FILE), legacy=True)
    fast = tokenizers.load(str(words_folder))
    for text in ["a film that is great", "positive", "negative", "", "two  spaces, review 7."]:
        assert fast(text)["input_ids"] == slow(text)["input_ids"]


def test_no_alarm_of_reviews_that_are_longer_than_a_tokenizer_thinks_right(
    words: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They are cut where they are read."""
    words.save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "T5TokenizerFast", "model_max_length": 8})
    )
    logging.getLogger("transformers").propagate = True
    with caplog.at_level(logging.WARNING, "transformers"):
        assert len(tokenizers.load(str(tmp_path))("a long film " * 9)["input_ids"]) > 8
    assert "longer than" not in caplog.text
