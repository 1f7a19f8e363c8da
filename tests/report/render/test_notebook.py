"""From .qmd to a notebook."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from IPython.display import Markdown

from t5peft.base import paths, studies
from t5peft.base.errors import InputError, OneLine
from t5peft.report.render import cells, notebook, render


def test_only_executable_fences_become_code_cells() -> None:
    text = (
        "Text.\n\n```python\nshown = 1\n```\n\n"
        "````markdown\n```{python}\nquoted = 2\n```\n````\n\n"
        "```{python}\n#| echo: true\nrun = 3\n```\n\nEnd."
    )
    first, code, last = notebook.cells(text)
    assert (first.cell_type, code.cell_type, last.cell_type) == ("markdown", "code", "markdown")
    assert "shown = 1" in first.source
    assert "quoted = 2" in first.source
    assert code.source == "#| echo: true\nrun = 3"
    assert last.source == "End."


def test_a_cell_that_is_not_evaluated_is_shown_as_text() -> None:
    (cell,) = notebook.cells("```{python}\n#| eval: false\n#| echo: true\nx = 1\n```\n")
    assert cell.cell_type == "markdown"
    assert cell.source == "```python\nx = 1\n```"
    (as_the_document_says,) = notebook.cells("```{python}\n#| eval: false\nx = 1\n```\n")
    assert notebook.settings()["execute"]["echo"] is False
    assert as_the_document_says.source == ""


@pytest.mark.parametrize("line", ["#| fig-cap: a: b", "#| just text"])
def test_options_that_are_none_are_named(line: str) -> None:
    with pytest.raises(InputError, match=f"a cell: found {re.escape(repr(line[3:]))}"):
        list(notebook.cells(f"```{{python}}\n{line}\n1\n```\n"))


def test_an_inline_expression_that_fails_or_is_empty_is_named() -> None:
    with pytest.raises(OneLine, match=r"`\{python\} ''`: an empty text"):
        notebook.fill("A `{python} ''` number", {})
    with pytest.raises(OneLine, match=r"`\{python\} 1 / 0`: ZeroDivisionError"):
        notebook.fill("A `{python} 1 / 0` number", {})


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="fig-caption"):
        list(notebook.cells("```{python}\n#| fig-caption: x\n1\n```\n"))


def test_inline_values_are_text_unless_they_are_markdown() -> None:
    text = "A `{python} x`, `{python} Markdown('**b**')`, ``{python} x``."
    filled = notebook.fill(text, {"x": "a*b_c", "Markdown": Markdown})
    assert filled.data == r"A a\*b\_c, **b**, ``{python} x``."


@pytest.mark.parametrize("text", ["plain", 'say """x"""', 'ends with "', "ends with \\", r"\frac"])
def test_prose_survives_as_python_source(text: str) -> None:
    assert eval(notebook.literal(text)) == text


def test_notebook_has_what_papermill_needs(toy: Path) -> None:
    cells.write(None, toy / "whole.ipynb")
    built = nbformat.read(toy / "whole.ipynb", as_version=4)
    nbformat.validate(built)
    assert built.metadata.kernelspec.name == "python3"
    assert built.metadata.kernelspec.language == "python"
    tagged = [cell for cell in built.cells if "parameters" in cell.metadata.get("tags", [])]
    assert [cell.source for cell in tagged] == ['study = "smoke"\nlora_rank = 8']


def test_a_notebook_that_somebody_worked_in_stays(toy: Path) -> None:
    cells.write("lora", toy / "lora.ipynb")
    cells.write("lora", toy / "lora.ipynb")  # the same: nothing is lost
    (toy / "lora.ipynb").write_text("an evening's work")
    with pytest.raises(InputError, match="found another notebook"):
        cells.write("lora", toy / "lora.ipynb")
    assert (toy / "lora.ipynb").read_text() == "an evening's work"


def test_chapter_stands_behind_parameters_and_setup(toy: Path) -> None:
    sources = [cell.source for cell in notebook.build("lora").cells]
    assert 'title: "A toy report"' in sources[0]
    assert "tags: [parameters]" in sources[1]
    assert "label: setup" in sources[2]
    assert sources[3].startswith("# LoRA")
    assert not any("The question" in source for source in sources)


def test_unknown_chapter_names_the_known_ones(toy: Path) -> None:
    with pytest.raises(InputError, match="'nope', expected one of lora"):
        notebook.build("nope")


def test_includes_are_read_from_the_root_at_any_depth(own: Path) -> None:
    (own / "report.qmd").write_text("Top\n\n{{< include chapters/a.qmd >}}\n\nEnd\n")
    (own / "chapters" / "a.qmd").write_text("A\n\n{{< include chapters/b.qmd >}}\n")
    (own / "chapters" / "b.qmd").write_text("B\n")
    assert notebook.read(own / "report.qmd").split() == ["Top", "A", "B", "End"]


def test_missing_and_circular_includes_are_refused(own: Path) -> None:
    (own / "report.qmd").write_text("{{< include chapters/a.qmd >}}\n")
    with pytest.raises(InputError, match=r"a\.qmd: found no such file.*include in report\.qmd"):
        notebook.build()
    (own / "chapters" / "a.qmd").write_text("{{< include report.qmd >}}\n")
    with pytest.raises(InputError, match="an include of itself"):
        notebook.build()


@pytest.mark.slow
def test_papermill_command_line_injects_parameters(own: Path, toy: Path) -> None:
    (own / "report.qmd").write_text(
        '```{python}\n#| tags: [parameters]\nstudy = "x"\nlora_rank = 8\n```\n\n'
        "```{python}\nprint(study, lora_rank, batch_size)\n```\n"
    )
    cells.write(None, own / "x.ipynb")
    command = [sys.executable, "-m", "papermill", "x.ipynb", "out.ipynb"]
    command += ["-f", str(toy / "params/smoke.yaml"), "-p", "lora_rank", "16"]
    subprocess.run(command, cwd=own, check=True, capture_output=True)
    last = nbformat.read(own / "out.ipynb", as_version=4).cells[-1]
    assert last.outputs[0].text == "smoke 16 16\n"


CHAPTERS = sorted(path.stem[1:] for path in (paths.CHECKOUT / "chapters").glob("*.qmd"))


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> str:
    """The text of the report itself."""
    monkeypatch.delenv("T5PEFT_HOME", raising=False)
    return notebook.read(paths.CHECKOUT / "report.qmd")


def test_the_report_includes_every_chapter_but_that_of_studies_with_runs_of_their_own(
    project: str,
) -> None:
    for chapter in {*CHAPTERS} - {render.SIZES}:
        assert notebook.chapter_path(chapter).read_text().strip() in project, chapter


@pytest.mark.parametrize("chapter", [None, *CHAPTERS])
def test_the_report_and_its_chapters_are_notebooks(project: str, chapter: str | None) -> None:
    built = notebook.build(chapter)
    nbformat.validate(built)
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in built.cells) == 1
    assert sum(notebook.is_setup(cell) for cell in built.cells) == 2


def test_each_figure_says_in_words_what_it_shows(project: str) -> None:
    drawn = r"^(drawings|plots)\.|^learned\.figure"
    shown = [c for c in notebook.build().cells if re.search(drawn, c.source, re.M)]
    assert len(shown) == project.count("{#fig-") > 0
    for cell in shown:
        assert notebook.options(cell.source)["fig-alt"].endswith("."), cell.source


def test_the_report_refers_only_to_what_it_labels(project: str) -> None:
    referred = set(re.findall(r"@((?:sec|fig|tbl|eq)-[\w-]+)", project))
    assert referred
    assert referred <= set(notebook.labels(project))
    code = "".join(path.read_text() for path in (paths.CHECKOUT / "src/t5peft").rglob("*.py"))
    said = set(re.findall(r"@((?:sec|tbl)-[\w-]+)", code)) - {"sec-"}  # the rest is computed
    assert said
    assert said <= set(notebook.labels(project))


def test_every_setting_of_the_report_reaches_its_study(monkeypatch: pytest.MonkeyPatch) -> None:
    """None is taken for a module of the same name, as `backbone` is one."""
    monkeypatch.setenv("T5PEFT_HOME", str(paths.CHECKOUT))
    both = [cell.source for cell in notebook.build().cells if notebook.is_setup(cell)]
    given = {**vars(studies.load("smoke")), "study": "my-own", "backbone": "random:t5-small"}
    injected = "\n".join(f"{name} = {value!r}" for name, value in given.items())
    namespace: dict[str, object] = {}
    first, setup = both
    exec("\n".join([first, injected, setup.partition("evidence.use_svg")[0]]), namespace)
    assert namespace["study"] == studies.Study(**given)


def test_a_caption_is_one_text() -> None:
    cell = nbformat.v4.new_code_cell("#| label: fig-x\n#| fig-cap: [one, two]\n1", outputs=[])
    with pytest.raises(InputError, match=r"cell fig-x: found \['one', 'two'\] as its caption"):
        notebook.shown(cell, False, Path("pictures"))
