"""From a notebook to a PDF or a page."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import IPython.display
import nbclient
import nbformat
import pypandoc
import pytest
import yaml
from nbformat import v4

from t5peft.base import files, paths
from t5peft.base.errors import InputError, Missing
from t5peft.report import gaps
from t5peft.report.render import notebook, render

CHECKOUT = paths.CHECKOUT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whole(toy: Path) -> Path:
    """The toy report, rendered once with rank 16; the folder of what came out."""
    values = {"study": "smoke", "lora_rank": 16}
    book = render.run(notebook.build(), values, paths.output() / "report.ipynb")
    render.typeset(book, paths.output() / "report.pdf")
    return paths.output()


def sheet(*sources: str) -> nbformat.NotebookNode:
    """A notebook of markdown alone: no kernel is needed to typeset it."""
    front = v4.new_raw_cell("---\ntitle: T\n---")  # PDF/UA wants one
    return v4.new_notebook(cells=[front, *map(v4.new_markdown_cell, sources)])


def typeset(*sources: str) -> Path:
    paths.output().mkdir(exist_ok=True)
    render.typeset(sheet(*sources), paths.output() / "report.pdf")
    return paths.output() / "report.pdf"


def test_every_reference_leads_to_a_label(whole: Path) -> None:
    text = (whole / "report.typ").read_text()
    referred = set(re.findall(r"#ref\(<([\w-]+)>", text))
    assert referred == {
        *("sec-lora", "sec-question", "tbl-static", "tbl-div", "tbl-md"),
        *("eq-update", "fig-box", "fig-file"),
    }
    for label in referred:
        assert len(re.findall(rf"(?<!ref\()<{label}>", text)) == 1, label


def test_cells_are_shown_as_their_options_say(whole: Path) -> None:
    text = (whole / "report.md").read_text()
    assert "| 16 |" in text  # injected, not the default 8
    assert r"Rank 16 of a\_b\*c." in text
    assert "````\n16016\n````" in text
    assert "print(lora_rank * 1001)" in text
    for hidden in ("not shown", "lora_rank = ", "import SVG", "#|", "{python}"):
        assert hidden not in text


def test_captions_kinds_and_callouts_in_typst(whole: Path) -> None:
    text = (whole / "report.typ").read_text()
    assert text.count("kind: table") == 3 + 1  # three tables, and the rule that places captions
    assert 'caption: [A caption with #math.equation($r$, alt: "r").]' in text
    assert "[Fig.]" in text
    assert "#ref(<eq-update>, supplement: none)" in text
    assert '#callout(icon_color: rgb("#CC1914"), title: [' in text
    assert "The #emph[study]" in text
    assert "Hu (2022)" in text
    (picture,) = (whole / "report_files").iterdir()
    assert f'image("_output/report_files/{picture.name}"' in text


def test_a_render_tells_its_progress_in_plain_lines(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    book = notebook.build("lora")
    cells = len(book.cells)
    render.run(book, {}, paths.output() / "lora.ipynb")
    assert f"Executing: {cells} of {cells} cells\n" in capsys.readouterr().err


def test_chapter_refers_to_the_rest_in_words(toy: Path) -> None:
    target = paths.output() / "lora.pdf"
    book = render.run(notebook.build("lora"), {"lora_rank": 4}, target.with_suffix(".ipynb"))
    render.typeset(book, target, "lora")
    assert target.read_bytes().startswith(b"%PDF")
    text = (paths.output() / "lora.typ").read_text()
    assert "Section “The question” of the whole report" in text
    assert notebook.labels("::: {#tbl-x}\n# A {#sec-a}\n## B\n$$ {#eq-b}")["eq-b"] == "A: B"
    cell = '# A\n## B\n```{python}\n# why\n"""\n## C\n{{#tbl-y}}\n"""\n```\n$$ {#eq-b}'
    assert notebook.labels(cell) == {"tbl-y": "A: C", "eq-b": "A: C"}, "a section made by a cell"
    assert "Rank 4 of" in text


