"""Flat YAML, and `--set` on top of it, into frozen dataclasses: checked field by field.

Nothing is guessed: a key that is unknown, missing, mistyped or contradictory is refused, by name.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import reprlib
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar

import yaml

from t5peft.base import paths
from t5peft.base.errors import InputError, first_line

TEXTS = ("study", "name", "backbone", "tokenizer", "data", "sst2")
TEXTS += ("backbone_fingerprint", "data_fingerprint", "text_column", "label_column")
"""Settings that are texts: taken from the command line as they stand, ` #`, digits and all."""

KINDS = {int: "a whole number", str: "a text", tuple: "a list", dict: "a mapping"}

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
        if NoneType in typing.get_args(kind):  # what may be left out
            if value is None:
                continue
            (kind,) = {*typing.get_args(kind)} - {NoneType}
        value = meant(value, kind)
        object.__setattr__(settings, name, value)
        if typing.get_origin(kind) is Literal:
            choices = typing.get_args(kind)
            ok, wanted = value in choices, "one of " + ", ".join(map(repr, choices))
        elif kind is float:
            ok = isinstance(value, int | float) and not isinstance(value, bool)
            ok, wanted = ok and abs(value) <= sys.float_info.max, "a finite number"
        else:
            plain = typing.get_origin(kind) or kind
            ok = isinstance(value, plain) and not isinstance(value, bool)
            wanted = KINDS[plain]
        if not ok:
            found = f"{reprlib.repr(value):.60}"
            quote = f"quote it, as in {name}: '...'; or " if kind is str else ""
            raise InputError(name, found, wanted, f"{quote}give another {name}")
        if kind is float:
            object.__setattr__(settings, name, float(value))


def meant(value: Any, kind: Any) -> Any:
    """A setting as YAML 1.1 reads it (papermill's files), taken for what was written.

    There `yes` is True, and 1e-4 a text. A list is a tuple here.
    """
    if typing.get_origin(kind) is tuple and isinstance(value, list):
        return tuple(value)
    if isinstance(value, bool) and typing.get_origin(kind) is Literal:
        word = "yes" if value else "no"
        return word if word in typing.get_args(kind) else value
    number = kind is float and isinstance(value, str) and re.match(YAML_1_2["float"][0], value)
    return float(value) if number else value


def build(
    cls: type[T], values: Mapping[str, Any], source: str, changes: Mapping[str, Any] | None = None
) -> T:
    """The dataclass `cls` from a flat mapping, with `changes` on top; every field that has no
    default, and no other.

    Raises `InputError` otherwise, and for a value that its field may not have: it names the source
    of the values, or for one of the changes the setting alone.
    """
    changes = changes or {}
    values = {**values, **changes}
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    names = [*fields]
    for key in values:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            raise InputError(
                f"setting {key}" if key in changes else f"{source}: key {key!r}",
                "no such setting",
                "one of the settings that the files in params/ show",
                f"did you mean {near[0]!r}?" if near else "remove it",
            )
    missing = [name for name in names if name not in values and not has_default(fields[name])]
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


def has_default(field: dataclasses.Field[Any]) -> bool:
    """May the field be left out?"""
    missing = dataclasses.MISSING
    return field.default is not missing or field.default_factory is not missing


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
            str(path),
            "no such file",
            "a params file",
            "give a path" + f", or one of {known}" * bool(known),
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
