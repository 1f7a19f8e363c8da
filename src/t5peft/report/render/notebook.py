"""`.qmd` files -> a Jupyter notebook -> (papermill runs it) -> pandoc's markdown.

What of Quarto's syntax is understood: front matter, includes, `{python}` cells with the options in
`OPTIONS`, inline `{python} expressions`. The notebook keeps the cell options as they are written
(`#| key: value`), so that an executed notebook says by itself how it wants to be shown.
"""

from __future__ import annotations

import ast
import base64
import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from nbformat import NotebookNode, v4

from t5peft.base import paths
from t5peft.base.errors import InputError, Missing, OneLine
from t5peft.report import show

FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
INCLUDE = re.compile(r"^\{\{< include (\S+) >\}\}[ \t]*$", re.MULTILINE)
FENCE = re.compile(r"^(`{3,})([^`\n]*)\n(.*?)^\1[ \t]*$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`\{python\} ([^`]+)`")
LABEL = re.compile(r"(?:#|label: *)((?:sec|fig|tbl|eq)-[\w-]+)")

OPTIONS = {
    *("label", "tags", "echo", "eval", "include", "output", "warning"),
    *("fig-cap", "fig-alt", "tbl-cap", "code-fold"),
}
"""Cell options that are known. `warning` and `code-fold` change nothing: stderr is never shown."""


def settings(to: str = "") -> dict[str, Any]:
    """What _quarto.yml says of the document; of what it says under formats, that of `to` alone."""
    path = paths.root() / "_quarto.yml"
    said = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else {}
    formats = said.pop("format", {})
    return {**said, **formats.get(to, {})}


def echo() -> bool:
    """Does a cell show its source where its options do not say?"""
    return settings().get("execute", {}).get("echo", True)


def read(path: Path, inside: tuple[Path, ...] = ()) -> str:
    """A `.qmd` file with its includes in place; their paths start from the root, as Quarto's do.

    Raises InputError for a file that is missing or includes itself.
    """
    wanted = "a .qmd file"
    way_out = f"mend the include in {inside[-1].name}" if inside else "look at report.qmd"
    if path in inside:
        raise InputError(str(path), "an include of itself", wanted, way_out)
    if not path.is_file():
        raise InputError(str(path), "no such file", wanted, way_out)

    def included(match: re.Match[str]) -> str:
        return read(paths.root() / match[1].lstrip("/"), (*inside, path)).rstrip()

    return INCLUDE.sub(included, path.read_text(encoding="utf-8"))


def options(source: str) -> dict[str, Any]:
    """The `#| key: value` lines at the head of a cell. Raises `InputError` for what is none."""
    head = takewhile(lambda line: line.startswith("#|"), source.splitlines())
    lines = [line[2:].removeprefix(" ") for line in head]
    try:
        found = yaml.safe_load("\n".join(lines)) or {}
    except yaml.YAMLError:
        found = ""
    if not isinstance(found, dict):
        raise InputError("a cell", repr(lines[0]), "options, `#| key: value`", "mend or quote it")
    unknown = sorted(set(found) - OPTIONS)
    if unknown:
        raise InputError(
            "a cell", f"option {unknown[0]!r}", "one of " + ", ".join(sorted(OPTIONS)), "drop it"
        )
    return found


def code(source: str) -> str:
    """A cell without its options."""
    return re.sub(r"\A(#\|[^\n]*\n?)+\n*", "", source).rstrip()


def cells(text: str) -> Iterator[NotebookNode]:
    """The cells of a `.qmd` text that has no front matter and no includes."""
    done = 0
    for match in FENCE.finditer(text):
        if match[2].strip() == "{python}":
            yield from prose(text[done : match.start()])
            yield code_cell(match[3])
            done = match.end()
    yield from prose(text[done:])


def code_cell(source: str) -> NotebookNode:
    """A cell that runs; with `eval: false`, its source as text. Raises what `options` does."""
    found = options(source)
    if found.get("eval", True) is False:
        shown = f"```python\n{code(source)}\n```" if found.get("echo", echo()) else ""
        return v4.new_markdown_cell(shown)
    return v4.new_code_cell(source.strip(), metadata={"tags": found.get("tags", [])})


def prose(text: str) -> Iterator[NotebookNode]:
    """A markdown cell; where values stand in the text, a hidden code cell that writes it."""
    text = text.strip("\n")
    if not text.strip():
        return
    if not INLINE.search(text):
        yield v4.new_markdown_cell(text)
        return
    source = f"from {__name__} import fill as _fill\n\n_fill({literal(text)}, globals())"
    yield v4.new_code_cell(
        f"#| echo: false\n{source}",
        metadata={"tags": [], "jupyter": {"source_hidden": True}},
    )


def text_of(cell: NotebookNode) -> str:
    """The Markdown that a cell holds or, as a hidden one, fills; "" for one of code."""
    if cell.cell_type != "code":
        return cell.source
    if not cell.metadata.get("jupyter", {}).get("source_hidden"):
        return ""
    call: Any = ast.parse(cell.source).body[-1]
    return call.value.args[0].value


def literal(text: str) -> str:
    """Python source of a string, as readable as it can be."""
    plain = '"""' not in text and not text.endswith(('"', "\\"))
    return f'r"""{text}"""' if plain else repr(text)


