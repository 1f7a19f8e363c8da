"""A notebook for who opens it in Jupyter: no mark of Quarto's in its texts, its source to be run.

By pandoc, as in the report: captions and references get their numbers, citations their names.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode, v4

from t5peft.base import files
from t5peft.base.errors import InputError
from t5peft.report.render import notebook, render

MARKER = "<!-- t5peft: the next piece -->"
SOURCE = re.compile(r"^Markdown\(show\.source\((.+)\)\)$", re.MULTILINE)
"""The cell that shows source in the report."""

COMMONMARK = ("--to=commonmark+pipe_tables+tex_math_dollars", "--standalone=false", "--wrap=none")


def write(chapter: str | None, output: Path) -> None:
    """`t5peft notebook [CHAPTER] -o OUTPUT`: what Jupyter opens and papermill runs.

    Raises `InputError` for another ending, and where something else is.
    """
    if output.suffix != ".ipynb":
        raise InputError("--output", output, "a name that ends in .ipynb", "add the ending")
    text = nbformat.writes(readable(notebook.build(chapter)))
    if output.exists() and output.read_text("utf-8", errors="replace") != text:
        found, way_out = "another notebook, or one that ran", "remove it, or give another -o"
        raise InputError(f"file {output}", found, "a new name", way_out)
    files.write_text(output, text)


def readable(book: NotebookNode) -> NotebookNode:
    """The notebook, before it runs, without front matter, cell options and Quarto's marks.

    A cell that shows source becomes that source. Raises `RenderError` for a reference that leads
    nowhere, an unknown citation, and a callout around a cell that runs.
    """
    found = [cell for cell in book.cells if cell.cell_type != "raw"]
    found.append(v4.new_markdown_cell("## References\n\n::: {#refs}\n:::"))
    plain = iter(resolved([text for cell in found if (text := notebook.text_of(cell))]))
    book.cells = [new for cell in found for new in anew(cell, plain)]
    if "csl-entry" not in book.cells[-1].source:
        book.cells.pop()  # nothing is cited
    for number, cell in enumerate(book.cells):
        cell.id = f"cell-{number}"
    return book


def anew(cell: NotebookNode, plain: Iterator[str]) -> Iterator[NotebookNode]:
    """The cell with the next of the resolved texts, if it has one, or with its source alone."""
    if notebook.text_of(cell):
        yield from notebook.prose(next(plain))
        return
    if notebook.is_setup(cell) and "parameters" not in cell.metadata.tags:
        cell.source += f"\nfrom {__name__} import here as _here\n\n_here()"
    if shown := SOURCE.search(cell.source):
        cell.source = definitions(*ast.literal_eval(f"({shown[1]},)"))
    cell.source = notebook.code(cell.source)
    yield cell


def definitions(module: str, *names: str) -> str:
    """The source of these definitions of a module, below the imports that it wants, as a cell.

    What else of their own module they use is imported from there.
    """
    whole = import_module(f"t5peft.{module}")
    body = ast.parse(inspect.getsource(whole)).body
    body += [node for block in body if isinstance(block, ast.If) for node in block.body]
    own = {name: node for node in body if (name := getattr(node, "name", ""))}
    own |= {x.id: node for node in body for x in getattr(node, "targets", ()) if hasattr(x, "id")}
    used = {x.id for name in names for x in ast.walk(own[name]) if isinstance(x, ast.Name)}
    lines = []
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            node.names = [x for x in node.names if (x.asname or x.name) in used]
            lines += [ast.unparse(node)] if node.names else []
    if others := sorted(used & own.keys() - {*names}):
        lines.append(f"from {whole.__name__} import {', '.join(others)}")
    source = [inspect.getsource(getattr(whole, name)).rstrip() for name in names]
    return "\n\n\n".join(["\n".join(lines), *source])


def resolved(texts: Sequence[str]) -> list[str]:
    """Texts of one document as Markdown that Jupyter shows: captions, references, citations."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "cells.md", Path(folder) / "plain.md"
        source.write_text("\n\n".join(f"{MARKER}\n\n{text}" for text in texts), encoding="utf-8")
        render.pandoc(source, target, True, *COMMONMARK)
        pieces = re.split(f"^{MARKER}$", target.read_text("utf-8"), flags=re.MULTILINE)[1:]
    if len(pieces) != len(texts):
        raise render.RenderError("a callout goes around a cell, which a notebook cannot show")
    return [piece.strip("\n") for piece in pieces]


def here() -> None:
    """In this kernel: Markdown is resolved as it is shown, and a training's log is no error's red.

    Citations of what a cell computes have no entry among the references.
    """
    from IPython.core.getipython import get_ipython
    from IPython.display import Markdown

    shell: Any = get_ipython()
    formatter = shell.display_formatter.formatters["text/markdown"]
    formatter.for_type(Markdown, lambda shown: resolved([f"{shown.data}\n\n{UNLISTED}"])[0])
    sys.stderr = sys.stdout


UNLISTED = "---\nsuppress-bibliography: true\n---"


def ran(book: NotebookNode) -> NotebookNode:
    """A readable notebook that ran: what a hidden cell wrote stands in its place, as text."""
    for place, cell in enumerate(book.cells):
        if notebook.text_of(cell) and cell.cell_type == "code":
            (text,) = (x.data["text/markdown"] for x in cell.outputs if "data" in x)  # no warnings
            book.cells[place] = v4.new_markdown_cell(text, id=cell.id)
    return book
