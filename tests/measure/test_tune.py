"""Learning rates are tried on training reviews that the trial has not seen, never on test ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from helpers import change_code, run_of, trained_once

from t5peft.__main__ import main
from t5peft.base import studies
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import data
from t5peft.measure import measurements, tune
from t5peft.measure.measurements import Trial
from t5peft.methods.table import EXERCISE, Run, runs_of
from t5peft.runs import store, verify
from t5peft.training import jobs, loop


def test_a_trial_sees_no_held_out_review_and_no_test_review(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = data.tokens(smoke, "train")
    seen: list[int] = []
    losses: list[float] = []
    loss_of, accuracy = loop.loss_of, loop.accuracy
    answered: list[data.Tokens] = []

    def watched(job: jobs.Job, picked: Any) -> Any:
        seen.extend(picked.tolist())
        loss = loss_of(job, picked)
        losses.extend(len(picked) * [loss.item()])
        return loss

    def noted(job: jobs.Job, tokens: data.Tokens, title: str) -> Any:
        answered.append(tokens)
        return accuracy(job, tokens, title)

    monkeypatch.setattr(loop, "loss_of", watched)
    monkeypatch.setattr(loop, "accuracy", noted)
    held_out = smoke.train_examples // 10
    run = runs_of(smoke)[7]
    record = tune.trial(run, smoke, smoke.train_examples - held_out)
    assert sorted(seen) == list(range(smoke.train_examples - held_out))
    assert record["loss"] == pytest.approx(sum(losses) / len(losses)), "each review's, alike"
    (asked,) = answered
    assert record["held_out"] == len(asked) == held_out
    for place in range(held_out):
        review = smoke.train_examples - held_out + place
        start, end = everything.starts[review : review + 2]
        assert (asked.starts[place], asked.starts[place + 1]) == (start, end)
        assert asked.labels[place] == everything.labels[review]
    assert asked.ids is everything.ids or (asked.ids == everything.ids).all()


def test_a_rate_that_falls_does_so_within_the_trial(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: list[float] = []
    rate = loop.rate
    monkeypatch.setattr(loop, "rate", lambda *where: rates.append(rate(*where)) or rates[-1])
    run = run_of(smoke)
    tune.trial(run, dataclasses.replace(smoke, decay="linear"), 2 * smoke.batch_size)
    assert rates == [run.learning_rate, run.learning_rate / 2]


def no_training(run: Run, study: Study, reviews: int) -> dict[str, Any]:
    """A trial's record without the trial."""
    return {
        "run": run.name,
        "method": run.method,
        "learning_rate": run.learning_rate,
        "reviews": reviews,
        "held_out": study.train_examples // 10,
        "loss": 0.5,
        "accuracy": 0.75,
        "seconds": 1.0,
    }


def test_trials_are_kept_and_not_made_twice(
    smoke: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made: list[tuple[str, float, str]] = []

    def trial(run: Run, study: Study, reviews: int) -> dict[str, Any]:
        made.append((run.name, run.learning_rate, study.decay))
        return no_training(run, study, reviews)

    monkeypatch.setattr(tune, "trial", trial)
    command = ["tune", *studies.arguments(smoke).split(), "--reviews", "16"]
    assert main([*command, "--only", "lora"]) == 0
    both = [(rate, decay) for rate in measurements.GRID["lora"] for decay in ("none", "linear")]
    assert made == [("lora-scratch-r8", *each) for each in both]
    assert main(command) == 0
    grid = 2 * sum(len(measurements.GRID[method]) for method in EXERCISE)
    assert len(made) == grid, "those of LoRA were there"
    assert main([*command, "--set", "decay=linear"]) == 0
    assert len(made) == grid, "both are tried, whichever the study has"
    assert main([*command, "--only", "lora", "--set", "seed=1"]) == 0
    assert len(made) == grid + len(both), "another seed"
    last = capsys.readouterr().out.splitlines()[-1].split()
    assert last == ["lora-scratch-r8", f"{measurements.GRID['lora'][-1]:g}", "linear", "75.00"]


def test_trials_are_not_made_again_where_their_run_is_verified(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_of(smoke)
    trained_once(run, smoke)
    monkeypatch.setattr(tune, "trial", no_training)
    before = tune.tune(smoke, 16, ["lora"])
    monkeypatch.delattr(tune, "trial")

    change_code("training.fast.attention", monkeypatch)
    assert all(trial.get("stale") for trial in tried(smoke))
    verify.verify(run, smoke, 4, 16)
    assert tune.tune(smoke, 16, ["lora"]) == before == tried(smoke)


def test_it_trains_on_all_but_a_tenth_where_there_are_few(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "trial", no_training)
    (first, *_) = tune.tune(smoke, None, ["lora"])
    assert first["reviews"] == smoke.train_examples - first["held_out"]


@pytest.mark.parametrize("reviews", [0, 60])
def test_a_trial_may_not_reach_into_what_is_held_out(smoke: Study, reviews: int) -> None:
    with pytest.raises(InputError, match="are held out"):
        tune.tune(smoke, reviews, ["lora"])
    alone = dataclasses.replace(smoke, train_examples=1)
    with pytest.raises(InputError, match=r"train_examples: found 1, expected 2 or more"):
        tune.tune(alone, 1, ["lora"])


def tried(study: Study) -> list[Trial]:
    return measurements.tried(study, store.look(runs_of(study), study))


def test_trials_of_other_reviews_are_not_shown(
    smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune, "trial", no_training)
    tune.tune(smoke, 16, ["lora"])
    assert len(tried(smoke)) == 2 * len(measurements.GRID["lora"])
    for change in ({"max_length": 20}, {"batch_size": 4}, {"seed": 1}, {"lora_rank": 4}):
        assert tried(dataclasses.replace(smoke, **change)) == [], "another study's"
    fewer = dataclasses.replace(smoke, test_examples=smoke.test_examples // 2)
    assert len(tried(fewer)) == 2 * len(measurements.GRID["lora"]), "no test review was looked at"
    tune.tune(smoke, 12, ["adapter"])
    tune.tune(dataclasses.replace(smoke, seed=1), 20, ["adapter"])
    assert {trial["reviews"] for trial in tried(smoke)} == {16}, "one table, one number"
