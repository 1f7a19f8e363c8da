"""Freeze a model, find a method's sites, put new modules there: all code that walks a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

Sites = dict[str, nn.Module]
"""Matched modules by their dotted name in the model."""


def freeze(model: nn.Module) -> None:
    """Take every parameter out of training; what is injected later trains because it is new."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)


def find(model: nn.Module, matches: Callable[[str, nn.Module], bool]) -> Sites:
    """The modules for which `matches(name, module)` holds, in the model's order.

    A module that is reachable by several names (T5's tied embedding) is found under each.
    """
    named = model.named_modules(remove_duplicate=False)
    return {name: module for name, module in named if matches(name, module)}


def claim(model: nn.Module, label: str) -> None:
    """Mark the model as injected; raises ValueError where it has been before."""
    if label_before := getattr(model, "injected", None):
        raise ValueError(f"{label} into a model that has {label_before}: load a fresh backbone")
    model.injected = label  # type: ignore[assignment]


def replace(model: nn.Module, sites: Sites, make: Callable[[Any], nn.Module]) -> None:
    """Replace each site by `make(site)`, after all sites have been listed.

    Raises ValueError where there is no site.
    """
    if not sites:
        raise ValueError(f"no site to inject in {type(model).__name__}: is it a T5?")
    for name, module in sites.items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, make(module))
