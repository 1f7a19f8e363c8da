"""The chapters' own source, and the parameters that their cells take."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest
from helpers import parameters_cell

from t5peft.base import paths
from t5peft.base.studies import Study
from t5peft.methods.table import EXERCISE
from t5peft.report import about
from t5peft.report.render import notebook

ROOT = paths.CHECKOUT


CHAPTERS = sorted((ROOT / "chapters").glob("*.qmd"))


def test_the_parameters_cell_declares_every_setting_once() -> None:
    names = [
        node.targets[0].id
        for node in ast.parse(parameters_cell()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    ]
    assert names == ["_before", *(field.name for field in dataclasses.fields(Study))]


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapters_cells_are_short_and_it_has_no_front_matter(chapter: Path) -> None:
    text = chapter.read_text()
    assert text.startswith("# ")
    cells = [match[3] for match in notebook.FENCE.finditer(text) if match[2] == "{python}"]
    assert cells
    for cell in cells:
        code = re.sub(r'""".*?"""', "", notebook.code(cell), flags=re.S)  # the text that it shows
        assert len(code.splitlines()) <= 10, cell


def test_peft_chapters_share_their_headings() -> None:
    headings = [
        re.findall(r"^## (.*?)(?: \{.*)?$", (ROOT / "chapters" / f"_{name}.qmd").read_text(), re.M)
        for name in EXERCISE[1:]
    ]
    assert headings[0] == [
        *("Idea and equation", "Our implementation", "With the library"),
        *("How many parameters it adds", "Results"),
    ]
    assert headings[1] == headings[2] == headings[0]


def test_each_method_has_its_question_an_example_its_use_and_exercises() -> None:
    for name in ("full-fine-tuning", *EXERCISE[1:]):
        text = (ROOT / "chapters" / f"_{name}.qmd").read_text()
        assert re.search(r"## Idea and equation\n\n\*[^*\n]+\?\*\n", text), name
        assert "show.tensors(" in text, name
        assert "**When to use it.**" in text, name
        (exercises,) = re.findall(r"\*\*Exercises\.\*\* (.*?)\n\n", f"{text}\n\n", re.S)
        assert re.findall(r"\((\d)\)", exercises) == ["1", "2", "3"], name


def test_every_citation_is_in_the_bibliography_and_the_reference_run_is_cited() -> None:
    source = "".join(path.read_text() for path in [*CHAPTERS, Path(about.__file__)])
    known = set(re.findall(r"^@\w+\{(\S+),", (ROOT / "references.bib").read_text(), re.M))
    cited = set(re.findall(r"@([a-z]+\d{4}\w*)", source))
    assert cited == known
    assert {"jrazi2023", "kooshkestani2023"} <= cited
