"""Sites are found, or their absence is told."""

from __future__ import annotations

import pytest
import torch
from tiny import PEFT, SETTINGS, injected

from t5peft.methods import sites
from t5peft.methods.table import inject


def test_no_site_is_an_error() -> None:
    with pytest.raises(ValueError, match="no site"):
        sites.replace(torch.nn.Linear(2, 2), {}, lambda site: site)


@pytest.mark.parametrize(("method", "implementation"), PEFT)
def test_a_second_injection_is_an_error(method: str, implementation: str) -> None:
    model = injected(method, implementation)
    with pytest.raises(ValueError, match="load a fresh backbone"):
        inject(model, method, implementation, SETTINGS[method])
