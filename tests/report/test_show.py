"""Words and numbers as the report writes them."""

from __future__ import annotations

import re

import pytest

from t5peft.report import show


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1e-5, "10⁻⁵"),
        (2.5e-3, f"2.5 {show.TIMES} 10⁻³"),
        (3e-4, f"3 {show.TIMES} 10⁻⁴"),
        (0.1, "0.1"),
        (4.0, "4"),
    ],
)
def test_rates_are_written_as_people_write_them(value: float, shown: str) -> None:
    assert show.rate(value) == shown


def test_adamws_defaults_are_those_that_the_text_explains() -> None:
    names = "betas", "eps", "weight_decay"
    assert [show.adamw_default(name) for name in names] == [(0.9, 0.999), 1e-8, 0.01]


def test_loras_targets_are_told_where_they_are_not_the_usual() -> None:
    settings = {"rank": 8, "alpha": 4.0}
    assert show.setting_name(settings) == f"r = 8, {show.ALPHA} = 4"
    settings |= {"targets": ["q", "k", "wi"]}
    assert show.setting_name(settings) == f"r = 8, {show.ALPHA} = 4, at q, k and wi"


@pytest.mark.parametrize(
    ("count", "shown"),
    [(484_052_992, "484 MB"), (265_568, "0.266 MB"), (20_480, "20.5 kB"), (80, "80 bytes")],
)
def test_bytes_are_in_the_unit_that_fits(count: int, shown: str) -> None:
    assert show.size(count) == shown


def test_shares_and_probabilities_have_the_digits_that_they_need() -> None:
    assert show.percent(0.87654) == "87.7"
    assert [show.share(x) for x in (1, 0.0949, 0.0047, 0.00001)] == [
        *("100.0%", "9.5%", "0.47%", "0.001%")
    ]
    assert [show.probability(p) for p in (0.0009, 0.0123, 0.731, 1.0)] == [
        *("< 0.001", "0.012", "0.73", "1")
    ]
    assert [show.points(x) for x in (1.24, -0.04, 0.04)] == ["+1.2", "0.0", "0.0"]
    assert show.points(-3) == f"{show.MINUS}3.0"


def test_the_published_runs_are_the_exercises_ten_numbers() -> None:
    assert [show.reference(number) for number in range(1, 11)] == [
        *(89.9, 86.6, 84.7, 86.9, 90.9, 90.4, 89.3, 89.2, 88.8, 88.7)
    ]
    assert [show.reference(number, "second") for number in (1, 2)] == [90.0, 87.2]
    assert all(len(x) == 10 for run in show.published().values() for x in run.values())


def test_numbers_of_a_table_stand_on_the_right() -> None:
    table = show.table([{"name": "a", "long head (%)": 1}, {"name": "b", "long head (%)": 22}])
    rule = table.split("\n")[1]
    assert re.fullmatch(r"\|:-+\|-+:\|", rule)
    assert rule.count("-") < len(table.split("\n")[0])  # a head may be broken between words


@pytest.mark.parametrize(
    ("seconds", "shown"), [(43, "43 s"), (720, "12 min"), (3600, "60 min"), (12_240, "3.4 h")]
)
def test_durations_are_in_the_unit_that_fits(seconds: float, shown: str) -> None:
    assert show.duration(seconds) == shown
