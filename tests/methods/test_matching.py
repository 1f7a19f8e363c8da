"""Tensors under other people's names."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import SETTINGS, injected, perturb, tiny
from torch import Tensor

from t5peft.base.errors import InputError
from t5peft.base.studies import TARGETS
from t5peft.methods import counting, matching
from t5peft.methods.table import LIBRARY, METHODS
from t5peft.training.jobs import trained

Name = Callable[[int, str, str], str]
"""From a site's number, its path and which of its tensors it is: another name."""


def short(path: str) -> str:
    """`decoder.block.1.layer.1.EncDecAttention.q` as `decoder_1_cross_q`."""
    stack, block, kind, projection = matching.place(path)
    return "_".join(x for x in (stack, block, kind, projection) if x)


LORA: dict[str, Name] = {
    "ours": lambda number, path, leaf: f"{path}.{leaf}",
    "PEFT's": lambda number, path, leaf: f"base_model.model.{path}.lora_{leaf}.default.weight",
    "of a wrapped model": lambda number, path, leaf: f"module._orig_mod.t5.{path}.lora.{leaf}",
    "small letters": lambda number, path, leaf: f"{path}.lora_{leaf.lower()}",
    "camel": lambda number, path, leaf: f"{path}.lora{leaf}.weight",
    "down and up": lambda number, path, leaf: f"{path}.{'down' if leaf == 'A' else 'up'}.weight",
    "short": lambda number, path, leaf: f"{short(path)}_{leaf}",
    "spelt out": lambda number, path, leaf: (
        short(path).replace("_q", ".query").replace("_v", ".value") + f".W_{leaf}"
    ),
}
ADAPTER: dict[str, Name] = {
    "ours": lambda number, path, leaf: f"{path}.{leaf}",
    "AdapterHub's": lambda number, path, leaf: (
        f"{path}.adapters.imdb.adapter_" + leaf.replace("down.", "down.0.")
    ),
    "of a wrapper": lambda number, path, leaf: f"module.{path}.adapter.{leaf}",
    "projections": lambda number, path, leaf: (
        f"{path}.1.{leaf.replace('down', 'down_project').replace('up', 'up_project')}"
    ),
    "short": lambda number, path, leaf: f"{short(path)}_adapter.{leaf}",
}
UNNAMED: dict[str, Name] = {
    "numbered sites": lambda number, path, leaf: f"loras.{number}.{leaf}",
    "a list of each": lambda number, path, leaf: f"lora_{leaf}.{number}",
    "sites in a row": lambda number, path, leaf: f"x{number:02}.{leaf}.weight",
}
EVERY = [
    *(("lora", name) for name in LORA.values()),
    *(("adapter", name) for name in ADAPTER.values()),
    *(("lora", name) for name in UNNAMED.values()),
]


