"""Words, numbers and pieces of Markdown that the whole report is written with.

A record is what `store.load` gives. Accuracies are shares of 1 in a record and percent in a table.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from t5peft.base.settings import read_yaml
from t5peft.base.studies import Study
from t5peft.methods.table import LETTER, SETTINGS, Facts
from t5peft.runs.records import Planned, Record

if TYPE_CHECKING:
    from torch import Tensor

DASH, MINUS, TIMES = "\N{EN DASH}", "\N{MINUS SIGN}", "\N{MULTIPLICATION SIGN}"
ALPHA = "\N{GREEK SMALL LETTER ALPHA}"

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

METHOD_NAMES = {
    "full": "full fine-tuning",
    "soft-prompt": "soft prompt",
    "adapter": "adapter",
    "lora": "LoRA",
    "ia3": "IA³",
}
IMPLEMENTATION_NAMES = {
    "scratch": "ours",
    "opendelta": "OpenDelta",
    "adapterhub": "AdapterHub",
    "peft": "PEFT",
}
LETTERS = {**LETTER, "alpha": ALPHA}
SIZES = {m: LETTER[key] for m, keys in SETTINGS.items() for key in keys if key in LETTER}
"""The letter of a method's size: n, b or r."""

UNITS = ((1e9, 1e9, "GB"), (1e5, 1e6, "MB"), (1e3, 1e3, "kB"))
"""Of bytes: from how many on, how many make one, its name."""

ADAMW_BYTES = 8
"""State of AdamW for one trained parameter: two moments of 4 bytes each (float32)."""


@cache
def published() -> dict[str, dict[int, list[float]]]:
    """Two published runs of the exercise: test accuracy by its number, and by epoch."""
    return read_yaml(Path(__file__).with_name("published.yaml"))


def reference(number: int, which: str = "first") -> float:
    """What a published run reached with one of the exercise's ten, percent."""
    return round(100 * max(published()[which][number]), 1)


# --- words and numbers ---------------------------------------------------------------------------


def setting_name(settings: Mapping[str, Any]) -> str:
    """`r = 8, (alpha) = 4`, and LoRA's targets where they are not the usual: `at q, k and v`."""
    letters = [f"{LETTERS[key]} = {x:g}" for key, x in settings.items() if key in LETTERS]
    targets = [f"at {listed(settings['targets'])}"] if "targets" in settings else []
    return ", ".join(letters + targets)


def size_of(run: Facts) -> int:
    """n, b or r of a run; 0 where it has none."""
    return next((x for key, x in run["settings"].items() if key in LETTER), 0)


def run_name(run: Facts) -> str:
    """`LoRA, PEFT, r = 8, (alpha) = 4`."""
    if run["method"] == "full":
        return METHOD_NAMES["full"]
    implementation = IMPLEMENTATION_NAMES[run["implementation"]]
    parts = (METHOD_NAMES[run["method"]], implementation, setting_name(run["settings"]))
    return ", ".join(filter(None, parts))


def implementation(record: Planned) -> str:
    """`ours`, or the library's name; full fine-tuning has neither."""
    run = record["run"]
    return DASH if run["method"] == "full" else IMPLEMENTATION_NAMES[run["implementation"]]


def percent(share: float, digits: int = 1) -> str:
    """0.8765 -> `87.7`; the unit stands in the head of the table."""
    return f"{100 * share:.{digits}f}"


def share(part: float) -> str:
    """0.00469 -> `0.47%`: to two digits, where it is below a hundredth."""
    return f"{100 * part:.{1 if part >= 0.01 else 2 if part >= 0.001 else 3}f}%"


def signed(value: float, digits: int = 1) -> str:
    """1.23 -> `+1.2`, and a minus sign, which is no hyphen, before what is below 0."""
    return f"{value:+.{digits}f}".replace("-", MINUS)


def points(difference: float) -> str:
    """Percentage points with their sign: `+1.2`, `0.0`."""
    return signed(difference) if abs(difference) >= 0.05 else "0.0"


