"""Models and data by name: the folder on this machine, local or in the hub's cache; or fetched.

A snapshot of the hub counts where it is whole, and then the hub is not asked. One that was cut off,
or of which another program asked for its configuration alone, is as good as none.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from http.client import IncompleteRead
from pathlib import Path
from socket import gaierror

from t5peft.base import files, paths
from t5peft.base.errors import InputError, first_line
from t5peft.base.progress import Progress
from t5peft.base.studies import BACKBONES
from t5peft.inputs import tables

CONFIG, TENSORS = "config.json", "*.safetensors"
COMMIT = "commit"
"""The file in a packed copy of a snapshot that names what that was of."""

PIECES = ("tokenizer.json", "spiece.model")
"""What holds a tokenizer: the first that is there is the one that is loaded."""

WEIGHTS = (CONFIG, TENSORS)
PARQUET = ".parquet"
REVIEWS = tuple(f"{split}-*{PARQUET}" for split in ("train", "test"))

SHA256 = 64
"""Hexadecimal digits; the hub's cache names a large file by it."""

PATIENCE = 8.0
"""Seconds that the hub may take to answer."""

AGAIN = "the same command goes on where it was"
NOT_HERE = "no such folder or file"
MISSPELT = "is it misspelt? A private one wants `hf auth login`"
WAYS_OUT = {
    401: MISSPELT,
    403: "ask for access on its page of the hub, then `hf auth login`",
    404: MISSPELT,
    429: f"wait some minutes; {AGAIN}",
}
"""By what the hub answers."""


def at_hand(name: str, *needed: str, revision: str | None = None) -> Path | None:
    """The folder (or file) of a model or data set on this machine; None where it lacks a part.

    needed: of `WEIGHTS`, `PIECES` or `REVIEWS`. The hub is not asked. revision: a commit, else the
    latest that is here.
    """
    found = paths.local(name)
    if found:
        return found
    from huggingface_hub import snapshot_download

    kind = repo_type(needed)
    try:
        folder = snapshot_download(name, repo_type=kind, revision=revision, local_files_only=True)
    except Exception:  # no such snapshot, and names that are none of the hub's
        return None
    return None if lacking(Path(folder), needed) else Path(folder)


def fetch(name: str, *needed: str, revision: str | None = None) -> Path:
    """`at_hand`, or asked for at the hub; what a cut left is not fetched again.

    Raises `InputError` where the hub does not give it, or what is there is not whole.
    """
    folder = at_hand(name, *needed, revision=revision)
    if not folder and (meant := meant_for(name)):
        raise unreachable(name, NOT_HERE, setting(needed), meant)
    try:
        folder = folder or download(name, needed, revision)
    except Exception as error:  # the hub's client raises many kinds
        raise refused(name, needed, error) from error
    if folder.is_dir() and (missing := lacking(folder, needed)):
        raise unreachable(name, f"no {missing}", setting(needed))
    return folder


def download(name: str, needed: Sequence[str], revision: str | None) -> Path:
    """The snapshot with the parts that are needed, and what else is small and belongs to them."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    kind = repo_type(needed)
    files = [f"*{part}" for part in needed] if kind == "dataset" else [*needed, "*.json"]
    disable_progress_bars()  # they are silent in retries and stalls
    with Progress(f"{name} from the hub", state=partial(fetched, name, kind)):
        # asked by ourselves, as `snapshot_download` waits for ever, and hides why it is refused
        HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=PATIENCE)
        return Path(
            snapshot_download(name, repo_type=kind, revision=revision, allow_patterns=files)
        )


def commit(name: str, folder: Path) -> str:
    """Of which commit a model's folder is a snapshot, or a packed copy of one; "" for others."""
    noted = folder / COMMIT
    if paths.local(name):
        return noted.read_text() if noted.is_file() else ""
    return folder.name


