"""Label reviews with a stored run: backbone, method, trained tensors."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from t5peft.base import machine
from t5peft.base.errors import InputError
from t5peft.base.progress import Progress
from t5peft.inputs import data, tables, tokenizers
from t5peft.runs import reopen
from t5peft.training import evaluation


@torch.inference_mode()
def predict(
    name: str, reviews: Sequence[str], changes: Mapping[str, Any] | None = None
) -> list[tuple[str, float, str]]:
    """(answer, probability, review): the answer is what the model writes, a label word or another.

    The probability is that of the answer against the other label word in the first step of the
    decoder; of the likelier word where the answer is neither. Raises `InputError` where there is no
    review, or one without a word, and what `load` raises.
    """
    if not reviews:
        raise InputError("reviews", "none", "at least one text", "give texts or lines on stdin")
    check(reviews)
    run, study, model = reopen.load(name, changes)
    model.to(machine.device())  # type: ignore[arg-type]
    tokenizer = tokenizers.load(study.tokenizer or study.backbone)
    tokens = as_tokens(reviews, tokenizer)
    with Progress(run.name, len(tokens)) as progress:
        answers = evaluation.predict(
            model, tokenizer, tokens, study.max_length, run.placeholders, progress.add
        )
    label_ids, shown = evaluation.word_ids(tokenizer), [0.0] * len(tokens)
    tokens = tokens.to(model.device)
    for picked in evaluation.by_length(tokens, study.max_length, model.device):
        ids, mask = tokens.batch(picked, study.max_length, run.placeholders)
        start = torch.full((len(picked), 1), data.PAD, device=model.device)
        logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=start).logits[:, 0]
        for review, chances in zip(picked, logits[:, label_ids].softmax(-1).tolist(), strict=True):
            of_word = dict(zip(data.LABELS, chances, strict=True))
            shown[review] = of_word.get(answers[review], max(chances))
    return list(zip(answers, shown, reviews, strict=True))


def texts(arguments: Sequence[str], text_column: str = "") -> list[str]:
    """Reviews of a command line: each is a text, or a file of them, a table or a text a line.

    text_column: of a table's texts; "" for a usual name. Raises `InputError` for a file that is not
    there or cannot be read.
    """
    found: list[str] = []
    for argument in arguments:
        if argument == "-":
            expected, way_out = "it alone, for standard input", "leave it out"
            raise InputError("review -", "others beside it", expected, way_out)
        path = Path(argument)
        begins = argument.startswith(("/", "./", "../", "~"))
        named = tables.is_table(path) or path.suffix.lower() == ".txt"
        one = len(argument.split()) == 1
        if not os.path.isfile(path):
            if os.path.isdir(argument):
                way_out = f"give its files, as in {path}/*.txt"
                raise InputError(f"reviews {path}", "a folder", "texts, or files of them", way_out)
            if one and (begins or named or re.fullmatch(r"\.[A-Za-z]\w{1,4}", path.suffix)):
                way_out = "give its whole name, or a text on standard input"
                raise InputError(f"file {path}", "none", "one of reviews", way_out)
            if named:
                warnings.warn(f"taken for a text, as it is no file: {argument:.60}", stacklevel=2)
            found.append(argument)
        elif tables.is_table(path):
            table, setting = tables.read(path), "--text-column NAME"
            column = data.column(table, str(path), setting, text_column, data.TEXT)
            rows = ["" if text is None else str(text) for text in column]
            found += check(rows, f"{path}, row")
        else:
            with path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
                found += check(lines(file), f"{path}, line")
    return found


def lines(file: Iterable[str]) -> list[str]:
    """A review a line; bytes that are no text stay in it, for `check` to name."""
    return [line.strip() for line in file]


def check(reviews: Sequence[str], where: str = "review") -> Sequence[str]:
    """The reviews; one that is no text (bytes that are not UTF-8) or has no word is refused.

    where: what its number counts.
    """
    for number, text in enumerate(reviews, 1):
        found = "characters of no text, as where UTF-16 is read" if "\0" in text else ""
        try:
            text.encode()
        except UnicodeEncodeError:
            found = "bytes that are not UTF-8"
        if found:
            raise InputError(f"{where} {number}", found, "a text in UTF-8", "convert it")
        if not data.normalize(text).strip():
            raise InputError(f"{where} {number}", "no word", "a text", "remove it")
    return reviews


def as_tokens(reviews: Sequence[str], tokenizer: Any) -> data.Tokens:
    """Texts as the training saw them; labels are unknown and set to 0.

    Raises `InputError` for one of which the tokenizer leaves nothing.
    """
    texts = [data.normalize(text) for text in reviews]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    for number, of_review in enumerate(ids, 1):
        if not of_review:
            raise InputError(f"review {number}", "no word", "a text", "remove it")
    return data.Tokens.of(ids, np.zeros(len(ids), np.int8))
