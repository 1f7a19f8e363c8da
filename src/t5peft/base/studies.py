"""A study: everything that decides its results, as one file in params/ has it."""

from __future__ import annotations

import dataclasses
import json
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal

from t5peft.base import paths
from t5peft.base.errors import InputError
from t5peft.base.settings import build, check_types, read_yaml, require, require_name, study_file

BACKBONES = "backbone"
"""The folder in weights/ that is no study's."""

Precision = Literal["fp32", "bf16"]
Decay = Literal["none", "linear"]
Order = Literal["shared", "own"]
Train = Literal["auto", "yes", "no", "partial"]

TARGETS = ("q", "k", "v", "o", "wi", "wo")
"""The maps of a T5's attentions and feed-forwards that LoRA may change."""


def in_order(targets: Any) -> tuple[str, ...]:
    """Targets of LoRA in the order of `TARGETS`; () for none, an unknown one, or one twice."""
    given = targets if isinstance(targets, list | tuple) else ()
    known = tuple(target for target in TARGETS if target in given)
    return known if len(known) == len(given) else ()


@dataclass(frozen=True)
class Listed:
    """A run in a study's list. What it leaves out is as the study has it (`table.runs_of`)."""

    method: str
    implementation: str = "scratch"
    settings: dict[str, Any] = field(default_factory=dict)
    rate: float | None = None

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True)
class Study:
    """Everything that decides a study's results.

    `study` and `train` change none, `micro_batch_size` dropout's draws alone; `backbone`,
    `tokenizer` and `data` count by what lies behind them (`identity.identity_of`).
    """

    study: str  # name of the folder in weights/
    train: Train  # may a render train what is missing? auto: if it takes a minute; partial: gaps

    backbone: str  # hub name, folder, or random:SIZE
    backbone_fingerprint: str  # "" or the backbone that is expected
    tokenizer: str  # "" (the backbone's own), hub name, folder or .model file
    data: str  # hub name, folder, or made-up
    data_fingerprint: str  # "" or the texts that are expected

    train_examples: int
    test_examples: int
    train_sample: int  # training reviews on which the train accuracy is measured
    max_length: int  # tokens of a review, end of sequence included
    batch_size: int
    epochs: int
    seed: int
    precision: Precision

    full_learning_rate: float
    prompt_learning_rate: float
    prompt_tokens: int
    prompt_tokens_small: int
    adapter_learning_rate: float
    adapter_library_learning_rate: float
    bottleneck: int
    bottleneck_small: int
    lora_learning_rate: float
    lora_rank: int
    lora_rank_small: int
    lora_alpha: float
    lora_targets: tuple[str, ...] = ("q", "v")

    decay: Decay = "none"  # of the learning rates, over all epochs: constant, or down to 0
    order: Order = "shared"  # of the training reviews: one for all runs, or each run's own

    micro_batch_size: int = 0  # reviews in memory at once; 0: as is fastest, 8 on a CPU
    text_column: str = ""  # of data in a table; "": text, review or sentence
    label_column: str = ""  # "": label or sentiment
    labels: tuple[str, ...] = ()  # its words for negative and positive; none: 0, 1 and the like

    runs: tuple[Listed, ...] = ()  # none listed: the exercise's ten

    def __post_init__(self) -> None:
        if isinstance(self.runs, list | tuple):
            runs = tuple(listed(number, run) for number, run in enumerate(self.runs, 1))
            object.__setattr__(self, "runs", runs)
        if isinstance(self.labels, list | tuple):
            object.__setattr__(self, "labels", tuple(map(str, self.labels)))
        check_types(self)
        targets = in_order(self.lora_targets)
        require(self, "lora_targets", targets != (), f"some of {', '.join(TARGETS)}, each once")
        object.__setattr__(self, "lora_targets", targets)
        require_name(self, "study")
        differing = len({label.lower() for label in self.labels})
        require(self, "labels", len(self.labels) == differing in (0, 2), "two words, or none")
        require(self, "study", self.study != BACKBONES, "another name, as backbones lie there")
        for name in POSITIVE:
            value = getattr(self, name)
            require(self, name, value > 0, "a positive number")
            require(self, name, isinstance(value, float) or value < 10**9, "less than 10^9")
        for name in ("prompt_tokens", "prompt_tokens_small"):
            longest = self.max_length - 2
            require(
                self,
                name,
                getattr(self, name) <= longest,
                f"at most max_length - 2 = {longest}, so that a word and its end still fit",
            )
        for name in ("prompt_tokens", "bottleneck", "lora_rank"):
            small, usual = f"{name}_small", getattr(self, name)
            other = f"another number than {name} = {usual}, so that the runs differ"
            require(self, small, getattr(self, small) != usual, other)
        within = 0 <= self.micro_batch_size <= self.batch_size
        require(self, "micro_batch_size", within, f"0 to {self.batch_size}, the batch_size")
        require(self, "seed", 0 <= self.seed < 2**22, "a whole number from 0 to 4,194,303")
        if self.backbone.startswith("random:"):
            require(
                self,
                "tokenizer",
                self.tokenizer != "",
                "a tokenizer, as a random backbone has none",
            )


