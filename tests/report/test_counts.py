"""Nothing is shown whose derived and counted numbers of parameters differ."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from t5peft.base.studies import Study
from t5peft.inputs import backbone
from t5peft.methods import formulas
from t5peft.methods.counting import Count
from t5peft.methods.table import ours
from t5peft.report import counts
from t5peft.report.counts import Checked, CountsDifferError


def test_a_backbone_in_a_folder_called_t5_small_is_not_taken_for_it(
    exercise: Study, tmp_path: Path
) -> None:
    backbone.load("random:tiny").config.save_pretrained(tmp_path / "t5-small")
    study = dataclasses.replace(exercise, backbone=str(tmp_path / "t5-small"))
    models = counts.models(study)
    sizes_of = [sum(formulas.parts(model).values()) for model in models.values()]
    assert list(models) == ["t5-small", "t5-small of the study"]
    assert sizes_of == [60_506_624, 301_696]
    assert {x.model for x in counts.counted(study, ours(study).values())} == set(models)


@pytest.mark.parametrize("off", [{"added": 104_545}, {"total": 60_611_169}])
def test_records_must_hold_the_derived_counts(exercise: Study, off: dict[str, int]) -> None:
    run = ours(exercise)["adapter"]
    held = {"added": 104_544, "total": 60_611_168}
    stored = {"run": {"name": run.name, **vars(run)}, "parameters": held}
    counts.check_record(exercise, stored)
    with pytest.raises(CountsDifferError, match="adapter-scratch-b8 as trained"):
        counts.check_record(exercise, {**stored, "parameters": held | off})


def test_counts_that_differ_stop_the_report_by_name(exercise: Study) -> None:
    run = ours(exercise)["lora"]
    right, wrong = Count(8, 8, 108, 108), Count(8, 9, 108, 109)
    counts.check([Checked("t5-small", run, right)])
    with pytest.raises(CountsDifferError, match=r"lora-scratch-r8 in tiny: derived 8 .* counted 9"):
        counts.check([Checked("t5-small", run, right), Checked("tiny", run, wrong)])
