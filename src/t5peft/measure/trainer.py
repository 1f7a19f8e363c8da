"""What a practitioner would take instead of a loop of ours: transformers' `Seq2SeqTrainer`.

Reviews are grouped by length and answered by `generate`. The optimizer is the run's, and gradients
are not clipped; all else is as the library sets it.
"""

from __future__ import annotations

import tempfile
import time
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import (
    DataCollatorForSeq2Seq,
    PrinterCallback,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    TrainerCallback,
)

from t5peft.base import machine
from t5peft.inputs.data import Tokens
from t5peft.training import evaluation
from t5peft.training.jobs import Job


class Watch(TrainerCallback):
    """The moment at which each step ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """After a step of the optimizer."""
        machine.wait()
        self.ends.append(time.perf_counter())


def trainer(job: Job, reviews: Dataset, steps: int = 1) -> Seq2SeqTrainer:
    """That of a job's model and optimizer, for some steps over reviews."""
    study, size = job.study, job.study.batch_size
    arguments = Seq2SeqTrainingArguments(
        output_dir=tempfile.gettempdir(),
        save_strategy="no",
        max_steps=steps,
        per_device_train_batch_size=size,
        per_device_eval_batch_size=size,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        seed=study.seed,
        bf16=study.precision == "bf16",
        use_cpu=not machine.has_accelerator(),
        group_by_length=True,
        predict_with_generate=True,
        generation_max_length=evaluation.MAX_LENGTH,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
    )
    made = Seq2SeqTrainer(
        model=job.model,
        args=arguments,
        train_dataset=reviews,
        data_collator=DataCollatorForSeq2Seq(job.tokenizer),
        optimizers=(job.optimizer.optimizer, None),
    )
    made.remove_callback(PrinterCallback)
    return made


def rows(job: Job, reviews: Tokens) -> Dataset:
    """Reviews as the trainer takes them: ids, mask, label word and end, none of them padded."""
    reviews = reviews.to(torch.device("cpu"))  # a GPU would make them one by one
    sides = [
        reviews.batch(np.array([review]), job.study.max_length, job.run.placeholders)
        for review in range(len(reviews))
    ]
    columns: dict[str, Any] = {
        "input_ids": [ids[0].tolist() for ids, _ in sides],
        "attention_mask": [mask[0].tolist() for _, mask in sides],
        "labels": job.targets[reviews.labels].tolist(),
    }
    return Dataset.from_dict(columns)


def step(job: Job, steps: int) -> float:
    """Mean seconds of some steps, after one of the longest reviews, which come first."""
    watch, asked = Watch(), trainer(job, rows(job, job.train), 1 + steps)
    asked.add_callback(watch)
    asked.train()
    return (watch.ends[-1] - watch.ends[0]) / steps


def evaluate(job: Job, test: Tokens) -> float:
    """Seconds of answering some test reviews."""
    reviews: Any = rows(job, test)
    asked = trainer(job, reviews)
    return machine.seconds(lambda: asked.predict(reviews))
