"""The loop: AdapterTrainer makes the same step, what is asked is recorded, nan stops it."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from conftest import dry, run_named

from t5peft.__main__ import main
from t5peft.base.errors import InputError
from t5peft.base.studies import Params
from t5peft.inputs import backbone, data
from t5peft.runs import launch, make, reopen, store
from t5peft.training import evaluation, jobs, loop


@pytest.fixture
def no_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backbones without dropout, where two loops must agree to the bit."""
    load = backbone.load
    monkeypatch.setattr(backbone, "load", lambda name, seed=0: dry(load(name, seed)))


@pytest.mark.usefixtures("no_dropout")
def test_adapter_trainer_makes_the_same_first_step(smoke: Params, tmp_path: Path) -> None:
    from adapters import AdapterTrainer
    from transformers import TrainingArguments

    one_step = dataclasses.replace(smoke, train_examples=16, batch_size=16)
    run = run_named(one_step, "adapter-adapterhub-b8")
    job = jobs.prepare(run, one_step)
    loop.train_epoch(job, 1)

    model = jobs.build(run, one_step)
    model.accepts_loss_kwargs = False  # type: ignore[assignment]
    # the library's T5 knows no `num_items_in_batch`
    ids, mask = job.train.batch(loop.order(one_step, 1), one_step.max_length)
    words = evaluation.word_ids(job.tokenizer)
    labels = [[words[job.train.labels[i]], data.EOS] for i in loop.order(one_step, 1)]
    rows = [
        {"input_ids": i, "attention_mask": m, "labels": torch.tensor(y)}
        for i, m, y in zip(ids, mask, labels, strict=True)
    ]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=16,
        learning_rate=run.learning_rate,
        lr_scheduler_type="constant",
        weight_decay=0.01,  # PyTorch's default
        max_grad_norm=0.0,
        remove_unused_columns=False,  # or the attention mask is dropped
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    AdapterTrainer(model=model, args=arguments, train_dataset=rows).train()  # type: ignore[arg-type]

    begun = jobs.trained(jobs.build(run, one_step))
    ours, theirs = jobs.trained(job.model), jobs.trained(model)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-7)
        assert not torch.equal(tensor, begun[name])


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone(smoke: Params) -> None:
    first = loop.order(smoke, 1)
    assert sorted(first) == list(range(smoke.train_examples))
    assert np.array_equal(first, loop.order(smoke, 1))
    assert not np.array_equal(first, loop.order(smoke, 2))
    assert not np.array_equal(first, loop.order(dataclasses.replace(smoke, seed=1), 1))


def test_a_record_holds_what_a_chapter_shows(smoke: Params) -> None:
    run = run_named(smoke, "lora-scratch-r8")
    record = make.train(run, smoke)
    assert record == json.loads(json.dumps(record)), "a record is plain JSON"
    assert [epoch["epoch"] for epoch in record["history"]] == [1, 2]
    assert record["best_accuracy"] == max(e["test_accuracy"] for e in record["history"])
    assert record["last_accuracy"] == record["history"][-1]["test_accuracy"]
    counts = record["parameters"]
    assert counts["trained"] == counts["added"] == 12 * 8 * (32 + 32)
    assert counts["total"] == backbone.load("random:tiny").num_parameters() + counts["added"]
    two_moments = 2 * 4 * counts["trained"]
    steps = 4 * len(jobs.trained(jobs.build(run, smoke)))  # one float a tensor
    assert record["memory"]["optimizer_bytes"] == two_moments + steps
    assert record["memory"]["peak_bytes"] > two_moments
    assert record["files"].keys() == {store.DELTA, store.TRACE}
    assert record["stored_bytes"] == record["files"][store.DELTA]["bytes"]
    assert store.status(run, smoke).state == "fresh"
    assert store.load(run, smoke) == record | {"stale": "", "verified": {}}


def test_full_fine_tuning_stores_no_weights(smoke: Params) -> None:
    run = run_named(smoke, "full")
    record = make.train(run, dataclasses.replace(smoke, epochs=1))
    assert record["files"].keys() == {store.TRACE}
    assert record["stored_bytes"] == 4 * record["parameters"]["total"]
    assert record["parameters"]["added"] == 0


def test_stored_weights_are_those_of_the_best_epoch(smoke: Params) -> None:
    """The accuracy of a record can be had again from its file."""
    study = dataclasses.replace(smoke, prompt_learning_rate=3.0, epochs=3)
    run = run_named(study, "soft-prompt-scratch-n10")
    record = make.train(run, study)
    _, _, model = reopen.load(f"smoke/{run.name}")
    job = jobs.prepare(run, study)
    answers = evaluation.predict(model, job.tokenizer, job.test, study.max_length, run.placeholders)
    assert evaluation.score(answers, job.test.labels)[0] == record["best_accuracy"]
    best = job
    best.history = record["history"]
    assert loop.best_epoch(best)["epoch"] == record["best_epoch"]


