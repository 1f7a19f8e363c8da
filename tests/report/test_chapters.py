"""The chapters' own source, and the parameters that their cells take."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from t5peft.base import paths, studies
from t5peft.base.errors import InputError
from t5peft.base.settings import read_yaml
from t5peft.base.studies import Study
from t5peft.methods.table import EXERCISE
from t5peft.report import about, evidence, findings, show
from t5peft.report.render import notebook

ROOT = paths.CHECKOUT


CHAPTERS = sorted((ROOT / "chapters").glob("*.qmd"))


def parameters_cell() -> str:
    text = (ROOT / "report.qmd").read_text()
    (cell,) = [
        cell for cell in notebook.cells(text) if "parameters" in cell.metadata.get("tags", [])
    ]
    return cell.source


def test_the_parameters_cell_declares_every_setting_once() -> None:
    names = [
        node.targets[0].id
        for node in ast.parse(parameters_cell()).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    ]
    assert names == ["_before", *(field.name for field in dataclasses.fields(Study))]


def given(**injected: Any) -> Study:
    """What the set-up cell makes of the parameters cell and what was injected after it."""
    namespace: dict[str, Any] = {"fig_width": 7, "open": open}  # Quarto's and IPython's own
    exec(parameters_cell(), namespace)
    return evidence.study_of({**namespace, **injected})


def test_parameters_are_the_study_and_what_was_injected() -> None:
    assert given() == studies.load("self-contained")
    smoke = read_yaml(ROOT / "params" / "smoke.yaml")
    assert given(study="smoke", lora_rank=16) == studies.load("smoke", {"lora_rank": 16})
    assert given(**smoke) == studies.load("smoke")


def test_cells_may_be_run_again_with_another_setting() -> None:
    namespace: dict[str, Any] = {}
    exec(parameters_cell(), namespace)
    namespace["params"] = evidence.study_of(namespace)
    assert namespace["params"].lora_rank == 8
    exec(parameters_cell().replace("lora_rank = None", "lora_rank = 16"), namespace)
    assert evidence.study_of(namespace).lora_rank == 16


@pytest.mark.parametrize(
    ("injected", "complaint"),
    [
        ({"lora_rnak": 16}, "setting lora_rnak: .*did you mean 'lora_rank'"),
        ({"lora_rank": "16"}, "lora_rank: found '16'"),
        ({"study": "nope"}, "nope.yaml"),
        ({"study": None}, "study: found None"),
    ],
)
def test_a_wrong_parameter_is_refused_by_name(injected: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        given(**injected)


@pytest.mark.parametrize("chapter", CHAPTERS, ids=lambda path: path.stem)
def test_a_chapters_cells_are_short_and_it_has_no_front_matter(chapter: Path) -> None:
    text = chapter.read_text()
    assert text.startswith("# ")
    cells = [match[3] for match in notebook.FENCE.finditer(text) if match[2] == "{python}"]
    assert cells
    for cell in cells:
        assert len(notebook.code(cell).splitlines()) <= 10, cell


def test_peft_chapters_share_their_headings() -> None:
    headings = [
        re.findall(r"^## (.*?)(?: \{.*)?$", (ROOT / "chapters" / f"{name}.qmd").read_text(), re.M)
        for name in EXERCISE[1:]
    ]
    assert headings[0] == [
        *("Idea and equation", "Our implementation", "With the library"),
        *("How many parameters it adds", "Derived equals counted", "Results"),
    ]
    assert headings[1] == headings[2] == headings[0]


def test_every_citation_is_in_the_bibliography_and_the_reference_run_is_cited() -> None:
    source = "".join(
        path.read_text() for path in [*CHAPTERS, Path(about.__file__), Path(findings.__file__)]
    )
    known = set(re.findall(r"^@\w+\{(\S+),", (ROOT / "references.bib").read_text(), re.M))
    cited = set(re.findall(r"@([a-z]+\d{4}\w*)", source))
    assert cited == known
    assert show.REFERENCE.citation in cited
