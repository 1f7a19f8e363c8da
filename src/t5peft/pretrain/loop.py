"""Pre-train a T5 of our own by T5's recipe: span corruption mixed with supervised sentences.

What it reads is `mixture.py`'s, how it starts and steps `recipe.py`'s.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import T5ForConditionalGeneration

from t5peft.base import bfloat16, files, machine, paths, studies
from t5peft.base.errors import InputError, first_line
from t5peft.base.progress import Progress
from t5peft.base.studies import Precision
from t5peft.inputs import backbone, data, hub, int8, tokenizers
from t5peft.inputs.sizes import config
from t5peft.pretrain import mixture, recipe, spans
from t5peft.pretrain.settings import ZERO_SHOT_REVIEWS, ZERO_SHOT_TOKENS, BackboneParams
from t5peft.training import checkpoint, evaluation, fast

CHECKPOINT = "checkpoint.pt"
CHECKPOINT_SECONDS = 120
LOG_SECONDS = 10
LOSSES = ("span", "sst2")
READ = 192
"""Texts on which a finished backbone shows what it makes of its input, where there are so many."""


@dataclass
class State:
    """Where the training is; all of it but the loss is in the checkpoint."""

    model: T5ForConditionalGeneration
    loss: Callable[[Tensor, Tensor], Tensor]  # of a batch, (B, T) and (B, targets)
    optimizer: recipe.Optimizer
    step: int
    seconds: float
    history: list[dict[str, float]]


MAY_CHANGE = {"name", "data", "sst2", "steps", "minutes"}
"""Settings that a training may be gone on with: its end, and where things lie."""


def settings(params: BackboneParams) -> dict[str, Any]:
    """What a checkpoint must have been made with."""
    return {key: value for key, value in asdict(params).items() if key not in MAY_CHANGE}


def start(params: BackboneParams, checkpoint: Path, device: torch.device) -> State:
    """A fresh state, or the one in the checkpoint; `InputError` for one of other settings."""
    torch.manual_seed(params.seed)
    model = fast.speed_up(
        T5ForConditionalGeneration(config(params.size, dropout_rate=params.dropout))
    )
    recipe.start(model)
    model.to(device).train()  # type: ignore[arg-type]
    loss = partial(loss_of, model, params.precision)
    if device.type == "cuda" and machine.has_compiler():
        loss = torch.compile(loss, dynamic=False)  # for each of the two shapes, see `warm`
    elif device.type == "cuda":
        print("not compiled, which is slower: no C compiler, or none of Python's headers")
    state = State(model, loss, recipe.Optimizer(model), 0, 0.0, [])
    if checkpoint.exists():
        held = read_checkpoint(checkpoint, device)
        made_with = held.get("settings", {})
        for key, value in settings(params).items():
            if made_with.get(key) != value:
                raise InputError(
                    f"checkpoint {checkpoint}",
                    f"{key} {made_with.get(key, 'unknown')}",
                    f"{key} {value}, as now asked for",
                    "give another --set name=NAME, or remove it",
                )
        model.load_state_dict(held["model"])
        state.optimizer.load_state_dict(held["optimizer"])
        state.step, state.seconds, state.history = held["step"], held["seconds"], held["history"]
    return state


def loss_of(
    model: T5ForConditionalGeneration, precision: Precision, source: Tensor, target: Tensor
) -> Tensor:
    """Nats a target token of a batch."""
    with torch.autocast(source.device.type, torch.bfloat16, enabled=precision == "bf16"):
        mask = source.ne(data.PAD)
        return model(input_ids=source, attention_mask=mask, labels=target, use_cache=False).loss


def warm(state: State, params: BackboneParams) -> None:
    """Compile the loss and its gradient for both shapes of a batch.

    Where that fails, or the gradient is not that of the loss as it stands, training goes on with
    that.
    """
    plain = partial(loss_of, state.model, params.precision)
    bound = math.inf if params.dropout else FAR  # infinite: refuses what is no number
    size = spans.lengths(params.input_length)
    span = params.batch_size, (size.input, size.target)
    sentences = params.sst2_batch_size, (params.sst2_length, 2)
    for rows, widths in (span, sentences):
        ids = (np.random.default_rng(0).integers(3, params.vocabulary, (rows, w)) for w in widths)
        source, target = (torch.from_numpy(x).to(state.model.device) for x in ids)
        ours = gradient(state.model, plain, source, target)
        try:
            compiled = gradient(state.model, state.loss, source, target)
            off = float((compiled - ours).norm() / ours.norm())
            why = "" if off < bound else f"its gradient is {off:.2g} off"
        except Exception as error:  # of dynamo, inductor, Triton and the C compiler
            if machine.out_of_memory(error):
                raise
            why = first_line(error)
        if why:
            print(f"not compiled, which is slower: {why}", flush=True)
            state.model.zero_grad(set_to_none=True)
            state.loss = plain
            return


FAR = 0.1
"""How far, relatively, a compiled gradient may be from the one in the same precision."""


def gradient(
    model: T5ForConditionalGeneration,
    loss: Callable[[Tensor, Tensor], Tensor],
    source: Tensor,
    target: Tensor,
) -> Tensor:
    """A batch's gradient, as one vector; the model keeps none."""
    loss(source, target).backward()
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad(set_to_none=True)
    return found


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What `save` wrote. Raises `InputError` where it is damaged."""
    try:
        return checkpoint.read(path, device)
    except Exception as error:  # zipfile and pickle raise many kinds
        if machine.out_of_memory(error):
            raise
        raise InputError(
            f"checkpoint {path}",
            f"a damaged file ({first_line(error)})",
            "what pre-training wrote",
            "remove it to begin anew",
        ) from error


def save(state: State, made_with: dict[str, Any], checkpoint: Path) -> None:
    """Write the checkpoint, whole or not at all."""
    held = {
        "model": state.model.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "settings": made_with,
        "step": state.step,
        "seconds": state.seconds,
        "history": state.history,
    }
    files.write(checkpoint, lambda file: torch.save(held, file))


def pretrain(params: BackboneParams) -> Path:
    """Train the backbone, or go on with it, and store it; returns its folder.

    A killed training loses some two minutes: call again. Raises `InputError` for a name that is
    taken, for texts that cannot be read or are too few, and for a loss that is no number.
    """
    with files.lock(work(params) / "lock") as mine:
        if not mine:
            raise InputError(
                f"backbone {params.name}",
                "a pre-training of it that runs now",
                "one at a time",
                "wait for it, or give --set name=NAME",
            )
        return pretrain_alone(params)


def pretrain_alone(params: BackboneParams) -> Path:
    """`pretrain`, once nobody else is at it."""
    device = torch.device(machine.device())
    checkpoint = work(params) / CHECKPOINT
    target = folder(params)
    if target.exists() and not checkpoint.exists():
        raise InputError(
            f"backbone {target}",
            "one that is stored, and no checkpoint to go on from",
            "a name that is free",
            "give --set name=NAME",
        )
    print(f"texts: {params.data} and {params.sst2}", flush=True)
    reviews = mixture.corpus(params.data)
    sentences = mixture.read_sst2(params.sst2)
    mixture.read_sst2(params.sst2, "validation")  # it is asked at the end: refused now
    texts = reviews + [text for text, _ in sentences]
    pieces = pieces_for(texts, params)
    tokenizer = tokenizers.load(str(pieces))
    check_tokenizer(tokenizer, params)
    bfloat16.provide(params.precision)
    stream = mixture.pack(reviews, tokenizer, pieces)
    state = start(params, checkpoint, device)
    on_gpu = device.type == "cuda"  # where shapes are fixed, and batches drawn ahead
    batches = mixture.Spans(stream, params, tokenizer, state.step)
    span = mixture.ahead(batches) if on_gpu else iter(batches)
    seen = -(-state.step // params.sst2_every)
    sst2 = mixture.sst2_batches(sentences, params, tokenizer, seen, wide=on_gpu)
    if on_gpu:
        warm(state, params)
    with Progress(params.name, state=lambda: f"step {state.step:,}"):
        fit(state, params, span, sst2, checkpoint)
    return store(state, params, pieces, measure(state, params, stream, tokenizer))


def pieces_for(texts: list[str], params: BackboneParams) -> Path:
    """The folder of the tokenizer of these texts, which is trained if it is not there.

    Raises `InputError` where a training has begun with other pieces.
    """
    held = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
    pieces = work(params) / f"{params.vocabulary}-{held[:16]}"
    if (pieces / tokenizers.MODEL_FILE).exists():
        return pieces
    checkpoint = work(params) / CHECKPOINT
    if checkpoint.exists():
        raise InputError(
            f"checkpoint {checkpoint}",
            "the work on other texts or pieces",
            "that on these",
            "give --set name=NAME, or remove it",
        )
    print(f"tokenizer: {params.vocabulary} pieces from {len(texts)} texts", flush=True)
    tokenizers.train(texts, params.vocabulary, pieces)
    return pieces


def measure(
    state: State, params: BackboneParams, stream: np.ndarray, tokenizer: Any
) -> dict[str, float]:
    """What the trained backbone is worth: does it read, what does it know before fine-tuning?"""
    texts_held = len(stream) // spans.lengths(params.input_length).text - 1  # at any offset
    few = replace(params, seed=(params.seed + 1) % 2**31, batch_size=max(1, min(READ, texts_held)))
    other = iter(mixture.Spans(stream, few, tokenizer))
    return {
        "corpus_tokens": len(stream),
        **reading(state.model, params, *next(other)),
        **zero_shot(state, params, tokenizer),
    }


def check_tokenizer(tokenizer: Any, params: BackboneParams) -> None:
    """Refuse pieces that the task could not be told in."""
    try:
        evaluation.word_ids(tokenizer)
    except InputError as error:
        way_out = "raise vocabulary, or give more text"
        thing = f"the tokenizer of {params.vocabulary} pieces"
        raise InputError(thing, error.found, error.expected, way_out) from None


def folder(params: BackboneParams) -> Path:
    """Where the finished backbone lies."""
    return paths.weights() / studies.BACKBONES / params.name


def work(params: BackboneParams) -> Path:
    """Where it is made: its tokenizer, its stream of tokens, its checkpoint."""
    return paths.cache() / "pretrain" / params.name


def fit(
    state: State,
    params: BackboneParams,
    span: Iterator[tuple[Tensor, Tensor]],
    sst2: Iterator[tuple[Tensor, Tensor]],
    checkpoint: Path,
) -> None:
    """Train until the given step or minute; the batches are those from the state's step on."""
    before, began = state.seconds, time.perf_counter()
    saved = told = began
    losses: list[dict[str, Tensor]] = []
    while (progress := max(state.step / params.steps, state.seconds / 60 / params.minutes)) < 1:
        rate = recipe.rate(params.learning_rate, params.warmup_steps, progress, state.step)
        sentences = next(sst2) if state.step % params.sst2_every == 0 else None
        losses.append(update(state, next(span), sentences, rate, params))
        state.step += 1
        now = time.perf_counter()
        state.seconds = before + now - began
        if now - told > LOG_SECONDS:
            tell(state, losses)
            losses, told = [], now
            if now - saved > CHECKPOINT_SECONDS:
                save(state, settings(params), checkpoint)
                saved = now
    if losses:
        tell(state, losses)
    save(state, settings(params), checkpoint)