def test_html_numbers_what_it_refers_to(whole: Path) -> None:
    executed = nbformat.read(whole / "report.ipynb", as_version=4)
    render.typeset(executed, whole / "report.html")
    page = (whole / "report.html").read_text()
    for text in (
        '<a href="#sec-lora">Section\u00a02</a>',
        "Table 3. ",
        '<a href="#eq-update">1</a>',
        "</math><span>(1)</span></span>",
        '<div class="callout" style="border-color: #CC1914">',
    ):
        assert text in page.replace("\n", " ")
    assert page.count('<div class="scroll" tabindex="0">') == page.count("<table") == 3
    assert len(re.findall(r'<figure id="tbl-\w+">\s*<div class="scroll"', page)) == 3
    for file in ("report.css", "report.html"):
        assert (render.TEMPLATES / file).read_text().strip().splitlines()[-2] in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page), "no network"
    pictures = re.findall(r'<img[^>]*src="([^"]*)"', page)
    assert pictures
    assert all(picture.startswith("data:image/svg+xml") for picture in pictures), "one file"


def test_a_gap_is_a_table_or_a_figure_only_where_one_is_due(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(IPython.display, "display", lambda gap: marked.append(gap.data))
    marked: list[str] = []
    gaps.display(Missing("study x", "1 of 10 runs missing: full", "stored runs", "train it"))
    (gap,) = marked
    assert "full" not in gap, "the tables of runs name them"
    due = [f"::: {{#{label}}}\n\n{gap}\n\nA caption.\n\n:::" for label in ("fig-x", "tbl-y")]
    target = typeset(gap, *due, "See @fig-x and @tbl-y.")
    text = target.with_suffix(".typ").read_text()
    assert text.count("1 of 10 runs missing.") == 3
    assert len(re.findall(r"^#figure\(", text, re.M)) == text.count("A caption.") == 2
    assert text.count(", kind: table") == 1
    render.typeset(sheet(gap, *due, "See @fig-x and @tbl-y."), target.with_suffix(".html"))
    page = target.with_suffix(".html").read_text()
    assert page.count("<table") == 1
    assert "Figure 1. " in page
    assert "Table 1. " in page


def test_quarto_sets_aside_what_a_render_could_make(tmp_path: Path) -> None:
    """A render that fails leaves nothing; one that does not, all that it was not to make."""
    script = render.TEMPLATES.parent / "quarto.sh"

    def hook(name: str, python: str = sys.executable) -> subprocess.CompletedProcess[str]:
        env = {"PATH": os.defpath, "QUARTO_PYTHON": python, "PYTHONPATH": str(CHECKOUT / "src")}
        env["QUARTO_PROJECT_OUTPUT_DIR"] = str(tmp_path)
        command = ["/bin/sh", script, name]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    pdf, page = tmp_path / "report.pdf", tmp_path / "report.html"
    pdf.write_text("old")
    page.write_text("old")
    assert hook("before").returncode == 0
    assert not pdf.exists()
    pdf.write_text("new")
    assert hook("after").returncode == 0
    assert (pdf.read_text(), page.read_text()) == ("new", "old")

    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\nexit 1\n")
    bare.chmod(0o755)
    refused = hook("before", python=str(bare))
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert "found no t5peft" in line
    assert "make venv" in line
    assert not pdf.exists()
    assert hook("before").returncode == 0
    assert hook("after").returncode == 0
    assert not pdf.exists(), "it stood there before the render that failed, not before this one"


def test_quarto_is_told_what_to_do_with_a_chapter(tmp_path: Path) -> None:
    said = yaml.safe_load((CHECKOUT / "chapters" / "_metadata.yml").read_text())
    (script,) = said["filters"]
    command = [pypandoc.get_pandoc_path(), "--lua-filter", CHECKOUT / "chapters" / script]
    done = subprocess.run(command, input="# A", capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "quarto render report.qmd" in line


def test_each_option_of_quartos_stands_under_its_format(own: Path) -> None:
    said = yaml.safe_load((own / "_quarto.yml").read_text())
    everywhere = {"project", "lang", "bibliography", "number-sections", "jupyter", "execute"}
    assert {*said} == everywhere | {"format"}
    assert {*notebook.settings("typst")} == everywhere | {*said["format"]["typst"]}
    page = said["format"]["html"]
    used = [page["css"], page["include-after-body"], *said["format"]["typst"]["template-partials"]]
    for name in used:
        assert (CHECKOUT / name).parent == render.TEMPLATES
        assert (CHECKOUT / name).exists()
    typeset("# A")
    assert 'section-numbering: "1.1"' in (paths.output() / "report.typ").read_text()


def test_same_source_and_date_give_the_same_bytes(
    toy: Path, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own / "box.svg").write_text((toy / "box.svg").read_text())
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first = typeset("# A\n\n![B](box.svg)").read_bytes()
    assert typeset("# A\n\n![B](box.svg)").read_bytes() == first
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1800000000")
    assert typeset("# A\n\n![B](box.svg)").read_bytes() != first


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("See @tbl-nowhere.", "unresolved reference @tbl-nowhere"),
        ("See @nobody2020.", "nobody2020"),
        ("::: {#tbl-x}\n\n| a |\n|---|\n| 1 |\n\n:::\n", "no caption at the end of tbl-x"),
        ("# A {#sec-a}\n\n# B {#sec-a}\n", "sec-a is given twice"),
        ("$$ \\nonsense{ $$", "nonsense"),
        ("![Gone](gone.svg)", "gone.svg"),
        ("![](box.svg)", "PDF/UA-1 error: missing alt text"),
    ],
)
def test_what_cannot_be_typeset_is_named(toy: Path, own: Path, source: str, complaint: str) -> None:
    (own / "box.svg").write_text((toy / "box.svg").read_text())
    with pytest.raises(render.RenderError, match=re.escape(complaint)) as caught:
        typeset(source)
    assert "\n" not in str(caught.value)
    assert not (paths.output() / "report.pdf").exists()


