"""What a user reads of an error."""

from __future__ import annotations

import pytest

from t5peft.base.errors import InputError, OneLine, first_line


def test_an_error_is_one_line_whatever_is_in_it() -> None:
    assert str(OneLine("a\n  b\tc ")) == "a b c"
    assert str(OneLine("“é” \x1b]0;x\x07")) == r"“é” \x1b]0;x\x07", "no order to a terminal"
    error = InputError("thing", "1\n2", "3", "way\nout")
    assert str(error) == "thing: found 1 2, expected 3; way out"
    assert error._render_traceback_() == ["InputError: thing: found 1 2, expected 3; way out"]


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("  No such file.\nTraceback: ..."), "No such file"),
        (KeyError(), "KeyError"),
        (OSError(""), "OSError"),
    ],
)
def test_of_a_librarys_error_the_first_line_is_shown_or_its_name(
    error: Exception, line: str
) -> None:
    assert first_line(error) == line
