"""Whose tensor is whose: a method's tensors under other people's names, mapped to ours.

A name says where its tensor belongs (stack, block, attention, projection) and which one it is there
(A or B, down or up); its shape says whether it lies as ours does or the other way round. Where no
name says where, the order of the file does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from t5peft.base.errors import InputError

if TYPE_CHECKING:
    from torch import Size, Tensor

    Tensors = Mapping[str, Tensor]

Place = tuple[str, ...]
"""Stack, block, attention, projection: as far as a method's places differ in them."""

ROLES = {"A": ("a", "down"), "B": ("b", "up"), "down": ("down",), "up": ("up",)}
"""Words for one of several tensors of a site, by ours."""

PROJECTIONS = {"query": "q", "key": "k", "value": "v"} | {x: x for x in ("q", "k", "v", "o")}
PROJECTIONS |= {"wi": "wi", "wo": "wo"}


# --- what a name says --------------------------------------------------------------------------


def words(name: str) -> list[str]:
    """`q.lora_A.weight` and `q.loraA.weight` alike: q, lora, a, weight."""
    return [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+|\d+", name)]


def place(name: str) -> Place:
    """Where a tensor belongs, "" for what its name does not say."""
    low = name.lower()
    cross = re.search(r"enc_?dec|cross", low) is not None
    stack = re.search(r"(?<![a-z])(enc|dec)", re.sub(r"enc_?dec\w*", "", low))
    block = re.search(r"(?:block|layer)s?\W*_?(\d+)", low) or re.search(r"(\d+)", low)
    named = [PROJECTIONS[word] for word in words(name) if word in PROJECTIONS]
    return (
        "dec" if cross else stack[1] if stack else "",
        block[1] if block else "",
        "cross" if cross else "self",
        named[0] if named else "",
    )


def within(short: Sequence[str], long: Sequence[str]) -> bool:
    """Do these words stand among those, in their order?"""
    rest = iter(long)
    return all(word in rest for word in short)


def backbone_in(found: Tensors, bare: Tensors) -> dict[str, str]:
    """Our name of each tensor that is the T5's own, by theirs: wrapped or not, of the same shape.

    `module.decoder.block.0.layer.0.SelfAttention.q.linear.weight` is `decoder....q.weight`.
    """
    mapped: dict[str, str] = {}
    for name, tensor in found.items():
        these = words(name)
        like = [x for x in bare if bare[x].shape == tensor.shape and within(words(x), these)]
        if like:
            mapped[name] = max(like, key=len)
    return mapped


def whole(thing: str, found: Tensors, wanted: Tensors, frozen: Mapping[str, str]) -> dict[str, str]:
    """Their name of each of a T5's parameters, by ours; frozen: `backbone_in`. Raises `InputError`
    for one that is missing, left over or of another shape.
    """
    mapped = {ours: theirs for theirs, ours in frozen.items()}
    for ours in (name for name in wanted if name not in mapped):
        near = next((name for name in found if within(words(ours), words(name))), None)
        what = f"tensor {near} {told(found[near].shape)}" if near else f"no tensor for {ours}"
        raise refused(thing, what, wanted, ours)
    for name in (name for name in found if name not in frozen):
        raise refused(thing, f"tensor {name} {told(found[name].shape)} besides", wanted)
    return {ours: mapped[ours] for ours in wanted}


# --- the method's tensors ----------------------------------------------------------------------


def laid(tensor: Tensor, shape: Size) -> Tensor | None:
    """The tensor in this shape: as it is, turned, or with dimensions of 1 more or less."""
    if tensor.shape == shape:
        return tensor
    if tensor.dim() == 2 and tensor.T.shape == shape:
        return tensor.T
    same = [x for x in tensor.shape if x != 1] == [x for x in shape if x != 1]
    return tensor.reshape(shape) if same else None


def matched(thing: str, found: Tensors, wanted: Tensors) -> dict[str, str]:
    """Their name of each tensor, by ours. Raises `InputError` for one that is missing, left over or
    of another shape; thing: what they are of.
    """
    groups = sites(wanted)
    theirs = by_place(found, groups)
    mapped: dict[str, str] = {}
    for site, ours in groups.items():
        left = theirs.pop(site, [])
        for name in ours:
            mapped[name] = picked(thing, name, left, found, wanted)
            left.remove(mapped[name])
        theirs |= {site: left} if left else {}
    for name in (name for names in theirs.values() for name in names):
        raise refused(thing, f"tensor {name} {told(found[name].shape)} besides", wanted)
    return mapped


def sites(wanted: Tensors) -> dict[Place, list[str]]:
    """Our names by place, in the model's order."""
    groups: dict[Place, list[str]] = {}
    for name in wanted:
        groups.setdefault(place(name), []).append(name)
    return groups


def by_place(found: Tensors, groups: dict[Place, list[str]]) -> dict[Place, list[str]]:
    """Their names by our places."""
    if len(groups) == 1:
        return {site: [*found] for site in groups}
    differ = [len({site[at] for site in groups}) > 1 for at in range(4)]

    def telling(site: Place) -> Place:
        return tuple(word for word, tells in zip(site, differ, strict=True) if tells)

    known = {telling(site): site for site in groups}
    theirs: dict[Place, list[str]] = {}
    for name in found:
        theirs.setdefault(known.get(telling(place(name)), (name,)), []).append(name)
    if theirs.keys() - groups and nowhere(found):
        return in_order(found, groups)
    return theirs


def nowhere(names: Iterable[str]) -> bool:
    """Does none of the names say in which stack its tensor belongs?"""
    return not any(place(name)[0] for name in names)


def in_order(found: Tensors, groups: dict[Place, list[str]]) -> dict[Place, list[str]]:
    """The same where names say at most a number: by that, else by the order of the file."""
    numbers = {name: int(place(name)[1] or -1) for name in found}
    by_number = sorted(found, key=lambda name: numbers[name])
    parts = [[*part] for _, part in groupby(by_number, key=lambda name: numbers[name])]
    if len(parts) != len(groups):
        names, size = [*found], -(-len(found) // len(groups))
        parts = [names[at : at + size] for at in range(0, len(names), size)]
    besides = {(part[0],): part for part in parts[len(groups) :]}
    return dict(zip(groups, parts, strict=False)) | besides


def picked(thing: str, name: str, left: list[str], found: Tensors, wanted: Tensors) -> str:
    """Which of the tensors of a site is this one of ours: by its shape, and by its name's word.

    Of equal ones the first of the file: A stands before B, down before up.
    """
    mine = ROLES.get(next((role for role in ROLES if role in name.split(".")), ""), ())
    said = {each: role(each) if mine else "" for each in left}
    may_be = [each for each in left if said[each] in ("", *mine)]
    fitting = [each for each in may_be if laid(found[each], wanted[name].shape) is not None]
    if fitting:
        alike = wanted[name].dim()
        return max(fitting, key=lambda each: (found[each].dim() == alike, said[each] in mine))
    if may_be:
        other = max(may_be, key=lambda each: said[each] in mine)
        raise refused(thing, f"tensor {other} {told(found[other].shape)}", wanted, name)
    raise refused(thing, f"no tensor for {name}", wanted, name)


def role(name: str) -> str:
    """The last word of a name that is one of `ROLES`'; "" where none is."""
    known = {word for mine in ROLES.values() for word in mine}
    return next((word for word in reversed(words(name)) if word in known), "")


def refused(thing: str, what: str, wanted: Tensors, name: str = "") -> InputError:
    """The line about a tensor that does not fit."""
    of = f"{name} {told(wanted[name].shape)}, or turned, of " if name else ""
    expected = f"{of}{len(wanted)} tensors, {count(wanted.values()):,} parameters"
    return InputError(
        thing, what, expected, "give the size, method and settings that it was made with"
    )


def told(shape: Size) -> str:
    """As in (512, 8)."""
    return str(tuple(shape))


def count(tensors: Iterable[Tensor]) -> int:
    """The entries of some tensors."""
    return sum(tensor.numel() for tensor in tensors)
