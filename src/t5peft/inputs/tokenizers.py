"""SentencePiece unigram tokenizers in T5's layout: train one, load one.

Kudo (2018), "Subword Regularization"; T5 keeps <pad> = 0, </s> = 1, <unk> = 2 and puts its 100
sentinels, counting down, behind the pieces.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5peft.base.errors import InputError, first_line
from t5peft.base.progress import Progress
from t5peft.inputs import hub

if TYPE_CHECKING:
    from transformers import T5TokenizerFast


MODEL_FILE = "spiece.model"
SENTINELS = 100
ADDED, SETTINGS = "added_tokens.json", "tokenizer_config.json"
SAYING = ("tokenizer.json", ADDED, SETTINGS)
"""Where one of these lies, the pieces are not all there is, and transformers reads the folder."""

DECIDING = ("extra_ids", "additional_special_tokens", "added_tokens_decoder", "legacy")
DECIDING += ("add_prefix_space", "do_lower_case", "sp_model_kwargs", "split_special_tokens")
"""What of the settings changes the tokens of a text."""

AT_ONCE = 1000
"""Texts that are tokenized together."""

ANY_LENGTH = 10**9
"""Reviews are cut where they are read: no alarm of longer ones."""


def train(texts: Iterable[str], vocabulary: int, folder: Path) -> None:
    """Train a unigram model with `vocabulary` pieces on `texts`; write it to `folder`.

    Raises `InputError` where the texts do not give so many pieces.
    """
    import sentencepiece

    aside = ThreadPoolExecutor(1)  # in the main thread Ctrl-C would wait for its end
    model = io.BytesIO()
    try:
        aside.submit(
            sentencepiece.SentencePieceTrainer.train,
            sentence_iterator=iter(texts),
            model_writer=model,  # a file's name would be in the model
            vocab_size=vocabulary,
            model_type="unigram",
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            normalization_rule_name="nmt_nfkc",
            num_threads=1,  # with more, the pieces depend on timing
            minloglevel=2,
        ).result()
    except RuntimeError as error:  # it says how many pieces the texts can give
        raise InputError(
            "vocabulary", vocabulary, str(error).rsplit("] ", 1)[-1], "give fewer pieces"
        ) from None
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(model.getvalue())


def from_model_file(path: Path) -> T5TokenizerFast:
    """T5's fast tokenizer from a bare SentencePiece model.

    Without `add_prefix_space` the conversion would lose the mark of a text's first word.
    """
    from transformers import T5TokenizerFast
    from transformers.utils import logging

    logging.set_verbosity_error()  # it tells of its conversion each time
    return T5TokenizerFast(vocab_file=str(path), extra_ids=SENTINELS, add_prefix_space=True)


def load(name: str) -> Any:
    """The tokenizer in a folder, in a `.model` file, or of a hub name.

    Raises `InputError` where there is none.
    """
    from transformers import AutoTokenizer

    path = hub.fetch(name, *hub.PIECES)
    try:
        if path.is_file():
            return from_model_file(path)
        if not any((path / name).exists() for name in SAYING):
            return from_model_file(path / MODEL_FILE)
        return AutoTokenizer.from_pretrained(
            path, trust_remote_code=False, model_max_length=ANY_LENGTH
        )
    except Exception as error:  # of many kinds
        raise hub.unreachable(name, first_line(error), "tokenizer") from error


def ids(tokenizer: Any, texts: Sequence[str], title: str, **how: Any) -> list[list[int]]:
    """The token ids of each text, in parts: Ctrl-C waits for one."""
    found: list[list[int]] = []
    with Progress(title, len(texts)) as progress:
        for at in range(0, len(texts), AT_ONCE):
            found += tokenizer(texts[at : at + AT_ONCE], **how)["input_ids"]
            progress.add(AT_ONCE)
    return found


def fingerprint(name: str) -> str:
    """SHA-256 of the tokenizer's pieces; "" where it is not at hand."""
    path = hub.at_hand(name, *hub.PIECES)
    return contents(path) if path else ""


def contents(path: Path) -> str:
    """SHA-256 of the file that is loaded: `path`, or in a folder the first of `hub.PIECES`, with
    what lies beside it and changes tokens.
    """
    files = [path] if path.is_file() else [path / name for name in hub.PIECES]
    held = next((file for file in files if file.is_file()), None)
    if held is None:
        return ""
    hub.check(held)
    total = hashlib.sha256(held.read_bytes())
    if (added := path / ADDED).is_file():
        total.update(added.read_bytes())
    with suppress(OSError, ValueError, AttributeError):  # none, or damaged: `load` tells
        said = json.loads((path / SETTINGS).read_text())
        if deciding := {key: said[key] for key in DECIDING if key in said}:
            total.update(json.dumps(deciding, sort_keys=True).encode())
    return total.hexdigest()
