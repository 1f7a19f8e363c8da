"""A report whose runs are not all stored: a cell that asks for a missing one says so instead."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Any, NoReturn

from t5peft.base.errors import Missing
from t5peft.runs.records import Planned, Record

CELL = """
from t5peft.report import gaps as _gaps
try:
    pass
except _gaps.Missing as _gap:
    _gaps.display(_gap)
    globals().update(dict.fromkeys({names!r}, _gaps.Gap(_gap)))
"""


def mark() -> None:
    """From the next cell on, this kernel's cells go on where `Missing` is raised."""
    from IPython.core.getipython import get_ipython

    shell = get_ipython()
    if shell and not any(isinstance(each, Gaps) for each in shell.ast_transformers):
        shell.ast_transformers.append(Gaps())


class Gaps(ast.NodeTransformer):
    """Puts a cell into `CELL`; what its last line shows is shown from within."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        """The cell's syntax tree."""
        names = (x for x in ast.walk(node) if isinstance(x, ast.Name))
        named = [name.id for name in names if isinstance(name.ctx, ast.Store)]
        around: Any = ast.parse(CELL.format(names=named))
        *before, last = node.body or [ast.Pass()]
        if isinstance(last, ast.Expr):
            shown: Any = ast.parse("_gaps.display()").body[0]
            shown.value.args, last = [last.value], shown
        around.body[1].body = [*before, last]
        return ast.fix_missing_locations(around)


class Gap:
    """What a cell was to name and could not: whatever is asked of it is as missing."""

    def __init__(self, missing: Missing) -> None:
        self.missing = missing

    def refuse(self, *_: object) -> NoReturn:
        """Raise `Missing`."""
        raise self.missing

    __getattr__ = __getitem__ = __iter__ = __len__ = __bool__ = __call__ = refuse


class Incomplete(Gap):
    """Some records where others are missing: what needs all of them is refused.

    stored: those that are there; lacking: {"run": ...} of the others.
    """

    def __init__(self, missing: Missing, stored: list[Record], lacking: list[Planned]) -> None:
        super().__init__(missing)
        self.stored, self.lacking = stored, lacking

    def __bool__(self) -> bool:
        return True


def split(records: Sequence[Record]) -> tuple[Sequence[Record], Sequence[Planned]]:
    """Those that are there, and those that are missing."""
    whole = not isinstance(records, Incomplete)
    return (records, ()) if whole else (records.stored, records.lacking)


def display(value: Any) -> None:
    """What a cell shows at its end, or the gap that is there instead."""
    from IPython.display import Markdown
    from IPython.display import display as show

    if isinstance(value, Missing):
        told = str(value.found).partition(":")[0]  # the runs' names stand in the tables of them
        value = Markdown(f"::: {{.gap}}\n**A gap:** {told}.\n:::")
    if value is not None:
        show(value)
