"""Promise 8: the same settings give the same run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from helpers import figures, run_of

from t5peft.base.studies import Study
from t5peft.runs import make, store

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["full", "soft-prompt-opendelta-n10", "adapter-adapterhub-b8", "adapter-scratch-b8"]
)
def test_two_trainings_with_one_seed_are_the_same(name: str, study: Study) -> None:
    def trained(study: Study) -> dict[str, Any]:
        make.train(run_of(study, name), study)
        return figures(store.load(run_of(study, name), study))

    one, two = trained(study), trained(study)
    assert one == two
    assert trained(dataclasses.replace(study, seed=1))["history"] != one["history"]