def tell(state: State, losses: list[dict[str, Tensor]]) -> None:
    """Add the mean losses to the history and print them; `InputError` if one is not finite."""
    found = {kind: [each[kind] for each in losses if kind in each] for kind in LOSSES}
    means = {kind: torch.stack(each).mean().item() for kind, each in found.items() if each}
    if not all(map(math.isfinite, means.values())):
        raise InputError(
            f"losses before step {state.step}", means, "finite numbers", "lower the learning_rate"
        )
    state.history.append({"step": state.step, "seconds": round(state.seconds, 1), **means})
    line = "  ".join(f"{kind} {loss:.3f}" for kind, loss in means.items())
    print(f"step {state.step}  {state.seconds / 60:.1f} min  {line}", flush=True)


def update(
    state: State,
    span: tuple[Tensor, Tensor],
    sst2: tuple[Tensor, Tensor] | None,
    rate: float,
    params: BackboneParams,
) -> dict[str, Tensor]:
    """One optimizer step on the weighted sum of both losses; returns each, as in `LOSSES`.

    Sentences that come every so many steps weigh so much more. The losses stay on the device: to
    look at them is to wait for it.
    """
    losses = {}
    weights = (1.0, params.sst2_weight * params.sst2_every)
    for kind, batch, weight in zip(LOSSES, (span, sst2), weights, strict=True):
        if batch:
            source, target = (side.to(state.model.device, non_blocking=True) for side in batch)
            loss = state.loss(source, target)
            (weight * loss).backward()
            losses[kind] = loss.detach()
    torch.nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    state.optimizer.step(rate)
    return losses


