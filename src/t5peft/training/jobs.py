"""A run in the making: model with its method in place, reviews, optimizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import backbone, data, tokenizers
from t5peft.inputs.data import Tokens
from t5peft.methods.table import Run, inject, told
from t5peft.training import evaluation, fast
from t5peft.training.trace import Trace


class Epoch(TypedDict):
    """What came of an epoch; accuracies and `other_words` are shares of 1, the loss is in nats."""

    epoch: int
    loss: float
    train_accuracy: float
    test_accuracy: float
    other_words: float
    train_seconds: float
    test_seconds: float


@dataclass
class Job:
    """A run in the making: the model with its method in place, the reviews, the optimizer."""

    run: Run
    study: Study
    model: T5ForConditionalGeneration
    tokenizer: Any
    targets: Tensor  # (2, 2): each label's word and its end
    train: Tokens
    test: Tokens
    accelerator: Accelerator
    optimizer: Any = None
    wrapped: Any = None  # the model as accelerate wants it called
    compiled: Any = None  # the same for whole batches, see `compiling`
    history: list[Epoch] = field(default_factory=list)
    trace: Trace = field(default_factory=Trace)
    best: dict[str, Tensor] = field(default_factory=dict)  # trained tensors of the best epoch


def trained(model: nn.Module) -> dict[str, Tensor]:
    """The trained tensors by name: what a run stores."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def build(run: Run, study: Study) -> T5ForConditionalGeneration:
    """The study's backbone with the run's method in place, on the CPU."""
    model = backbone.load(study.backbone, study.seed)
    set_seed(study.seed)  # the new parameters are drawn from here
    inject(model, run.method, run.implementation, run.settings)
    return model


def prepare(run: Run, study: Study) -> Job:
    """Everything that a run needs, on its device."""
    return with_fast_model(run, study, build(run, study))


def with_fast_model(run: Run, study: Study, model: T5ForConditionalGeneration) -> Job:
    """`with_model`, with the faster forward."""
    before = fast.probe(model)
    after = fast.probe(fast.speed_up(model))
    if not abs(after - before) <= fast.SAME * max(1.0, abs(before)):  # nor where one is no number
        raise InputError(
            f"backbone {study.backbone} with {run.name}",
            f"a loss of {after:.4f} in this project's arithmetic",
            f"{before:.4f}, as transformers has it" if before < float("inf") else "a number",
            "give a T5 of the first form, and whole"
            + f"; or other settings than {told(run.settings)}" * bool(run.settings),
        )
    job = with_model(run, study, model)
    if study.precision == "bf16":
        fast.round_frozen(model)
    return job


def with_model(run: Run, study: Study, model: T5ForConditionalGeneration) -> Job:
    """A run's job around a model that has its method in place."""
    accelerator = Accelerator(mixed_precision="bf16" if study.precision == "bf16" else "no")
    tokenizer = tokenizers.load(study.tokenizer or study.backbone)
    train, test = (data.tokens(study, split).to(accelerator.device) for split in data.SPLITS)
    check_tokenizer(tokenizer, run, study)
    targets = evaluation.targets(tokenizer)
    job = Job(run, study, model, tokenizer, targets, train, test, accelerator)
    job.model.to(accelerator.device)
    optimizer = torch.optim.AdamW(
        [p for p in job.model.parameters() if p.requires_grad],
        lr=run.learning_rate,
        fused=True,
    )
    job.wrapped, job.optimizer = accelerator.prepare(job.model, optimizer)
    return job


def check_tokenizer(tokenizer: Any, run: Run, study: Study) -> None:
    """Refuse a tokenizer that does not fit the backbone or the task."""
    rows = backbone.load_on_meta(study.backbone).config.vocab_size
    name = f"tokenizer {study.tokenizer or study.backbone}"
    if len(tokenizer) > rows:
        raise InputError(
            name,
            f"{len(tokenizer)} pieces",
            f"at most the backbone's {rows}",
            "give the backbone's own",
        )
    if run.settings.get("tokens", 0) > rows:
        raise InputError(
            f"tokens of {run.name}", run.settings["tokens"], f"at most {rows}", "give fewer"
        )
    evaluation.word_ids(tokenizer)
