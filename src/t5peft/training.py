"""One loop and one evaluation for every method and every implementation.

AdamW (Loshchilov and Hutter, 2019) with PyTorch's defaults and a constant rate, as the exercise
says. The order of epoch e and its dropout masks are drawn from (seed, e) alone: a run that is
killed goes on from its last whole epoch and ends with the same numbers.
"""

from __future__ import annotations

import io
import math
import sys
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from t5peft import backbone, data, evaluation, fast, files, machine, methods, runs, tokenizer
from t5peft.data import Tokens
from t5peft.errors import InputError
from t5peft.methods import Run
from t5peft.params import Params
from t5peft.progress import Progress
from t5peft.records import AS_MADE, digest
from t5peft.trace import Trace, unpack

CHECK_EVERY = {"cpu": 1, "cuda": 20}
"""Steps between two looks at the losses: each look waits for the accelerator."""

REVIEWS_AT_ONCE = {"cpu": 8}
"""On a CPU a batch goes through the model in parts of similar length that the caches hold: less
padding, a fraction of the memory, the same gradients. A GPU takes the batch whole."""


@dataclass
class Job:
    """A run in the making: the model with its method in place, the reviews, the optimizer."""

    run: Run
    params: Params
    model: T5ForConditionalGeneration
    tokenizer: Any
    train: Tokens
    test: Tokens
    accelerator: Accelerator
    optimizer: Any = None
    wrapped: Any = None  # the model as accelerate wants it called
    history: list[dict[str, Any]] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)
    best: dict[str, Tensor] = field(default_factory=dict)  # trained tensors of the best epoch


def trained(model: nn.Module) -> dict[str, Tensor]:
    """The trained tensors by name: what a run stores."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def build(run: Run, params: Params) -> T5ForConditionalGeneration:
    """The study's backbone with the run's method in place, on the CPU."""
    model = backbone.load(params.backbone, params.seed)
    set_seed(params.seed)  # the new parameters are drawn from here
    methods.inject(model, run.method, run.implementation, run.settings)
    return model


def prepare(run: Run, params: Params) -> Job:
    """Everything that a run needs, on its device."""
    return with_fast_model(run, params, build(run, params))


def with_fast_model(run: Run, params: Params, model: T5ForConditionalGeneration) -> Job:
    """`with_model`, with the faster forward."""
    job = with_model(run, params, fast.speed_up(model))
    if params.precision == "bf16":
        fast.round_frozen(model)
    return job


def with_model(run: Run, params: Params, model: T5ForConditionalGeneration) -> Job:
    """A run's job around a model that has its method in place."""
    accelerator = Accelerator(mixed_precision="bf16" if params.precision == "bf16" else "no")
    words = tokenizer.load(params.tokenizer or params.backbone)
    train, test = data.tokens(params, "train"), data.tokens(params, "test")
    check_words(words, run, params)
    job = Job(run, params, model, words, train, test, accelerator)
    job.model.to(accelerator.device)
    optimizer = torch.optim.AdamW(
        [p for p in job.model.parameters() if p.requires_grad],
        lr=run.learning_rate,
        fused=True,
    )
    job.wrapped, job.optimizer = accelerator.prepare(job.model, optimizer)
    return job


def check_words(words: Any, run: Run, params: Params) -> None:
    """Refuse a tokenizer that does not fit the backbone or the task."""
    rows = backbone.load_on_meta(params.backbone).config.vocab_size
    name = f"tokenizer {params.tokenizer or params.backbone}"
    if len(words) > rows:
        raise InputError(
            name,
            f"{len(words)} pieces",
            f"at most the backbone's {rows}",
            "give the backbone's own",
        )
    if run.settings.get("tokens", 0) > rows:
        raise InputError(
            f"tokens of {run.name}", run.settings["tokens"], f"at most {rows}", "give fewer"
        )
    evaluation.word_ids(words)


