"""A stored run is verified by what the code makes now, and a real change is caught."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from helpers import NAME, run_of, trained_once, without_trace

from t5peft.__main__ import main
from t5peft.base import deciding, machine, studies
from t5peft.base.deciding import Code
from t5peft.base.studies import Study
from t5peft.inputs.data import Tokens
from t5peft.methods.lora import LoRALinear
from t5peft.methods.table import Run
from t5peft.runs import make, records, store, verify
from t5peft.runs.records import Status, Verified
from t5peft.training import evaluation, fast, loop, trace
from t5peft.training.jobs import Job


@pytest.fixture
def study(smoke: Study) -> Study:
    """With rates at which four steps show what is learned."""
    return dataclasses.replace(
        smoke, lora_learning_rate=0.03, adapter_learning_rate=0.03, full_learning_rate=1e-3
    )


@pytest.fixture
def stored(study: Study) -> Study:
    """The study with its LoRA run and full fine-tuning stored."""
    for name in (NAME, "full"):
        trained_once(run_of(study, name), study)
    return study


def other_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """The code that decides is another than when the runs were made."""
    monkeypatch.setattr(deciding, "code", lambda *_: Code("another digest", ()))


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is another than that of the traces, so that rounding may differ."""
    monkeypatch.setattr(machine, "kind", lambda: "another processor")


def state(study: Study, name: str = NAME) -> Status:
    return store.status(run_of(study, name), study)


def compare(study: Study, name: str = NAME, reviews: int = 64) -> Verified:
    return verify.verify(run_of(study, name), study, 20, reviews)