def named(method: str, name: Name) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A method's tensors by our names, and by others in the model's order."""
    model = injected(method, "scratch")
    perturb(model)
    ours = trained(model)
    leaves = (".down.", ".up.", ".A", ".B")
    cut = {x: next(x.rindex(leaf) for leaf in leaves if leaf in x) for x in ours}
    paths = list(dict.fromkeys(x[: cut[x]] for x in ours))
    theirs = {name(paths.index(x[: cut[x]]), x[: cut[x]], x[cut[x] + 1 :]): ours[x] for x in ours}
    assert len(theirs) == len(ours)
    return ours, theirs


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    """Each of ours is found, with its own numbers."""
    mapped = matching.matched("file", theirs, ours)
    assert mapped.keys() == ours.keys()
    assert len({*mapped.values()}) == len(theirs)
    for name, tensor in ours.items():
        laid = matching.laid(theirs[mapped[name]], tensor.shape)
        assert laid is not None
        assert torch.equal(laid, tensor), (name, mapped[name])


@pytest.mark.parametrize(("method", "name"), EVERY)
@pytest.mark.parametrize("turned", [False, True])
def test_other_names_and_the_other_way_round(method: str, name: Name, turned: bool) -> None:
    ours, theirs = named(method, name)
    same(
        ours,
        {x: tensor.T if turned and tensor.dim() == 2 else tensor for x, tensor in theirs.items()},
    )


@given(st.integers(0, 2**32 - 1), st.sampled_from(EVERY[: -len(UNNAMED)]))
def test_where_names_say_enough_the_order_does_not_count(seed: int, which: Any) -> None:
    draw = random.Random(seed)
    ours, theirs = named(*which)
    order = draw.sample(list(theirs), len(theirs))
    same(
        ours,
        {
            x: theirs[x].T if theirs[x].dim() == 2 and draw.random() < 0.5 else theirs[x]
            for x in order
        },
    )


@pytest.mark.parametrize("layout", [("A", "B"), ("0", "1"), ("1", "2")])
@pytest.mark.parametrize("turned", [False, True])
def test_of_two_that_fit_both_places_the_first_is_a(layout: tuple[str, str], turned: bool) -> None:
    """Where nothing else tells them apart, as d = H d_kv: nn.Sequential of two linear maps."""
    ours, theirs = named("lora", lambda _, path, leaf: f"{path}.{layout['AB'.index(leaf)]}.weight")
    same(ours, {x: tensor.T if turned else tensor for x, tensor in theirs.items()})


def test_a_name_that_says_which_it_is_goes_before_one_that_says_nothing() -> None:
    ours, theirs = named("lora", lambda _, path, leaf: f"{path}.{'w' if leaf == 'B' else 'lora_A'}")
    same(ours, dict(reversed(theirs.items())))


def test_a_vector_is_the_bias_and_not_the_weight_of_a_bottleneck_of_one() -> None:
    wanted, _ = counting.tensors("adapter", "tiny", {"bottleneck": 1})
    ours = {name: torch.randn(x.shape) for name, x in wanted.items()}
    same(ours, {f"{name[:-3]}x": ours[name] for name in reversed(ours)})


@pytest.mark.parametrize("method", LIBRARY)
@pytest.mark.parametrize("whole", [False, True])
def test_a_librarys_tensors_alone_and_in_the_whole_model(method: str, whole: bool) -> None:
    model = injected(method, LIBRARY[method])
    wanted, bare = counting.tensors(method, "tiny", SETTINGS[method])
    own = trained(model)
    found = {f"module.{x}": t for x, t in (model.state_dict() | own if whole else own).items()}
    frozen = matching.backbone_in(found, bare)
    rest = {name: x for name, x in found.items() if name not in frozen}
    assert {*rest} == {f"module.{name}" for name in own}
    assert matching.matched("file", rest, wanted).keys() == wanted.keys()


def test_the_t5s_own_are_found_within_wrappers() -> None:
    """`q.linear.weight` is q's; each of a checkpoint's names is one of ours, the tied ones too."""
    for method in METHODS:
        _, bare = counting.tensors(method, "tiny", SETTINGS[method])
        state = injected(method, "scratch").state_dict()
        own = {
            name for name, p in injected(method, "scratch").named_parameters() if p.requires_grad
        }
        frozen = matching.backbone_in(state, bare)
        assert {*frozen} == {*state} - (own if method != "full" else set())
        assert {*frozen.values()} == {*bare}


def test_a_whole_t5_is_named_by_what_it_lacks() -> None:
    wanted, bare = counting.tensors("full", "tiny", {})
    state = {f"t5.{name}": x for name, x in tiny().state_dict().items()}
    names = matching.whole("file", state, wanted, matching.backbone_in(state, bare))
    assert names == {name: f"t5.{name}" for name in wanted}
    for gone, found in (
        ({"t5.shared.weight": None}, "no tensor for shared.weight"),
        ({"t5.shared.weight": torch.zeros(7, 32)}, r"tensor t5.shared.weight \(7, 32\)"),
        ({"t5.head": torch.zeros(2)}, r"tensor t5.head \(2,\) besides"),
    ):
        changed = {name: x for name, x in (state | gone).items() if x is not None}
        with pytest.raises(InputError, match=f"file: found {found}, expected"):
            matching.whole("file", changed, wanted, matching.backbone_in(changed, bare))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda t, name: t.pop(name), "no tensor for {ours}, expected {ours} .32, 2."),
        (
            lambda t, name: t.update({name: torch.zeros(32, 3)}),
            r"tensor {name} \(32, 3\), expected {ours}",
        ),
        (
            lambda t, name: t.update({f"{name}.again": t[name]}),
            r"tensor {name}.again \(32, 2\) besides",
        ),
        (
            lambda t, name: t.update({"classifier.weight": t[name]}),
            "tensor classifier.weight .* besides",
        ),
    ],
)
def test_what_does_not_fit_is_named(change: Callable[..., Any], found: str) -> None:
    ours, theirs = named("lora", LORA["PEFT's"])
    name = "base_model.model.decoder.block.1.layer.1.EncDecAttention.q.lora_A.default.weight"
    change(theirs, name)
    wanted = found.format(name=name, ours="decoder.block.1.layer.1.EncDecAttention.q.A")
    with pytest.raises(InputError, match=f"file: found {wanted}.*24 tensors, 1,536 parameters"):
        matching.matched("file", theirs, ours)


@pytest.mark.parametrize("name", LORA.values(), ids=LORA)
def test_every_projection_is_told_by_its_name(name: Name) -> None:
    wanted, _ = counting.tensors("lora", "tiny", {"rank": 2, "targets": [*TARGETS]})
    ours = {x: torch.randn(tensor.shape) for x, tensor in wanted.items()}
    theirs = {name(0, *x.rpartition(".")[::2]): ours[x] for x in reversed(ours)}
    assert len(theirs) == len(ours) == 2 * (6 * 4 + 4 * 2)
    same(ours, theirs)


@pytest.mark.parametrize("rank", [1, 32])
def test_a_rank_of_one_and_one_as_wide_as_the_model(rank: int) -> None:
    """Vectors or matrices; and squares, which nothing but their names tells apart."""
    wanted, _ = counting.tensors("lora", "tiny", {"rank": rank})
    ours = {name: torch.randn(x.shape) for name, x in wanted.items()}
    theirs = {f"{name[:-1]}lora_{name[-1]}.weight": x for name, x in ours.items()}
    same(ours, theirs)
    if rank == 1:
        same(ours, {name: x.flatten() for name, x in theirs.items()})


@pytest.mark.parametrize("shape", [(3, 32), (1, 3, 32), (32, 3)])
def test_a_prompt_is_the_tensor_that_fits(shape: tuple[int, ...]) -> None:
    wanted, _ = counting.tensors("soft-prompt", "tiny", {"tokens": 3})
    (ours,) = wanted
    assert matching.matched("file", {"": torch.zeros(shape)}, wanted) == {ours: ""}
    with pytest.raises(InputError, match="besides"):
        matching.matched("file", {"a": torch.zeros(shape), "b": torch.zeros(shape)}, wanted)
