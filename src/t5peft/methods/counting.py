"""Parameter counts on the live model, beside the derived ones.

The model is built without memory: the largest T5 takes seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from t5peft.base import studies
from t5peft.base.errors import InputError
from t5peft.inputs import backbone
from t5peft.inputs.sizes import config
from t5peft.methods import formulas
from t5peft.methods.formulas import Model
from t5peft.methods.table import LIBRARY, inject, ours

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import T5ForConditionalGeneration


# --- the live model ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Count:
    """Parameters that a method adds to a T5, and all of the T5 with it: derived, and counted."""

    derived_added: int
    counted_added: int
    derived_total: int
    counted_total: int

    @property
    def equal(self) -> bool:
        """Whether both derived numbers are the counted ones."""
        return (self.derived_added, self.derived_total) == (self.counted_added, self.counted_total)


def count(
    method: str, model: Model, settings: Mapping[str, Any], implementation: str = "scratch"
) -> Count:
    """Derive a method's parameters, and count them on a T5 that has it in place.

    `implementation` is "scratch", "library" or the library's name. Raises what `derive` raises, and
    InputError for an implementation that the method does not have.
    """
    derived = formulas.derive(method, model, settings).derived
    library = LIBRARY.get(method, "")
    has = ["scratch", "library", library] if library else ["scratch"]
    if implementation not in has:
        raise InputError("implementation", implementation, " or ".join(has), "name one of these")
    implementation = library if implementation == "library" else implementation
    t5 = hollow(model)
    bare = parameters(t5)
    _inject(t5, method, implementation, settings)
    total = parameters(t5)
    return Count(derived, total - bare, sum(formulas.parts(model).values()) + derived, total)


def hollow(model: Model) -> T5ForConditionalGeneration:
    """The T5 without memory: shapes on the meta device.

    The embedding alone is on the CPU, not initialized: soft prompts copy rows of it.
    """
    import torch
    from transformers import T5ForConditionalGeneration

    with torch.device("meta"):
        t5 = T5ForConditionalGeneration(config(model) if isinstance(model, str) else model)
    t5.shared.to_empty(device="cpu")
    t5.tie_weights()
    return t5


def parameters(model: nn.Module) -> int:
    """All parameters of a model, a shared one once."""
    return sum(parameter.numel() for parameter in model.parameters())


def _inject(
    t5: T5ForConditionalGeneration, method: str, implementation: str, settings: Mapping[str, Any]
) -> None:
    """The method in place, its new parameters without memory too (OpenDelta's must have some)."""
    import torch

    scale = {"alpha": 1.0} if method == "lora" else {}  # any: it adds no parameter
    with torch.device("cpu" if method == "soft-prompt" else "meta"):
        inject(t5, method, implementation, {**scale, **settings})


def tensors(
    method: str, model: Model, settings: Mapping[str, Any]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The from-scratch method's own tensors on a T5, and the T5's, by name; no values."""
    t5 = hollow(model)
    bare = t5.state_dict()
    _inject(t5, method, "scratch", settings)
    trained = {name: x.detach() for name, x in t5.named_parameters() if x.requires_grad}
    return trained, bare


# --- command line ------------------------------------------------------------------------------


def command(
    method: str, size: str, settings: Mapping[str, Any], implementation: str = "scratch"
) -> tuple[str, bool]:
    """What `t5peft count` prints, and whether derived and counted agree.

    size: as `backbone.sized` takes it. Settings that are left out are those of the exercise. Raises
    what `sized` and `count` raise.
    """
    model, settings = backbone.sized(size), {**_exercise(method), **settings}
    derivation = formulas.derive(method, model, settings)
    counted = count(method, model, settings, implementation)
    lines = {
        "method": f"{method} on {size}, {implementation}",
        "added": "; ".join(kind.rule for kind in derivation.kinds),
        "formula": formulas.text(derivation.added),
        **{
            f"  {symbol}": f"{formulas.MEANING[symbol]}: {x}"
            for symbol, x in derivation.values.items()
        },
        "substitution": formulas.text(derivation.substituted),
        "derived": f"{counted.derived_added:,} added, {counted.derived_total:,} in all",
        "counted": f"{counted.counted_added:,} added, {counted.counted_total:,} in all",
    }
    verdict = "equal" if counted.equal else "NOT EQUAL"
    return "\n".join([*(f"{k:<14}{v}" for k, v in lines.items()), verdict]), counted.equal


def _exercise(method: str) -> dict[str, Any]:
    """The from-scratch settings of the exercise."""
    run = ours(studies.load("assignment")).get(method)
    return dict(run.settings) if run else {}
