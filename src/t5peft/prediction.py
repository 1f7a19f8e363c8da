"""Label reviews with a stored run: backbone, method, trained tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from t5peft import backbone, data, evaluation, hub, machine, paths, runs, tokenizer, training
from t5peft.errors import InputError
from t5peft.methods import Run
from t5peft.params import Params, build
from t5peft.progress import Progress


def stored_folder(name: str) -> Path:
    """The folder of `STUDY/RUN` in weights/, or any folder with a record; `InputError` for none."""
    for path in (paths.weights() / name, Path(name)):
        if (path / runs.RECORD).is_file():
            return path
    known = [path.parent for path in sorted(paths.weights().glob(f"*/*/{runs.DELTA}"))]
    of_each = {path.parent: path for path in known}.values()
    near = [path for path in known if path.parent.name == Path(name).parent.name] or of_each
    names = ", ".join(f"{path.parent.name}/{path.name}" for path in near)
    raise InputError(
        f"run {name}",
        "no stored run of that name",
        f"STUDY/RUN, as in {names or '(none is stored)'}",
        "name one of them, or train it first",
    )


MAY_MOVE = ("backbone", "tokenizer")
"""Settings that a stored run may be given anew: where a file lies, not what it holds."""


def load(
    name: str, changes: Mapping[str, Any] | None = None
) -> tuple[Run, Params, T5ForConditionalGeneration]:
    """A stored run with its trained tensors in place, in evaluation mode.

    `changes` say where its backbone or tokenizer lies now. Raises `InputError` where these are not
    the run's own, and for another setting.
    """
    changes = changes or {}
    for key in changes.keys() - MAY_MOVE:
        raise InputError(
            f"--set {key}", "a setting that the run fixes", " or ".join(MAY_MOVE), "leave it out"
        )
    folder = stored_folder(name).resolve()
    record, tensors = runs.tensors(folder)
    own = paths.weights().resolve() / record["study"] / record["run"]["name"]
    if folder.parent.parent == paths.weights().resolve() and folder != own:
        raise InputError(f"run {name}", f"the record of {own.name}", "its own", "train it again")
    params = build(Params, record["params"], f"record of run {name}", changes)
    settings = {key: value for key, value in record["run"].items() if key != "name"}
    run = build(Run, settings, f"record of run {name}")
    params = at_hand(params, record)
    words = tokenizer.fingerprint(params.tokenizer) if params.tokenizer else ""
    for part, found in (("backbone", backbone.fingerprint(params)), ("tokenizer", words)):
        stored = record["identity"].get(part)
        if found != stored:
            raise InputError(f"{part} of run {name}", found[:12], str(stored)[:12], "train again")
    model = training.build(run, params)
    put(model, tensors, str(folder))
    return run, params, model.eval()


def at_hand(params: Params, record: dict[str, Any]) -> Params:
    """A run's settings with the folders of its backbone, at the commit that it was made of, and of
    its tokenizer; what is not on this machine is fetched. Raises `InputError`.
    """
    places = {}
    if not params.backbone.startswith(backbone.RANDOM):
        name, parts = params.backbone, backbone.needed(params)
        own, commit = record["identity"]["backbone"], record["backbone"].get("commit")
        here = hub.at_hand(name, *parts)
        if not here or (commit and backbone.contents(here, parts) != own):
            here = hub.fetch(name, *parts, revision=commit or None)
        places["backbone"] = str(here)
    if params.tokenizer:
        places["tokenizer"] = str(hub.fetch(params.tokenizer, *hub.PIECES))
    return replace(params, **places)


def put(model: torch.nn.Module, tensors: dict[str, Tensor], thing: str) -> None:
    """Copy stored tensors over the trained ones; names and shapes must agree both ways.

    Raises `InputError` where they do not.
    """
    wanted = training.trained(model)
    missing, unexpected = sorted(wanted.keys() - tensors), sorted(tensors.keys() - wanted.keys())
    shapes = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(wanted[name].shape)}"
        for name in wanted.keys() & tensors.keys()
        if tensors[name].shape != wanted[name].shape
    ]
    for found in (
        f"no tensor {', '.join(missing[:3])}" if missing else "",
        f"unexpected tensor {', '.join(unexpected[:3])}" if unexpected else "",
        f"shape {shapes[0]}" if shapes else "",
    ):
        if found:
            raise InputError(
                f"weights {thing}",
                found,
                f"{len(wanted)} tensors of the method",
                "give the weights of this very run",
            )
    for name, tensor in wanted.items():
        tensor.copy_(tensors[name])


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
    run, params, model = load(name, changes)
    model.to(machine.device())  # type: ignore[arg-type]
    words = tokenizer.load(params.tokenizer or params.backbone)
    tokens = as_tokens(reviews, words)
    with Progress(run.name, len(tokens)) as progress:
        answers = evaluation.predict(
            model, words, tokens, params.max_length, run.placeholders, progress.add
        )
    label_ids, shown = evaluation.word_ids(words), [0.0] * len(tokens)
    size = evaluation.BATCH[model.device.type]
    for picked in evaluation.by_length(tokens, params.max_length, size):
        batch = tokens.batch(picked, params.max_length, run.placeholders)
        ids, mask = (side.to(model.device) for side in batch)
        start = torch.full((len(picked), 1), data.PAD, device=model.device)
        logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=start).logits[:, 0]
        for review, chances in zip(picked, logits[:, label_ids].softmax(-1), strict=True):
            known = answers[review] in data.LABELS
            shown[review] = float(
                chances[data.LABELS.index(answers[review])] if known else chances.max()
            )
    return list(zip(answers, shown, reviews, strict=True))


def check(reviews: Sequence[str]) -> None:
    """Refuse, by its number, one that is no text (bytes that are not UTF-8) or has no word."""
    for number, text in enumerate(reviews, 1):
        if not data.normalize(text).strip():
            raise no_word(number)
        try:
            text.encode()
        except UnicodeEncodeError:
            found = "bytes that are not UTF-8"
            raise InputError(f"review {number}", found, "a text", "mend it") from None


def no_word(number: int) -> InputError:
    """The line about a review of which nothing is left."""
    return InputError(f"review {number}", "no word", "a text", "remove it")


def as_tokens(reviews: Sequence[str], words: Any) -> data.Tokens:
    """Texts as the training saw them; labels are unknown and set to 0.

    Raises `InputError` for one of which the tokenizer leaves nothing.
    """
    ids = words([data.normalize(text) for text in reviews], add_special_tokens=False)["input_ids"]
    for number, of_review in enumerate(ids, 1):
        if not of_review:
            raise no_word(number)
    flat = np.array([token for review in ids for token in review], np.int32)
    return data.Tokens(flat, np.cumsum([0, *map(len, ids)]), np.zeros(len(ids), np.int8))
