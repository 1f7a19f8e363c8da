"""The report as a PDF: by Quarto where it is found, else by papermill, pandoc and Typst."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import nbformat
import yaml
from nbformat import NotebookNode

from t5peft.base import files, paths, studies
from t5peft.base.errors import InputError, OneLine
from t5peft.methods.table import runs_of
from t5peft.report.render import notebook

TEMPLATES = Path(__file__).parent / "templates"
Format = Literal["pdf", "html"]

SIZES = "sizes"
"""The chapter that is the report of a study with runs of its own."""

AUTHOR = "handed-in-by"
"""The templates' name for the author; Quarto makes its own things of `author`."""

LINES = {"mininterval": 5, "bar_format": "{desc}: {n_fmt} of {total_fmt} cells\n"}
"""Papermill's progress where there is no terminal: a line every few seconds."""


class RenderError(OneLine):
    """A render that did not reach its end."""


def render(
    study: str | Path,
    changes: Mapping[str, Any],
    chapter: str | None = None,
    to: Format = "pdf",
    author: str = "",
    copy: Path | None = None,
) -> Path:
    """Render the report, or one chapter, for a study with some settings changed.

    author: who hands it in, for the title of the PDF; letters, digits and commas. copy: where the
    file is wanted as well. A second render waits for the first, as they share _output/.

    Returns the file written in _output/. Raises InputError for wrong settings, and RenderError for
    a cell that fails or a reference that leads nowhere.
    """
    stamp()
    if chapter:
        notebook.chapter_path(chapter)  # refuses a name that is none
    wanted = studies.load(study, changes)  # refuses unknown and mistyped settings,
    runs_of(wanted)  # and a list of runs that cannot be
    values = from_anywhere(studies.plain(wanted))
    own = "" if values["study"] == studies.DEFAULT else f"-{values['study']}"
    target = paths.output() / f"{chapter or 'report'}{own}.{to}"
    chapter = chapter or (SIZES if wanted.runs else None)
    quarto = os.environ.get("QUARTO") or shutil.which("quarto")
    with files.lock(paths.output() / ".lock", wait=True):
        target.unlink(missing_ok=True)  # what fails leaves none that could be taken for it
        if quarto and not chapter and values["train"] != "partial":  # it has no gaps in sentences
            with_quarto(quarto, values, target, author)
        else:
            book = notebook.build(chapter)
            typeset(run(book, values, target.with_suffix(".ipynb")), target, chapter, author)
        if copy:
            files.write_bytes(copy, target.read_bytes())
    return target


def stamp() -> int | None:
    """The time that SOURCE_DATE_EPOCH fixes, in seconds since 1970.

    Raises `InputError` for what is none: the kernel of the notebook would not even start.
    """
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if given and not (given.isdecimal() and int(given) < 2**32):
        expected = "seconds since 1970, below 2^32"
        raise InputError("SOURCE_DATE_EPOCH", repr(given), expected, "unset it")
    return int(given) if given else None


def from_anywhere(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings for cells, which run in the root: what only stands here gets its whole path."""
    named = {key: Path(values[key]) for key in ("backbone", "tokenizer", "data") if values[key]}
    here = {
        key: str(path.resolve())
        for key, path in named.items()
        if path.exists() and path.resolve() != (paths.root() / path).resolve()
    }
    return {**values, **here}


def with_quarto(quarto: str, values: Mapping[str, Any], target: Path, author: str) -> None:
    """`quarto render report.qmd` with the parameters in a file; `RenderError` where it fails."""
    made = target.with_name(f"report{target.suffix}")  # Quarto's own name for it,
    other = made.read_bytes() if made != target and made.exists() else b""  # as for another study
    to = "typst" if target.suffix == ".pdf" else "html"
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(dict(values), file)
        file.flush()
        command = [quarto, "render", "report.qmd", "--to", to, "--execute-params", file.name]
        command += ["--metadata", f"{AUTHOR}:{author}"] if author else []
        env = {"QUARTO_PYTHON": sys.executable, **os.environ}  # the environment that has Jupyter
        try:
            code = subprocess.run(command, cwd=paths.root(), env=env, check=False).returncode
        except OSError as error:
            raise RenderError(f"{quarto}: {error.strerror}; mend QUARTO, or unset it") from None
    try:
        if code or not made.exists():
            raise RenderError(f"{quarto} ended with code {code}, without a new report; see above")
        if made != target:
            made.replace(target)
    finally:
        if other:
            files.write_bytes(made, other)


def run(book: NotebookNode, values: Mapping[str, Any], output: Path) -> NotebookNode:
    """Run a notebook by papermill and keep it in `output`; progress and stderr are shown.

    Raises `RenderError` for a cell that fails.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError

    output.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, output)
    try:
        return papermill.execute_notebook(
            str(output),
            str(output),
            parameters=dict(values),
            cwd=str(paths.root()),
            stderr_file=sys.stderr,
            progress_bar=bool(sys.stderr and sys.stderr.isatty()) or LINES,  # type: ignore[arg-type]  # as to tqdm
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],  # no word on its own transport
        )
    except PapermillExecutionError as error:
        raise RenderError(f"{where(error.source)}: {error.ename}: {error.evalue}") from None
    except DeadKernelError:
        raise RenderError("the kernel died while a cell ran (out of memory?)") from None


