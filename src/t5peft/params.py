"""The settings of a study: a frozen dataclass, read from one flat YAML file.

Nothing is guessed: a key that is unknown, missing, mistyped or contradictory is refused, by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import reprlib
import shlex
import sys
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from t5peft import paths
from t5peft.errors import InputError, first_line

Precision = Literal["fp32", "bf16"]
Train = Literal["auto", "yes", "no", "partial"]


@dataclass(frozen=True)
class Params:
    """Everything that decides a study's results.

    The names `study` and `train` change none; `backbone`, `tokenizer` and `data` count by what lies
    behind them (`runs.identity`).
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

    def __post_init__(self) -> None:
        check_types(self)
        require_name(self, "study")
        require(self, "study", self.study != "backbone", "another name, as backbones lie there")
        for name in POSITIVE:
            value = getattr(self, name)
            require(self, name, value > 0, "a positive number")
            require(self, name, isinstance(value, float) or value < 10**9, "less than 10^9")
        for name in ("prompt_tokens", "prompt_tokens_small"):
            room = self.max_length - 2
            require(
                self,
                name,
                getattr(self, name) <= room,
                f"at most max_length - 2 = {room}, so that a word and its end still fit",
            )
        for name in ("prompt_tokens", "bottleneck", "lora_rank"):
            small, usual = f"{name}_small", getattr(self, name)
            other = f"another number than {name} = {usual}, so that the runs differ"
            require(self, small, getattr(self, small) != usual, other)
        require(self, "seed", 0 <= self.seed < 2**22, "a whole number from 0 to 4,194,303")
        if self.backbone.startswith("random:"):
            require(
                self,
                "tokenizer",
                self.tokenizer != "",
                "a tokenizer, as a random backbone has none",
            )


DEFAULT = "self-contained"
"""The study that is meant where none is named."""

TEXTS = ("study", "name", "backbone", "tokenizer", "data", "sst2")
TEXTS += ("backbone_fingerprint", "data_fingerprint")
"""Settings that are texts: taken from the command line as they stand, ` #`, digits and all."""

POSITIVE = tuple(
    field.name
    for field in dataclasses.fields(Params)
    if field.type in ("int", "float") and field.name != "seed"
)

T = TypeVar("T")


def require(settings: object, name: str, holds: bool, expected: str) -> None:
    """Refuse the field `name` of `settings` unless `holds`."""
    if not holds:
        raise InputError(name, repr(getattr(settings, name)), expected, f"give another {name}")


def require_name(settings: object, name: str) -> None:
    """Refuse a field that names a folder unless it is one plain name."""
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", getattr(settings, name)) is not None
    require(settings, name, plain, "letters, digits, '.', '_', '-'")


def check_types(settings: Any) -> None:
    """Refuse fields whose value is not of the annotated type (bool is no int, nan no float)."""
    for name, kind in typing.get_type_hints(type(settings)).items():
        value = getattr(settings, name)
        if typing.get_origin(kind) is Literal:
            choices = typing.get_args(kind)
            ok, wanted = value in choices, "one of " + ", ".join(map(repr, choices))
        elif kind is float:
            ok = isinstance(value, int | float) and not isinstance(value, bool)
            ok, wanted = ok and abs(value) <= sys.float_info.max, "a finite number"
        else:
            ok = isinstance(value, kind) and not isinstance(value, bool)
            wanted = {int: "a whole number", str: "a text"}[kind]
        if not ok:
            found = f"{reprlib.repr(value):.60}"
            raise InputError(name, found, wanted, f"give another {name}")
        if kind is float:
            object.__setattr__(settings, name, float(value))


def build(
    cls: type[T], values: Mapping[str, Any], source: str, changes: Mapping[str, Any] | None = None
) -> T:
    """The dataclass `cls` from a flat mapping, with `changes` on top; every field, and no other.

    Raises `InputError` otherwise, and for a value that its field may not have: it names the source
    of the values, or for one of the changes the setting alone.
    """
    changes = changes or {}
    values = {**values, **changes}
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            raise InputError(
                f"setting {key}" if key in changes else f"{source}: key {key!r}",
                "no such setting",
                "one of the settings that its file in params/ lists",
                f"did you mean {near[0]!r}?" if near else "remove it",
            )
    missing = [name for name in names if name not in values]
    if missing:
        raise InputError(source, "no " + ", ".join(missing), "every setting", "add what is missing")
    try:
        return cls(**values)
    except InputError as error:
        changed = f" with another {', '.join(map(str, changes))}" if changes else ""
        named = f"{source}{changed}: {error.thing}"
        if error.thing in changes:
            named = f"setting {error.thing}"
        raise InputError(named, error.found, error.expected, error.way_out) from None


