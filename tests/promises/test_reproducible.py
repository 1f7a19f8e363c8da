"""Promise 8: the same settings give the same run."""

from __future__ import annotations

import dataclasses

import pytest
from helpers import figures, run_of

from t5peft.base.studies import Study
from t5peft.runs import make

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["full", "soft-prompt-opendelta-n10", "adapter-adapterhub-b8", "adapter-scratch-b8"]
)
def test_two_trainings_with_one_seed_are_the_same(name: str, study: Study) -> None:
    one, two = (make.train(run_of(study, name), study) for _ in range(2))
    assert figures(one) == figures(two)
    three = dataclasses.replace(study, seed=1)
    assert figures(make.train(run_of(three, name), three))["history"] != one["history"]
