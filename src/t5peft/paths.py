"""Every folder of the project, named once.

The root is the checkout; the environment variable `T5PEFT_HOME` moves it (the tests do).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]


def root() -> Path:
    """The folder that holds report.qmd, params/ and weights/."""
    return Path(os.environ.get("T5PEFT_HOME") or CHECKOUT).resolve()


def params() -> Path:
    """One YAML file per study."""
    return root() / "params"


def weights() -> Path:
    """What training leaves behind: one folder per study, one per run."""
    return root() / "weights"


def cache() -> Path:
    """Tokens and fingerprints, which can be made again; checkpoints of a pre-training."""
    return root() / ".cache"


def output() -> Path:
    """The rendered report."""
    return root() / "_output"


def local(name: str) -> Path | None:
    """The file or folder `name`: from the working folder, else from the root; or None."""
    if name:
        for path in (Path(name), root() / name):
            if path.exists():
                return path
    return None


def snapshot(name: str) -> Path:
    """The folder (or file) of a model: a local one, else the hub's snapshot on this machine.

    Raises FileNotFoundError where neither is here; the hub is not asked.
    """
    found = local(name)
    if found is None:
        from huggingface_hub import snapshot_download

        try:
            found = Path(snapshot_download(name, local_files_only=True))
        except Exception as error:
            raise FileNotFoundError(name) from error
    return found


def fingerprint(path: Path, patterns: Sequence[str]) -> str:
    """SHA-256 over the name and content of a file, or of those files of a folder that match."""
    files = [path] if path.is_file() else sorted(p for x in patterns for p in path.glob(x))
    total = hashlib.sha256()
    for file in files:
        total.update(file.name.encode() + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()
