"""A notebook that ran, for who reads it in Jupyter: Quarto's marks are resolved in its cells.

By pandoc, as in the report: captions and references get their numbers, citations their names.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from nbformat import NotebookNode, v4

from t5peft import notebook, paths, render

Place = tuple[MutableMapping[str, str], str]
"""Where a piece of Markdown stands: a mapping and its key."""


def resolved(book: NotebookNode) -> NotebookNode:
    """The executed notebook without front matter, its prose as text and all marks resolved.

    Raises `RenderError` for a reference that leads nowhere and a citation that is unknown.
    """
    book.cells = [written(cell) for cell in book.cells if cell.cell_type != "raw"]
    book.cells.append(v4.new_markdown_cell("## References\n\n::: {#refs}\n:::"))
    places = [place for cell in book.cells for place in texts(cell)]
    marked = [f"<!-- piece -->\n\n{holder[key]}" for holder, key in places]
    elsewhere = notebook.labels(notebook.read(paths.root() / "report.qmd"))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "cells.md", Path(folder) / "plain.md"
        source.write_text("\n\n".join(marked), encoding="utf-8")
        to = ("--to=commonmark+pipe_tables+tex_math_dollars", "--standalone=false", "--wrap=none")
        render.pandoc(source, target, elsewhere, *to)
        pieces = re.split(r"^<!-- piece -->$", target.read_text("utf-8"), flags=re.MULTILINE)[1:]
    for (holder, key), piece in zip(places, pieces, strict=True):
        holder[key] = piece.strip()
    book.cells = [cell for cell in book.cells if cell.source]
    return book


def written(cell: NotebookNode) -> NotebookNode:
    """The cell; what a hidden cell wrote, in place of it."""
    if not cell.metadata.get("jupyter", {}).get("source_hidden"):
        return cell
    (output,) = cell.outputs
    return v4.new_markdown_cell(output.data["text/markdown"], id=cell.id)


def texts(cell: NotebookNode) -> list[Place]:
    """The Markdown of a cell: its source, or what it shows."""
    if cell.cell_type == "markdown":
        return [(cell, "source")]
    shown = [output.data for output in cell.outputs if "data" in output]
    return [(data, "text/markdown") for data in shown if "text/markdown" in data]
