"""The tests mirror the rooms; what trains needs no Jupyter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from t5peft.base import paths

SOURCE, TESTS = paths.CHECKOUT / "src" / "t5peft", Path(__file__).parent
MODULES = [path.relative_to(SOURCE) for path in SOURCE.rglob("*.py")]


def test_each_module_has_its_file_of_tests() -> None:
    wanted = {path.with_name(f"test_{path.stem.strip('_')}.py") for path in MODULES}
    wanted -= {path.with_name("test_init.py") for path in MODULES}
    assert len(wanted) > 50
    assert {path for path in wanted if not (TESTS / path).exists()} == set()


@pytest.mark.slow
def test_all_but_the_report_and_what_tests_share_do_without_jupyter() -> None:
    """A GPU's machine may have none."""
    apart = ("IPython", "nbclient", "nbformat", "papermill", "pypandoc", "typst")
    others = [path.with_suffix("") for path in MODULES if path.parts[0] != "report"]
    names = [".".join(("t5peft", *path.parts)).removesuffix(".__init__") for path in others]
    assert len(names) > 50
    code = f"import sys; sys.modules.update(dict.fromkeys({apart})); import conftest, "
    subprocess.run([sys.executable, "-c", code + ", ".join(names)], check=True, cwd=TESTS)
