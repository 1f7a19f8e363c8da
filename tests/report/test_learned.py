"""What is read off stored tensors is what they hold."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import matplotlib.style
import pytest
import torch
from helpers import cells
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from torch import Tensor

from t5peft.base import paths, studies
from t5peft.base.errors import Missing
from t5peft.base.studies import Study
from t5peft.inputs import backbone
from t5peft.methods.table import facts, inject, runs_of
from t5peft.report import drawings, learned
from t5peft.report.evidence import Evidence
from t5peft.report.learned import Learned
from t5peft.runs import store
from t5peft.training import jobs

D_IN, D_OUT, V = 7, 5, 40


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(m=st.integers(1, 9), r=st.integers(1, 9), n=st.integers(1, 9), seed=st.integers(0, 99))
def test_thin_factors_have_the_singular_values_of_their_product(
    m: int, r: int, n: int, seed: int
) -> None:
    left, right = drawn(m, r, seed=seed), drawn(r, n, seed=seed + 100)
    found, whole = learned.singular_values(left, right), torch.linalg.svdvals(left @ right).double()
    assert found.norm() == pytest.approx((left @ right).norm().item(), rel=1e-5)
    few = min(len(found), len(whole))
    torch.testing.assert_close(found[:few], whole[:few], rtol=1e-4, atol=1e-4)


def test_the_shares_of_energy_add_up_to_one_and_fall() -> None:
    shares = learned.energy(learned.singular_values(drawn(D_IN, 3), drawn(3, D_OUT)))
    assert shares.sum().item() == pytest.approx(1)
    assert shares.tolist() == sorted(shares.tolist(), reverse=True)


def test_an_update_of_rank_one_has_all_its_energy_in_the_first_direction() -> None:
    A, B = drawn(D_IN, 1).repeat(1, 3), drawn(3, D_OUT)  # three columns alike
    assert learned.energy(learned.singular_values(A, B)).tolist() == pytest.approx([1, 0, 0])


@pytest.mark.parametrize("targets", [("q", "v"), ("q", "k", "v", "o", "wi", "wo")])
def test_ours_and_the_librarys_tensors_give_the_change_of_the_projection(
    targets: tuple[str, ...],
) -> None:
    """At a row x the whole map less W x is scale * x A B."""
    for implementation in ("scratch", "peft"):
        model = backbone.load("random:tiny")
        settings = {"rank": 2, "alpha": 4.0, "targets": targets}
        inject(model, "lora", implementation, settings)
        tensors = {name: x.normal_() for name, x in jobs.trained(model).items()}
        pairs = learned.factors(tensors)
        size = model.config.num_layers, model.config.num_decoder_layers
        attention, others = len({*targets} - {"wi", "wo"}), len({*targets} & {"wi", "wo"})
        assert len(pairs) == size[0] * (attention + others) + size[1] * (2 * attention + others)
        for site, (A, B) in pairs.items():
            module: Any = model.get_submodule(site)
            x = drawn(1, A.shape[0])
            frozen = module.linear if implementation == "scratch" else module.base_layer
            torch.testing.assert_close(module(x) - frozen(x), 2 * x @ A @ B, atol=1e-3, rtol=1e-3)


def test_sites_come_by_stack_sublayer_projection_and_layer() -> None:
    names = [
        *("encoder.block.2.layer.0.SelfAttention.q", "encoder.block.10.layer.0.SelfAttention.q"),
        *("encoder.block.0.layer.0.SelfAttention.v", "encoder.block.0.layer.1.DenseReluDense.wi"),
        *("decoder.block.0.layer.0.SelfAttention.q", "decoder.block.0.layer.1.EncDecAttention.q"),
    ]
    assert sorted({*names}, key=learned.place) == names
    kinds = ["encoder self, q"] * 2 + ["encoder self, v", "encoder feed-forward, wi"]
    assert [*map(learned.kind, names)] == [*kinds, "decoder self, q", "cross, q"]
    assert learned.kind("decoder.block.0.layer.2") == "decoder"


def test_a_row_that_is_a_copy_of_a_token_at_any_length_is_near_it() -> None:
    embedding = drawn(V, 6)
    cosines, tokens = learned.nearest(3 * embedding[[7, 2]], embedding)
    assert tokens.tolist() == [7, 2]
    assert cosines.tolist() == pytest.approx([1, 1])


def test_a_token_is_not_its_own_neighbour() -> None:
    twins = drawn(V, 6).repeat(2, 1)
    assert learned.usual(twins)[0] == pytest.approx(1)
    apart, chance = learned.usual(torch.eye(V))
    assert apart == pytest.approx(0, abs=1e-6)
    assert 0 < chance < 1


# --- of a study ----------------------------------------------------------------------------------


@pytest.fixture
def made(smoke: Study, records: list[Any], monkeypatch: pytest.MonkeyPatch) -> Learned:
    """Of smoke, untrained: our prompt is a copy of the first rows of E, the rest is drawn."""
    held = {}
    for run in runs_of(smoke):
        model = backbone.load(smoke.backbone, smoke.seed)
        inject(model, run.method, run.implementation, run.settings)
        held[run.name] = jobs.trained(model)
        if run.method != "soft-prompt":
            held[run.name] = {name: x.normal_() for name, x in held[run.name].items()}
    settings = {"train_examples": 25_000, "batch_size": 32}
    for record, run in zip(records, runs_of(smoke), strict=True):
        record.update(run=facts(run) | {"learning_rate": 1.0}, params=settings, best_epoch=1)
    of_name = {record["run"]["name"]: record for record in records}
    monkeypatch.setattr(store, "tensors", lambda where: (of_name[where.name], held[where.name]))
    monkeypatch.setattr(Evidence, "records", lambda *_: records)
    return Learned(Evidence(smoke))


def test_a_prompt_that_was_not_trained_is_near_the_first_words(made: Learned) -> None:
    near = made.near
    assert near
    assert near.words == len(near.cosines) == 10
    assert near.cosines == pytest.approx(10 * [1])
    assert near.names[:3] == ["`` <pad> ``", "`` </s> ``", "`` <unk> ``"]


def test_a_prompt_that_is_drawn_has_no_words(made: Learned) -> None:
    (prompt,) = made.tensors(made.ours["soft-prompt"]).values()
    prompt.copy_(drawn(*prompt.shape))
    assert made.near
    assert made.near.words == 0


def test_without_the_backbone_what_needs_it_is_left_out(made: Learned) -> None:
    alone = Learned(Evidence(made.study))
    alone.found.backbone = None
    assert alone.near is None
    assert alone.prompt_rms()[0] is None
    model = made.found.backbone
    assert model
    for site, norm in alone.sizes.items():
        weight = model.get_parameter(f"{site}.weight").norm().item()
        assert norm == pytest.approx(weight * made.sizes[site])
    for which, ratio in ((made, True), (alone, False)):
        sizes = learned.figure(which).axes[1]
        assert ("W" in (sizes.get_title("left") or sizes.get_title())) == ratio  # as the style says


def test_an_update_is_as_large_as_its_scale_says(made: Learned) -> None:
    run = made.ours["lora"]
    for site, (A, B) in learned.factors(made.tensors(run)).items():
        size = 4 / 8 * (A @ B).norm().item()
        assert made.loras[run.name][site].norm().item() == pytest.approx(size, rel=1e-5)


def test_the_first_directions_are_counted(made: Learned) -> None:
    updates = made.loras["lora-scratch-r8"]
    for number, site in enumerate(updates):
        updates[site] = torch.tensor([3.0, 1.0] if number else [1.0, 1.0])
    first = learned.firsts(updates)
    assert first == pytest.approx([0.5] + [0.9] * (len(updates) - 1))


def test_sizes_are_told_by_the_kind_of_their_sites() -> None:
    q, v = (f"encoder.block.{{}}.layer.0.SelfAttention.{name}" for name in "qv")
    sizes = {q.format(0): 1.0, q.format(1): 3.0, v.format(0): 0.5}
    told = "1.0 to 3.0 (encoder self, q) and 0.50 (encoder self, v)"
    assert learned.by_kind(sizes) == told


def test_a_run_of_rank_one_has_one_direction(made: Learned) -> None:
    of_run = {row[0].split(",")[1]: row for row in cells(learned.table(made, made.found.ten()))}
    assert of_run[" r = 1"][2:4] == ["100.0", "100.0"]
    assert float(of_run[" r = 8"][2]) < 100


def test_the_rates_decay_of_the_start_is_told(made: Learned) -> None:
    assert made.left() == (782, pytest.approx(0.99**782))
    made.found.records()[1]["run"]["learning_rate"] = 1e-4
    assert made.left()[1] == pytest.approx((1 - 1e-6) ** 782)


def test_what_is_missing_is_a_gap_where_it_is_asked_for(smoke: Study) -> None:
    learnt = Learned(Evidence(dataclasses.replace(smoke, train="partial")))
    asked = (learned.figure, Learned.left, lambda which: which.near, lambda which: which.sizes)
    for ask in asked:
        with pytest.raises(Missing, match="10 of 10 runs missing"):
            ask(learnt)


def points(line: Any) -> list[float]:
    return [float(y) for y in line.get_ydata()]


def test_the_default_studys_figure_has_a_line_and_a_mark_a_site(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("T5PEFT_HOME", str(paths.CHECKOUT))
    learnt = Learned(Evidence(studies.load(studies.DEFAULT, {"train": "no"})))
    with matplotlib.style.context(drawings.STYLE):
        drawn = learned.figure(learnt)
        drawn.draw_without_rendering()
    spectra, sizes, adapters = drawn.axes
    sites = len(learnt.loras["lora-scratch-r8"])
    assert sites == 16, "q and v of 4 self-attentions, 2 self-attentions and 2 cross-attentions"
    assert len(spectra.lines) == sites + 2, "the median, and equal shares"
    for line in spectra.lines[:sites]:
        assert sum(points(line)) == pytest.approx(100)
    *of_kinds, whole = sizes.lines
    assert sum(len(points(line)) for line in of_kinds) == sites
    assert whole.get_xdata() == [1, 1], "as large as the weight"
    assert sum(len(points(line)) for line in adapters.lines) == len(learnt.adapters) == 6
    labels = filter(Text.get_text, sizes.get_xticklabels(which="both"))
    ends = sorted(tuple(label.get_window_extent().intervalx) for label in labels)
    assert all(end < start for (_, end), (start, _) in pairwise(ends)), "no label covers another"