# --- one epoch ---------------------------------------------------------------------------------


def order(params: Params, epoch: int) -> np.ndarray:
    """The training reviews in the order of epoch `epoch` (from 1)."""
    return np.random.default_rng([params.seed, epoch]).permutation(params.train_examples)


def loss_of(job: Job, picked: np.ndarray, multiple: int = data.MULTIPLE) -> Tensor:
    """Mean cross-entropy of the picked reviews' label words, each with its end: a scalar."""
    ids, mask = job.train.batch(picked, job.params.max_length, job.run.placeholders, multiple)
    words = evaluation.word_ids(job.tokenizer)
    targets = torch.tensor([[words[label], data.EOS] for label in job.train.labels[picked]])
    device = job.accelerator.device
    return job.wrapped(
        input_ids=ids.to(device, non_blocking=True),
        attention_mask=mask.to(device, non_blocking=True),
        labels=targets.to(device, non_blocking=True),
    ).loss


def add_gradients(job: Job, batch: np.ndarray) -> Tensor:
    """Gradients of the mean loss of a batch, over all processes; returns that loss.

    Each process takes its share in parts of similar length; gradients are exchanged at the last.
    """
    count = job.accelerator.num_processes
    mine = batch[job.accelerator.process_index :: count]
    mine = mine[np.argsort(job.train.lengths(job.params.max_length)[mine], kind="stable")]
    at_once = REVIEWS_AT_ONCE.get(job.accelerator.device.type, len(mine))
    parts = np.array_split(mine, -(-len(mine) // at_once))
    total = torch.zeros((), device=job.accelerator.device)
    for number, part in enumerate(parts, 1):
        last = number == len(parts)
        with nullcontext() if last else job.accelerator.no_sync(job.wrapped):
            loss = loss_of(job, part) * (len(part) * count / len(batch))
            job.accelerator.backward(loss)
        total += loss.detach()
    return cast(Tensor, job.accelerator.reduce(total, "mean"))


def steps(job: Job, epoch: int) -> Iterator[tuple[np.ndarray, Tensor]]:
    """One pass over the training reviews, a step at a time: its reviews and their mean loss."""
    set_seed(1000 * job.params.seed + epoch)
    job.model.train()
    reviews = order(job.params, epoch)
    for at in range(0, len(reviews), job.params.batch_size):
        batch = reviews[at : at + job.params.batch_size]
        loss = add_gradients(job, batch)
        job.optimizer.step()
        job.optimizer.zero_grad(set_to_none=True)
        yield batch, loss


def train_epoch(job: Job, epoch: int, most: int | None = None) -> np.ndarray:
    """The loss of each step (nats) of one pass, or of its first steps: `most` of them."""
    reviews = min(len(job.train), job.params.batch_size * (most or len(job.train)))
    losses: list[float] = []
    todo, size = islice(steps(job, epoch), most), CHECK_EVERY[job.accelerator.device.type]
    with Progress(f"{job.run.name}, epoch {epoch} of {job.params.epochs}", reviews) as progress:
        while some := [*islice(todo, size)]:
            losses += torch.stack([loss for _, loss in some]).tolist()
            check_finite(job, epoch, losses, [batch for batch, _ in some])
            progress.add(sum(len(batch) for batch, _ in some), f"loss {losses[-1]:.4f}")
    return np.array(losses, np.float32)


def mean_loss(losses: np.ndarray, params: Params) -> float:
    """The mean loss of a review, from the losses of an epoch's steps."""
    starts = range(0, params.train_examples, params.batch_size)
    sizes = np.diff([*starts, params.train_examples])
    return float(np.average(losses.astype(float), weights=sizes))


def check_finite(job: Job, epoch: int, losses: list[float], batches: list[np.ndarray]) -> None:
    """Stop the run at its first loss that is no number, and name the step and its reviews.

    losses: all so far; batches: the reviews of the last of them.
    """
    first = len(losses) - len(batches)
    for step, (value, batch) in enumerate(zip(losses[first:], batches, strict=True), first + 1):
        if not math.isfinite(value):
            raise InputError(
                f"loss of {job.run.name}, epoch {epoch}, step {step}, "
                f"reviews {', '.join(map(str, batch[:4]))}, ...",
                value,
                "a finite number",
                "lower the learning rate or set precision=fp32",
            )


def answers(job: Job, tokens: Tokens, title: str) -> list[str]:
    """What the model as it is answers to each review; each process asks it about its share."""
    room, placeholders = job.params.max_length, job.run.placeholders
    every = np.arange(len(tokens))
    mine = every[job.accelerator.process_index :: job.accelerator.num_processes]
    with Progress(f"{job.run.name}, {title}", len(mine)) as progress, job.accelerator.autocast():
        found = evaluation.predict(
            job.model, job.tokenizer, tokens.picked(mine), room, placeholders, progress.add
        )
    said = dict(gather_object([*zip(mine.tolist(), found, strict=True)]))
    return [said[review] for review in every.tolist()]


def accuracy(job: Job, tokens: Tokens, title: str) -> float:
    """The share of right ones among them."""
    return evaluation.score(answers(job, tokens, title), tokens.labels)[0]


# --- a whole run -------------------------------------------------------------------------------


def train(run: Run, params: Params) -> dict[str, Any]:
    """Train a run to its end and store it; returns its record. Call again after a kill."""
    machine.reset_peak_memory()
    identity, held = runs.identity(run, params), backbone.described(params)  # as they are loaded
    job = prepare(run, params)
    checkpoint = runs.folder(run, params) / "checkpoint.pt"
    restore(job, checkpoint, digest(identity))
    for done in epochs(job):
        print(
            f"{run.name}: epoch {done['epoch']} of {params.epochs}, loss {done['loss']:.4f}, "
            f"test accuracy {100 * done['test_accuracy']:.2f}%",
            file=sys.stderr,
            flush=True,
        )
        save_checkpoint(job, checkpoint, digest(identity))
    record = describe(job) | {"identity": identity, "backbone": held}
    runs.save(run, params, record, job.best, job.trace.packed())
    checkpoint.unlink(missing_ok=True)
    return record


def epochs(job: Job) -> Iterator[dict[str, Any]]:
    """The epochs that are still to come, one by one, and what came of each.

    It is noted in the job's history and trace, and its tensors are kept if it is the best so far.
    """
    sample = job.train.first(min(job.params.train_sample, len(job.train)), "train")
    for number in range(len(job.history) + 1, job.params.epochs + 1):
        began = time.perf_counter()
        losses = train_epoch(job, number)
        middle = time.perf_counter()
        said = answers(job, job.test, f"test after epoch {number}")
        ended = time.perf_counter()
        test_accuracy, other = evaluation.score(said, job.test.labels)
        job.history.append(
            {
                "epoch": number,
                "loss": mean_loss(losses, job.params),
                "train_accuracy": accuracy(job, sample, f"sample after epoch {number}"),
                "test_accuracy": test_accuracy,
                "other_words": other,
                "train_seconds": round(middle - began, 3),
                "test_seconds": round(ended - middle, 3),
            }
        )
        job.trace.add(number, losses, said)
        keep_best(job)
        yield job.history[-1]


def best_epoch(job: Job) -> dict[str, Any]:
    """The exercise's choice: the epoch of the highest test accuracy, the first of equals."""
    return max(job.history, key=lambda epoch: epoch["test_accuracy"])


def keep_best(job: Job) -> None:
    """Remember the trained tensors of the best epoch; full fine-tuning stores no weights."""
    if job.run.method != "full" and best_epoch(job) is job.history[-1]:
        job.best = {name: tensor.cpu().clone() for name, tensor in trained(job.model).items()}


def save_checkpoint(job: Job, path: Path, identity: str) -> None:
    """What a killed run needs to go on after its last whole epoch."""
    content = io.BytesIO()
    torch.save(
        {
            "identity": identity,
            "source": runs.source(),
            "history": job.history,
            "trace": job.trace.packed(),
            "trained": trained(job.model),
            "best": job.best,
            "optimizer": job.optimizer.state_dict(),
        },
        content,
    )
    files.write_bytes(path, content.getvalue())


def restore(job: Job, path: Path, identity: str) -> None:
    """Go on from a checkpoint of this very run; one of another, or a damaged one, is left aside."""
    if not path.exists():
        return
    try:
        held = read_checkpoint(path, job.accelerator.device)
        if (held["identity"], held["source"]) != (identity, runs.source()):
            return
    except Exception as error:  # zipfile and pickle raise many kinds
        if machine.out_of_memory(error):
            raise
        kind = type(error).__name__
        warnings.warn(f"{path} is damaged ({kind}): the run begins anew", stacklevel=2)
        return
    with torch.no_grad():
        for name, parameter in job.model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(held["trained"][name])
    job.optimizer.load_state_dict(held["optimizer"])
    job.history, job.best = held["history"], held["best"]
    job.trace = unpack(held["trace"])


def read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What `save_checkpoint` wrote, no bit of it changed, nothing in it run or inflated.

    Raises ValueError, or what zipfile and pickle raise, for anything else.
    """
    with zipfile.ZipFile(path) as parts:
        if sum(part.file_size for part in parts.infolist()) > path.stat().st_size:
            raise ValueError("parts that inflate")
        if parts.testzip():
            raise ValueError("a part whose check sum is wrong")
    return torch.load(path, map_location=device, weights_only=True)


def describe(job: Job) -> dict[str, Any]:
    """What a finished run came to, for its record."""
    best = best_epoch(job)
    counts = {
        "total": sum(p.numel() for p in job.model.parameters()),
        "trained": sum(p.numel() for p in trained(job.model).values()),
    }
    bare = backbone.load_on_meta(job.params.backbone).num_parameters()
    state = job.optimizer.state_dict()["state"].values()
    tensors = [value for slots in state for value in slots.values() if torch.is_tensor(value)]
    seconds = {
        part: sum(epoch[f"{part}_seconds"] for epoch in job.history) for part in ("train", "test")
    }
    reviews = {"train": len(job.train), "test": len(job.test)}
    return {
        "run": methods.facts(job.run),
        "study": job.params.study,
        "params": vars(job.params),
        "history": job.history,
        "best_epoch": best["epoch"],
        "best_accuracy": best["test_accuracy"],
        "last_accuracy": job.history[-1]["test_accuracy"],
        "test_examples": len(job.test),
        "parameters": {**counts, "added": counts["total"] - bare},
        "memory": {
            "optimizer_bytes": sum(t.numel() * t.element_size() for t in tensors),
            "peak_bytes": machine.peak_memory(),
        },
        "speed": {
            f"{part}_examples_per_second": round(len(job.history) * reviews[part] / spent, 1)
            for part, spent in seconds.items()
        }
        | {f"{part}_seconds": round(spent, 1) for part, spent in seconds.items()},
        "stored_bytes": sum(t.numel() * t.element_size() for t in trained(job.model).values()),
        "environment": machine.environment(job.params.precision),
    }


def attempt(run: Run, params: Params) -> dict[str, Any] | None:
    """Train a run under its lock, unless it is whole by now; None where another process has it."""
    with runs.lock(run, params) as mine:
        if not mine:
            return None
        if runs.status(run, params).state in AS_MADE:
            return runs.load(run, params)
        return train(run, params)


def train_alone(run: Run, params: Params) -> dict[str, Any]:
    """`attempt`, and where another process has the run, wait and take its record."""
    files.share([run], lambda run: attempt(run, params) is not None)
    return runs.load(run, params)