@torch.inference_mode()
def reading(
    model: T5ForConditionalGeneration, params: BackboneParams, sources: Tensor, targets: Tensor
) -> dict[str, float]:
    """Span loss with each target's own input, and with another text's, in nats a token.

    Where they are equal, the model is a language model of its targets and its encoder is idle.
    """
    model.eval()
    sources, targets = sources.to(model.device), targets.to(model.device)
    inputs = {"span_loss": sources, "span_loss_other_input": sources.roll(1, 0)}
    losses = {name: loss_of(model, params.precision, x, targets) for name, x in inputs.items()}
    return {name: round(loss.item(), 4) for name, loss in losses.items()}


def zero_shot(state: State, params: BackboneParams, tokenizer: Any) -> dict[str, float]:
    """Accuracy on SST-2's validation sentences and on training reviews, before any fine-tuning.

    The reviews' texts were seen in span corruption, their labels never.
    """
    reviews = [(data.normalize(text), label) for text, label in data.read(params.data, "train")]
    asked = {
        "zero_shot_sst2": (mixture.read_sst2(params.sst2, "validation"), params.sst2_length),
        "zero_shot_imdb_train": (reviews[:ZERO_SHOT_REVIEWS], ZERO_SHOT_TOKENS),
    }
    found = {}
    with torch.autocast(
        state.model.device.type, torch.bfloat16, enabled=params.precision == "bf16"
    ):
        for name, (pairs, max_length) in asked.items():
            ids = tokenizer([text for text, _ in pairs], add_special_tokens=False)["input_ids"]
            labels = np.array([label for _, label in pairs])
            texts = data.Tokens.of(ids, labels)
            with Progress(name.replace("_", " "), len(texts)) as progress:
                answers = evaluation.predict(
                    state.model, tokenizer, texts, max_length, on_batch=progress.add
                )
            found[name] = round(evaluation.score(answers, labels)[0], 4)
    return found


