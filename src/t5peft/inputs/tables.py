"""Tables as people keep them: which files of a folder are a split's, and what stands in one.

Parquet and Arrow as the hub, `datasets` and its `save_to_disk` write them, CSV, TSV, JSON (a list
of objects, or one a line); and an extracted aclImdb, whose splits are folders.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5peft.base.errors import InputError, first_line

if TYPE_CHECKING:
    from pyarrow import Table

ENDINGS = (".parquet", ".arrow", ".csv", ".tsv", ".json", ".jsonl")
BESIDES = ("state.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json")
"""What `datasets` writes beside its tables."""

SPLITS = {"train": "train", "test": "test", "unsup": "unsupervised", "unsupervised": "unsupervised"}
"""The words that say of which split a file or a folder is."""


def is_table(path: Path) -> bool:
    """By its ending."""
    return path.suffix.lower() in ENDINGS


def of_split(folder: Path, split: str) -> list[Path]:
    """The files of a split, shards of one table; or the folder that it is in an aclImdb.

    A file is of the split that its own name says, or else the nearest folder's. Raises `InputError`
    where there is none, and where there are several tables.
    """
    found = [*walk(folder)]
    mine = [path for path in found if split_of(path, folder) == split]
    tables = {(path.parent, re.sub(r"\d+", "", path.name)): path for path in mine}
    if len(tables) > 1:
        one, other, *_ = sorted(str(path.relative_to(folder)) for path in tables.values())
        raise InputError(
            f"data {folder}",
            f"{one} and {other}, both of split {split}",
            "one table of a split, or its shards",
            "give the folder of one with --set data=FOLDER",
        )
    if not mine:
        there = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
        others = ", ".join(sorted(there)[:3])
        alone = len(found) == 1 and is_table(found[0]) and not split_of(found[0], folder)
        halves = f"--set data='{found[0]}' takes its halves; or " if alone else ""
        raise InputError(
            f"data {folder}",
            f"nothing of split {split}" + (f" ({others})" if others else ""),
            f"a table named {split}, or an extracted aclImdb",
            f"{halves}give another --set data=FOLDER",
        )
    if len(mine) < (number := shards(path.name for path in mine)):
        raise InputError(
            f"data {folder}",
            f"{len(mine)} of {number} shards of split {split}",
            "all",
            "fetch the others",
        )
    return sorted(mine)


def shards(names: Iterable[str]) -> int:
    """Of how many files those are, by names as NAME-00000-of-00002.parquet; 1 where none says."""
    said = (re.search(r"-of-(\d+)", name) for name in names)
    return max((int(found[1]) for found in said if found), default=1)


def walk(folder: Path) -> Iterator[Path]:
    """Its tables, and the splits of an aclImdb, without what is hidden or a Mac's."""
    for where, folders, names in os.walk(folder):
        here = Path(where)
        if {"neg", "pos"} <= {*folders}:
            yield here
        if "unsup" in folders:
            yield here / "unsup"
        folders[:] = [x for x in folders if not x.startswith((".", "__MACOSX"))]
        folders[:] = [x for x in folders if x not in ("neg", "pos", "unsup")]
        tables = (here / name for name in names if name not in BESIDES and name[0] != ".")
        yield from (path for path in tables if is_table(path) and path.is_file())


def split_of(path: Path, folder: Path) -> str:
    """The split that a name within a folder says, the last word first; "" for none."""
    for part in reversed(path.relative_to(folder).parts):
        said = {SPLITS[word] for word in re.split("[^a-z]+", part.lower()) if word in SPLITS}
        if len(said) == 1:
            return said.pop()
    return ""


def read(path: Path) -> dict[str, list[Any]]:
    """A table's columns by name. Raises `InputError`, which names the file, where it is damaged."""
    if not is_table(path):
        found, expected = f"a file {path.suffix}", "one of " + ", ".join(ENDINGS)
        raise InputError(f"data {path}", found.strip(), expected, "unpack or convert it")
    try:
        return columns(table(path))
    except Exception as error:  # pyarrow raises many kinds
        expected = f"a whole {path.suffix} file" + " in UTF-8" * (path.suffix not in ENDINGS[:2])
        found = f"{first_line(error):.200}"
        raise InputError(f"data {path}", found, expected, "mend it, or fetch it again") from None


def table(path: Path) -> Table:
    """The same as pyarrow has it, which raises many kinds."""
    import pyarrow
    from pyarrow import csv, parquet

    kind = path.suffix.lower()
    if kind == ".parquet":
        return parquet.read_table(path)
    if kind == ".arrow":
        return pyarrow.ipc.open_stream(pyarrow.memory_map(str(path))).read_all()
    if kind in (".csv", ".tsv"):
        between = "," if kind == ".csv" else "\t"
        how = csv.ParseOptions(delimiter=between, newlines_in_values=True)
        whole = csv.ReadOptions(block_size=min(path.stat().st_size + 1, 2**31 - 1))
        found = csv.read_csv(path, whole, how)
        for name, column in zip(found.column_names, found.columns, strict=True):
            if pyarrow.types.is_binary(column.type):  # what it makes of bytes that are no text
                raise ValueError(f"bytes that are not UTF-8 in column {name}")
            if kind == ".tsv" and (row := merged(column.to_pylist())):
                raise ValueError(f"a tab and a line break in row {row}: is a quote not closed?")
        return found
    text = path.read_text(encoding="utf-8-sig").strip()
    if not text.startswith("["):  # an object a line
        text = "[" + ",\n".join(filter(str.strip, text.split("\n"))) + "]"
    return pyarrow.Table.from_pylist(json.loads(text))


def columns(table: Table) -> dict[str, list[Any]]:
    """By name; the numbers of a `ClassLabel`, as `datasets` has them, as the words they stand for.

    Raises ValueError for two columns of one name.
    """
    if twice := [name for name, n in Counter(table.column_names).items() if name and n > 1]:
        raise ValueError(f"two columns {twice[0]}")
    found = table.to_pydict()
    said = json.loads((table.schema.metadata or {}).get(b"huggingface", b"{}"))
    for name, feature in said.get("info", {}).get("features", {}).items():
        if name in found and isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
            words = dict(enumerate(feature["names"]))
            found[name] = [words.get(number, number) for number in found[name]]
    return found


def merged(texts: list[Any]) -> int:
    """The first row, from 1, of a TSV's column that holds rows of it; 0 for none."""
    texts = [x if isinstance(x, str) else "" for x in texts]
    return next((row for row, x in enumerate(texts, 1) if "\t" in x and "\n" in x), 0)


def read_text(path: Path) -> str:
    """A text file. Raises `InputError`, which names it, where it is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        found, expected = f"{first_line(error)}", "a text in UTF-8"
        raise InputError(f"data {path}", found, expected, "convert it, or remove it") from None