def fill(text: str, namespace: dict[str, Any]) -> Any:
    """The text with every `{python} expression` replaced by its value.

    As in Quarto, a plain value is text (its markup is escaped) and `Markdown(...)` is markdown.
    Raises `OneLine` for an expression that fails or is an empty text.
    """
    from IPython.display import Markdown

    def value(match: re.Match[str]) -> str:
        try:
            found = eval(match[1], namespace)  # the report's own source
            markdown = getattr(found, "_repr_markdown_", None)
        except Missing:  # also of a name that a gap stands for
            return show.DASH
        except Exception as error:
            raise OneLine(f"{match[0]}: {type(error).__name__}: {error}") from error
        if not str(found):
            raise OneLine(f"{match[0]}: an empty text, in whose place Quarto shows the expression")
        if markdown:
            return markdown()
        return show.plain(str(found))

    return Markdown(INLINE.sub(value, text))


def chapter_path(chapter: str) -> Path:
    """chapters/_NAME.qmd, named by NAME. Raises `InputError` where there is none."""
    folder = paths.root() / "chapters"
    known = sorted(path.stem[1:] for path in folder.glob("_*.qmd"))
    if chapter not in known:
        raise InputError("chapter", repr(chapter), "one of " + ", ".join(known), "give one of them")
    return folder / f"_{chapter}.qmd"


def build(chapter: str | None = None, without: str = "") -> NotebookNode:
    """The report, or one chapter behind the report's parameters and set-up cells, as a notebook.

    A chapter's section whose heading is `without` is left out.
    """
    main = paths.root() / "report.qmd"
    text = read(main)
    front = FRONT_MATTER.match(text)
    found = list(cells(text[front.end() :] if front else text))
    if chapter:
        found = [cell for cell in found if is_setup(cell)]
        found += cells(leave_out(without, read(chapter_path(chapter))))
    if front:
        found.insert(0, v4.new_raw_cell(front[0].strip()))
    for number, cell in enumerate(found):
        cell.id = f"cell-{number}"
    return v4.new_notebook(
        cells=found,
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        },
    )


def leave_out(heading: str, text: str) -> str:
    """The text without its second-level section of this heading."""
    if not heading:
        return text
    return re.sub(rf"^## {re.escape(heading)}\b.*?(?=^## |\Z)", "", text, flags=re.M | re.S)


def is_setup(cell: NotebookNode) -> bool:
    """Is this the parameters cell or the cell labelled `setup`?"""
    return cell.cell_type == "code" and (
        "parameters" in cell.metadata.tags or options(cell.source).get("label") == "setup"
    )


def labels(text: str) -> dict[str, str]:
    """Every label of a `.qmd` text, with the headings that it stands below: what can be meant.

    What stands before the first heading has "".
    """
    found, headings, in_cell = {}, ["", ""], False
    for line in text.splitlines():
        in_cell ^= line.startswith("```")
        heading = re.match(r"(##?) (.+?)(?: \{.*\})?$", line)
        if heading and (heading[1] == "##" or not in_cell):  # in a cell # is a comment
            headings[len(heading[1]) - 1 :] = [heading[2]]
        for label in LABEL.findall(line):
            found[label] = ": ".join(filter(None, headings))
    return found


def markdown(notebook: NotebookNode, pictures: Path) -> str:
    """An executed notebook as pandoc's markdown; pictures are written to the folder `pictures`."""
    usual, parts = echo(), []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            parts.append(cell.source)
        elif "injected-parameters" not in cell.metadata.tags:
            parts.append(shown(cell, usual, pictures))
    return "\n\n".join(part for part in parts if part) + "\n"


def shown(cell: NotebookNode, echo: bool, pictures: Path) -> str:
    """What the reader sees of one executed code cell: source and results, as its options say.

    Raises `InputError` for a caption without a label.
    """
    wanted = {"echo": echo, "output": True, "include": True, **options(cell.source)}
    if not wanted["include"]:
        return ""
    label = str(wanted.get("label", ""))
    outputs, stem = enumerate(cell.outputs if wanted["output"] else (), 1), label or cell.id
    results = [result(output, wanted, pictures / f"{stem}-{number}") for number, output in outputs]
    body = "\n\n".join(filter(None, results))
    caption = wanted.get("tbl-cap") if label.startswith("tbl-") else wanted.get("fig-cap")
    if caption and not isinstance(caption, str):
        raise InputError(f"cell {label}", f"{caption!r} as its caption", "a text", "give one text")
    if caption and not label:
        raise InputError("a cell", f"the caption {caption!r}", "a label beside it", "give a label")
    if caption and body:
        body = f"::: {{#{label}}}\n\n{body}\n\n{caption}\n\n:::"
    source = f"```python\n{code(cell.source)}\n```" if wanted["echo"] else ""
    return "\n\n".join(filter(None, [source, body]))


def result(output: NotebookNode, wanted: Mapping[str, Any], picture: Path) -> str:
    """One output of a cell as markdown: the richest form that the page can hold."""
    if output.output_type == "stream":
        if output.name == "stderr":
            return ""
        return output.text.strip("\n") if wanted["output"] == "asis" else verbatim(output.text)
    data = output.get("data", {})
    if "text/markdown" in data:
        return data["text/markdown"].strip("\n")
    for kind, suffix in (("image/svg+xml", ".svg"), ("image/png", ".png")):
        if kind in data:
            file = picture.with_suffix(suffix)
            file.parent.mkdir(parents=True, exist_ok=True)
            raw = data[kind]
            file.write_bytes(raw.encode() if suffix == ".svg" else base64.b64decode(raw))
            alt = str(wanted.get("fig-alt", "")).replace('"', "'")
            return f'![]({file.relative_to(paths.root()).as_posix()}){{alt="{alt}"}}'
    return verbatim(data.get("text/plain", ""))


def verbatim(text: str) -> str:
    """Text as it is, in a block; "" for none."""
    return f"````\n{text.rstrip()}\n````" if text.strip() else ""