def store(state: State, params: BackboneParams, pieces: Path, measured: dict[str, Any]) -> Path:
    """Write the backbone's folder: int8 shards, tokenizer, pre-training record, history.

    It takes the place of an older one once it is whole.
    """
    target = files.beside(folder(params))
    state.model.config.dropout_rate = 0.1  # what fine-tuning uses, as T5's own configuration
    int8.save(state.model, target)
    files.write_bytes(target / tokenizers.MODEL_FILE, (pieces / tokenizers.MODEL_FILE).read_bytes())
    last = state.history[-1]
    record = {
        "params": asdict(params),
        "parameters": state.model.num_parameters(),
        "steps": state.step,
        "seconds": round(state.seconds, 1),
        "seen_tokens": state.step * params.batch_size * spans.lengths(params.input_length).text,
        "sst2_sentences": -(-state.step // params.sst2_every) * params.sst2_batch_size,
        "device": machine.environment(params.precision)["device"],
        "losses": {kind: last[kind] for kind in LOSSES if kind in last},
        **measured,
        "fingerprint": backbone.contents(target, (*hub.WEIGHTS, *hub.PIECES)),
    }
    files.write_json(target / backbone.CARD, record)
    files.write_json(target / "history.json", state.history)
    files.write_text(target / "README.md", model_card(record))
    return files.put_in_place(target, folder(params))


def model_card(record: dict[str, Any]) -> str:
    """What a reader of the folder should know, from the record."""
    settings, losses = record["params"], record["losses"]
    return f"""# {settings["name"]}: a T5 of this project

Not Google's T5: a T5 with {record["parameters"]:,} parameters (size `{settings["size"]}`) that this
project pre-trained itself, so that its experiments need no hub.

- text: IMDB's training and unlabelled reviews, lower-cased ({record["corpus_tokens"]:,} tokens; not
  the test part), and the training sentences of SST-2 with their label word as target
- objective: span corruption, {spans.NOISE_DENSITY:.0%} in spans of mean length {spans.MEAN_SPAN}
- seen: {record["steps"]:,} steps, {record["seen_tokens"]:,} tokens of reviews,
  {record["sst2_sentences"]:,} sentences, in {record["seconds"] / 60:.0f} minutes
- device: {record["device"]}
- last losses: {", ".join(f"{key} {value:.3f}" for key, value in losses.items())}
- span loss {record["span_loss"]:.2f} nats a target token, and
  {record["span_loss_other_input"]:.2f} where the input is another text's: what reading is worth
- before any fine-tuning: {record["zero_shot_sst2"]:.1%} of SST-2's validation sentences,
  {record["zero_shot_imdb_train"]:.1%} of {ZERO_SHOT_REVIEWS:,} training reviews of IMDB
- stored: int8 with one scale a row; the dequantized tensors are the model
- open it: `t5peft.inputs.backbone.load("weights/backbone/{settings["name"]}")`
"""
