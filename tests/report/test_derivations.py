"""Derivations, and tables of what is derived and counted."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from helpers import cells, column

from t5peft.base import studies
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.methods import counting, formulas
from t5peft.methods.table import inject, ours
from t5peft.report import counts, derivations
from t5peft.report.show import DASH


def test_a_derivation_goes_from_sites_to_the_exercises_number() -> None:
    text = derivations.derivation(formulas.derive("lora", "t5-small", {"rank": 8, "alpha": 4}))
    assert text.count("\n") == 4
    assert "= 36$" in text
    assert text.endswith(r"$\text{294,912}$ parameters.")


def test_number_of_parameters_is_the_exercises(exercise: Study) -> None:
    checked = counts.counted(exercise, ours(exercise).values())
    counted = [(x.count.counted_total, x.count.equal) for x in checked]
    assert counted == [(x, True) for x in (60_506_624, 60_511_744, 60_611_168, 60_801_536)]
    added = [x.count.derived_added for x in checked]
    assert added == [0, 5_120, 104_544, 294_912]


def test_derived_and_counted_stand_in_their_columns(exercise: Study) -> None:
    item = counts.Checked("tiny", ours(exercise)["lora"], counting.Count(1, 2, 3, 4))
    table = derivations.counts([item])
    heads = ("added, derived", "added, counted", "all, derived", "all, counted", "equal")
    assert [column(table, head) for head in heads] == [["1"], ["2"], ["3"], ["4"], ["**NO**"]]
    assert column(table, "model") == ["tiny"]
    (formula,) = column(derivations.counts([item], formula=True), "added")
    assert "L_{e} + 2" in formula, "in letters"


def test_the_familys_shares_are_of_the_model(exercise: Study) -> None:
    table = derivations.family(exercise)
    assert cells(table)[0] == [
        *("t5-small", "60,506,624", "5,120 (0.0085)", "104,544 (0.1725)", "294,912 (0.4850)")
    ]
    assert [row[0] for row in cells(table)] == [
        *("t5-small", "t5-base", "t5-large", "t5-3b", "t5-11b")
    ]


def test_the_parts_add_up_to_the_model(exercise: Study) -> None:
    table = derivations.parts(replace(exercise, backbone="t5-base"))
    assert cells(table)[-1] == ["**all**", "", "**60,506,624**", "**222,903,552**"]


def test_a_derivation_names_each_kind_of_sites() -> None:
    settings = {"rank": 8, "targets": ["q", "k", "wi"]}
    text = derivations.derivation(formulas.derive("lora", "t5-small", settings))
    lines = text.split("\n")
    assert [line[:12] for line in lines[:4]] == [
        *("1. **Sites:*", "2. **Paramet", "3. **Sites:*", "4. **Paramet")
    ]
    assert "2 projections q and k of each attention" in lines[0]
    assert "Their number is $L_{e} + L_{d} = 6 + 6 = 12$" in lines[2]
    assert r"$A$ has $d \, r$, $B$ has $r \, d_{\text{ff}}$; together" in lines[3]
    assert len(lines) == 7


def test_the_letters_have_each_models_values(exercise: Study) -> None:
    table = derivations.notation(replace(exercise, backbone="t5-base"))
    rows = {row[1]: row[2:] for row in cells(table)}
    assert rows["width of the model, d_model"] == ["512", "768"]
    assert rows["rank of a LoRA update"] == ["1 and 8", "1 and 8"]
    assert rows["scale of a LoRA update"] == ["4", "4"]


def test_of_a_study_that_lists_its_runs_the_letters_are_those_of_its_runs() -> None:
    """A method that it has no run of has no number; derivations are of the exercise's ten."""
    listed = studies.load("three-epochs", {"runs": [{"method": "full"}, {"method": "lora"}]})
    rows = {row[1]: row[2] for row in cells(derivations.notation(listed))}
    assert (rows["rank of a LoRA update"], rows["prompt tokens"]) == ("8", DASH)
    for shown in (derivations.family, partial(derivations.derivations, method="adapter")):
        with pytest.raises(
            InputError, match=r"study three-epochs: found runs of its own, .* shows"
        ):
            shown(listed)


def test_a_site_has_the_tensors_that_are_named(exercise: Study) -> None:
    """Their sizes are those of the model with the method in place."""
    for method, count in (("soft-prompt", 1), ("adapter", 12), ("lora", 36)):
        run = ours(exercise)[method]
        derived = formulas.derive(method, "t5-small", run.settings)
        sizes = [formulas.value(term, derived.values) for term in derived.terms.values()]
        model = counting.hollow("t5-small")
        inject(model, method, "scratch", run.settings)
        trained = [p.numel() for p in model.parameters() if p.requires_grad]
        assert sorted(trained) == sorted(count * sizes)


def test_each_tensor_of_a_site_is_named_with_its_size() -> None:
    adapter = formulas.derive("adapter", "t5-small", {"bottleneck": 8})
    assert derivations.terms(adapter) == (
        r"$W_{\text{down}}$ has $d \, b$, $b_{\text{down}}$ has $b$, $W_{\text{up}}$ has $b \, d$, "
        r"$b_{\text{up}}$ has $d$; together "
    )
    prompt = formulas.derive("soft-prompt", "t5-small", {"tokens": 10})
    assert derivations.terms(prompt) == "$P$ has "
