"""Models by name: the folder that has one on this machine, local or the hub's cache; or fetched.

A snapshot of the hub counts where it is whole: `FILES` are fetched together, and one that was cut
off, or of which another program asked for its configuration alone, is as good as none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from t5peft import paths
from t5peft.errors import InputError

CONFIG, TENSORS = "config.json", "*.safetensors"
PIECES = ("tokenizer.json", "spiece.model")
"""What holds a tokenizer: the first that is there is the one that is loaded."""

WEIGHTS = (CONFIG, TENSORS)
FILES = (*WEIGHTS, "*.safetensors.index.json", *PIECES, "*token*.json", "generation_config.json")
SHA256 = 64
"""Hexadecimal digits; the hub's cache names a large file by it."""


def at_hand(name: str, *needed: str, revision: str | None = None) -> Path | None:
    """The folder (or file) of a model on this machine; None where it lacks a part.

    needed: of `WEIGHTS` and `PIECES`. The hub is not asked. revision: a commit, else the latest
    that is here.
    """
    found = paths.local(name)
    if found:
        return found
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except Exception:  # no such snapshot, and names that are none of the hub's
        return None
    return None if lacking(folder, needed) else folder


def fetch(name: str, *needed: str, revision: str | None = None) -> Path:
    """`at_hand`, or asked for at the hub; what a cut left is not fetched again.

    Raises `InputError` where the hub does not give it, or gives no whole model.
    """
    if found := at_hand(name, *needed, revision=revision):
        return found
    from huggingface_hub import snapshot_download

    kind = "backbone" if CONFIG in needed else "tokenizer"
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=[*FILES]))
    except Exception as error:  # the hub's client raises many kinds
        told = str(error).strip().partition("\n")[0].rstrip(".")
        raise unreachable(name, told, kind) from error
    if missing := lacking(folder, needed):
        raise unreachable(name, f"no {missing}", kind)
    return folder


def lacking(folder: Path, needed: Sequence[str]) -> str:
    """The first part that a folder has not: its configuration, a file of tensors, its pieces."""
    held = {path.name for path in folder.glob("*") if path.is_file()}  # no link to nowhere
    if CONFIG in needed and CONFIG not in held:
        return CONFIG
    if TENSORS in needed:
        index = folder / "model.safetensors.index.json"
        try:
            wanted = json.loads(index.read_text())["weight_map"].values() if index.exists() else ()
        except (ValueError, LookupError, TypeError):  # damaged
            return index.name
        if missing := sorted({*wanted} - held):
            return missing[0]
        if not any(Path(name).match(TENSORS) for name in held):
            return TENSORS
    pieces = set(PIECES)
    return " or ".join(PIECES) if pieces & {*needed} and not pieces & held else ""


def check(path: Path) -> None:
    """Refuse a file of the hub's cache whose bytes are not those that its name there is of.

    Raises `InputError`.
    """
    blob = path.resolve()
    if not path.is_symlink() or len(blob.name) != SHA256:
        return
    with blob.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != blob.name:
        raise InputError(
            f"file {path.name} in the hub's cache",
            f"SHA-256 {found[:12]}...",
            f"{blob.name[:12]}..., as the hub names it",
            f"remove {blob}; it is fetched again",
        )


def unreachable(name: str, found: str, kind: str = "backbone") -> InputError:
    """The line about a backbone or tokenizer that is not there, or not whole."""
    holds = "a T5" if kind == "backbone" else " or ".join(reversed(PIECES))
    return InputError(
        f"{kind} {name}",
        found,
        f"a folder with {holds}, or a hub name that can be reached",
        f"give a folder with --set {kind}=FOLDER",
    )
