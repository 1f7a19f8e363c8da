"""Promise 2: a stored run is what it says; a damaged one is never shown."""

from __future__ import annotations

import dataclasses
import random
import shutil
from pathlib import Path

import pytest
from helpers import flip, run_of, tensors_in

from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.runs import make, records, reopen, store

pytestmark = pytest.mark.slow

MUTATIONS = 600


def cut(draw: random.Random, content: bytes) -> bytes:
    return content[: draw.randrange(len(content))]


def lengthen(draw: random.Random, content: bytes) -> bytes:
    return content + draw.choice([b"\0", b"\n", b" ", b"}", content])


def test_no_damaged_run_is_shown(study: Study, stored: Path) -> None:
    """Flipped bits, cut and lengthened files, files of other runs, of another identity."""
    run, draw = run_of(study), random.Random(0)
    strangers = []
    for other in (run_of(study, "lora-peft-r8"), run_of(study, "adapter-scratch-b8")):
        make.train_alone(other, study)
        strangers.append(store.folder(other, study))
    elsewhere = dataclasses.replace(study, study="elsewhere", seed=1)
    make.train_alone(run, elsewhere)
    strangers.append(store.folder(run, elsewhere))

    record, tensors = stored / records.RECORD, tensors_in(stored)
    sound = {path: path.read_bytes() for path in (record, tensors, stored / store.TRACE)}

    def swap_record(stranger: Path) -> None:
        shutil.copy(stranger / records.RECORD, record)

    def swap_tensors(stranger: Path) -> None:
        shutil.copy(tensors_in(stranger), tensors)

    def swap_both(stranger: Path) -> None:
        swap_record(stranger)
        shutil.copy(tensors_in(stranger), stored)

    for _ in range(MUTATIONS):
        if draw.random() < 0.9:
            path, change = draw.choice(list(sound)), draw.choice([flip, cut, lengthen])
            path.write_bytes(change(draw, sound[path]))
        else:
            draw.choice([swap_record, swap_tensors, swap_both])(draw.choice(strangers))
        with pytest.raises(InputError, match=run.name):
            store.load(run, study)
        with pytest.raises(InputError, match=run.name):
            reopen.load(f"smoke/{run.name}")
        for path, content in sound.items():
            path.write_bytes(content)
    assert store.load(run, study)["run"]["name"] == run.name
    assert reopen.load(f"smoke/{run.name}")[0] == run


@pytest.mark.parametrize("name", [store.DELTA, store.TRACE])
def test_what_is_damaged_is_named(name: str, study: Study, stored: Path) -> None:
    path = stored / name
    path.write_bytes(flip(random.Random(0), path.read_bytes()))
    state = store.status(run_of(study), study)
    assert state.state == "damaged"
    assert path.name in state.reason
    assert "make it again" in state.reason
