"""What the stored runs keep of pre-training is measured on them as they are stored."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from helpers import change_code, run_of

from t5peft.__main__ import main
from t5peft.base import studies
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import backbone, data
from t5peft.measure import measurements, retention
from t5peft.measure.measurements import Measurement, Retention
from t5peft.methods.table import runs_of
from t5peft.pretrain import settings
from t5peft.report.evidence import Evidence
from t5peft.runs import make, reopen, store, verify
from t5peft.training import jobs, loop

pytestmark = pytest.mark.slow

NAME = "soft-prompt-scratch-n10"


@pytest.fixture
def short(smoke: Study) -> Study:
    return dataclasses.replace(smoke, epochs=1, train_examples=16, test_examples=16)


def test_the_command_measures_every_stored_run_once(
    short: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    records = {record["run"]["name"]: record for record in Evidence(short).records()}
    assert Evidence(short).kept == {}
    command = ["retention", *studies.arguments(short).split(), "--reviews", "8"]
    assert main(command) == 0
    rows = capsys.readouterr().out.splitlines()
    assert len(rows) == 10 + 2 + 10
    assert rows[-1].startswith("full"), "the long one last"
    kept = Evidence(short).kept
    assert len(kept) == 10
    assert len({x["span_loss_before"] for x in kept.values()}) == 1
    assert all(x["span_loss"] != x["span_loss_before"] for x in kept.values())
    for name, one in kept.items():  # full fine-tuning's is measured again, on the same machine here
        assert one["test_accuracy"] == records[name]["best_accuracy"]
    monkeypatch.setattr(retention, "of_run", lambda *_: 1 / 0)  # nothing is measured twice
    assert main(command) == 0
    assert Evidence(dataclasses.replace(short, data_fingerprint="")).kept == kept
    one, *_ = measurements.retention(short, 9, store.look(runs_of(short), short))
    one.store(kept[NAME] | {"reviews": 9})
    assert Evidence(short).kept == kept, "one table, one number of reviews"
    monkeypatch.setattr(store, "result", lambda _: "another")
    assert one.status().state == "fresh"
    one, *_ = measurements.retention(short, 9, store.look(runs_of(short), short))
    assert one.status().reason.endswith("-> another"), "the run was made again"
    assert Evidence(short).kept == {}


def test_it_scores_all_reviews_where_there_are_few(
    short: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(store, "require", lambda *_: [])
    monkeypatch.setattr(measurements, "retention", lambda _, reviews, __: asked.append(reviews))
    monkeypatch.setattr(measurements, "made", lambda _: [])
    retention.measure(short, None)
    assert asked == [short.train_examples]


def test_it_is_not_measured_again_where_its_run_is_verified(
    short: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [run_of(short, "full"), run_of(short)]
    for run in runs:
        make.train_alone(run, short)
    for one in retained(short):
        one.attempt()
    change_code("training.fast.attention", monkeypatch)
    assert [one.status().state for one in retained(short)] == ["stale", "stale"]
    for run, wanted in zip(runs, (["stale", "verified"], ["verified"] * 2), strict=True):
        verify.verify(run, short, 2, 16)
        assert [one.status().state for one in retained(short)] == wanted


def retained(study: Study) -> list[Measurement[Retention]]:
    return measurements.retention(study, 8, store.look(runs_of(study), study))


@pytest.mark.parametrize("reviews", [0, 17])
def test_no_more_reviews_than_there_are(short: Study, reviews: int) -> None:
    with pytest.raises(
        InputError, match=f"--reviews: found {reviews}, expected 1 to the study's 16"
    ):
        retention.measure(short, reviews)


def test_the_stored_tensors_are_what_is_measured(short: Study) -> None:
    run = run_of(short, NAME)
    make.train_alone(run, short)
    job = retention.finished(run, short, store.load(run, short))
    _, stored = store.tensors(store.folder(run, short))
    trained = jobs.trained(job.model)
    assert all(torch.equal(trained[name], stored[name]) for name in stored)
    sources, targets = retention.stretches(job)
    _, _, theirs = reopen.load(f"smoke/{NAME}")
    ids = torch.cat([torch.zeros(len(sources), 10, dtype=torch.long), sources], dim=1)
    with torch.inference_mode():
        loss = theirs(input_ids=ids, labels=targets).loss.item()
    assert retention.span_loss(job, sources, targets, 10) == pytest.approx(loss, rel=1e-4)


def test_full_fine_tuning_is_trained_to_its_best_epoch(short: Study) -> None:
    run = run_of(short, "full")
    record = make.train_alone(run, dataclasses.replace(short, epochs=2))
    after_one = retention.finished(run, short, record | {"best_epoch": 1}).model.shared.weight
    start = backbone.load(short.backbone, short.seed).shared.weight
    after_two = retention.finished(run, short, record | {"best_epoch": 2}).model.shared.weight
    moved = (after_one - start).abs().max(), (after_two - start).abs().max()
    assert 0 < moved[0] < moved[1]


def test_full_fine_tuning_is_trained_again_as_it_was(short: Study) -> None:
    """In the parts for each of which its dropout was drawn; they are no part of its identity."""
    run, in_parts = run_of(short, "full"), dataclasses.replace(short, micro_batch_size=4)
    record = make.train_alone(run, in_parts)
    job, whole = jobs.prepare(run, in_parts), jobs.prepare(run, short)
    for each in (job, whole):
        loop.train_epoch(each, 1)
    again = retention.finished(run, short, record).model.shared.weight
    assert torch.equal(again, job.model.shared.weight)
    assert not torch.equal(again, whole.model.shared.weight)


def test_stretches_are_of_test_reviews(short: Study) -> None:
    job = jobs.prepare(run_of(short, "full"), short)
    sources, targets = retention.stretches(job)
    assert len(sources) == len(targets) == job.test.starts[-1] // 34
    seen = job.test.ids[: job.test.starts[-1]].tolist()
    assert set(np.unique(sources)) <= {*seen, data.EOS, *range(110, 210)}
    job.study = dataclasses.replace(short, max_length=1000)
    pretrained = settings.load("backbone-mini-long", {}).input_length
    assert retention.stretches(job)[0].shape[1] == pretrained, "as it read in pre-training"
    job.test = job.test.picked(np.array([0]))
    with pytest.raises(InputError, match="tokens of test reviews, expected"):
        retention.stretches(job)


def test_runs_that_are_not_stored_are_named(short: Study) -> None:
    with pytest.raises(InputError, match="10 of 10 runs missing"):
        retention.measure(short, 8)
