"""Words and numbers as the report writes them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from t5peft.report import plots, show


@pytest.mark.parametrize(
    ("value", "shown"),
    [(1e-5, "1e-5"), (2.5e-3, "2.5e-3"), (1e-2, "1e-2"), (0.1, "0.1"), (4.0, "4")],
)
def test_rates_are_written_as_people_write_them(value: float, shown: str) -> None:
    assert show.rate(value) == shown
    assert float(shown) == value


def test_an_inline_text_is_its_own_repr() -> None:
    """Quarto shows what an inline expression gives by its repr."""
    text = show.adamw_defaults()
    assert repr(text) == f"'{text}'"
    assert text == "β₁ = 0.9, β₂ = 0.999, ε = 1e-8 and λ = 0.01"


def test_loras_targets_are_told_where_they_are_not_the_usual() -> None:
    settings = {"rank": 8, "alpha": 4.0}
    assert show.setting_name(settings) == f"r = 8, {show.ALPHA} = 4"
    settings |= {"targets": ["q", "k", "wi"]}
    assert show.setting_name(settings) == f"r = 8, {show.ALPHA} = 4, at q, k and wi"


def test_captions_know_of_one_epoch(records: list[Any]) -> None:
    captions = [x(records) for x in (show.by_epoch, show.best_and_last, plots.caption, plots.marks)]
    assert captions[:2] == ["epoch by epoch", "best epoch and after the last"]
    assert captions[2].startswith("Test accuracy by epoch")
    assert captions[3].startswith("tick, the last epoch")
    for record in records:
        del record["history"][1:]
    captions = [x(records) for x in (show.by_epoch, show.best_and_last, plots.caption, plots.marks)]
    assert captions[:2] == ["after the one epoch", "one epoch"]
    assert captions[2].endswith("after the one epoch, a line a run")
    assert captions[3] == "grey cross, the published reference run"


def test_only_known_labels_are_written_by_python() -> None:
    assert show.section("sec-seeds", "Seeds") == "## Seeds {#sec-seeds}"
    for write in (show.section, lambda label, title: show.floating(label, title, "caption")):
        with pytest.raises(ValueError, match=r"label tbl-x: not in show\.WRITTEN"):
            write("tbl-x", "a title")


def test_percent_has_one_decimal_and_bytes_are_decimal_megabytes() -> None:
    assert show.percent(0.87654) == "87.7"
    assert show.megabytes(1_234_567) == "1.235"
    assert show.kilobytes(10_240) == "10.2"


def test_numbers_of_a_table_stand_on_the_right() -> None:
    table = show.table([("a", 1), ("b", 22)], ("name", "long head (%)"))
    rule = table.split("\n")[1]
    assert re.fullmatch(r"\|:-+\|-+:\|", rule)
    assert rule.count("-") < len(table.split("\n")[0])  # a head may be broken between words


@pytest.mark.parametrize(
    ("seconds", "shown"), [(43, "43 s"), (720, "12 min"), (3600, "60 min"), (12_240, "3.4 h")]
)
def test_durations_are_in_the_unit_that_fits(seconds: float, shown: str) -> None:
    assert show.duration(seconds) == shown
