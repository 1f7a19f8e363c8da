"""A notebook reads well in Jupyter: no mark of Quarto's in its texts, and its source runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat import NotebookNode, v4

from t5peft.base import paths
from t5peft.report.render import cells, notebook, render


def readable(*found: NotebookNode) -> list[NotebookNode]:
    return cells.readable(v4.new_notebook(cells=list(found))).cells


def text(source: str) -> str:
    """A text as Jupyter gets it."""
    first, *_ = readable(v4.new_markdown_cell(source))
    return first.source


def test_captions_references_and_citations_are_resolved() -> None:
    opened, table, hidden, end = readable(
        v4.new_raw_cell("---\ntitle: x\n---"),
        v4.new_markdown_cell("# LoRA {#sec-lora}\n\n::: {#tbl-lora}"),
        notebook.code_cell("#| output: false\nMarkdown(table)"),
        *notebook.prose("Of $x$, `{python} value`.\n\n:::\n\nSee @tbl-lora; [@hu2022lora]."),
    )
    assert (opened.cell_type, opened.source) == ("markdown", "# LoRA")
    assert table.source == "Markdown(table)"
    assert notebook.text_of(hidden).split("\n\n") == [
        "**Table 1.** Of $x$, `{python} value`.",
        "See Table\N{NO-BREAK SPACE}1; (Hu et al. 2022).",
    ]
    assert "Hu, Edward J." in end.source


def test_an_equation_has_its_number_and_a_reference_elsewhere_its_headings() -> None:
    equation, sentence = text(
        "$$\nx A B\n$$ {#eq-lora}\n\n@eq-lora, @eq-adapter and @sec-adapter."
    ).split("\n\n")
    assert equation == "$$\nx A B\n\\tag{1}$$"
    assert sentence == (
        "Equation\N{NO-BREAK SPACE}1, Equation in “Adapter: Idea and equation” of the whole report "
        "and Section “Adapter” of the whole report."
    )


def test_a_section_is_meant_by_its_heading_and_so_is_one_of_another_chapter() -> None:
    found = readable(v4.new_markdown_cell("## Cost {#sec-lora-x}\n\n@sec-lora-x, @tbl-seeds"))
    assert found[0].source.endswith("“Cost”, Table in “Appendix: Seeds” of the whole report")
    assert len(found) == 1, "nothing is cited"


def test_a_block_of_code_keeps_its_shape() -> None:
    assert text("```\nabc\n  def\n```") == "    abc\n      def"


def test_a_callout_around_a_cell_is_refused() -> None:
    opened = v4.new_markdown_cell('::: {.callout-note title="Note"}')
    with pytest.raises(render.RenderError, match="a callout goes around a cell"):
        readable(opened, notebook.code_cell("table()"), v4.new_markdown_cell("Said.\n\n:::"))


def test_a_cell_of_marks_alone_is_left_out() -> None:
    picture, caption, curves, end = readable(
        v4.new_markdown_cell("::: {#fig-lora}"),
        notebook.code_cell("figures.method()"),
        v4.new_markdown_cell("A drawing.\n\n:::\n\n::: {#fig-lora-curves}"),
        notebook.code_cell("plots.curves()"),
        v4.new_markdown_cell("Curves.\n\n:::"),
    )
    assert [picture.source, curves.source] == ["figures.method()", "plots.curves()"]
    assert [caption.source, end.source] == ["**Figure 1.** A drawing.", "**Figure 2.** Curves."]


@pytest.mark.parametrize("source", ["See @tbl-nowhere.", "Said by [@nobody1999]."])
def test_what_leads_nowhere_is_refused(source: str) -> None:
    with pytest.raises(render.RenderError, match=r"nowhere|nobody1999"):
        text(source)


CHAPTERS = [None, *(path.stem[1:] for path in (paths.CHECKOUT / "chapters").glob("_*.qmd"))]


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_mark_of_quartos_is_left_and_shown_source_defines_what_it_shows(
    chapter: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("T5PEFT_HOME", raising=False)
    book = cells.readable(notebook.build(chapter))
    nbformat.validate(book)
    for cell in book.cells:
        said = notebook.text_of(cell)
        assert not re.search(r"^:::|\{#|@(sec|fig|tbl|eq)-|\[@|\{=typst\}", said, re.M), said
        hidden = cell.metadata.get("jupyter")
        assert hidden or not cell.source.startswith("#|"), cell.source
        if cell.cell_type == "code" and re.search(r"^(class|def) ", cell.source, re.M):
            exec(cell.source, {"__name__": "notebook"})
            assert "Markdown(show.source" not in cell.source


def test_a_cell_of_source_is_the_source_that_runs() -> None:
    namespace: dict[str, Any] = {}
    exec(cells.definitions("methods.lora", "LoRALinear", "inject"), namespace)
    from torch import nn

    assert namespace["LoRALinear"](nn.Linear(3, 2), 1, 2.0).scale == 2.0
    assert namespace["sites"].__module__ == "t5peft.methods.lora", "named, not shown: imported"
    assert "Tensor" in namespace
    assert "find" not in namespace, "what only `sites` needs"


def test_what_a_hidden_cell_wrote_stands_in_its_place(tmp_path: Path) -> None:
    shown = v4.new_output("execute_result", {"text/markdown": "It is 3.", "text/plain": "<...>"})
    (hidden,) = notebook.prose("It is `{python} 3`.")
    hidden.outputs = [v4.new_output("stream", name="stdout", text="careful"), shown]
    book = cells.ran(v4.new_notebook(cells=[hidden, notebook.code_cell("1")]))
    assert [(cell.cell_type, cell.source) for cell in book.cells] == [
        ("markdown", "It is 3."),
        ("code", "1"),
    ]


@pytest.mark.slow
def test_in_jupyter_outputs_are_resolved_and_the_log_is_not_red(own: Path) -> None:
    setup = "from IPython.display import Markdown\nimport sys"
    for name in ("_quarto.yml", "references.bib"):
        shutil.copy(paths.CHECKOUT / name, own)
    (own / "report.qmd").write_text(
        f"```{{python}}\n#| label: setup\n{setup}\n```\n\n"
        "```{python}\nprint('at work', file=sys.stderr)\n"
        "Markdown('Of `{python} 1`, [@hu2022lora].')\n```\n\n# Seeds {#sec-seeds}\n\n"
        "## More {#sec-more}\n\nA `{python} Markdown('@sec-seeds')`.\n"
    )
    book = render.run(cells.readable(notebook.build()), {}, own / "out.ipynb")
    log, shown = book.cells[1].outputs
    assert (log.name, log.text) == ("stdout", "at work\n")
    assert shown.data["text/markdown"] == "Of `{python} 1`, (Hu et al. 2022)."
    assert book.cells[2].outputs[0].data["text/markdown"].endswith("“Seeds” of the whole report.")