def where(source: str) -> str:
    """A cell by its label, or by its first line."""
    first = (notebook.code(source).splitlines() or [""])[0]
    return f"cell {notebook.options(source).get('label') or repr(first)}"


def typeset(
    executed: NotebookNode, target: Path, chapter: str | None = None, author: str = ""
) -> None:
    """An executed notebook -> markdown -> Typst -> PDF (or self-contained HTML)."""
    base = target.with_suffix("")
    pictures = base.with_name(f"{base.name}_files")
    shutil.rmtree(pictures, ignore_errors=True)
    source = base.with_suffix(".md")
    source.write_text(notebook.markdown(executed, pictures), encoding="utf-8")
    if target.suffix == ".html":
        page = base.with_suffix(".new.html")
        extra = ["--embed-resources", "--number-sections", "--toc", "--toc-depth=2", "--mathml"]
        extra += [f"--css={TEMPLATES / 'report.css'}"]
        extra += [f"--include-after-body={TEMPLATES / 'report.html'}"]
        pandoc(source, page, bool(chapter), *extra)
        page.replace(target)
        return
    typ = base.with_suffix(".typ")
    extra = [f"--template={TEMPLATES / 'template.typ'}", "--syntax-highlighting=idiomatic"]
    extra += [f"--metadata={AUTHOR}:{author}"] if author else []
    pandoc(source, typ, bool(chapter), *extra)
    to_pdf(typ, target)


def pandoc(source: Path, target: Path, part: bool, *extra: str) -> None:
    """Run pandoc; its warnings (an unresolved reference, an unknown citation) are `RenderError`.

    part: of the report, to whose other labels it may refer.
    """
    import pypandoc

    said = source.with_suffix(".yml")
    settings = notebook.settings("typst" if target.suffix == ".typ" else "")
    said.write_text(yaml.safe_dump(settings), encoding="utf-8")
    command = [pypandoc.get_pandoc_path(), str(source), "--output", str(target), "--standalone"]
    command += ["--from=markdown", "--fail-if-warnings", f"--metadata-file={said}"]
    command += [f"--lua-filter={TEMPLATES / 'crossref.lua'}", "--citeproc", *extra]
    whole = notebook.labels(notebook.read(paths.root() / "report.qmd")) if part else {}
    command += [f"--metadata=elsewhere:{label}={at}" for label, at in whole.items()]
    done = subprocess.run(command, cwd=paths.root(), capture_output=True, text=True, check=False)
    if done.returncode:
        target.unlink(missing_ok=True)
        lines = [line for line in done.stderr.splitlines() if line.startswith("[WARNING]")]
        said = re.sub(
            r"\[WARNING\] (Scripting warning at \S+ line \d+ column \d+: )?", "", "; ".join(lines)
        )
        raise RenderError(f"{source.name}: {said or done.stderr}")


def to_pdf(typ: Path, target: Path) -> None:
    """Compile Typst with the fonts that it carries; SOURCE_DATE_EPOCH fixes the time stamp.

    Raises `RenderError` for what it cannot compile, and for what PDF/UA-1 forbids, such as a
    picture without words for who cannot see it.
    """
    import typst

    source = typ.read_bytes()  # bytes stand at the root, so that pictures are found from there
    compiler = typst.Compiler(source, root=paths.root(), ignore_system_fonts=True)
    try:
        content, warnings = compiler.compile_with_warnings(
            format="pdf", timestamp=stamp(), pdf_standards=["ua-1"]
        )
    except typst.TypstError as error:
        raise RenderError(f"{typ.name}: {error.message}; {error.diagnostic}") from None
    for warning in warnings:  # of a font that it does not carry
        print(f"{typ.name}: {warning.message}", file=sys.stderr)
    files.write_bytes(target, cast(bytes, content))
