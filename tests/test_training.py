"""The loop: AdapterTrainer makes the same step, what is asked is recorded, nan stops it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.t5.modeling_t5 import T5Attention

from t5peft import backbone, data, evaluation, methods, prediction, runs, training
from t5peft.errors import InputError
from t5peft.methods import Run
from t5peft.params import Params


def run_named(study: Params, name: str) -> Run:
    return next(run for run in methods.runs(study) if run.name == name)


@pytest.fixture
def no_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backbones without dropout, where two loops must agree to the bit."""
    load = backbone.load

    def dry(name: str, seed: int = 0) -> Any:
        model = load(name, seed)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if isinstance(module, T5Attention):
                module.dropout = 0.0
        return model

    monkeypatch.setattr(backbone, "load", dry)


@pytest.mark.usefixtures("no_dropout")
def test_adapter_trainer_makes_the_same_first_step(smoke: Params, tmp_path: Path) -> None:
    from adapters import AdapterTrainer
    from transformers import TrainingArguments

    one_step = dataclasses.replace(smoke, train_examples=16, batch_size=16)
    run = run_named(one_step, "adapter-adapterhub-b8")
    job = training.prepare(run, one_step)
    training.train_epoch(job, 1)

    model = training.build(run, one_step)
    model.accepts_loss_kwargs = False  # type: ignore[assignment]
    # the library's T5 knows no `num_items_in_batch`
    ids, mask = job.train.batch(training.order(one_step, 1), one_step.max_length)
    words = evaluation.word_ids(job.tokenizer)
    labels = [[words[job.train.labels[i]], data.EOS] for i in training.order(one_step, 1)]
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

    begun = training.trained(training.build(run, one_step))
    ours, theirs = training.trained(job.model), training.trained(model)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-5, atol=1e-7)
        assert not torch.equal(tensor, begun[name])


def test_the_order_of_an_epoch_depends_on_seed_and_epoch_alone(smoke: Params) -> None:
    first = training.order(smoke, 1)
    assert sorted(first) == list(range(smoke.train_examples))
    assert np.array_equal(first, training.order(smoke, 1))
    assert not np.array_equal(first, training.order(smoke, 2))
    assert not np.array_equal(first, training.order(dataclasses.replace(smoke, seed=1), 1))


def test_a_record_holds_what_a_chapter_shows(smoke: Params) -> None:
    run = run_named(smoke, "lora-scratch-r8")
    record = training.train(run, smoke)
    assert record == json.loads(json.dumps(record)), "a record is plain JSON"
    assert [epoch["epoch"] for epoch in record["history"]] == [1, 2]
    assert record["best_accuracy"] == max(e["test_accuracy"] for e in record["history"])
    assert record["last_accuracy"] == record["history"][-1]["test_accuracy"]
    counts = record["parameters"]
    assert counts["trained"] == counts["added"] == 12 * 8 * (32 + 32)
    assert counts["total"] == backbone.load("random:tiny").num_parameters() + counts["added"]
    two_moments = 2 * 4 * counts["trained"]
    steps = 4 * len(training.trained(training.build(run, smoke)))  # one float a tensor
    assert record["memory"]["optimizer_bytes"] == two_moments + steps
    assert record["memory"]["peak_bytes"] > two_moments
    (stored,) = record["files"].values()
    assert record["stored_bytes"] == stored["bytes"]
    assert runs.status(run, smoke).state == "fresh"
    assert runs.load(run, smoke) == record


def test_full_fine_tuning_stores_its_record_alone(smoke: Params) -> None:
    run = run_named(smoke, "full")
    record = training.train(run, dataclasses.replace(smoke, epochs=1))
    assert record["files"] == {}
    assert record["stored_bytes"] == 4 * record["parameters"]["total"]
    assert record["parameters"]["added"] == 0


def test_stored_weights_are_those_of_the_best_epoch(smoke: Params) -> None:
    """The accuracy of a record can be had again from its file."""
    study = dataclasses.replace(smoke, prompt_learning_rate=3.0, epochs=3)
    run = run_named(study, "soft-prompt-scratch-n10")
    record = training.train(run, study)
    _, _, model = prediction.load(f"smoke/{run.name}")
    job = training.prepare(run, study)
    answers = evaluation.predict(model, job.tokenizer, job.test, study.max_length, run.placeholders)
    assert evaluation.score(answers, job.test.labels)[0] == record["best_accuracy"]
    best = job
    best.history = record["history"]
    assert training.best_epoch(best)["epoch"] == record["best_epoch"]


def test_a_loss_that_is_no_number_stops_the_run(smoke: Params) -> None:
    study = dataclasses.replace(smoke, full_learning_rate=1e30, epochs=3)
    with pytest.raises(
        InputError, match=r"loss of full, epoch \d, step \d+, reviews .*found (nan|inf)"
    ):
        training.train(run_named(study, "full"), study)
    assert runs.status(run_named(study, "full"), study).state == "missing"


def test_a_missing_run_stops_a_render_with_the_command(smoke: Params) -> None:
    study = dataclasses.replace(smoke, train="no")
    with pytest.raises(InputError, match=r"t5peft train smoke --only lora-peft-r1") as caught:
        training.result(run_named(study, "lora-peft-r1"), study)
    assert "min on this machine" in str(caught.value)


def test_auto_trains_what_takes_a_minute_and_no_more(smoke: Params) -> None:
    run = run_named(smoke, "soft-prompt-scratch-n10")
    assert training.estimate(run, smoke) < training.A_MINUTE
    large = dataclasses.replace(smoke, backbone="random:t5-small", train_examples=25_000)
    assert training.estimate(run, large) > training.A_MINUTE or training.machine.has_accelerator()


LAUNCH = """
import json, sys
from t5peft import backbone, methods, params, training
import torch
from transformers.models.t5.modeling_t5 import T5Attention
load = backbone.load
def dry(name, seed=0):
    model = load(name, seed)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, T5Attention):
            module.dropout = 0.0
    return model
backbone.load = dry
study = params.load("smoke", json.loads(sys.argv[1]))
job = training.prepare(next(r for r in methods.runs(study) if r.name == "lora-scratch-r8"), study)
losses = [training.train_epoch(job, 1), training.train_epoch(job, 2)]
if job.accelerator.is_main_process:
    print("LOSSES", json.dumps(losses))
"""


def test_two_processes_give_the_losses_of_one(smoke: Params, tmp_path: Path) -> None:
    """Batches of 20, each share in two parts, and a rest of 5 give what one process gives."""
    script = tmp_path / "launch.py"
    script.write_text(LAUNCH)
    study = vars(smoke) | {"train_examples": 45, "batch_size": 20, "lora_learning_rate": 0.1}
    losses = []
    for count in (1, 2):
        command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu"]
        command += ["--num_processes", str(count), "--num_machines", "1"]
        command += ["--mixed_precision", "no", "--dynamo_backend", "no"]
        command += ["--main_process_port", "0"]
        done = subprocess.run(
            [*command, str(script), json.dumps(study)], capture_output=True, text=True, check=False
        )
        lines = [x for x in done.stdout.splitlines() if x.startswith("LOSSES")]
        assert lines, done.stderr[-2000:]
        losses.append(json.loads(lines[0].removeprefix("LOSSES")))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