def test_a_stale_run_that_the_code_would_make_again_is_verified(
    stored: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_code(monkeypatch)
    before = (store.folder(run_of(stored), stored) / records.RECORD).read_bytes()
    assert state(stored).state == "stale"
    found = compare(stored)
    assert (found["largest_difference"], found["answers_differing"]) == (0, 0)
    assert (found["steps"], found["reviews"]) == (4, 64)
    assert state(stored).state == "verified"
    assert "4 steps trained anew" in state(stored).reason
    assert "of 64 answers 0 differ (bound 0)" in state(stored).reason
    after = (store.folder(run_of(stored), stored) / records.RECORD).read_bytes()
    assert after == before, "a record is never overwritten"


def test_full_fine_tuning_is_verified_by_its_steps_alone(
    stored: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_code(monkeypatch)
    assert compare(stored, "full")["reviews"] == 0
    assert state(stored, "full").state == "verified"
    assert "no answers compared" in state(stored, "full").reason


def test_a_verification_holds_for_the_code_it_was_made_with(
    stored: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_code(monkeypatch)
    compare(stored)
    monkeypatch.setattr(deciding, "code", lambda *_: Code("a third digest", ()))
    assert state(stored).state == "stale"


def test_a_verification_holds_for_the_run_it_was_made_of(
    stored: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_code(monkeypatch)
    compare(stored)
    where = store.folder(run_of(stored), stored)
    kept = (where / store.VERIFIED).read_text()
    make.train(run_of(stored), stored)
    (where / store.VERIFIED).write_text(kept)
    monkeypatch.setattr(deciding, "code", lambda *_: Code("a third digest", ()))
    assert store.verification(where, records.read_run(where)) is None


def test_the_steps_are_trained_in_the_parts_that_the_run_was(stored: Study) -> None:
    """A setting that is no part of its identity, and that draws dropout otherwise."""
    found = compare(dataclasses.replace(stored, micro_batch_size=4))
    assert found["largest_difference"] == 0


def test_the_answers_are_those_after_the_best_epoch(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter(["negative", "", "", ""])  # after each of two epochs: test reviews, sample

    def answers(job: Job, tokens: Tokens, title: str) -> list[str]:
        time.sleep(0.001)
        return [next(said)] * len(tokens)

    monkeypatch.setattr(loop, "answers", answers)
    assert make.train_alone(run_of(study), study)["best_epoch"] == 1
    monkeypatch.setattr(verify, "answers", lambda *_: trace.codes(["negative"] * 64))
    assert compare(study)["answers_differing"] == 0


def test_the_median_counts_and_each_bound_is_for_the_machine_that_made_what_it_bounds(
    stored: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = store.trace(store.load(run_of(stored), stored))
    moved = dataclasses.replace(held, losses_by="another processor, 2 threads")
    jump = np.array([0, 0, 0, 1], np.float32)
    monkeypatch.setattr(store, "trace", lambda _: moved)
    monkeypatch.setattr(verify, "first_losses", lambda *_: held.losses[:4] + jump)
    monkeypatch.setitem(verify.ANSWERS, "fp32", 0.5)
    found = compare(stored)
    assert (found["largest_difference"], found["median_difference"]) == (1, 0)
    assert (found["loss_bound"], found["answers_bound"]) == (verify.LOSS["fp32"], 0)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"seal": 1}', None])
def test_a_damaged_verification_is_none(
    content: str | None, stored: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_code(monkeypatch)
    compare(stored)
    path = store.folder(run_of(stored), stored) / store.VERIFIED
    changed = path.read_text().replace('"steps": 4', '"steps": 400')
    path.write_text(changed if content is None else content)
    assert state(stored).state == "stale"


# --- what must be caught -------------------------------------------------------------------------


def wrong_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    forward = LoRALinear.forward

    def scaled(self: LoRALinear, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x) + (forward(self, x) - self.linear(x)) * 2

    monkeypatch.setattr(LoRALinear, "forward", scaled)


def lost_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "dropout", lambda x, p, training: x)


def another_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    set_seed = loop.set_seed
    monkeypatch.setattr(loop, "set_seed", lambda seed: set_seed(seed + 1))


def another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    order = loop.order
    monkeypatch.setattr(loop, "order", lambda *given: order(*given)[::-1])


def another_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.optim, "AdamW", torch.optim.SGD)


CHANGES = [wrong_scale, lost_dropout, another_seed, another_order, another_optimizer]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_the_bounds_catch(
    change: Callable[[pytest.MonkeyPatch], None],
    precision: str,
    study: Study,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also elsewhere, where rounding may differ."""
    study = dataclasses.replace(study, precision=precision)
    make.train_alone(run_of(study), study)
    other_code(monkeypatch)
    elsewhere(monkeypatch)
    with monkeypatch.context() as patch:
        change(patch)
        found = compare(study)
    assert found["loss_bound"] == verify.LOSS[precision]
    assert found["median_difference"] > found["loss_bound"]
    assert state(study).state == "stale"
    assert f"(bound {found['loss_bound']:.2g})" in state(study).reason
    assert compare(study)["median_difference"] < found["loss_bound"] / 5
    assert state(study).state == "verified"


def test_answers_of_another_kind_are_caught(stored: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    other_code(monkeypatch)
    predict = evaluation.predict
    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "predict", lambda *a: ["positive", *predict(*a)[1:]])
        assert compare(stored)["answers_differing"] == 1
    assert state(stored).state == "stale"
    assert "of 64 answers 1 differ (bound 0)" in state(stored).reason


def test_a_share_of_the_answers_may_differ_elsewhere(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = machine.kind()
    assert verify.bound(verify.ANSWERS, study, here) == 0
    assert verify.bound(verify.ANSWERS, study, "another processor") == verify.ANSWERS["fp32"]
    in_bf16 = dataclasses.replace(study, precision="bf16")
    assert verify.bound(verify.LOSS, in_bf16, here) == verify.LOSS["bf16"]
    monkeypatch.setattr(machine, "has_accelerator", lambda: True)
    monkeypatch.setattr(machine, "kind", lambda: here)
    assert verify.bound(verify.LOSS, study, here) == verify.LOSS["fp32"]


# --- the commands --------------------------------------------------------------------------------


@pytest.fixture
def arguments(stored: Study) -> list[str]:
    """Of a command on the two stored runs."""
    return [*studies.arguments(stored).split(), "--only", "full", NAME]


def test_what_was_verified_is_not_verified_again_unless_more_is_asked(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other_code(monkeypatch)
    command = ["verify", *arguments, "--steps", "3", "--reviews", "8"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["verified", "verified"]
    asked: list[str] = []
    first_losses = verify.first_losses

    def noted(run: Run, *others: Any) -> np.ndarray:
        asked.append(run.name)
        return first_losses(run, *others)

    monkeypatch.setattr(verify, "first_losses", noted)
    assert main(command) == 0
    assert asked == []
    assert main([*command, "--reviews", "9"]) == 0
    assert asked == [NAME], "full fine-tuning has no tensors to answer with"
    assert main([*command, "--steps", "4"]) == 0
    assert asked[1:] == ["full", NAME]


def test_a_run_that_fails_ends_with_1_and_says_by_how_much(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other_code(monkeypatch)
    another_seed(monkeypatch)
    assert main(["verify", *arguments]) == 1
    for line in capsys.readouterr().out.splitlines():
        assert line.split()[1] == "stale"
        assert "losses differ by 0." in line


def test_a_run_that_another_process_has_is_left_to_it(
    arguments: list[str], stored: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    with store.lock(run_of(stored), stored):
        assert main(["verify", *arguments]) == 1
    assert capsys.readouterr().out.count(verify.ELSEWHERE) == 1


def test_a_run_without_a_trace_is_named_and_the_others_are_verified(
    arguments: list[str], stored: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    without_trace(store.folder(run_of(stored, "full"), stored))
    assert main(["verify", *arguments]) == 1
    of_full, of_lora = capsys.readouterr().out.splitlines()
    assert "trace of full: found none, expected the losses of its first steps" in of_full
    assert "4 steps trained anew" in of_lora


def test_steps_of_the_other_kind_of_device_are_not_compared(
    arguments: list[str],
    stored: Study,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Dropout's draws differ, and so would each loss."""
    monkeypatch.setattr(machine, "is_gpu", lambda kind: not machine.has_accelerator())
    assert main(["verify", *arguments]) == 1
    of_full, _ = capsys.readouterr().out.splitlines()
    assert f"trace of full: found {machine.kind()}, expected one of" in of_full
    assert not (store.folder(run_of(stored, "full"), stored) / store.VERIFIED).exists()


# --- what asks for a state -----------------------------------------------------------------------


def test_a_verified_run_is_not_trained_again(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other_code(monkeypatch)
    assert main(["verify", *arguments]) == 0
    monkeypatch.setattr(make, "train", None)
    assert main(["train", *arguments]) == 0
    assert capsys.readouterr().out.count("keep ") == 2


def test_the_report_shows_a_verified_run_without_a_mark_and_says_how_it_was_verified(
    stored: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_code(monkeypatch)

    def shown() -> list[Any]:
        return [store.load(run_of(stored, name), stored) for name in ("full", NAME)]

    assert all(record["stale"] for record in shown())
    assert not any(record.get("verified") for record in shown())
    for name in ("full", NAME):
        compare(stored, name)
    assert not any(record["stale"] for record in shown())
    both = [record["verified"] for record in shown()]
    assert [found["steps"] for found in both] == [4, 4]
    assert sum(found["reviews"] for found in both) == 64
    assert {found["answers_differing"] for found in both} == {0}
