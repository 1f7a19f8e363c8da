"""A checkpoint is gone on with where it is whole and of this very run."""

from __future__ import annotations

import dataclasses
import errno
import io
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import edit, figures, flip, read_code_anew, run_of

from t5peft.base import files
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.runs import make, store
from t5peft.runs.identity import identity_of
from t5peft.training import checkpoint, jobs, loop


def test_a_run_that_was_stopped_is_said_to_be(study: Study, begun: Path) -> None:
    said = store.status(run_of(study), study)
    assert begun.exists()
    assert (said.state, said.reason) == ("missing", "begun, goes on after epoch 4")
    for name in (f"{begun.stem}-backup.pt", f"{begun.stem[:-1]}abc.pt"):  # of a person
        begun.with_name(name).write_bytes(b"")
    assert store.status(run_of(study), study) == said


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


def test_a_checkpoint_of_another_run_is_left_aside(study: Study, begun: Path) -> None:
    """Even under its name."""
    run = run_of(study)
    held, key = checkpoint.read(begun, torch.device("cpu")), store.key(identity_of(run, study))
    for content, epochs in (({**held, "key": "another"}, 0), (held, study.epochs)):
        torch.save(content, begun)
        job = jobs.prepare(run, study)
        checkpoint.restore(job, begun, key)
        assert len(job.history) == epochs


def test_a_damaged_one_gives_way_to_an_earlier_one(
    study: Study, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every stop, until the run is past it."""
    later = begun.with_name(begun.name.replace("-4.pt", "-5.pt"))
    later.write_bytes(begun.read_bytes()[:-100])
    trained = []
    epoch = loop.train_epoch
    monkeypatch.setattr(
        loop, "train_epoch", lambda job, number: trained.append(number) or epoch(job, number)
    )
    run = run_of(study)
    with pytest.warns(UserWarning, match="5.pt is damaged"):
        make.train_alone(run, dataclasses.replace(study, epochs=5))
    assert trained == [5]
    assert not [*begun.parent.glob("checkpoint-*")], "the record stands for both"


def test_a_want_of_memory_is_no_damage(
    study: Study, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run ends, and goes on where there is room."""

    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(checkpoint, "read", full)
    with pytest.raises(MemoryError):
        checkpoint.restore(jobs.prepare(run_of(study), study), begun, "")


OTHERS = {"another rate": {"lora_learning_rate": 0.02}, "fewer epochs": {"epochs": 3}}


@pytest.mark.parametrize("other", [*OTHERS, "other code"])
def test_what_another_training_has_begun_is_neither_used_nor_lost(
    other: str, study: Study, begun: Path, code: Path
) -> None:
    """And `status` says so before."""
    changed = dataclasses.replace(study, **OTHERS.get(other, {}))
    if other == "other code":
        edit(code / "training" / "evaluation.py", "MAX_LENGTH = 5", "MAX_LENGTH = 6")
        read_code_anew()
    before, run = begun.read_bytes(), run_of(changed)
    said = store.status(run, changed)
    assert said.reason == "never trained; beside it 1 checkpoint of other settings or code"
    make.train_alone(run, changed)
    assert [*begun.parent.glob("checkpoint-*")] == [begun]
    assert begun.read_bytes() == before


def test_more_epochs_go_on_from_fewer_and_end_the_same(
    study: Study, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit: with a constant rate an epoch depends on the seed and its number alone."""
    longer = dataclasses.replace(study, epochs=study.epochs + 2)
    run = run_of(longer)
    assert store.status(run, longer).reason == f"begun, goes on after epoch {study.epochs}"
    trained = []
    with monkeypatch.context() as patched:
        epoch = loop.train_epoch
        patched.setattr(
            loop, "train_epoch", lambda job, number: trained.append(number) or epoch(job, number)
        )
        gone_on = make.train_alone(run, longer)
    assert trained == [study.epochs + 1, study.epochs + 2]
    assert not [*begun.parent.glob("checkpoint-*")], "the record stands for it"
    _, tensors = store.tensors(store.folder(run, longer))
    monkeypatch.setenv("T5PEFT_HOME", str(tmp_path / "elsewhere"))
    assert figures(make.train_alone(run, longer)) == figures(gone_on)
    _, others = store.tensors(store.folder(run, longer))
    assert all(torch.equal(tensors[name], others[name]) for name in others)


def test_no_number_of_epochs_goes_on_from_another_where_the_rate_falls(study: Study) -> None:
    def keys(decay: Any) -> set[str]:
        falling = dataclasses.replace(study, decay=decay)
        both = falling, dataclasses.replace(falling, epochs=study.epochs + 1)
        return {store.key(identity_of(run_of(each), each)) for each in both}

    assert (len(keys("none")), len(keys("linear"))) == (1, 2)


def test_a_checkpoint_is_written_without_a_copy_in_memory(
    study: Study, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part by part, to the disk: none is larger than the largest tensor."""
    job = jobs.prepare(run_of(study), study)
    largest = max(x.numel() * x.element_size() for x in jobs.trained(job.model).values())
    written = []
    write = files.Target.write

    def noted(self: files.Target, content: Any) -> int:
        written.append(len(content))
        return write(self, content)

    monkeypatch.setattr(files.Target, "write", noted)
    checkpoint.save(job, begun, "key")
    assert sum(written) >= begun.stat().st_size / 2
    assert max(written) < max(largest, 2**16)


@pytest.mark.parametrize("error", [MemoryError(), OSError(errno.ENOSPC, "No space left")])
def test_why_it_cannot_be_written_is_told_as_that(
    error: Exception, study: Study, begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyTorch would speak of its own parts."""
    job, before = jobs.prepare(run_of(study), study), begun.read_bytes()
    target = files.Target

    class Full(io.BytesIO):
        def write(self, *_: object) -> int:
            raise error

    monkeypatch.setattr(files, "Target", lambda file: target(Full()))
    with pytest.raises((MemoryError, InputError)) as told:
        checkpoint.save(job, begun, "key")
    if isinstance(error, OSError):
        assert "found No space left, expected a folder that can be written" in str(told.value)
    assert begun.read_bytes() == before
    assert not [*begun.parent.glob("*.tmp")]