def plain(study: Study) -> dict[str, Any]:
    """The settings as YAML and JSON hold them."""
    values = asdict(study)
    return {name: [*x] if isinstance(x, tuple) else x for name, x in values.items()}


def listed(number: int, run: Any) -> Listed:
    """One of a study's `runs`, from YAML or as it is. Raises `InputError` for what is none."""
    if isinstance(run, Mapping):
        return build(Listed, run, f"run {number} in its list")
    if not isinstance(run, Listed):
        wanted = "{method: NAME, ...}"
        raise InputError(f"run {number} in its list", repr(run), wanted, "see params/sweep.yaml")
    return run


DEFAULT = "three-epochs"
"""The study that is meant where none is named."""

POSITIVE = tuple(
    field.name
    for field in dataclasses.fields(Study)
    if field.type in ("int", "float") and field.name not in ("seed", "micro_batch_size")
)


def load(study: str | Path, changes: Mapping[str, Any] | None = None) -> Study:
    """The study in `study` (a file or a name in params/), with `changes` on top."""
    path = study_file(study)
    values = read_yaml(path)
    if "size" in values:
        raise InputError(
            str(path), "a backbone", "a study's settings", "give it to t5peft pretrain"
        )
    found = build(Study, values, str(path), changes)
    for name in ("backbone", "data"):
        require(found, name, getattr(found, name) != "", "a name or a folder")
    return found


def arguments(study: Study) -> str:
    """The study as a command line names it: a file's name, and a `--set` for each difference.

    Where it has no file of its own, the file that differs least.
    """
    own = study_file(study.study).exists()
    bases = {study.study: load(study.study)} if own else every()
    if not bases:
        found, way_out = "no study", "copy params/ of the checkout there, or unset T5PEFT_HOME"
        raise InputError(f"folder {paths.params()}", found, "one at least", way_out)
    changes = {name: changed(study, base) for name, base in bases.items()}
    base = min(changes, key=lambda name: (len(changes[name]), name != DEFAULT))
    return " ".join([base, *(f"--set {shlex.quote(change)}" for change in changes[base])])


def every() -> dict[str, Study]:
    """The studies in params/ by name, without the files that are none: backbones', broken ones."""
    found = {}
    for file in sorted(paths.params().glob("*.yaml")):
        with suppress(InputError):
            found[file.stem] = load(file)
    return found


def told(name: str) -> str:
    """The first sentence of the comment that a study's file begins with."""
    lines = study_file(name).read_text(encoding="utf-8").splitlines()
    comment = " ".join(line.strip("# ") for line in takewhile(lambda x: x.startswith("#"), lines))
    return comment.partition(". ")[0].rstrip(".")


def changed(study: Study, base: Study) -> list[str]:
    """KEY=VALUE of each setting that differs, but for `train`: a render's word, not a command's."""
    usual = plain(base) | {"train": study.train}
    changes = {name: value for name, value in plain(study).items() if value != usual[name]}
    return [
        f"{name}={json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value}"
        for name, value in changes.items()
    ]


def with_seed(study: Study, seed: int) -> Study:
    """The study with another seed, whose runs are kept beside its own."""
    if seed == study.seed:
        return study
    return dataclasses.replace(study, seed=seed, study=f"{study.study}-seed-{seed}")
