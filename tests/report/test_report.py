"""The report itself, rendered without Quarto from the smoke study, and what is handed in."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers import column, run_of

from t5peft.base import paths, studies
from t5peft.base.errors import InputError
from t5peft.inputs import backbone
from t5peft.methods.table import runs_of
from t5peft.report import show
from t5peft.report.evidence import Evidence
from t5peft.report.learned import Learned
from t5peft.report.render import render
from t5peft.runs import make, records, store

pytestmark = pytest.mark.slow


def test_the_whole_report_is_a_pdf(rendered: Path, home: Path) -> None:
    assert rendered == home / "_output" / "report-smoke.pdf", "the default study's is report.pdf"
    assert rendered.read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(("there", "gaps"), [("lora-scratch-r8", 2), ("full", 3)])
def test_a_partial_report_shows_what_is_there_and_marks_the_gaps(
    there: str, gaps: int, home: Path, tokenizer: dict[str, Any]
) -> None:
    changes = tokenizer | {"study": f"begun-{there}", "train": "partial"}
    study = studies.load("smoke", changes)
    make.train(run_of(study, there), study)
    target = render.render("smoke", changes)
    assert target == home / "_output" / f"report-begun-{there}.pdf"
    text = target.with_suffix(".md").read_text()
    assert "**A gap:** 9 of 10 runs missing (never trained)." in text
    assert len(re.findall(r"LoRA \(missing\)", text)) == gaps
    drawn = re.findall(r"\{#fig-(?:accuracy-parameters|ten)\}\n\n(!\[|\W*)", text)
    assert drawn == 2 * ["!["], "what is there"
    assert "Derived equals counted" in text, "what needs no run is there"
    stored = (paths.weights() / study.study).glob(f"*/{records.RECORD}")
    assert [path.parent.name for path in stored] == [there], "nothing is trained"


def test_its_cells_trained_and_stored_the_ten_runs(
    rendered: Path, tokenizer: dict[str, Any]
) -> None:
    study = studies.load("smoke", tokenizer)
    assert [store.status(run, study).state for run in runs_of(study)] == 10 * ["fresh"]


@pytest.mark.usefixtures("rendered")
def test_the_prompts_walk_goes_from_the_embeddings_first_rows_to_what_is_stored(
    tokenizer: dict[str, Any],
) -> None:
    study = studies.load("smoke", tokenizer)
    start, end = Learned(Evidence(study)).prompt_rms()
    first = backbone.load(study.backbone, study.seed).shared.weight[:10]
    (stored,) = store.tensors(paths.weights() / "smoke" / "soft-prompt-scratch-n10")[1].values()
    assert (start, end) == pytest.approx(
        [rows.pow(2).mean().item() ** 0.5 for rows in (first, stored)]
    )
    assert start != pytest.approx(end, rel=1e-3)


def test_it_names_its_study_beside_every_table_of_results(rendered: Path) -> None:
    text = rendered.with_suffix(".md").read_text()
    captions = re.findall(
        r"^::: \{#tbl-(?:ten|glance|pairs|cost|knowledge|learned|seeds|rates|times)\}.*?^:::$",
        *(text, re.M | re.S),
    )
    assert len(captions) == 9
    assert all("smoke" in caption for caption in captions)
    assert "These numbers mean nothing" in text


def test_its_pictures_have_no_date(rendered: Path) -> None:
    pictures = list(rendered.with_name("report-smoke_files").glob("*.svg"))
    assert len(pictures) == rendered.with_suffix(".md").read_text().count("::: {#fig-")
    assert not any("dc:date" in picture.read_text() for picture in pictures)


def test_no_reference_is_left_open(rendered: Path) -> None:
    text = rendered.with_suffix(".typ").read_text()
    assert not re.search(r"\?\?|\[\?\]|@(sec|fig|tbl|eq)-", text)


def test_the_exercises_totals_stand_in_it(rendered: Path) -> None:
    text = rendered.with_suffix(".md").read_text()
    for total in ("60,506,624", "60,511,744", "60,611,168", "60,801,536"):
        assert total in text


def test_a_chapter_trains_another_rank_and_shows_it(
    rendered: Path, tokenizer: dict[str, Any]
) -> None:
    pdf = render.render("smoke", {**tokenizer, "lora_rank": 16, "train": "yes"}, chapter="lora")
    text = pdf.with_suffix(".md").read_text()
    assert f"{36 * 16 * (512 + 512):,}" in text
    study = studies.load("smoke", {**tokenizer, "lora_rank": 16})
    stored = {run.name: store.status(run, study).state for run in runs_of(study)}
    assert stored["lora-scratch-r16"] == stored["lora-peft-r16"] == "fresh"


LISTED = [
    {"method": "full"},
    {"method": "lora", "settings": {"rank": 1}},
    {"method": "lora", "settings": {"rank": 4}},
    {"method": "ia3", "rate": 0.01},
]


def test_a_study_with_runs_of_its_own_is_shown_by_size(
    home: Path, tokenizer: dict[str, Any]
) -> None:
    changes = {**tokenizer, "study": "own", "runs": LISTED, "epochs": 1}
    target = render.render("smoke", changes)
    assert target == home / "_output" / "report-own.pdf"
    text = target.with_suffix(".md").read_text()
    assert column(text, "run") == [
        *(
            "full fine-tuning",
            f"LoRA, ours, r = 1, {show.ALPHA} = 4",
            f"LoRA, ours, r = 4, {show.ALPHA} = 4",
            "IA³, ours",
        ),
    ]
    assert column(text, "added, counted") == ["0", "768", "3,072", "640"]
    assert "{#fig-sizes}" in text
    assert "These numbers mean nothing" in text
    study = studies.load("smoke", changes)
    with pytest.raises(InputError, match="expected the exercise's ten; t5peft render ") as refusal:
        Evidence(study).ten()
    assert refusal.value.way_out == f"t5peft render {studies.arguments(study)} shows what it lists"


def test_of_listed_runs_a_partial_report_shows_what_is_there(
    home: Path, tokenizer: dict[str, Any]
) -> None:
    changes = {**tokenizer, "study": "listed", "runs": LISTED, "epochs": 1, "train": "partial"}
    study = studies.load("smoke", changes)
    make.train(run_of(study, "lora-scratch-r4"), study)
    text = render.render("smoke", changes).with_suffix(".md").read_text()
    assert "full fine-tuning (missing)" in text
    assert "3 of 4 runs missing" in text


def test_a_wrong_formula_stops_the_render_and_leaves_no_pdf(
    rendered: Path, home: Path, tokenizer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel is another process: the formula is made wrong by what it imports first."""
    folder = home / "startup"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os\n"
        "if os.environ.get('WRONG_FORMULA'):\n"
        "    import dataclasses\n"
        "    from t5peft.methods import formulas\n"
        "    right = formulas.FORMULAS['adapter']\n"
        "    formulas.FORMULAS['adapter'] = dataclasses.replace(right, share=right.share + 1)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("WRONG_FORMULA", "1")
    with pytest.raises(render.RenderError, match=r"adapter.*derived 104,5\d\d.*counted 104,544"):
        render.render("smoke", tokenizer, chapter="adapter")
    assert not (home / "_output" / "adapter.pdf").exists()
