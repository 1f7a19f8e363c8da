"""Tables of results, from records made up here."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import BARE
from helpers import cells, column

from t5peft.base import studies
from t5peft.base.studies import Study
from t5peft.methods.counting import Count
from t5peft.methods.table import Run
from t5peft.report import about, sections, show, tables
from t5peft.report.counts import Checked


def test_ten_results_stand_in_the_exercises_order_beside_the_reference(
    records: list[Any],
) -> None:
    table = tables.ten_results(records)
    assert column(table, "run") == [str(number) for number in range(1, 11)]
    assert column(table, "accuracy, best epoch (%)") == [f"**{61 + k}.0**" for k in range(1, 11)]
    assert column(table, "accuracy, last epoch (%)") == [f"{60 + k}.0" for k in range(1, 11)]
    assert column(table, "published reference (%)") == [
        *("89.9", "86.6", "84.7", "86.9", "90.9", "90.4", "89.3", "89.2", "88.8", "88.7")
    ]
    for interval in column(table, "95% interval (%)"):
        low, high = map(float, interval.split(show.DASH))
        assert high - low == pytest.approx(1.2, abs=0.11)  # 25,000 reviews


def test_a_stale_run_is_marked_wherever_it_is_shown(records: list[Any]) -> None:
    written = (
        *(tables.ten_results, tables.results, tables.memory),
        *(tables.storage, tables.gaps, tables.speed),
    )
    for table in written:
        rows = table(records).split("\n")[2:]
        assert ["(stale)" in row for row in rows] == [k == 4 for k in range(1, 11)], table
    own = {**records[7], "stale": "why"}
    assert "LoRA **(stale)**" in tables.glance([*records[:7], own], [])
    made = {"params": {"seed": 1, "study": "s"}, "environment": {"device": "a machine"}}
    assert " **(stale)** (seed 1)" in sections.seeds([[own | made]])
    settings = vars(studies.load("assignment"))
    with_settings = {**own, "params": settings}
    text = sections.exercise_rates([with_settings], [with_settings], [])
    assert f"{show.ALPHA} = 4 **(stale)** |" in text


def test_memory_and_storage_are_compared_with_full_fine_tuning(
    records: list[Any],
) -> None:
    memory = tables.memory(records)
    assert column(memory, "8 bytes each (MB)") == column(memory, "AdamW state, measured (MB)")
    assert column(memory, "8 bytes each (MB)")[0] == "8.000"
    assert column(tables.storage(records), "tasks in the space of one")[-1] == "1,000"


def test_gap_is_train_minus_test_in_points(records: list[Any]) -> None:
    first = cells(tables.gaps(records))[0]
    assert first == ["full fine-tuning", "1", "75.0", "62.0", "+13.0", "80.0", "61.0", "+19.0"]


def test_the_first_pages_table_is_of_the_four_methods_of_ours(
    records: list[Any],
) -> None:
    table = tables.glance(records, [])
    assert column(table, "method") == ["full fine-tuning", "soft prompt", "adapter", "LoRA"]
    assert column(table, "trained parameters") == ["1,000,000", "10", "100", "1,000"]
    assert column(table, "share trained (%)") == ["100.000", "0.001", "0.010", "0.100"]
    assert column(table, "test accuracy (%)") == ["**62.0**", "**63.0**", "**66.0**", "**69.0**"]


def test_a_chapters_results_stand_in_their_columns(records: list[Any]) -> None:
    table = tables.results(records[7:])
    assert column(table, "trained parameters") == 3 * ["1,000"]
    assert column(table, "all parameters") == 3 * ["1,001,000"]
    assert column(table, "accuracy, best epoch (%)") == ["**69.0**", "**70.0**", "**71.0**"]
    assert column(table, "accuracy, last epoch (%)") == ["68.0", "69.0", "70.0"]
    low, high = map(float, column(table, "95% interval (%)")[0].split(show.DASH))
    assert low < 69.0 < high
    assert (low + high) / 2 == pytest.approx(69.0, abs=0.06)


def test_of_one_epoch_nothing_is_said_twice(one_epoch: list[Any]) -> None:
    for table in (tables.results(one_epoch), tables.ten_results(one_epoch)):
        assert column(table, "test accuracy (%)") == [f"**{61 + k}.0**" for k in range(1, 11)]
        assert "epoch" not in table
    assert cells(tables.gaps(one_epoch))[0] == ["full fine-tuning", "75.0", "62.0", "+13.0"]


def test_shares_of_full_fine_tuning(records: list[Any]) -> None:
    records[9]["memory"]["peak_bytes"] //= 2
    assert column(tables.memory(records), "peak of training (MB)") == [*9 * ["1,004"], "502"]
    assert column(tables.storage(records), "of full (%)")[-1] == "0.100"


def test_times_are_of_training_and_of_testing(records: list[Any]) -> None:
    table = tables.speed(records)
    assert column(table, "time to train")[0] == "8 min"
    assert column(table, "time to test")[0] == "2 min"
    assert column(table, "other words (%)")[0] == "2.00"
    assert about.total_seconds(records) == 10 * 600


def test_a_stale_measurement_is_marked_in_its_row_and_where_all_are_in_the_caption(
    exercise: Study, records: list[Any], kept: dict[str, dict[str, Any]]
) -> None:
    trial = {"run": "full", "method": "full", "reviews": 8, "held_out": 2, "loss": 0.5}
    trials = [trial | {"learning_rate": rate, "accuracy": 0.7} for rate in (0.1, 0.2)]

    fresh = [record | {"stale": ""} for record in records]

    def texts() -> list[str]:
        shown = sections.retention(exercise, fresh, kept, 1000)
        return [shown, sections.learning_rates(trials, fresh)]

    assert not any("(stale)" in text for text in texts())
    for measured in (kept["full"], trials[0]):
        measured["stale"] = "since"
    for text in texts():
        marked = [row[0] for row in cells(text) if "(stale)" in row[0]]
        assert marked == ["full fine-tuning **(stale)**"]
        assert text.count("(stale)") == 1
    for measured in (*kept.values(), *trials):
        measured["stale"] = "since"
    for text in texts():
        assert not any("(stale)" in row[0] for row in cells(text))
        assert text.count("(stale)") == 1


def test_listed_runs_stand_with_their_counts_in_the_studys_backbone(records: list[Any]) -> None:
    def checked(model: str, added: int) -> list[Checked]:
        count = Count(added, added, BARE + added, BARE + added)
        return [Checked(model, Run(**facts), count) for facts in plain]

    plain = [{k: v for k, v in r["run"].items() if k != "name"} for r in records[7:]]
    table = tables.sizes(records[7:], checked("t5-small", 5) + checked("mini", 1000))
    assert column(table, "added, derived") == column(table, "added, counted") == 3 * ["1,000"]
    assert column(table, "run")[1] == f"LoRA, PEFT, r = 1, {show.ALPHA} = 4"
    assert column(table, "accuracy, best epoch (%)") == ["**69.0**", "**70.0**", "**71.0**"]
