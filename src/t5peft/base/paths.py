"""Every folder of the project, named once.

The root is the checkout; the environment variable `T5PEFT_HOME` moves it (the tests do).
"""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[3]


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


def packed(name: str) -> Path:
    """Where a packed folder holds what lies elsewhere under this name, wherever that is."""
    return Path("inputs", os.path.normpath(name).lstrip("./"))


def local(name: str) -> Path | None:
    """The file or folder `name`: from the working folder, the root, or packed; or None."""
    if name:
        for path in (Path(name), root() / name, root() / packed(name)):
            if path.exists():
                return path
    return None