def fetched(name: str, kind: str) -> str:
    """How much of a model or data set is in the cache, whole files or not."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    blobs = Path(constants.HF_HUB_CACHE, repo_folder_name(repo_id=name, repo_type=kind), "blobs")
    with suppress(OSError):  # one is renamed meanwhile
        return f"{sum(blob.stat().st_size for blob in blobs.glob('*')) / 1e6:,.1f} MB"
    return "..."


def setting(needed: Sequence[str]) -> str:
    """Which setting of a study names what has these parts."""
    if needed[0].endswith(PARQUET):
        return "data"
    return "backbone" if CONFIG in needed else "tokenizer"


def repo_type(needed: Sequence[str]) -> str:
    """What the hub calls it."""
    return "dataset" if setting(needed) == "data" else "model"


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
            pickles = sorted(name for name in held if Path(name).match("*.bin"))
            return TENSORS + (f", {pickles[0]} alone, which may run code" if pickles else "")
    pieces = set(PIECES)
    if pieces & {*needed} and not pieces & held:
        return " or ".join(PIECES)
    for pattern in (each for each in needed if each.endswith(PARQUET)):
        names = [path.name for path in folder.rglob(pattern) if path.is_file()]
        if len(names) < tables.shards(names):  # as NAME-00000-of-00002.parquet speaks of
            return pattern
    return ""


def check(path: Path) -> None:
    """Refuse a file of the hub's cache whose bytes are not those that its name there is of.

    Raises `InputError`.
    """
    blob = path.resolve()
    if not path.is_symlink() or len(blob.name) != SHA256:
        return
    if (found := files.sha256(blob)) != blob.name:
        raise InputError(
            f"file {path.name} in the hub's cache",
            f"SHA-256 {found[:12]}...",
            f"{blob.name[:12]}..., as the hub names it",
            f"remove {blob}; it is fetched again",
        )


def meant_for(name: str) -> str:
    """What a name must be that is meant for this machine; "" for one that the hub may know."""
    near = f"weights/{BACKBONES}/{name}"
    return f"give {near}" if paths.local(near) else "mend it" * tables.is_table(Path(name))


def refused(name: str, needed: Sequence[str], error: BaseException) -> InputError:
    """The line about what the hub did not give: by its answer, or by what kept it from one."""
    from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled

    causes, found, way_out = [error], "", AGAIN
    while deeper := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(deeper)
    for each in causes:
        told = getattr(each, "response", None)
        if told is not None:
            way_out = WAYS_OUT.get(told.status_code, AGAIN)
            also = f"{NOT_HERE}, and of the hub " * (way_out == MISSPELT)
            found = f"{also}{told.status_code} {told.reason}"
        elif isinstance(each, OfflineModeIsEnabled):
            found, way_out = "not on this machine, and HF_HUB_OFFLINE is set", "unset it"
        elif isinstance(each, HFValidationError):
            recipe = paths.params() / f"backbone-{Path(name).name}.yaml"
            found = "no folder, and no name that the hub could have"
            ours = Path(name).parts[:2] == ("weights", BACKBONES) and recipe.exists()
            way_out = f"t5peft pretrain {recipe.stem}" if ours else "mend the name"
        elif isinstance(each, IncompleteRead):
            found = "a download that broke off"
        elif isinstance(each, TimeoutError | ConnectionError | gaierror):
            found = f"{NOT_HERE}, and no answer of the hub ({first_line(each)})"
            way_out = f"is it misspelt? Else {AGAIN}"
        elif getattr(each, "errno", None) == errno.ENOSPC:
            found, way_out = first_line(each), f"free space, or set HF_HOME; {AGAIN}"
    return unreachable(name, found or first_line(causes[-1]), setting(needed), way_out)


def unreachable(name: str, found: str, part: str = "backbone", way_out: str = "") -> InputError:
    """The line about a backbone, tokenizer or data set that is not there, or not whole."""
    holds = {
        "backbone": "a T5 in safetensors",
        "tokenizer": " or ".join(reversed(PIECES)),
        "data": "the reviews",
    }
    return InputError(
        f"{part} {name}",
        found,
        f"a folder with {holds[part]}, or a name on the hub",
        f"{way_out}{'; or ' * bool(way_out)}give a folder with --set {part}=FOLDER",
    )
