"""A checkpoint is gone on with where it is whole and of this very run."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import flip, run_of

from t5peft.base.studies import Study
from t5peft.runs import records, store
from t5peft.runs.identity import identity_of
from t5peft.training import checkpoint, jobs


def test_a_run_that_was_stopped_is_said_to_be(study: Study, begun: Path) -> None:
    said = store.status(run_of(study), study)
    assert begun.exists()
    assert (said.state, said.reason) == ("missing", "begun, goes on")


def saved(held: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    torch.save(held, content)
    return content.getvalue()


def test_a_flipped_bit_of_a_checkpoint_changes_nothing_unseen(begun: Path) -> None:
    cpu, draw, content = torch.device("cpu"), random.Random(0), begun.read_bytes()
    sound = checkpoint.read(begun, cpu)
    refused = 0
    for _ in range(100):
        begun.write_bytes(flip(draw, content))
        try:
            held = checkpoint.read(begun, cpu)
        except Exception:
            refused += 1
        else:  # a bit between the parts
            assert saved(held) == saved(sound)
    assert refused > 50


@pytest.mark.parametrize("other", ["identity", "source"])
def test_a_checkpoint_of_other_settings_or_other_code_is_left_aside(
    other: str, study: Study, begun: Path
) -> None:
    run = run_of(study)
    held = checkpoint.read(begun, torch.device("cpu"))
    identity = records.digest(identity_of(run, study))
    for content, epochs in (({**held, other: "another"}, 0), (held, study.epochs)):
        torch.save(content, begun)
        job = jobs.prepare(run, study)
        checkpoint.restore(job, begun, identity)
        assert len(job.history) == epochs
