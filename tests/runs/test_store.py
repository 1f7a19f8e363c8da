"""Where a run lies, and that no file outside its folder is taken for its own."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from helpers import NAME, forge, run_of, tensors_in

from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.runs import records, reopen, store


@pytest.mark.parametrize("name", ["../{}", "{root}/{}", "../../smoke/lora-scratch-r8/{}", "record"])
def test_a_record_names_no_file_outside_its_folder(name: str, study: Study, stored: Path) -> None:
    path = tensors_in(stored)
    shutil.copy(path, stored.parent)
    facts = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    forge(stored, files={name.format(path.name, root=stored): facts})
    for load in (lambda: store.load(run_of(study), study), lambda: reopen.load(f"smoke/{NAME}")):
        with pytest.raises(InputError, match="no plain file of that name"):
            load()


def test_links_are_refused(study: Study, stored: Path, tmp_path: Path) -> None:
    for path in (tensors_in(stored), stored / records.RECORD):
        shutil.move(path, tmp_path / "moved")
        path.symlink_to(tmp_path / "moved")
        with pytest.raises(InputError):
            store.load(run_of(study), study)
        path.unlink()
        shutil.move(tmp_path / "moved", path)
    store.load(run_of(study), study)