def test_a_loss_that_is_no_number_stops_the_run(smoke: Params) -> None:
    study = dataclasses.replace(smoke, full_learning_rate=1e30, epochs=3)
    with pytest.raises(
        InputError, match=r"loss of full, epoch \d, step \d+, reviews .*found (nan|inf)"
    ):
        make.train(run_named(study, "full"), study)
    assert store.status(run_named(study, "full"), study).state == "missing"


LAUNCH = """
import json, sys
from conftest import dry, run_named
from t5peft.base import studies
from t5peft.inputs import backbone
from t5peft.runs import launch
from t5peft.training import evaluation, jobs, loop
load, predict, asked = backbone.load, evaluation.predict, []
def share(model, words, tokens, *rest):
    asked.append(len(tokens))
    return predict(model, words, tokens, *rest)
evaluation.predict = share
backbone.load = lambda name, seed=0: dry(load(name, seed))
study = studies.load("smoke", json.loads(sys.argv[1]))
job = jobs.prepare(run_named(study, "lora-scratch-r8"), study)
losses = [loop.mean_loss(loop.train_epoch(job, epoch), study) for epoch in (1, 2)]
answers = loop.answers(job, job.test, "test")
if job.accelerator.is_main_process:
    print("FOUND", json.dumps([job.accelerator.num_processes, losses, answers, asked]))
launch.leave()
"""


