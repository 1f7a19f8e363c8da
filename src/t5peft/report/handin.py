"""What the exercise wants uploaded: the report, five executed notebooks, three files of weights."""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import nbformat

from t5peft.base import files, studies
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.methods.table import require_ten, runs_of
from t5peft.report.about import void
from t5peft.report.render import cells, notebook, render
from t5peft.runs import export, store

NOTEBOOKS = {
    "1_full_fine_tuning": ("full-fine-tuning", ""),
    "2_soft_prompt": ("soft-prompt", ""),
    "3_adapter": ("adapter", "With the library"),
    "4_adapter_adapterhub": ("adapter", "Our implementation"),
    "5_lora": ("lora", ""),
}
"""The exercise's division: a notebook's name, its chapter, and the section that is not its own."""


def handin(
    file: str | Path, changes: Mapping[str, Any], name: str, number: str, folder: Path
) -> list[Path]:
    """Write the PDF and both zip files, named `{name}_{number}`; returns their paths.

    The PDF has name and number below its title.

    Raises `InputError` for a study whose numbers mean nothing and while a run is not fresh, and
    `RenderError` where a cell fails, as it does where a count differs.
    """
    for option, text in (("--name", name), ("--number", number)):
        if not re.fullmatch(r"[^\W_][\w-]*", text):
            letters = "letters, digits, '_', '-', and no sign first"
            raise InputError(option, repr(text), letters, "write --name A_Name --number 123")
    stem = f"{name}_{number}"
    study = studies.load(file, changes)
    require_ten(study)
    if found := void(study):
        expected, way_out = "a trained T5 and real ones", f"hand in {studies.DEFAULT}"
        raise InputError(f"study {study.study}", " and ".join(found), expected, way_out)
    require_as_made(study)
    values = render.from_anywhere({**studies.plain(study), "train": "no"})
    folder.mkdir(parents=True, exist_ok=True)
    pdf = folder / f"{stem}.pdf"
    author = f"{name.replace('_', ' ')}, {number.replace('_', ' ')}"
    render.render(file, {**changes, "train": "no"}, author=author, copy=pdf)
    with tempfile.TemporaryDirectory() as scratch:
        books = [Path(scratch) / f"{book}.ipynb" for book in NOTEBOOKS]
        for book, (chapter, without) in zip(books, NOTEBOOKS.values(), strict=True):
            readable = cells.readable(notebook.build(chapter, without))
            nbformat.write(cells.ran(render.run(readable, values, book)), book)
        weights = export.export(study, Path(scratch))
        return [
            pdf,
            zipped(folder / f"{stem}_notebooks.zip", books),
            zipped(folder / f"{stem}_weights.zip", weights),
        ]


def require_as_made(study: Study) -> None:
    """Refuse a study with runs that are missing, damaged or stale."""
    stored = store.require(runs_of(study), study)
    if stale := [record["run"]["name"] for record in stored if record["stale"]]:
        raise InputError(
            f"study {study.study}",
            f"{len(stale)} of {len(stored)} runs stale: {', '.join(stale)}",
            "ten runs that are fresh or verified",
            f"run: t5peft verify {studies.arguments(study)}, or train where they are not",
        )


def zipped(target: Path, parts: Iterable[Path]) -> Path:
    """The files, by their names alone, in one zip."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in parts:
            archive.write(part, part.name)
    files.write_bytes(target, content.getvalue())
    return target
