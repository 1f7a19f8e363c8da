"""The table of methods and implementations, and the runs that a study makes of it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from t5peft.base.errors import InputError
from t5peft.base.studies import TARGETS, Listed, Study, arguments, in_order

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


EXERCISE = ("full", "soft-prompt", "adapter", "lora")
METHODS = (*EXERCISE, "ia3")
"""The exercise's methods, and all."""

LIBRARY = {"soft-prompt": "opendelta", "adapter": "adapterhub", "lora": "peft", "ia3": "peft"}
"""The library that belongs to a method; every method is also there from "scratch"."""

LETTER = {"tokens": "n", "bottleneck": "b", "rank": "r"}
"""How a setting is written in formulas and in names of runs."""

SETTINGS = {
    "soft-prompt": {"tokens": "prompt_tokens"},
    "adapter": {"bottleneck": "bottleneck"},
    "lora": {"rank": "lora_rank", "alpha": "lora_alpha", "targets": "lora_targets"},
}
RATES = {
    "full": "full_learning_rate",
    "soft-prompt": "prompt_learning_rate",
    "adapter": "adapter_learning_rate",
    "adapterhub": "adapter_library_learning_rate",
    "lora": "lora_learning_rate",
}
"""A method's settings, and the rate of a method or of a library, by a study's names for them."""


@dataclass(frozen=True)
class Run:
    """One training of a study."""

    number: int  # the place in the study's list, from 1
    method: str
    implementation: str
    settings: dict[str, Any]
    learning_rate: float

    @property
    def name(self) -> str:
        """`full`, `lora-scratch-r8`, `soft-prompt-opendelta-n1`, ..."""
        parts = [self.method] if self.method == "full" else [self.method, self.implementation]
        parts += [f"{LETTER[key]}{value}" for key, value in self.settings.items() if key in LETTER]
        return "-".join([*parts, *self.settings.get("targets", [])])

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
    """The runs that a study lists, or the exercise's ten in its order.

    Raises `InputError` for a run that cannot be, and for two of one name.
    """
    ten = (
        Listed("full"),
        Listed("soft-prompt"),
        Listed("soft-prompt", "opendelta", {"tokens": study.prompt_tokens_small}),
        Listed("soft-prompt", "opendelta"),
        Listed("adapter"),
        Listed("adapter", "adapterhub"),
        Listed("adapter", "adapterhub", {"bottleneck": study.bottleneck_small}),
        Listed("lora"),
        Listed("lora", "peft", {"rank": study.lora_rank_small}),
        Listed("lora", "peft"),
    )
    runs = [completed(number, one, study) for number, one in enumerate(study.runs or ten, 1)]
    names = [run.name for run in runs]
    for run in runs:
        if run.name in names[: run.number - 1]:
            found = f"{run.name}, as run {1 + names.index(run.name)}"
            raise refused(run.number, study, found, "each name once (method, implementation, size)")
    return runs


def completed(number: int, one: Listed, study: Study) -> Run:
    """A listed run, with the study's settings and rate for what it leaves out."""
    method, implementation = one.method, one.implementation
    library = [LIBRARY[method]] if method in LIBRARY else []
    if method not in METHODS:
        raise refused(number, study, f"method {method!r}", f"one of {', '.join(METHODS)}")
    if implementation not in ("scratch", *library):
        found = f"implementation {implementation!r} of {method}"
        raise refused(number, study, found, " or ".join(["scratch", *library]))
    settings = {key: getattr(study, name) for key, name in SETTINGS.get(method, {}).items()}
    for key, value in one.settings.items():
        if key not in settings:
            expected = " or ".join(settings) or "no settings"
            raise refused(number, study, f"setting {key!r} of {method}", expected)
        if expected := expected_of(key, value, study):
            raise refused(number, study, f"{key} {value!r}", expected)
        settings[key] = type(settings[key])(value)  # alpha: 4 is 4.0
    settings = named(settings)
    rate = one.rate
    if rate is None:
        rate = getattr(study, RATES.get(implementation) or RATES.get(method, ""), 0.0)
    if rate <= 0:
        found = f"rate {rate:g}" if one.rate is not None else "no rate"
        raise refused(number, study, found, f"a positive learning rate for {method}")
    return Run(number, method, implementation, settings, rate)


def named(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as a run has them: LoRA's targets, in order, where they are not the usual ones.

    So a run is the same that was stored before targets could be chosen.
    """
    targets = in_order(settings.get("targets")) or settings.get("targets")
    rest = {key: value for key, value in settings.items() if key != "targets"}
    return rest | ({"targets": [*targets]} if targets and targets != Study.lora_targets else {})


def told(settings: Mapping[str, Any]) -> str:
    """`rank 8, alpha 4, targets q k`."""
    lists = {key: " ".join(value) for key, value in settings.items() if isinstance(value, list)}
    return ", ".join(f"{key} {lists.get(key) or format(x, 'g')}" for key, x in settings.items())


def expected_of(key: str, value: Any, study: Study) -> str:
    """What a setting must be where this value is none that it may have; else ""."""
    if key == "targets":
        return "" if in_order(value) else f"some of {', '.join(TARGETS)}, each once"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if key == "alpha":
        fits = number and 0 < value <= sys.float_info.max
        return "" if fits else "a positive number"
    most = study.max_length - 2 if key == "tokens" else 10**9 - 1  # a word and its end still fit
    fits = number and isinstance(value, int) and 0 < value <= most
    return "" if fits else f"a whole number from 1 to {most:,}"


def refused(number: int, study: Study, found: str, expected: str) -> InputError:
    """A run in a study's list that cannot be."""
    return InputError(f"run {number} of study {study.study}", found, expected, "mend its `runs`")


def require_ten(study: Study) -> None:
    """Refuse a study that lists other runs than the exercise's ten."""
    if study.runs:
        way_out = f"t5peft render {arguments(study)} shows what it lists"
        raise InputError(f"study {study.study}", "runs of its own", "the exercise's ten", way_out)


def ours(study: Study) -> dict[str, Run]:
    """The from-scratch run of each method, by method; of several, the first."""
    found: dict[str, Run] = {}
    for run in runs_of(study):
        if run.implementation == "scratch":
            found.setdefault(run.method, run)
    return found


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