def probability(p: float) -> str:
    """0.0123 -> `0.012`; below a thousandth, `< 0.001`."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def number(count: float) -> str:
    """25000 -> `25,000`, 4.0 -> `4`."""
    return f"{count:,}" if isinstance(count, int) else f"{count:,g}"


def size(count: float) -> str:
    """Bytes, to three digits: `6.74 GB`, `484 MB`, `20.5 kB`, `80 bytes`; kB of 10^3, and so on."""
    if count < 1e3:
        return f"{count:.0f} bytes"
    _, unit, name = next(each for each in UNITS if count >= each[0])
    return f"{three_digits(count / unit)} {name}"


def three_digits(figure: float) -> str:
    """11551.25 -> `11,600`, 1.652 -> `1.65`: no more than a measurement tells."""
    rounded = float(f"{figure:.3g}")
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(rounded)))}f}" if rounded else "0"


def rate(learning_rate: float) -> str:
    """0.0003 -> `3 x 10^-4` with the signs for it, 0.1 -> `0.1`."""
    if learning_rate >= 0.1:
        return f"{learning_rate:g}"
    figure, power = f"{learning_rate:.3e}".split("e")
    figure = figure.rstrip("0").rstrip(".")
    raised = f"10{str(int(power)).translate(RAISED)}"
    return raised if figure == "1" else f"{figure} {TIMES} {raised}"


def duration(seconds: float) -> str:
    """`43 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def one_epoch(records: Iterable[Record]) -> bool:
    """Has no run more than one epoch? Then the best is the last."""
    return all(len(record["history"]) == 1 for record in records)


def best_is_last(records: Iterable[Record]) -> bool:
    """Is the last epoch of each run its best?"""
    return all(record["best_epoch"] == len(record["history"]) for record in records)


def mark(record: Mapping[str, Any]) -> str:
    """What stands behind the name of a stale run."""
    return " **(stale)**" if record.get("stale") else ""


def table(rows: Iterable[Mapping[str, object]], left: int = 1) -> str:
    """A pipe table of rows by the names of their columns, the first `left` of which are text.

    The dashes of the second line are the columns' widths for pandoc: as wide as the longest cell,
    or the longest word of a head, which is bold, and may be broken.
    """
    body = [{name: str(cell) for name, cell in row.items()} for row in rows]
    align = ["left" if place < left else "right" for place in range(len(body[0]))]
    table = tabulate(body, "keys", tablefmt="pipe", colalign=align, disable_numparse=True)
    head, _, *lines = table.split("\n")
    marks = []
    for name, side in zip(body[0], align, strict=True):
        bold = [round(1.15 * visible(word)) for word in re.split("[ -]", name)]
        dashes = "-" * (2 + max(*bold, *(visible(row[name]) for row in body)))
        marks.append(f":{dashes}" if side == "left" else f"{dashes}:")
    return "\n".join([head, f"|{'|'.join(marks)}|", *lines])


def absent(command: str) -> str:
    """What stands in the place of a table that nothing was measured for."""
    return table([{"not measured here; this does": f"`{command}`"}])


def visible(markdown: str) -> int:
    """About how many characters of a cell are seen, without the marks of math and emphasis.

    Code is set in a wider type.
    """
    if markdown.startswith("`"):
        return round(1.3 * len(markdown))
    markdown = markdown.replace(r" \, ", " ")  # between factors
    return len(re.sub(r"\\\w+|[\\${}_*` ]", "", markdown)) + markdown.count(" ")


def tensors(**named: Tensor) -> None:
    """Print tensors by name: shape and entries, row by row."""
    for name, tensor in named.items():
        rows = tensor.detach().reshape(-1, tensor.shape[-1]).tolist()
        entries = "; ".join(" ".join(f"{x:.5g}" for x in row) for row in rows)
        print(f"{name:7} {' x '.join(map(str, tensor.shape)):10} {entries}")


def only(records: Iterable[Record], **wanted: object) -> list[Record]:
    """The records whose run has these values, e.g. `method="lora", implementation="scratch"`."""
    return [r for r in records if all(r["run"][key] == value for key, value in wanted.items())]


def backbone_name(study: Study) -> str:
    """`t5-small` of the hub, `mini` of weights/backbone/mini, `random:tiny`."""
    return study.backbone.rstrip("/").rpartition("/")[2]


def callout(kind: str, title: str, text: str) -> list[str]:
    """The lines of a Quarto callout."""
    return [f'::: {{.callout-{kind} title="{title}"}}', text, ":::", ""]


def source(module: str, *names: str) -> str:
    """The source of what ran, a code block each: a page may end between two, not within one."""
    things = (getattr(import_module(f"t5peft.{module}"), name) for name in names)
    return "\n\n".join(f"```python\n{inspect.getsource(thing).rstrip()}\n```" for thing in things)


def span(values: Sequence[float], told: Callable[[float], str]) -> str:
    """`0.1% to 0.9%`, the least and the most as they are told; one where they are told alike."""
    return " to ".join(dict.fromkeys(told(end(values)) for end in (min, max)))


MARKUP = re.compile(r"([\\`*_\[\]<>#|$^~@])")


def plain(text: str) -> str:
    """A text for Markdown that stays as it is: its markup is escaped."""
    return MARKUP.sub(r"\\\1", text)


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *some, last = names
    return f"{', '.join(some)} and {last}" if some else last


def adamw_default(name: str) -> Any:
    """PyTorch's own, as the installed version has it."""
    from torch.optim import AdamW

    return inspect.signature(AdamW).parameters[name].default
