"""The table of methods and implementations, and the ten runs that a study makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from t5peft.base.studies import Study

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


EXERCISE = ("full", "soft-prompt", "adapter", "lora")
METHODS = (*EXERCISE, "ia3")
"""The exercise's methods, and all."""

LIBRARY = {"soft-prompt": "opendelta", "adapter": "adapterhub", "lora": "peft", "ia3": "peft"}
"""The library that belongs to a method; every method is also there from "scratch"."""

LETTER = {"tokens": "n", "bottleneck": "b", "rank": "r"}
"""How a setting is written in formulas and in names of runs."""


@dataclass(frozen=True)
class Run:
    """One of the exercise's ten trainings."""

    number: int  # the place in the exercise's table, from 1
    method: str
    implementation: str
    settings: dict[str, Any]
    learning_rate: float

    @property
    def name(self) -> str:
        """`full`, `lora-scratch-r8`, `soft-prompt-opendelta-n1`, ..."""
        parts = [self.method] if self.method == "full" else [self.method, self.implementation]
        parts += [f"{LETTER[key]}{value}" for key, value in self.settings.items() if key in LETTER]
        return "-".join(parts)

    @property
    def placeholders(self) -> int:
        """Pad tokens before the text, whose embeddings the from-scratch soft prompt replaces."""
        scratch_prompt = (self.method, self.implementation) == ("soft-prompt", "scratch")
        return self.settings["tokens"] if scratch_prompt else 0


class Facts(TypedDict):
    """What a record says of its run."""

    name: str
    number: int
    method: str
    implementation: str
    settings: dict[str, Any]
    learning_rate: float


def facts(run: Run) -> Facts:
    """The same of a run."""
    return Facts(name=run.name, **vars(run))


def runs_of(study: Study) -> list[Run]:
    """The ten runs of a study, in the order of the exercise."""
    p = study

    def lora(rank: int) -> dict[str, Any]:
        return {"rank": rank, "alpha": p.lora_alpha}

    rows: list[tuple[str, str, dict[str, Any], float]] = [
        ("full", "scratch", {}, p.full_learning_rate),
        ("soft-prompt", "scratch", {"tokens": p.prompt_tokens}, p.prompt_learning_rate),
        ("soft-prompt", "opendelta", {"tokens": p.prompt_tokens_small}, p.prompt_learning_rate),
        ("soft-prompt", "opendelta", {"tokens": p.prompt_tokens}, p.prompt_learning_rate),
        ("adapter", "scratch", {"bottleneck": p.bottleneck}, p.adapter_learning_rate),
        ("adapter", "adapterhub", {"bottleneck": p.bottleneck}, p.adapter_library_learning_rate),
        (
            "adapter",
            "adapterhub",
            {"bottleneck": p.bottleneck_small},
            p.adapter_library_learning_rate,
        ),
        ("lora", "scratch", lora(p.lora_rank), p.lora_learning_rate),
        ("lora", "peft", lora(p.lora_rank_small), p.lora_learning_rate),
        ("lora", "peft", lora(p.lora_rank), p.lora_learning_rate),
    ]
    return [Run(number, *row) for number, row in enumerate(rows, 1)]


def inject(
    model: T5ForConditionalGeneration, method: str, implementation: str, settings: dict[str, Any]
) -> None:
    """Freeze the model and put the method in place; full fine-tuning leaves all of it trained.

    Raises ValueError on a second injection, and where the method finds no site.
    """
    from t5peft.methods.sites import claim, freeze

    claim(model, f"{method} ({implementation})")
    if method != "full":
        freeze(model)
        builders()[method, implementation](model, **settings)


def builders() -> dict[tuple[str, str], Callable[..., None]]:
    """What puts a method into a frozen T5, by method and implementation."""
    from t5peft.methods import adapter, ia3, libraries, lora, soft_prompt  # with torch

    return {
        ("soft-prompt", "scratch"): soft_prompt.inject,
        ("soft-prompt", "opendelta"): libraries.opendelta_soft_prompt,
        ("adapter", "scratch"): adapter.inject,
        ("adapter", "adapterhub"): libraries.adapterhub_adapter,
        ("lora", "scratch"): lora.inject,
        ("lora", "peft"): libraries.peft_lora,
        ("ia3", "scratch"): ia3.inject,
        ("ia3", "peft"): libraries.peft_ia3,
    }
