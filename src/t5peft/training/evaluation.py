"""The exercise's score: greedy generation, and the decoded string must be the label word.

The usual answer is a label word and its end, which takes two decoder steps. Reviews are taken by
length, encoded once, and only those whose answer is anything else go through `generate`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from t5peft.base.errors import InputError
from t5peft.inputs.data import EOS, LABELS, MULTIPLE, PAD, Tokens
from t5peft.training import fast

MAX_LENGTH = 5
"""Tokens of an answer at most, the decoder's start token included."""

BATCH = {"cpu": 64}
"""Reviews that are answered at once, 128 on a GPU: the decoder's weights are read once for all."""

ENCODED_AT_ONCE = {"cpu": 16}
"""On a CPU a batch is encoded in parts that the caches hold; a GPU encodes it whole."""


def word_ids(tokenizer: Any) -> list[int]:
    """The token id of each label word; raises `InputError` where one is not one piece."""
    pieces = [tokenizer(word)["input_ids"] for word in LABELS]
    if any(len(ids) != 2 or ids[1] != EOS for ids in pieces):
        raise InputError(
            "tokenizer",
            f"the label words {' and '.join(LABELS)} as pieces {pieces}",
            "one piece and </s> each, as in T5's vocabulary",
            "give another tokenizer",
        )
    return [ids[0] for ids in pieces]


def targets(tokenizer: Any) -> Tensor:
    """(2, 2): what is to be written for each label, its word and the end."""
    return torch.tensor([[word, EOS] for word in word_ids(tokenizer)])


def by_length(tokens: Tokens, max_length: int, device: torch.device) -> Iterator[np.ndarray]:
    """All reviews in a device's batches, short ones first, so that little is padded."""
    order, size = np.argsort(tokens.lengths(max_length), kind="stable"), BATCH.get(device.type, 128)
    for at in range(0, len(order), size):
        yield order[at : at + size]


@torch.inference_mode()
def predict(
    model: T5ForConditionalGeneration,
    tokenizer: Any,
    tokens: Tokens,
    max_length: int,
    placeholders: int = 0,
    on_batch: Callable[[int], None] = lambda reviews: None,
    at_once: int = 0,
) -> list[str]:
    """The decoded answer to each review, in the reviews' order; `max_length` is of their tokens.

    at_once: reviews that are encoded at once; 0: as is fastest.
    """
    model.eval()
    tokens, answers = tokens.to(model.device), [""] * len(tokens)
    words = torch.tensor(word_ids(tokenizer), device=model.device)
    with fast.packed(model):
        for picked in by_length(tokens, max_length, model.device):
            ids, mask = tokens.batch(picked, max_length, placeholders, MULTIPLE)
            first, second = two_steps(model, ids, mask, at_once)
            usual = torch.isin(first, words) & (second == EOS)
            picked_words = (first == words[1]).long().tolist()
            for review, word, is_usual in zip(picked, picked_words, usual.tolist(), strict=True):
                answers[review] = LABELS[word] if is_usual else ""
            odd = (~usual).nonzero()[:, 0]
            for rest in odd.split(at_once or len(ids)):
                written = generate(model, tokenizer, ids[rest], mask[rest]) if len(rest) else []
                for row, answer in zip(rest.tolist(), written, strict=True):
                    answers[picked[row]] = answer
            on_batch(len(picked))
    return answers


def two_steps(
    model: T5ForConditionalGeneration, ids: Tensor, mask: Tensor, at_once: int = 0
) -> tuple[Tensor, Tensor]:
    """The first two tokens (B,), (B,) that greedy decoding writes."""
    states, mask = encode(model, ids, mask, at_once)
    state = BaseModelOutput(last_hidden_state=cast(Any, states))
    start = torch.full((len(ids), 1), PAD, device=ids.device)
    begun = model(
        encoder_outputs=state, attention_mask=mask, decoder_input_ids=start, use_cache=True
    )
    first = begun.logits[:, -1].argmax(-1)
    second = model(
        encoder_outputs=state,
        attention_mask=mask,
        decoder_input_ids=first[:, None],
        past_key_values=begun.past_key_values,
        use_cache=True,
    )
    return first, second.logits[:, -1].argmax(-1)


def encode(
    model: T5ForConditionalGeneration, ids: Tensor, mask: Tensor, at_once: int = 0
) -> tuple[Tensor, Tensor]:
    """(B, T, d) states of (B, T) reviews, and their mask, which OpenDelta lengthens in place."""
    at_once = at_once or ENCODED_AT_ONCE.get(ids.device.type, len(ids))
    masks = [part.clone() for part in mask.split(at_once)]
    states = [
        model.get_encoder()(input_ids=part, attention_mask=its_mask)[0]
        for part, its_mask in zip(ids.split(at_once), masks, strict=True)
    ]
    return torch.cat(states), torch.cat(masks)


def generate(
    model: T5ForConditionalGeneration, tokenizer: Any, ids: Tensor, mask: Tensor
) -> list[str]:
    """The exercise's own way: `generate`, then decode."""
    greedy = GenerationConfig(
        max_length=MAX_LENGTH, decoder_start_token_id=PAD, pad_token_id=PAD, eos_token_id=EOS
    )
    written = model.generate(
        input_ids=ids,
        attention_mask=mask.clone(),
        generation_config=greedy,
        use_model_defaults=False,  # which may want beams, or long answers
    )
    return tokenizer.batch_decode(written, skip_special_tokens=True)


def score(answers: list[str], labels: np.ndarray) -> tuple[float, float]:
    """(accuracy, share of answers that are neither label word), each from 0 to 1."""
    right = sum(answer == LABELS[label] for answer, label in zip(answers, labels, strict=True))
    other = sum(answer not in LABELS for answer in answers)
    return right / len(answers), other / len(answers)
