"""From a notebook to a PDF or a page."""

import os
import re
import sys
import threading
from pathlib import Path

import nbclient
import nbformat
import pytest
from nbformat import v4

from t5peft.base import files, paths
from t5peft.base.errors import InputError
from t5peft.report.render import notebook, render

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
    return v4.new_notebook(cells=[v4.new_markdown_cell(source) for source in sources])


def typeset(*sources: str) -> Path:
    paths.output().mkdir(exist_ok=True)
    render.typeset(sheet(*sources), paths.output() / "report.pdf")
    return paths.output() / "report.pdf"


def test_whole_report_is_a_pdf(whole: Path) -> None:
    assert (whole / "report.pdf").read_bytes().startswith(b"%PDF")


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
    assert "caption: [A caption with $r$.]" in text
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
    assert "Rank 4 of" in text


def test_html_numbers_what_it_refers_to(whole: Path) -> None:
    executed = nbformat.read(whole / "report.ipynb", as_version=4)
    render.typeset(executed, whole / "report.html")
    page = (whole / "report.html").read_text()
    for text in (
        '<a href="#sec-lora">Section\u00a02</a>',
        "Table 3. ",
        '<a href="#eq-update">1</a>',
    ):
        assert text in page.replace("\n", " ")
    pictures = re.findall(r'<img[^>]*src="([^"]*)"', page)
    assert pictures
    assert all(picture.startswith("data:image/svg+xml") for picture in pictures), "one file"


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
    ],
)
def test_what_cannot_be_typeset_is_named(own: Path, source: str, complaint: str) -> None:
    with pytest.raises(render.RenderError, match=re.escape(complaint)) as caught:
        typeset(source)
    assert "\n" not in str(caught.value)
    assert not (paths.output() / "report.pdf").exists()


def test_a_failing_cell_makes_no_pdf_and_says_why(own: Path, toy: Path) -> None:
    (own / "params").mkdir()
    (own / "params" / "smoke.yaml").write_text((toy / "params" / "smoke.yaml").read_text())
    (own / "report.qmd").write_text(
        "```{python}\n#| tags: [parameters]\nstudy = 1\n```\n\n"
        "```{python}\n#| label: tbl-lora\nraise ValueError(f'{study}: 8 is not {lora_rank}')\n```\n"
    )
    paths.output().mkdir()
    (paths.output() / "report.pdf").write_text("old")
    with pytest.raises(render.RenderError) as caught:
        render.render("smoke", {"lora_rank": 16})
    assert str(caught.value) == "cell tbl-lora: ValueError: smoke: 8 is not 16"
    assert (paths.output() / "report.pdf").read_text() == "old", "nothing is lost"


def test_a_notebook_shows_wrong_input_without_the_stack() -> None:
    source = (
        "from t5peft.base.errors import InputError\n"
        "def inner(): raise InputError('lora_rank', 0, 'a positive number', 'give another')\n"
        "inner()"
    )
    book = v4.new_notebook(cells=[v4.new_code_cell(source)])
    executed = nbclient.execute(book, allow_errors=True)
    shown = "InputError: lora_rank: found 0, expected a positive number; give another"
    assert executed.cells[0].outputs[0].traceback == [shown]


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
    quarto.write_text("#!/bin/sh\nexit 3\n")
    with pytest.raises(render.RenderError, match="code 3"):
        render.render("smoke", {})
    monkeypatch.setenv("QUARTO", os.fspath(tmp_path / "gone"))
    with pytest.raises(render.RenderError, match="mend QUARTO"):
        render.render("smoke", {})
