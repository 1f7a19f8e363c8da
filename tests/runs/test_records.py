"""A record is read where it is whole, of this version, and its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers import NAME, forge, run_of

from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.runs import records, reopen, store


@pytest.mark.parametrize("lost", ["params", "best_accuracy"])
def test_a_record_of_another_version_is_refused(lost: str, study: Study, stored: Path) -> None:
    record = json.loads((stored / records.RECORD).read_text())
    del record[lost]
    record["seal"] = records.seal(record)
    (stored / records.RECORD).write_text(records.as_text(record))
    with pytest.raises(InputError, match=f"no {lost}"):
        store.load(run_of(study), study)
    with pytest.raises(InputError, match=f"no {lost}"):
        reopen.load(f"smoke/{NAME}")


def test_a_record_without_a_field_of_params_is_refused(study: Study, stored: Path) -> None:
    forge(stored, params={k: v for k, v in vars(study).items() if k != "lora_alpha"})
    with pytest.raises(InputError, match="no lora_alpha"):
        reopen.load(f"smoke/{NAME}")
