"""A notebook that ran, for who reads it in Jupyter: Quarto's marks are resolved in its cells.

By pandoc, as in the report: captions and references get their numbers, citations their names.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from nbformat import NotebookNode, v4

from t5peft.base import paths
from t5peft.report.render import notebook, render

MARKER = "<!-- t5peft: the next piece -->"

Place = tuple[MutableMapping[str, str], str]
"""Where a piece of Markdown stands: a mapping and its key."""


def resolved(book: NotebookNode) -> NotebookNode:
    """The executed notebook without front matter, its prose as text and all marks resolved.

    A cell's own caption (`fig-cap`, `tbl-cap`) is not among them. Raises `RenderError` for a
    reference that leads nowhere, an unknown citation, and a callout around a cell that runs.
    """
    book.cells = [written(cell) for cell in book.cells if cell.cell_type != "raw"]
    book.cells.append(v4.new_markdown_cell("## References\n\n::: {#refs}\n:::"))
    places = [place for cell in book.cells for place in texts(cell)]
    marked = [f"{MARKER}\n\n{holder[key]}" for holder, key in places]
    elsewhere = notebook.labels(notebook.read(paths.root() / "report.qmd"))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "cells.md", Path(folder) / "plain.md"
        source.write_text("\n\n".join(marked), encoding="utf-8")
        to = ("--to=commonmark+pipe_tables+tex_math_dollars", "--standalone=false", "--wrap=none")
        render.pandoc(source, target, elsewhere, *to)
        pieces = re.split(f"^{MARKER}$", target.read_text("utf-8"), flags=re.MULTILINE)[1:]
    if len(pieces) != len(places):
        raise render.RenderError("a callout goes around a cell, which a notebook cannot show")
    for (holder, key), piece in zip(places, pieces, strict=True):
        holder[key] = piece.strip("\n")
    if "csl-entry" not in book.cells[-1].source:
        book.cells.pop()  # nothing is cited
    book.cells = [cell for cell in book.cells if cell.source]
    return book


def written(cell: NotebookNode) -> NotebookNode:
    """The cell; what a hidden cell wrote, in place of it."""
    if not cell.metadata.get("jupyter", {}).get("source_hidden"):
        return cell
    (text,) = (x.data["text/markdown"] for x in cell.outputs if "data" in x)  # no warnings
    return v4.new_markdown_cell(text, id=cell.id)


def texts(cell: NotebookNode) -> list[Place]:
    """The Markdown of a cell: its source, or what it shows."""
    if cell.cell_type == "markdown":
        return [(cell, "source")]
    shown = [output.data for output in cell.outputs if "data" in output]
    return [(data, "text/markdown") for data in shown if "text/markdown" in data]