def test_the_pdf_can_be_heard(whole: Path) -> None:
    """Typst has checked it against PDF/UA-1, which wants words for each picture and formula."""
    pdf = (whole / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"pdfuaid:part" in pdf
    text = (whole / "report.typ").read_text()
    assert text.count("image(") == text.count('.svg", alt: "') == 2
    for words in ("a box", "A file.", r"y = x W + \\frac{\\alpha}{r} x A B"):
        assert f'alt: "{words}' in text


def test_what_the_front_matter_says_reaches_the_pdf(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    front = """---
title: T
author: [Ada O'Neil, name: Bo-ra]
abstract: What it says.
date: 2026-01-02
keywords: [PEFT, T5 & "LoRA"]
papersize: a5
mainfont: Nowhere Serif
---"""
    paths.output().mkdir()
    book = v4.new_notebook(cells=[v4.new_raw_cell(front)])
    render.typeset(book, paths.output() / "report.pdf")
    assert "unknown font family: nowhere serif" in capsys.readouterr().err
    content = (paths.output() / "report.pdf").read_bytes()
    for said in (b"Ada O&apos;Neil, Bo-ra", b"PEFT, T5 &amp; &apos;LoRA&apos;", b"[0 0 419.5"):
        assert said in content
    text = (paths.output() / "report.typ").read_text()
    for said in ("abstract: [What it says.]", "date: [2026-01-02]"):
        assert said in text


def test_a_failing_cell_makes_no_pdf_and_says_why(own: Path, toy: Path) -> None:
    (own / "params").mkdir()
    (own / "params" / "smoke.yaml").write_text((toy / "params" / "smoke.yaml").read_text())
    (own / "report.qmd").write_text(
        "```{python}\n#| tags: [parameters]\nstudy = 1\n```\n\n"
        "```{python}\n#| label: tbl-lora\nraise ValueError(f'{study}: 8 is not {lora_rank}')\n```\n"
    )
    paths.output().mkdir()
    old, anothers = paths.output() / "report-smoke.pdf", paths.output() / "report.pdf"
    for path in (old, anothers):
        path.write_text("old")
    with pytest.raises(render.RenderError) as caught:
        render.render("smoke", {"lora_rank": 16})
    assert str(caught.value) == "cell tbl-lora: ValueError: smoke: 8 is not 16"
    assert not old.exists(), "none is left that could be taken for it"
    assert anothers.read_text() == "old"


def test_a_notebook_shows_wrong_input_without_the_stack(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    source = (
        "from t5peft.base.errors import InputError\n"
        "def inner(): raise InputError('lora_rank', 0, 'a positive number', 'give another')\n"
        "inner()"
    )
    book = v4.new_notebook(cells=[v4.new_code_cell(source)])
    executed = nbclient.execute(book, allow_errors=True)
    shown = "InputError: lora_rank: found 0, expected a positive number; give another"
    assert executed.cells[0].outputs[0].traceback == [shown]
    assert shown not in capfd.readouterr().err
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # with which a kernel has no terminal
    monkeypatch.setenv("QUARTO_DOCUMENT_PATH", "/")  # it will show the whole cell before the line
    executed = nbclient.execute(book, allow_errors=True)
    assert executed.cells[0].outputs[0].traceback == [shown]
    assert f"\n{shown}\n" in capfd.readouterr().err


def test_a_time_stamp_that_is_none_is_named(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(InputError, match="SOURCE_DATE_EPOCH: found 'yesterday', expected seconds"):
        typeset("A sentence.")


def test_wrong_settings_are_refused_before_anything_runs_or_goes(toy: Path) -> None:
    paths.output().mkdir(exist_ok=True)
    old = paths.output() / "report.pdf"
    old.write_text("old")
    with pytest.raises(InputError, match="lora_rnak"):
        render.render("smoke", {"lora_rnak": 16})
    with pytest.raises(InputError, match="lora_rank"):
        render.render("smoke", {"lora_rank": "many"})
    assert old.read_text() == "old"


def test_cells_find_what_stands_where_the_command_was_given(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "films").mkdir()
    (paths.root() / "t5").mkdir()
    monkeypatch.chdir(tmp_path)
    found = render.from_anywhere({"data": "films", "backbone": "t5", "tokenizer": "", "seed": 1})
    here = str(tmp_path / "films")
    assert found == {"data": here, "backbone": "t5", "tokenizer": "", "seed": 1}


def test_a_second_render_waits_for_the_first(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They share _output: each would find the other's pages there."""
    quarto, wanted = tmp_path / "quarto", tmp_path / "mine.pdf"
    quarto.write_text("#!/bin/sh\necho ours > _output/report.pdf\n")
    quarto.chmod(0o755)
    monkeypatch.setenv("QUARTO", str(quarto))
    second = threading.Thread(target=render.render, args=("smoke", {}), kwargs={"copy": wanted})
    with files.lock(paths.output() / ".lock"):
        (paths.output() / "report.pdf").write_text("the first's\n")
        second.start()
        second.join(0.5)
        assert second.is_alive()
        assert (paths.output() / "report.pdf").read_text() == "the first's\n"
    second.join(10)
    assert wanted.read_text() == "ours\n"


def test_quarto_is_called_with_the_parameters(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quarto = tmp_path / "quarto"
    quarto.write_text(
        f'#!/bin/sh\necho "$1 $2 $3 $4 $5 $QUARTO_PYTHON $7 $8" > {tmp_path}/called\n'
        f'/bin/cp "$6" {tmp_path}/values\n'
        "echo > _output/report.pdf\n"
    )
    quarto.chmod(0o755)
    monkeypatch.setenv("QUARTO", str(quarto))
    monkeypatch.delenv("QUARTO_PYTHON", raising=False)
    render.render("smoke", {"lora_rank": 16}, author="Ada, 42")
    called = (tmp_path / "called").read_text().strip()
    assert called == (
        f"render report.qmd --to typst --execute-params {sys.executable} "
        "--metadata handed-in-by:Ada, 42"
    )
    assert "lora_rank: 16\n" in (tmp_path / "values").read_text()
    (paths.output() / "report.pdf").unlink()
    quarto.write_text("#!/bin/sh\n")
    with pytest.raises(render.RenderError, match="code 0, without a new report"):
        render.render("smoke", {})
    (paths.output() / "report.pdf").write_text("another study's")
    quarto.write_text("#!/bin/sh\n/bin/rm _output/report.pdf\nexit 3\n")
    with pytest.raises(render.RenderError, match="code 3"):
        render.render("smoke", {})
    assert (paths.output() / "report.pdf").read_text() == "another study's"
    monkeypatch.setenv("QUARTO", os.fspath(tmp_path / "gone"))
    with pytest.raises(render.RenderError, match="mend QUARTO"):
        render.render("smoke", {})
