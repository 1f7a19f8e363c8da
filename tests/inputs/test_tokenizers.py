"""The tokenizer is T5's."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from t5peft.inputs import data, tokenizers


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


def added(folder: Path) -> None:
    (folder / "added_tokens.json").write_text(json.dumps({"film": 8100, "[sep]": 8101}))


def settings(**said: Any) -> Callable[[Path], object]:
    """A tokenizer_config.json that says so."""
    held = json.dumps({"tokenizer_class": "T5Tokenizer", **said})
    return lambda folder: (folder / "tokenizer_config.json").write_text(held)


def both(folder: Path) -> None:
    added(folder)
    settings(extra_ids=0, additional_special_tokens=[])(folder)


def saved(folder: Path) -> None:
    tokenizers.load(str(folder)).save_pretrained(folder)


def saved_with_more(folder: Path) -> None:
    tokenizer = tokenizers.load(str(folder))
    tokenizer.add_tokens(["film", "[sep]"])
    tokenizer.save_pretrained(folder)


FOLDERS = {
    "pieces alone": lambda folder: None,
    "added tokens": added,
    "no sentinels": settings(extra_ids=0, additional_special_tokens=[]),
    "both": both,
    "as transformers saves it": saved,
    "saved with more": saved_with_more,
    "small letters": settings(do_lower_case=True),
    "split words": settings(split_special_tokens=True),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_is_read_as_transformers_reads_it(
    kind: str, words_folder: Path, tmp_path: Path
) -> None:
    """On the study's texts; and what changes the tokens is in the fingerprint."""
    folder = tmp_path / "t5"
    folder.mkdir()
    shutil.copy(words_folder / "spiece.model", folder)
    (folder / "config.json").write_text('{"model_type": "t5"}')
    before = tokenizers.fingerprint(str(folder))
    FOLDERS[kind](folder)
    texts = [data.normalize(text) for text, _ in data.read(data.MADE_UP, "test")]
    texts += ["a film [sep] <extra_id_0> again", "[sep]film"]
    ours, theirs = tokenizers.load(str(folder)), AutoTokenizer.from_pretrained(folder)
    assert ours(texts)["input_ids"] == theirs(texts)["input_ids"]
    assert (tokenizers.fingerprint(str(folder)) == before) == (kind == "pieces alone")


def test_settings_that_change_no_token_are_not_in_the_fingerprint(
    words_folder: Path, tmp_path: Path
) -> None:
    shutil.copy(words_folder / "spiece.model", tmp_path)
    before = tokenizers.fingerprint(str(tmp_path))
    settings(model_max_length=512, name_or_path="t5")(tmp_path)
    assert tokenizers.fingerprint(str(tmp_path)) == before