def launched(count: int, *command: str) -> subprocess.CompletedProcess[str]:
    """A command in `count` processes on the CPU, by `accelerate launch` as on GPUs."""
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    launch += ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    launch += [f"--num_processes={count}", *(["--multi_gpu"] if count > 1 else ["--cpu"])]
    launch += ["--main_process_port=0"]
    search = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [*launch, *command],
        env=os.environ | {"ACCELERATE_USE_CPU": "true", "PYTHONPATH": search},
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_processes_give_what_one_gives(smoke: Params, tmp_path: Path) -> None:
    """Batches of 20, each share in two parts, and a rest of 5; of the answers each its share."""
    script = tmp_path / "launch.py"
    script.write_text(LAUNCH)
    study = vars(smoke) | {"train_examples": 45, "batch_size": 20, "lora_learning_rate": 0.1}
    losses, answers = [], []
    for count in (1, 2):
        done = launched(count, str(script), json.dumps(study))
        lines = [x for x in done.stdout.splitlines() if x.startswith("FOUND")]
        assert lines, done.stderr[-2000:]
        processes, found, said, asked = json.loads(lines[0].removeprefix("FOUND"))
        assert processes == count, "or nothing is compared"
        assert asked == [smoke.test_examples // count]
        losses.append(found)
        answers.append(said)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert answers[0] == answers[1]
    assert len(answers[0]) == smoke.test_examples


def test_two_processes_train_and_store_one_run(smoke: Params) -> None:
    command = ["-m", "t5peft", "train", "smoke", "--only", "lora-scratch-r8"]
    command += ["--set", f"tokenizer={smoke.tokenizer}"]
    first, second = launched(2, *command), launched(2, *command)
    assert first.returncode == 0, first.stderr[-2000:]
    assert first.stdout.count("stored lora-scratch-r8") == 1, "one voice"
    assert first.stderr.count("epoch 2 of 2, loss") == 1
    assert second.stdout.split()[:2] == ["keep", "lora-scratch-r8"]
    run = run_named(smoke, "lora-scratch-r8")
    assert store.status(run, smoke).state == "fresh"
    left = {path.name for path in store.folder(run, smoke).iterdir()}
    assert left == {"record.json", "delta.safetensors", "trace.npz", "lock"}


def test_what_the_main_process_found_holds_in_all(tmp_path: Path) -> None:
    """Each may have looked at another moment: they would wait for each other for ever."""
    script = tmp_path / "launch.py"
    script.write_text(
        "import os, pathlib; from t5peft.runs import launch\n"
        "rank = os.environ['RANK']\n"
        "found = launch.from_main([{'0': 'full', '1': 'lora'}[rank], rank == '0'])\n"
        "pathlib.Path(__file__).with_name(rank).write_text(str(found))\n"
        "launch.leave()\n"
    )
    done = launched(2, str(script))
    assert done.returncode == 0, done.stderr[-2000:]
    assert [(tmp_path / rank).read_text() for rank in "01"] == 2 * ["['full', True]"]


def test_a_launch_has_a_review_for_each_process_in_every_batch(
    smoke: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("accelerate.PartialState", lambda: SimpleNamespace(num_processes=2))
    one_left = dataclasses.replace(smoke, train_examples=33)  # batches of 16, 16 and 1
    with pytest.raises(InputError, match=r"processes of the launch: found 2, expected at most 1"):
        launch.attempt(run_named(one_left, "lora-scratch-r8"), one_left)


def test_a_run_is_either_split_or_beside_others(
    smoke: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert main(["train", "smoke", "--jobs", "2"]) == 2
    assert "--jobs: found 2, expected 1" in capsys.readouterr().err


def test_a_rank_alone_makes_no_launch(smoke: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheduler may number processes that know nothing of each other: each stores its run."""
    monkeypatch.setenv("RANK", "1")
    run = run_named(smoke, "soft-prompt-scratch-n10")
    make.train_alone(run, smoke)
    assert store.status(run, smoke).state == "fresh"


def test_each_step_of_an_epoch_has_dropout_and_fresh_gradients(
    smoke: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.prepare(run_named(smoke, "lora-scratch-r8"), smoke)
    job.model.eval()  # as an evaluation leaves it
    add, seen = loop.add_gradients, []

    def watched(job: jobs.Job, batch: np.ndarray) -> torch.Tensor:
        seen.append((job.model.training, all(p.grad is None for p in job.model.parameters())))
        return add(job, batch)

    monkeypatch.setattr(loop, "add_gradients", watched)
    loop.train_epoch(job, 1)
    assert seen == 4 * [(True, True)]


def test_the_optimizer_is_pytorchs_adamw_but_for_the_rate(smoke: Params) -> None:
    run = run_named(smoke, "adapter-scratch-b8")
    optimizer = jobs.prepare(run, smoke).optimizer.optimizer
    assert type(optimizer) is torch.optim.AdamW
    defaults = torch.optim.AdamW([torch.zeros(1, requires_grad=True)]).defaults
    ours = {**optimizer.defaults, "fused": defaults["fused"]}
    assert ours == {**defaults, "lr": run.learning_rate}


def test_the_loss_of_an_epoch_is_the_mean_of_its_reviews(
    smoke: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = dataclasses.replace(smoke, train_examples=20)  # batches of 16 and of 4
    job = jobs.prepare(run_named(study, "lora-scratch-r8"), study)
    monkeypatch.setattr(
        loop, "add_gradients", lambda _, batch: torch.tensor({16: 1.0, 4: 6.0}[len(batch)])
    )
    losses = loop.train_epoch(job, 1)
    assert losses.tolist() == [1.0, 6.0]
    assert loop.mean_loss(losses, study) == 2.0


def test_both_accuracies_are_of_the_reviews_that_they_are_said_to_be_of(
    smoke: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def noted(job: jobs.Job, tokens: data.Tokens, title: str) -> list[str]:
        asked.append((tokens is job.test, tokens.ids is job.train.ids, len(tokens)))
        time.sleep(0.01)
        right = len(tokens) // 4 * (1 if tokens is job.test else 3)
        return [data.LABELS[label] if i < right else "" for i, label in enumerate(tokens.labels)]

    monkeypatch.setattr(loop, "answers", noted)
    record = make.train(run_named(smoke, "lora-scratch-r8"), smoke)
    assert asked == 2 * [(True, False, smoke.test_examples), (False, True, smoke.train_sample)]
    for epoch in record["history"]:
        assert (epoch["test_accuracy"], epoch["train_accuracy"]) == (0.25, 0.75)
    for part in ("train", "test"):
        spent = sum(epoch[f"{part}_seconds"] for epoch in record["history"])
        rate = record["speed"][f"{part}_examples_per_second"]
        assert rate == pytest.approx(2 * 64 / spent, rel=0.01)


def test_the_first_loss_that_is_no_number_is_named_with_its_reviews(smoke: Params) -> None:
    job = jobs.prepare(run_named(smoke, "lora-scratch-r8"), smoke)
    batches = [np.array([1, 2]), np.array([3, 4]), np.array([5, 6])]
    losses = [0.1, 0.5, math.nan, math.inf]
    with pytest.raises(InputError, match=r"epoch 7, step 3, reviews 3, 4, \.\.\.: found nan"):
        loop.check_finite(job, 7, losses, batches)


def test_answers_are_given_in_the_studys_precision(
    smoke: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def noted(model: Any, words: Any, tokens: data.Tokens, *_: Any) -> list[str]:
        seen.append(torch.is_autocast_enabled(model.device.type))
        return len(tokens) * ["positive"]

    monkeypatch.setattr(evaluation, "predict", noted)
    for precision in ("bf16", "fp32"):
        AcceleratorState._reset_state()  # it keeps one precision a process
        study = dataclasses.replace(smoke, precision=precision)
        job = jobs.prepare(run_named(study, "lora-scratch-r8"), study)
        loop.accuracy(job, job.test, "test")
    assert seen == [True, False]


def test_each_seed_and_each_epoch_draws_its_own_dropout(
    smoke: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []

    def draw(*_: Any) -> torch.Tensor:
        drawn.append(float(torch.rand(1)))
        return torch.tensor(0.0)

    monkeypatch.setattr(loop, "add_gradients", draw)
    for seed in (0, 1):
        study = dataclasses.replace(smoke, seed=seed)
        job = jobs.prepare(run_named(study, "lora-scratch-r8"), study)
        for epoch in (1, 2):
            loop.train_epoch(job, epoch)
    assert len(set(drawn)) == len(drawn) == 2 * 2 * 4
