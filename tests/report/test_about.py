"""Whose numbers the report shows: study, backbone, versions."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from helpers import cells

from t5peft.base import paths, studies
from t5peft.base.errors import Missing
from t5peft.base.studies import Study
from t5peft.report import about, show
from t5peft.report.gaps import Incomplete


def test_stale_runs_and_those_of_a_smoke_study_are_warned_of(
    exercise: Study, records: list[Any]
) -> None:
    text = about.warnings(exercise, records)
    assert "mean nothing" not in text
    assert "soft prompt, OpenDelta, n = 10: the training source has changed" in text
    drawn = dataclasses.replace(exercise, backbone="random:tiny", tokenizer="t")
    random = about.warnings(drawn, [])
    assert "These numbers mean nothing" in random
    assert "runs with a random T5. It" in random
    both = dataclasses.replace(exercise, backbone="random:tiny", tokenizer="t", data="made-up")
    assert "runs with a random T5 and made-up reviews. It" in about.warnings(both, [])


def test_runs_of_another_study_are_named(exercise: Study, records: list[Any]) -> None:
    assert "another study" not in about.warnings(exercise, records)
    for record in (records[0], records[4]):
        record["trained_for"] = "three-epochs"
    text = about.warnings(exercise, records)
    named = [f"- {show.run_name(records[number]['run'])}: three-epochs" for number in (0, 4)]
    assert "\n".join(["the same:", "", *named, ":::"]) in text


def test_a_part_of_a_report_warns_of_what_a_whole_one_does(
    exercise: Study, records: list[Any]
) -> None:
    missing = Missing("study", "8 of 10 runs missing", "stored runs", "train them")
    part: Any = Incomplete(missing, records[2:4], [*records[:2], *records[4:]])
    text = about.warnings(
        dataclasses.replace(exercise, backbone="random:tiny", tokenizer="t"), part
    )
    for told in ("mean nothing", "8 of 10 runs are missing", "source has changed"):
        assert told in text
    assert "are missing" not in about.warnings(exercise, records)


def test_other_texts_than_imdb_are_named(exercise: Study, records: list[Any]) -> None:
    assert "Other reviews" not in about.warnings(exercise, records)
    records[3]["identity"]["data"] = "f" * 64
    study = dataclasses.replace(exercise, data="IMDB Dataset.csv")
    text = about.warnings(study, records)
    assert "Other reviews than IMDB's, or another split" in text
    assert "those of `IMDB Dataset.csv`" in text
    made_up = dataclasses.replace(study, data="made-up")
    assert "Other reviews" not in about.warnings(made_up, records)


def test_the_first_page_says_what_the_numbers_are_not(exercise: Study) -> None:
    assert about.departures(exercise, exercise) == ""
    own = str(paths.weights() / "backbone/mini-long")
    ours = dataclasses.replace(exercise, backbone=own, epochs=1)
    assert about.departures(ours, exercise) == (
        "**Not the exercise itself**: 2 settings differ (@sec-differences), "
        "first the backbone, *mini-long* (7,328,000 parameters)."
    )
    moved = dataclasses.replace(exercise, backbone="models/t5-small")
    text = about.departures(moved, exercise)
    assert text == "**Not the exercise itself**: 1 setting differs (@sec-differences)."


def test_every_setting_that_differs_is_listed_with_its_reason(
    exercise: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cells(about.differences_table(exercise, exercise)) == [["none", *3 * [show.DASH]]]
    ours = dataclasses.replace(exercise, study="x", train="no", epochs=3, max_length=128)
    ours = dataclasses.replace(ours, micro_batch_size=2)
    assert about.differences(ours, exercise) == ["max_length", "epochs"]
    moved = dataclasses.replace(exercise, data="a/folder")
    assert about.differences(moved, exercise) == [], "the texts that are pinned, wherever they lie"
    assert about.differences(dataclasses.replace(moved, data_fingerprint=""), exercise) == ["data"]
    monkeypatch.setattr(about, "reasons", lambda _: {"epochs": "two cores"})
    assert cells(about.differences_table(ours, exercise)) == [
        ["`max_length`", "256", "128", show.DASH],
        ["`epochs`", "10", "3", "two cores"],
    ]


def test_reasons_are_the_comments_behind_settings(home: Path) -> None:
    (home / "params" / "mine.yaml").write_text(
        "# a study\nepochs: 3  # two cores\nbatch_size: 16 #\nseed: 0\ndata: made-up # no hub\n"
    )
    here = studies.load("smoke", {"epochs": 3, "study": "mine"})
    assert about.reasons(here) == {"epochs": "two cores", "data": "no hub"}
    changed = dataclasses.replace(here, epochs=4)
    assert about.reasons(changed) == {"data": "no hub"}, "the file knows not why"
    assert about.reasons(dataclasses.replace(here, study="none")) == {}


def test_numbers_that_were_made_in_several_places_have_a_line_for_each(records: list[Any]) -> None:
    here = {"device": "A", "threads": 1, "precision": "bf16"}
    for record in records:
        record.update(environment=here)
    records[2]["environment"] = {"device": "B", "threads": 2, "precision": "fp32"}
    beside = {"trials": [{"environment": here}], "baselines": []}
    found: Any = SimpleNamespace(
        records=lambda: records, seeds=[], longer=[], sizes=[], beside=beside
    )
    assert about.origins(found).split("\n") == [
        "- A, 1 thread, bf16: the ten runs (@tbl-ten), 9; trials, 1",
        "- B, 2 threads, fp32: the ten runs (@tbl-ten), 1",
    ]


def test_versions_are_all_that_there_were(records: list[Any]) -> None:
    for record in records:
        record["environment"] = {"python": "3.11", "torch": "2.13"}
    records[2]["environment"] = {"python": "3.12", "torch": "2.13"}
    assert about.versions(records).startswith("python 3.11 and 3.12, torch 2.13, ")


def test_an_own_backbone_says_what_it_cost_and_a_random_one_that_it_is(exercise: Study) -> None:
    card = {
        "params": {
            "vocabulary": 8000, "batch_size": 48, "input_length": 128, "learning_rate": 0.02
        },
        "parameters": 7, "steps": 5, "seconds": 3600.0, "corpus_tokens": 9, "seen_tokens": 8,
        "sst2_sentences": 6, "device": "cpu", "losses": {"span": 4.5, "sst2": 0.1},
        "zero_shot_sst2": 0.771, "zero_shot_imdb_train": 0.752,
        "span_loss": 4.1, "span_loss_other_input": 5.6,
    }  # fmt: skip
    rows = dict(cells(about.backbone_table(card)))
    assert rows["time"] == "60 min"
    assert rows["loss at the end: span corruption"] == "4.500"
    assert [x for x in rows.values() if x in ("77.1", "75.2")] == ["77.1", "75.2"]
    assert about.backbone(exercise, {"backbone": {"card": card}}) == ""  # the chapter tells
    there = about.backbone(exercise, {"backbone": {"card": {}, "commit": "f" * 40}})
    assert "published checkpoint" in there
    assert "commit `ffffffffffff` of" in there
    tiny = dataclasses.replace(exercise, backbone="random:tiny", tokenizer="x")
    assert "never pre-trained" in about.backbone(tiny, {"backbone": {"card": {}}})


def test_all_settings_stand_two_a_line(exercise: Study) -> None:
    rows = cells(about.settings_table(exercise))
    named = [row[0] for row in rows] + [row[2] for row in rows]
    assert [name for name in named if name] == [f"`{name}`" for name in vars(exercise)]
