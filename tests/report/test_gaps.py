"""A report whose runs are not all stored shows what is there, and marks the gaps."""

from __future__ import annotations

import ast
import dataclasses
from typing import Any

import pytest
from helpers import run_of

from t5peft.base.errors import Missing
from t5peft.base.studies import Study
from t5peft.report import gaps, tables
from t5peft.report.evidence import Evidence
from t5peft.report.render import notebook
from t5peft.runs import make

MISSING = Missing("study", "1 of 10 runs missing", "stored runs", "train them")


def ask() -> None:
    raise MISSING


@pytest.fixture
def partial(smoke: Study) -> Study:
    """A study of whose LoRA runs only ours is stored."""
    study = dataclasses.replace(smoke, epochs=1, train="partial")
    make.train(run_of(study), study)
    return study


def test_of_incomplete_records_only_what_is_stored_is_used(partial: Study) -> None:
    records = Evidence(partial).records("lora")
    assert records, "there are some"
    for use in (list, len, lambda x: x[0], lambda x: "a" in x, reversed):
        with pytest.raises(Missing, match="9 of 10 runs missing"):
            use(records)
    table = tables.ten_results(records)
    assert [row.split("|")[2].strip() for row in table.splitlines()[2:]] == [
        *("LoRA", "LoRA (missing)", "LoRA (missing)")
    ]
    rows = [row for row in tables.ten_results(Evidence(partial).records()).splitlines()[2:] if row]
    assert [int(row.split("|")[1]) for row in rows] == [*range(1, 11)]
    assert sum("(missing)" in row for row in rows) == 9


def run(source: str, names: dict[str, Any]) -> list[object]:
    """What a cell shows whose gaps are marked."""
    shown: list[object] = []
    tree = gaps.Gaps().visit(ast.parse(source))
    code = compile(tree, "cell", "exec")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gaps, "display", shown.append)
        exec(code, names)
    return shown


def test_a_cell_shows_its_last_line_or_its_gap() -> None:
    assert run("x = 1\nx + 1", {}) == [2]
    assert run("x = 1", {}) == run("", {}) == []
    assert run("ask()\n3", {"ask": ask}) == [MISSING]
    with pytest.raises(ZeroDivisionError):
        run("1 / 0", {})


def test_what_a_gap_was_to_name_is_as_missing() -> None:
    names: dict[str, Any] = {"ask": ask, "full": "another chapter's"}
    assert run("full, peft = ask()", names) == [MISSING]
    for use in (bool, list, len, lambda gap: gap["run"], lambda gap: gap.name, lambda gap: gap()):
        with pytest.raises(Missing, match="1 of 10 runs missing"):
            use(names["full"])
    assert run("peft[0]", names) == [MISSING]


def test_a_sentence_has_a_dash_where_a_run_is_missing(partial: Study) -> None:
    text = notebook.fill("It took `{python} len(x)` s.", {"x": Evidence(partial).records("lora")})
    assert text.data == "It took \N{EN DASH} s."
    text = notebook.fill("It is `{python} peft`.", {"peft": gaps.Gap(MISSING)})
    assert text.data == "It is \N{EN DASH}.", "nor a name that a gap stands for"