YAML_1_2 = {  # a kind, its form, its first characters
    "bool": (r"(true|True|TRUE|false|False|FALSE)$", "tTfF"),
    "int": (r"[-+]?\d+$", "-+0123456789"),
    "float": (r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?$|[-+]?\.(inf|nan)$", "-+.0123456789"),
}


class _Loader(yaml.SafeLoader):
    """YAML 1.2: 1e-5 is a float, 010 is ten, yes and no are texts; no key stands twice."""

    yaml_implicit_resolvers = {  # without those of YAML 1.1
        first: [(tag, form) for tag, form in resolvers if tag.rpartition(":")[2] not in YAML_1_2]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]  # type: ignore[no-untyped-call]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(f"key {key!r} given twice")
        return super().construct_mapping(node, deep)


for _kind, (_form, _first) in YAML_1_2.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_form), list(_first))
_Loader.add_constructor(
    "tag:yaml.org,2002:int",
    lambda loader, node: int(str(loader.construct_scalar(node))),  # type: ignore[arg-type]
)


def parse(text: str) -> Any:
    """One YAML value, as a params file or `--set` gives it."""
    try:
        return yaml.load(text, _Loader)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise yaml.YAMLError(f"a value that cannot be read: {first_line(error)}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A flat YAML mapping, or an `InputError`."""
    try:
        values = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in paths.params().glob("*.yaml")))
        raise InputError(
            str(path), "no such file", "a params file", f"give a path, or one of {known}"
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(str(path), error, "a readable YAML file", "mend the file") from None
    if not isinstance(values, dict):
        found = "nothing" if values is None else reprlib.repr(values)
        raise InputError(str(path), found, "lines 'setting: value'", "mend the file")
    return values


def study_file(study: str | Path) -> Path:
    """A study is named by its file, or by the name of a file in params/."""
    path = Path(study)
    return path if path.suffix in (".yaml", ".yml") else paths.params() / f"{study}.yaml"


def overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """`["lora_rank=16", ...]` (the `--set` options) as a mapping, values read as YAML.

    Raises `InputError` for what is no KEY=VALUE.
    """
    values = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set {text}", "no '='", "setting=value", "write --set lora_rank=16")
        try:
            parsed = value if key.strip() in TEXTS else parse(value)
        except yaml.YAMLError:
            raise InputError(
                f"--set {text}", "no YAML value", "setting=value", "quote it"
            ) from None
        values[key.strip()] = "" if parsed is None else parsed
    return values


def load(study: str | Path, changes: Mapping[str, Any] | None = None) -> Params:
    """The study in `study` (a file or a name in params/), with `changes` on top."""
    path = study_file(study)
    return build(Params, read_yaml(path), str(path), changes)


def arguments(study: Params) -> str:
    """The study as a command line names it: a file's name, and a `--set` for each difference.

    Where it has no file of its own, the file that differs least.
    """
    own = study_file(study.study).exists()
    bases = {study.study: load(study.study)} if own else studies()
    changes = {name: changed(study, base) for name, base in bases.items()}
    base = min(changes, key=lambda name: (len(changes[name]), name != DEFAULT))
    return " ".join([base, *(f"--set {shlex.quote(change)}" for change in changes[base])])


def studies() -> dict[str, Params]:
    """The studies in params/ by name, without the files that are none: backbones', broken ones."""
    found = {}
    for file in sorted(paths.params().glob("*.yaml")):
        with suppress(InputError):
            found[file.stem] = load(file)
    return found


def changed(study: Params, base: Params) -> list[str]:
    """KEY=VALUE of each setting that differs, but for `train`: a render's word, not a command's."""
    usual = vars(base) | {"train": study.train}
    return [f"{name}={value}" for name, value in vars(study).items() if value != usual[name]]


def with_seed(study: Params, seed: int) -> Params:
    """The study with another seed, whose runs are kept beside its own."""
    if seed == study.seed:
        return study
    return dataclasses.replace(study, seed=seed, study=f"{study.study}-seed-{seed}")
