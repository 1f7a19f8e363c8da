"""The tests mirror the rooms."""

from __future__ import annotations

from pathlib import Path

from t5peft.base import paths

SOURCE, TESTS = paths.CHECKOUT / "src" / "t5peft", Path(__file__).parent


def test_each_module_has_its_file_of_tests() -> None:
    modules = [path.relative_to(SOURCE) for path in SOURCE.rglob("*.py")]
    wanted = {path.with_name(f"test_{path.stem.strip('_')}.py") for path in modules}
    wanted -= {path.with_name("test_init.py") for path in modules}
    assert len(wanted) > 50
    assert {path for path in wanted if not (TESTS / path).exists()} == set()
