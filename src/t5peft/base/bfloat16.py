"""bf16 on a processor that lacks it, at the speed of float32.

A product in bf16 is of factors rounded to bf16, summed in float32, and rounded to bf16. So it is
here, with the sums by float32's own products; PyTorch's takes some forty times as long.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from t5peft.base import machine

PRODUCTS = {F.linear, F.scaled_dot_product_attention, torch.einsum}
PRODUCTS |= {torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__}
PRODUCTS |= {torch.mm, torch.bmm, torch.addmm, torch.baddbmm}
"""What autocast computes in bf16."""

provided: list[ByFloat32] = []
"""What `provide` has entered."""


class ByFloat32(TorchFunctionMode):
    """While it is entered, autocast's products on the CPU are float32's."""

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """One call of PyTorch."""
        kwargs = kwargs or {}
        if function not in PRODUCTS or not torch.is_autocast_enabled("cpu"):
            return function(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            named = {name: rounded(value) for name, value in kwargs.items()}
            return function(*map(rounded, args), **named).bfloat16()


def rounded(value: Any) -> Any:
    """A tensor of fractions as bf16 holds it, in float32; anything else as it is."""
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.bfloat16().float()
    return value


def provide(precision: str) -> None:
    """From here on this process computes bf16 so, if the study wants it and the processor lacks it.

    Warns of a GPU that lacks it.
    """
    if precision == "bf16" and machine.emulates_bf16():
        told = "this GPU has no bf16: PyTorch rounds to it, at float32's speed or below"
        warnings.warn(f"{told}; --set precision=fp32 is float32", stacklevel=2)
    if precision == "bf16" and not provided and machine.lacks_bf16():
        provided.append(ByFloat32())
        provided[0].__enter__()
