"""A job is what the exercise says."""

from __future__ import annotations

import dataclasses
import math
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import dry, run_of

from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import backbone, sizes
from t5peft.methods.table import runs_of
from t5peft.training import fast, jobs, loop

WELL_ABOVE_ROUNDING = 1e-4
"""AdamW's epsilon where two loops are compared: its first step is g / (|g| + epsilon), which turns
the last digits of a gradient of 1e-8 into a step of another length."""


@pytest.fixture
def no_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backbones without dropout, where two loops must agree."""
    load = backbone.load
    monkeypatch.setattr(backbone, "load", lambda name, seed=0: dry(load(name, seed)))


@pytest.mark.usefixtures("no_dropout", "on_the_cpu")
def test_adapter_trainer_makes_the_same_first_step(smoke: Study, tmp_path: Path) -> None:
    from adapters import AdapterTrainer
    from transformers import TrainingArguments

    one_step = dataclasses.replace(smoke, train_examples=16, batch_size=16)
    run = run_of(one_step, "adapter-adapterhub-b8")
    job = jobs.prepare(run, one_step)
    job.optimizer.param_groups[0]["eps"] = WELL_ABOVE_ROUNDING
    loop.train_epoch(job, 1)

    model = jobs.build(run, one_step)
    model.accepts_loss_kwargs = False  # type: ignore[assignment]
    # the library's T5 knows no `num_items_in_batch`
    ids, mask = job.train.batch(loop.order(one_step, 1), one_step.max_length)
    labels = job.targets[job.train.labels[loop.order(one_step, 1)]]
    rows = [
        {"input_ids": i, "attention_mask": m, "labels": y}
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
        adam_epsilon=WELL_ABOVE_ROUNDING,
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


def test_each_seed_begins_with_its_own_new_parameters(smoke: Study) -> None:
    studies = [dataclasses.replace(smoke, seed=seed) for seed in (1, 2, 1)]
    one, two, again = (jobs.trained(jobs.build(run_of(x), x)) for x in studies)
    for name in (name for name in one if name.endswith(".A")):
        assert torch.equal(one[name], again[name])
        assert not torch.equal(one[name], two[name])


def test_the_optimizer_is_pytorchs_adamw_but_for_the_rate(smoke: Study) -> None:
    run = run_of(smoke, "adapter-scratch-b8")
    optimizer = jobs.prepare(run, smoke).optimizer.optimizer
    assert type(optimizer) is torch.optim.AdamW
    defaults = torch.optim.AdamW([torch.zeros(1, requires_grad=True)]).defaults
    ours = {**optimizer.defaults, "fused": defaults["fused"]}
    assert ours == {**defaults, "lr": run.learning_rate}


@pytest.mark.parametrize("method", ["full", "lora-scratch-r8", "adapter-adapterhub-b8"])
def test_arithmetic_that_is_not_the_backbones_is_refused_with_both_losses(
    method: str, smoke: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a configuration wants of a T5, and we do otherwise."""
    run = run_of(smoke, method)
    monkeypatch.setattr(sizes, "config", partial(sizes.config, feed_forward_proj="gelu"))
    monkeypatch.setattr(backbone, "config", sizes.config)
    model = jobs.build(run, smoke)
    theirs = fast.probe(model)
    with pytest.raises(InputError, match=f"found a loss of .*, expected {theirs:.4f}, as transf"):
        jobs.prepare(run, smoke)


@pytest.mark.parametrize("number", range(10))
def test_our_arithmetic_is_transformers_to_a_millionth(number: int, smoke: Study) -> None:
    """Far below what is refused; and the proof leaves model and draws as they were."""
    model = jobs.build(runs_of(smoke)[number], smoke)
    drawn, training = torch.random.get_rng_state(), model.training
    before = fast.probe(model)
    assert fast.probe(fast.speed_up(model)) == pytest.approx(before, rel=1e-5)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert model.training == training
    assert all(p.grad is None for p in model.parameters())


def test_a_backbone_that_is_no_number_is_refused(on_folders: Study, home: Path) -> None:
    model = backbone.load(on_folders.backbone)
    with torch.no_grad():
        model.encoder.final_layer_norm.weight[0] = math.nan
    for path in (home / "t5").glob("*.safetensors"):
        path.unlink()
    model.save_pretrained(home / "t5")
    with pytest.raises(InputError, match="found a loss of nan"):
        jobs.prepare(run_of(on_folders, "full"), on_folders)


def test_settings_that_give_no_number_are_named_beside_the_backbone(smoke: Study) -> None:
    study = dataclasses.replace(smoke, lora_alpha=1e300)
    told = r"with lora-scratch-r8: found a loss of nan .* other settings than rank 8, alpha 1e.300"
    with pytest.raises(InputError, match=told):
        jobs.prepare(run_of(study), study)
