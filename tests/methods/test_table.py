"""Every method and implementation of the table."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from tiny import BOTTLENECK, EVERY, PEFT, RANK, TOKENS, injected, inputs, perturb, tiny
from transformers import T5ForConditionalGeneration

from t5peft.base import studies
from t5peft.base.errors import InputError
from t5peft.methods import adapter, ia3, lora, soft_prompt
from t5peft.methods.table import Run, ours, require_ten, runs_of, told
from t5peft.training.jobs import trained

D_MODEL, D_FF, D_FF_SITES, PROJECTIONS = 32, 64, 4, 12  # of the tiny T5: 2 + 2 layers, 6 attentions


@pytest.mark.parametrize(("method", "implementation"), PEFT)
def test_new_parameters_lie_at_the_sites(method: str, implementation: str) -> None:
    modules = {"soft-prompt": soft_prompt, "adapter": adapter, "lora": lora, "ia3": ia3}
    sites = modules[method].sites(tiny())
    home = {"soft-prompt": ["encoder"]}.get(method, list(sites))
    names = trained(injected(method, implementation))
    assert all(any(name.startswith(f"{site}.") for site in home) for name in names)
    assert all(any(name.startswith(f"{site}.") for name in names) for site in home)


@pytest.mark.parametrize(
    ("method", "implementation"),
    [
        *(("full", "scratch"), ("adapter", "scratch"), ("lora", "scratch"), ("lora", "peft")),
        *(("ia3", "scratch"), ("ia3", "peft")),
    ],
)
def test_the_first_output_is_the_backbones(method: str, implementation: str) -> None:
    batch = inputs(method, implementation)
    assert torch.equal(injected(method, implementation)(**batch).logits, tiny()(**batch).logits)


@pytest.mark.parametrize(("method", "implementation"), EVERY)
def test_only_the_new_parameters_learn(method: str, implementation: str) -> None:
    model = injected(method, implementation)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    start = {name: tensor.clone() for name, tensor in trained(model).items()}
    perturb(model)
    begun = {name: tensor.clone() for name, tensor in trained(model).items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    model(**inputs(method, implementation)).loss.backward()
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in _used(model))
    optimizer.step()
    after = dict(model.named_parameters())
    assert all(torch.equal(after[name], tensor) for name, tensor in frozen.items())
    assert all(not torch.equal(after[name], begun[name]) for name in start)
    if method != "full":
        assert sum(t.numel() for t in frozen.values()) == sum(
            p.numel() for p in tiny().parameters()
        )


def _used(model: T5ForConditionalGeneration) -> list[torch.nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize(("method", "implementation"), EVERY)
def test_parameters_added_are_the_formulas(method: str, implementation: str) -> None:
    added = {
        "full": 0,
        "soft-prompt": TOKENS * D_MODEL,
        "adapter": D_FF_SITES * (2 * D_MODEL * BOTTLENECK + BOTTLENECK + D_MODEL),
        "lora": PROJECTIONS * RANK * (D_MODEL + D_MODEL),
        "ia3": PROJECTIONS * D_MODEL + D_FF_SITES * D_FF,
    }[method]
    model = injected(method, implementation)
    assert sum(p.numel() for p in model.parameters()) - tiny().num_parameters() == added
    if method != "full":
        assert sum(tensor.numel() for tensor in trained(model).values()) == added


# --- the runs of a study -------------------------------------------------------------------------


def test_a_listed_run_has_what_it_says_and_for_the_rest_the_studys_own() -> None:
    listed = [
        {"method": "lora", "settings": {"rank": 2}},
        {"method": "lora", "implementation": "peft", "settings": {"alpha": 2}, "rate": 1e-2},
        {"method": "adapter", "implementation": "adapterhub"},
        {"method": "soft-prompt"},
        {"method": "ia3", "rate": 3e-3},
        {"method": "full"},
    ]
    study = studies.load("smoke", {"runs": listed})
    assert runs_of(study) == [
        Run(1, "lora", "scratch", {"rank": 2, "alpha": 4.0}, 1e-4),
        Run(2, "lora", "peft", {"rank": 8, "alpha": 2.0}, 1e-2),
        Run(3, "adapter", "adapterhub", {"bottleneck": 8}, 1e-4),
        Run(4, "soft-prompt", "scratch", {"tokens": 10}, 0.1),
        Run(5, "ia3", "scratch", {}, 3e-3),
        Run(6, "full", "scratch", {}, 1e-5),
    ]
    assert type(runs_of(study)[1].settings["alpha"]) is float, "2 is 2.0 in identities too"
    other = studies.load("smoke", {"runs": listed[:1], "lora_learning_rate": 0.5, "lora_alpha": 8})
    assert runs_of(other) == [Run(1, "lora", "scratch", {"rank": 2, "alpha": 8.0}, 0.5)]


def test_targets_are_named_where_they_are_not_the_usual() -> None:
    """In the canonical order; q and v said outright are the run that says nothing."""
    listed = [
        {"method": "lora"},
        {"method": "lora", "settings": {"targets": ["wo", "q"]}},
        {"method": "lora", "implementation": "peft", "settings": {"rank": 1, "targets": ["o"]}},
    ]
    usual, some, theirs = runs_of(studies.load("smoke", {"runs": listed}))
    assert usual.settings == {"rank": 8, "alpha": 4.0}
    assert (usual.name, some.name) == ("lora-scratch-r8", "lora-scratch-r8-q-wo")
    assert some.settings == {"rank": 8, "alpha": 4.0, "targets": ["q", "wo"]}
    assert theirs.name == "lora-peft-r1-o"

    said = [{"method": "lora", "settings": {"targets": ["v", "q"]}}]
    assert runs_of(studies.load("smoke", {"runs": said})) == [usual]
    study = studies.load("smoke", {"lora_targets": ["k"], "runs": [*said, listed[0]]})
    assert [run.name for run in runs_of(study)] == ["lora-scratch-r8", "lora-scratch-r8-k"]
    assert runs_of(study)[0] == usual


def test_the_usual_targets_leave_the_ten_runs_as_they_were() -> None:
    ten = runs_of(studies.load("smoke"))
    assert not any("targets" in run.settings for run in ten)
    wider = runs_of(studies.load("smoke", {"lora_targets": ["q", "k", "v", "o"]}))
    assert [run for run in wider if run.method != "lora"] == ten[:7]
    assert [run.name for run in wider[7:]] == [f"{run.name}-q-k-v-o" for run in ten[7:]]


def test_settings_are_told_in_words() -> None:
    assert (
        told({"rank": 8, "alpha": 4.0, "targets": ["q", "wo"]}) == "rank 8, alpha 4, targets q wo"
    )
    assert told({}) == ""


@pytest.mark.parametrize(
    ("run", "found"),
    [
        ({"method": "bitfit"}, "method 'bitfit', expected one of full, soft-prompt, "),
        ({"method": "full", "implementation": "peft"}, "'peft' of full, expected scratch;"),
        ({"method": "lora", "implementation": "opendelta"}, "expected scratch or peft;"),
        ({"method": "lora", "settings": {"bottleneck": 1}}, "setting 'bottleneck' of lora"),
        ({"method": "full", "settings": {"rank": 1}}, "of full, expected no settings"),
        ({"method": "lora", "settings": {"rank": 0}}, "rank 0, expected a whole number from 1"),
        ({"method": "lora", "settings": {"rank": 2.0}}, "rank 2.0, expected a whole number"),
        ({"method": "lora", "settings": {"rank": True}}, "rank True"),
        ({"method": "lora", "settings": {"alpha": -1}}, "alpha -1, expected a positive number"),
        ({"method": "lora", "settings": {"alpha": "4"}}, "alpha '4'"),
        ({"method": "lora", "settings": {"alpha": float("nan")}}, "alpha nan"),
        ({"method": "lora", "settings": {"alpha": 10**400}}, "a positive number"),
        ({"method": "lora", "settings": {"targets": []}}, "targets [], expected some of q, k, v, "),
        ({"method": "lora", "settings": {"targets": "q"}}, "targets 'q', expected some of q, k"),
        ({"method": "lora", "settings": {"targets": ["q", "x"]}}, "['q', 'x'], expected some of q"),
        ({"method": "lora", "settings": {"targets": ["q", "q"]}}, "wi, wo, each once"),
        ({"method": "ia3", "settings": {"targets": ["q"]}}, "of ia3, expected no settings"),
        ({"method": "soft-prompt", "settings": {"tokens": 31}}, "tokens 31, expected a whole numb"),
        ({"method": "adapter", "rate": 0}, "rate 0, expected a positive learning rate"),
        ({"method": "ia3"}, "no rate, expected a positive learning rate for ia3"),
        ({"method": "lora", "rate": 0.5}, "lora-scratch-r8, as run 1, expected each name once"),
    ],
)
def test_a_run_that_cannot_be_is_refused_by_its_number(run: dict[str, Any], found: str) -> None:
    study = studies.load("smoke", {"runs": [{"method": "lora"}, run]})  # 32 tokens a review
    with pytest.raises(InputError, match=re.escape(found)) as refusal:
        runs_of(study)
    assert str(refusal.value).startswith("run 2 of study smoke: found ")


def test_of_several_sizes_the_first_stands_for_the_method() -> None:
    listed = [{"method": "lora", "settings": {"rank": rank}} for rank in (4, 1, 2)]
    listed.insert(0, {"method": "lora", "implementation": "peft"})
    found = ours(studies.load("smoke", {"runs": listed}))
    assert {method: run.name for method, run in found.items()} == {"lora": "lora-scratch-r4"}


def test_a_study_that_lists_its_runs_is_not_taken_for_the_exercise() -> None:
    require_ten(studies.load("smoke"))
    with pytest.raises(InputError, match="study sweep: found runs of its own, expected the exer"):
        require_ten(studies.load("sweep"))
