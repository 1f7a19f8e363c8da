"""The exceptions that a user is meant to read."""

from __future__ import annotations

import os
import sys

WRONG_INPUT = 2
"""The exit code of a command that was given something wrong."""


class OneLine(Exception):
    """An error whose line says all: a notebook shows it alone, without the stack."""

    def __init__(self, line: str) -> None:
        plain = " ".join(line.split())  # and nothing that a terminal would take for an order
        super().__init__("".join(x if x.isprintable() else ascii(x)[1:-1] for x in plain))

    def _render_traceback_(self) -> list[str]:
        """What IPython, and so Jupyter, papermill and Quarto, show of it.

        Quarto shows the whole cell before it, so there a kernel writes it to the terminal at once.
        """
        line = f"{type(self).__name__}: {self}"
        if "QUARTO_DOCUMENT_PATH" in os.environ:
            os.write(sys.stderr.fileno(), f"\n{line}\n".encode())  # past the cell's own stderr
        return [line]


class InputError(OneLine):
    """Something that the user gave is wrong: one line that names it, and the way out.

    The command line prints it and exits with code 2.
    """

    def __init__(self, thing: str, found: object, expected: str, way_out: str) -> None:
        self.thing, self.found, self.expected, self.way_out = thing, found, expected, way_out
        super().__init__(f"{thing}: found {found}, expected {expected}; {way_out}")


class Missing(InputError):
    """Stored runs are asked for that are not there: a report may go on, with a gap."""


def first_line(error: BaseException) -> str:
    """What a library says of its error; the rest is for those who read its code."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
