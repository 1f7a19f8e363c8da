"""A hand-in's notebook reads well in Jupyter: no mark of Quarto's is left in its cells."""

from __future__ import annotations

import pytest
from nbformat import NotebookNode, v4

from t5peft.report.render import cells, render

TABLE = "| run | accuracy |\n|:----|---------:|\n| ours | 86.0 |"


def shows(source: str, text: str, hidden: bool = False) -> NotebookNode:
    """A code cell that ran and showed Markdown."""
    output = v4.new_output("execute_result", {"text/markdown": text, "text/plain": "<Markdown>"})
    how = {"jupyter": {"source_hidden": True}} if hidden else {}
    return v4.new_code_cell(source, outputs=[output], metadata=how)


def resolved(*found: NotebookNode) -> list[NotebookNode]:
    return cells.resolved(v4.new_notebook(cells=list(found))).cells


def test_captions_references_and_citations_are_resolved() -> None:
    front, text = v4.new_raw_cell("---\ntitle: x\n---"), "# LoRA {#sec-lora}\n\n::: {#tbl-lora}"
    opened, table, closed, empty, end = resolved(
        front,
        v4.new_markdown_cell(text),
        shows("Markdown(table)", TABLE),
        shows("fill(...)", "Results in $x$.\n\n:::\n\nSee @tbl-lora; [@hu2022lora].", hidden=True),
        v4.new_code_cell("records = results()"),
    )
    assert (opened.cell_type, opened.source) == ("markdown", "# LoRA")
    assert table.source == "Markdown(table)"
    assert table.outputs[0].data["text/markdown"].splitlines()[-1] == "| ours |     86.0 |"
    assert table.outputs[0].data["text/plain"] == "<Markdown>"
    assert closed.cell_type == "markdown", "what a hidden cell wrote stands in its place"
    first, second = closed.source.split("\n\n")
    assert first == "**Table 1.** Results in $x$."
    assert second == "See Table\N{NO-BREAK SPACE}1; (Hu et al. 2022)."
    assert empty.source == "records = results()"
    assert "Hu, Edward J." in end.source


def test_an_equation_has_its_number_and_a_reference_elsewhere_its_headings() -> None:
    (text,) = resolved(
        v4.new_markdown_cell("$$\nx A B\n$$ {#eq-lora}\n\n@eq-lora, @eq-adapter and @sec-adapter.")
    )
    equation, sentence = text.source.split("\n\n")
    assert equation == "$$\nx A B\n\\tag{1}$$"
    assert sentence == (
        "Equation\N{NO-BREAK SPACE}1, Equation in “Adapter: Idea and equation” of the whole report "
        "and Section “Adapter” of the whole report."
    )


def test_a_section_is_meant_by_its_heading_and_so_is_one_of_another_chapter() -> None:
    text, *rest = resolved(v4.new_markdown_cell("## Cost {#sec-lora-x}\n\n@sec-lora-x, @tbl-seeds"))
    assert text.source.endswith("“Cost”, Table in “Appendix: Seeds” of the whole report")
    assert rest == [], "nothing is cited"


def test_a_warning_beside_what_a_hidden_cell_wrote_is_left_out() -> None:
    cell = shows("fill(...)", "Text.", hidden=True)
    cell.outputs.insert(0, v4.new_output("stream", name="stderr", text="careful"))
    (text,) = resolved(cell)
    assert text.source == "Text."


def test_a_block_of_code_keeps_its_shape() -> None:
    (text,) = resolved(v4.new_markdown_cell("```\nabc\n  def\n```"))
    assert text.source == "    abc\n      def"


def test_a_callout_around_a_cell_is_refused() -> None:
    opened = v4.new_markdown_cell('::: {.callout-note title="Note"}')
    with pytest.raises(render.RenderError, match="a callout goes around a cell"):
        resolved(opened, v4.new_code_cell("table()"), v4.new_markdown_cell("Said.\n\n:::"))


def test_a_cell_of_marks_alone_is_left_out() -> None:
    picture, caption, curves, end = resolved(
        v4.new_markdown_cell("::: {#fig-lora}"),
        v4.new_code_cell("figures.method()"),
        v4.new_markdown_cell("A drawing.\n\n:::\n\n::: {#fig-lora-curves}"),
        v4.new_code_cell("plots.curves()"),
        v4.new_markdown_cell("Curves.\n\n:::"),
    )
    assert [picture.source, curves.source] == ["figures.method()", "plots.curves()"]
    assert [caption.source, end.source] == ["**Figure 1.** A drawing.", "**Figure 2.** Curves."]


@pytest.mark.parametrize("text", ["See @tbl-nowhere.", "Said by [@nobody1999]."])
def test_what_leads_nowhere_is_refused(text: str) -> None:
    with pytest.raises(render.RenderError, match=r"nowhere|nobody1999"):
        resolved(v4.new_markdown_cell(text))
