"""Tables of results, from records made up here."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import BARE
from helpers import cells, column, seeded

from t5peft.methods.counting import Count
from t5peft.methods.table import Run
from t5peft.report import show, tables
from t5peft.report.counts import Checked
from t5peft.report.statistics import Pair


def test_ten_results_stand_in_the_exercises_order_beside_the_reference(
    records: list[Any],
) -> None:
    table = tables.ten_results(records)
    assert column(table, "run") == [str(number) for number in range(1, 11)]
    assert column(table, "accuracy, best epoch (%)") == [f"**{61 + k}.0**" for k in range(1, 11)]
    assert column(table, "accuracy, last epoch (%)") == [f"{60 + k}.0" for k in range(1, 11)]
    assert column(table, "published (%)") == [
        *("89.9", "86.6", "84.7", "86.9", "90.9", "90.4", "89.3", "89.2", "88.8", "88.7")
    ]
    for interval in column(table, "95% interval (%)"):
        low, high = map(float, interval.split(show.DASH))
        assert high - low == pytest.approx(1.2, abs=0.11)  # 25,000 reviews


def test_a_stale_run_or_measurement_is_marked_wherever_it_is_shown(
    records: list[Any], kept: dict[str, dict[str, Any]]
) -> None:
    written = (
        *(tables.ten_results, tables.cost, tables.times),
        lambda found: tables.knowledge(found, {}),
    )
    for table in written:
        rows = table(records).split("\n")[2:]
        assert ["(stale)" in row for row in rows] == [k == 4 for k in range(1, 11)], table
    own = {**records[7], "stale": "why", "params": {"seed": 1}}
    assert "69.0 (1) **(stale)**" in tables.seeds([[own]])
    kept["full"]["stale"] = "since"
    rows = tables.knowledge(records, kept).split("\n")[2:]
    assert ["(stale)" in row for row in rows] == [k in (1, 4) for k in range(1, 11)]
    tried = trials(records[0]["run"]["learning_rate"])
    tried[1]["stale"] = "since"
    assert "70.0 **(stale)**" in tables.trials(tried, records)


def trials(*rates: float) -> list[Any]:
    """Of each rate one that is constant and one that falls."""
    return [
        {"run": "full", "method": "full", "accuracy": 0.7, "learning_rate": rate, "identity": how}
        for rate in rates
        for how in ({}, {"decay": "linear"})
    ]


def test_the_rate_that_a_study_took_is_bold(records: list[Any]) -> None:
    tried = trials(records[0]["run"]["learning_rate"], 0.2)
    assert [row[2:] for row in cells(tables.trials(tried, records))] == [
        ["**70.0**", "70.0"],
        ["70.0", "70.0"],
    ]
    records[0]["identity"]["decay"] = "linear"
    (row, *_) = cells(tables.trials(tried[:3], records))
    assert row[2:] == ["70.0", "**70.0**"]
    assert cells(tables.trials(tried[2:3], records))[0][2:] == ["70.0"], "no rate fell"


def test_costs_are_compared_with_full_fine_tuning(records: list[Any]) -> None:
    records[9]["memory"]["peak_bytes"] //= 2
    table = tables.cost(records)
    assert column(table, "AdamW, 8 bytes each") == column(table, "AdamW, measured")
    assert column(table, "AdamW, measured")[0] == "8.00 MB"
    assert column(table, "peak") == [*9 * ["1,004 MB"], "502 MB"]
    assert column(table, "of full")[-1] == "0.10%"


def test_a_gap_is_train_less_test_in_points(
    records: list[Any], kept: dict[str, dict[str, Any]]
) -> None:
    first = cells(tables.knowledge(records, {}))[0]
    assert first == ["full fine-tuning", "75.0", "62.0", "+13.0"]
    first = cells(tables.knowledge(records, kept))[0]
    assert first == ["full fine-tuning", "70.0", "62.0", "+8.0", "4.00", "+0.50"]


def test_a_log_has_a_line_an_epoch(records: list[Any]) -> None:
    assert cells(tables.log(records[:1])) == [
        ["full fine-tuning", "1", "0.7000", "75.0", "62.0"],
        ["full fine-tuning", "2", "0.5000", "80.0", "61.0"],
    ]


def test_a_difference_is_of_the_two_numbers_beside_it(
    records: list[Any], kept: dict[str, dict[str, Any]]
) -> None:
    measured = {"train_accuracy": 0.84953, "test_accuracy": 0.85247}  # 85.0 and 85.2
    kept["full"] |= measured | {"span_loss": 7.2951, "span_loss_before": 3.5843}  # 7.30, 3.58
    first = cells(tables.knowledge(records, kept))[0]
    assert first == ["full fine-tuning", "85.0", "85.2", f"{show.MINUS}0.2", "7.30", "+3.72"]


def test_pairs_stand_with_their_test(records: list[Any]) -> None:
    (row,) = cells(tables.pairs([Pair(records[1], records[0], 1200, 30, 0.0001)]))
    assert row[0].startswith("soft prompt, ours")
    assert row[1:] == ["full fine-tuning", "+1.0 ± 0.3", "1,200", "30", "< 0.001"]


def test_the_first_pages_table_is_of_the_four_methods_of_ours(records: list[Any]) -> None:
    made = [Run(**{k: v for k, v in r["run"].items() if k != "name"}) for r in records]
    bare = {"t5-small": 50, "mini": 7}
    checked = [
        Checked(model, run, Count(run.number, run.number, total + run.number, total + run.number))
        for model, total in bare.items()
        for run in made
    ]
    table = tables.glance(records, checked)
    assert column(table, "method") == ["full fine-tuning", "soft prompt", "adapter", "LoRA"]
    assert column(table, "added") == ["1", "2", "5", "8"]
    assert column(table, "Number of parameters") == ["**51**", "**52**", "**55**", "**58**"]
    assert column(table, "test accuracy (%)") == ["**62.0**", "**63.0**", "**66.0**", "**69.0**"]


def test_of_one_epoch_nothing_is_said_twice(one_epoch: list[Any]) -> None:
    table = tables.ten_results(one_epoch)
    assert column(table, "test accuracy (%)") == [f"**{61 + k}.0**" for k in range(1, 11)]
    assert "epoch" not in table


def test_a_last_epoch_that_is_the_best_of_each_run_is_not_said_twice(records: list[Any]) -> None:
    for record in records:
        record["best_epoch"] = 2
    assert "epoch" not in tables.ten_results(records)
    records[3]["best_epoch"] = 1
    assert "accuracy, last epoch (%)" in tables.ten_results(records)


def test_times_are_of_training_and_of_testing(records: list[Any]) -> None:
    records[0]["history"][0]["other_words"] = 0.5
    table = tables.times(records)
    assert column(table, "training reviews per s")[0] == "100"
    assert column(table, "test reviews per s")[0] == "300"
    assert column(table, "time to train")[0] == "8 min"
    assert column(table, "time to test")[0] == "2 min"
    assert column(table, "other words (%)")[0] == "2.00"


def test_seeds_have_a_mean_and_a_spread(records: list[Any]) -> None:
    (row,) = cells(tables.seeds([seeded(records[7], {0: 0.8, 3: 0.81, 4: 0.85})]))
    assert row[1:] == ["80.0 (0), 81.0 (3), 85.0 (4)", "82.0", "5.0"]


def test_listed_runs_stand_with_their_counts_in_the_studys_backbone(records: list[Any]) -> None:
    def checked(model: str, added: int) -> list[Checked]:
        count = Count(added, added, BARE + added, BARE + added)
        return [Checked(model, Run(**facts), count) for facts in plain]

    plain = [{k: v for k, v in r["run"].items() if k != "name"} for r in records[7:]]
    table = tables.sizes(records[7:], checked("t5-small", 5) + checked("mini", 1000))
    assert column(table, "added, derived") == column(table, "added, counted") == 3 * ["1,000"]
    assert column(table, "run")[1] == f"LoRA, PEFT, r = 1, {show.ALPHA} = 4"
    assert column(table, "accuracy, best epoch (%)") == ["**69.0**", "**70.0**", "**71.0**"]


def test_accuracy_by_size_has_a_dash_where_there_is_no_run(records: list[Any]) -> None:
    table = tables.by_size([record for record in records if record["run"]["settings"]])
    assert table.startswith("| method")
    assert [row for row in cells(table) if "LoRA" in row[0]] == [
        ["LoRA, ours", "$r$", show.DASH, "69.0", show.DASH],
        ["LoRA, PEFT", "$r$", "70.0", "71.0", show.DASH],
    ]
