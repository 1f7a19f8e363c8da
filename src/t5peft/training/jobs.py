"""A run in the making: model with its method in place, reviews, optimizer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from t5peft.base.errors import InputError
from t5peft.base.studies import Params
from t5peft.inputs import backbone, data, tokenizers
from t5peft.inputs.data import Tokens
from t5peft.methods.table import Run, inject
from t5peft.training import evaluation, fast
from t5peft.training.trace import Trace


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
    inject(model, run.method, run.implementation, run.settings)
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
    words = tokenizers.load(params.tokenizer or params.backbone)
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
