"""Tables of the report: from records and counts to Markdown, nothing typed by hand.

A record is what `runs.load` gives; `report.results` adds `stale`, the reason why it is shown with a
mark ("" for a fresh one). Accuracies are shares of 1 in a record and percent in a table.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from t5peft import counting, methods
from t5peft.counting import Derivation
from t5peft.params import Params
from t5peft.sizes import SIZES

if TYPE_CHECKING:
    from t5peft.counting import Model
    from t5peft.report import Checked

Record = Mapping[str, Any]

DASH, TIMES, ALPHA = "\N{EN DASH}", "\N{MULTIPLICATION SIGN}", "\N{GREEK SMALL LETTER ALPHA}"

METHOD_NAMES = {
    "full": "full fine-tuning",
    "soft-prompt": "soft prompt",
    "adapter": "adapter",
    "lora": "LoRA",
}
IMPLEMENTATION_NAMES = {
    "scratch": "ours",
    "opendelta": "OpenDelta",
    "adapterhub": "AdapterHub",
    "peft": "PEFT",
}
LETTERS = {**methods.LETTER, "alpha": ALPHA}

MEGABYTE = 1e6
ADAMW_BYTES = 8
"""State of AdamW for one trained parameter: two moments of 4 bytes each (float32)."""


@dataclass(frozen=True)
class Reference:
    """A published run of the same exercise, by somebody else, on Google's t5-small."""

    citation: str  # key in references.bib
    accuracy: tuple[float, ...]  # percent, best of 10 epochs on the test reviews, runs 1 to 10


REFERENCE = Reference(
    "jrazi2023",
    (89.9, 86.6, 84.7, 86.9, 90.9, 90.4, 89.3, 89.2, 88.8, 88.7),
)

# --- words and numbers ---------------------------------------------------------------------------


def setting_name(run: Record) -> str:
    """`r = 8, (alpha) = 4`."""
    return ", ".join(f"{LETTERS[key]} = {value:g}" for key, value in run["settings"].items())


def run_name(run: Record) -> str:
    """`LoRA, PEFT, r = 8, (alpha) = 4`."""
    if run["method"] == "full":
        return METHOD_NAMES["full"]
    implementation = IMPLEMENTATION_NAMES[run["implementation"]]
    return f"{METHOD_NAMES[run['method']]}, {implementation}, {setting_name(run)}"


def implementation(record: Record) -> str:
    """`ours`, or the library's name; full fine-tuning has neither."""
    run = record["run"]
    return DASH if run["method"] == "full" else IMPLEMENTATION_NAMES[run["implementation"]]


def percent(share: float, digits: int = 1) -> str:
    """0.8765 -> `87.7`; the unit stands in the head of the table."""
    return f"{100 * share:.{digits}f}"


def number(count: float) -> str:
    """25000 -> `25,000`, 4.0 -> `4`."""
    return f"{count:,}" if isinstance(count, int) else f"{count:,g}"


def megabytes(count: float) -> str:
    """Bytes as MB (10^6 bytes), to the kB."""
    return f"{count / MEGABYTE:,.3f}"


def kilobytes(count: float) -> str:
    """Bytes as kB (10^3 bytes), with one decimal."""
    return f"{count / 1e3:,.1f}"


def rate(learning_rate: float) -> str:
    """0.0001 -> `1e-4`, 0.1 -> `0.1`."""
    if learning_rate >= 0.1:
        return f"{learning_rate:g}"
    return re.sub(r"\.?0*e-0?", "e-", f"{learning_rate:.3e}")


def duration(seconds: float) -> str:
    """`43 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


Z = 1.959964
"""The normal quantile of a 95% interval."""


def wilson(share: float, trials: int) -> tuple[float, float]:
    """The 95% interval of a binomial share (Wilson, 1927); stays inside 0 to 1.

    Raises ValueError where there was no trial.
    """
    if trials <= 0:
        raise ValueError(f"{trials} trials have no share")
    centre = share + Z * Z / (2 * trials)
    spread = Z * math.sqrt(share * (1 - share) / trials + Z * Z / (4 * trials * trials))
    scale = 1 + Z * Z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)  # but rounding


def interval(record: Record) -> str:
    """The interval of a run's best accuracy, in percent."""
    low, high = wilson(record["best_accuracy"], record["test_examples"])
    return f"{percent(low)}{DASH}{percent(high)}"


def epoch(record: Record, number: int) -> Record:
    """What the history holds of epoch `number` (from 1)."""
    return record["history"][number - 1]


def gap(record: Record, number: int) -> float:
    """Train minus test accuracy after epoch `number`."""
    return epoch(record, number)["train_accuracy"] - epoch(record, number)["test_accuracy"]


def one_epoch(records: Iterable[Record]) -> bool:
    """Has no run more than one epoch? Then the best is the last."""
    return all(len(record["history"]) == 1 for record in records)


def twice(records: Iterable[Record]) -> str:
    """How the heads of columns begin that would say the same again: of the last epoch."""
    return "last" if one_epoch(records) else ""


def mark(record: Record) -> str:
    """What stands behind the name of a stale run."""
    return " **(stale)**" if record.get("stale") else ""


def table(
    rows: Iterable[Sequence[object]], head: Sequence[str], left: int = 1, without: str = ""
) -> str:
    """A pipe table; the first `left` columns are text, the others numbers, to the right.

    Columns whose head begins with `without` are left out. The dashes of the second line are the
    columns' widths for pandoc: as wide as the longest cell, or the longest word of a head, which
    may be broken.
    """
    kept = [
        column for column, name in enumerate(head) if not (without and name.startswith(without))
    ]
    rows = [[str(row[column]) for column in kept] for row in rows]
    head = [head[column] for column in kept]
    align = ["left"] * left + ["right"] * (len(head) - left)
    lines = tabulate(rows, head, tablefmt="pipe", colalign=align, disable_numparse=True).split("\n")
    widths = [
        max(*map(visible, re.split("[ -]", name)), *(visible(row[column]) for row in rows))
        for column, name in enumerate(head)
    ]
    dashes = ["-" * (width + 2) for width in widths]
    marks = [f":{x}" if side == "left" else f"{x}:" for x, side in zip(dashes, align, strict=True)]
    return "\n".join([lines[0], f"|{'|'.join(marks)}|", *lines[2:]])


def visible(markdown: str) -> int:
    """About how many characters of a cell are seen, without the marks of math and emphasis.

    Code is set in a wider type.
    """
    if markdown.startswith("`"):
        return round(1.3 * len(markdown))
    return len(re.sub(r"\\\w+|[\\${}_*` ]", "", markdown)) + markdown.count(" ")


def only(records: Iterable[Record], **wanted: object) -> list[Record]:
    """The records whose run has these values, e.g. `method="lora", implementation="scratch"`."""
    return [r for r in records if all(r["run"][key] == value for key, value in wanted.items())]


def study_name(params: Params) -> str:
    """What every caption of results says: the study and its backbone."""
    return f"study “{params.study}”, backbone {backbone_name(params)}"


def backbone_name(params: Params) -> str:
    """`t5-small` of the hub, `mini` of weights/backbone/mini, `random:tiny`."""
    return params.backbone.rstrip("/").rpartition("/")[2]


def callout(kind: str, title: str, text: str) -> list[str]:
    """The lines of a Quarto callout."""
    return [f'::: {{.callout-{kind} title="{title}"}}', text, ":::", ""]


def source(*things: Callable[..., Any] | type) -> str:
    """The source of what ran, as a code block."""
    code = "\n\n\n".join(inspect.getsource(thing).rstrip() for thing in things)
    return f"```python\n{code}\n```"


def floating(label: str, body: str, caption: str) -> str:
    """A table or figure with its label and caption, as Quarto's cross-reference div."""
    return f"::: {{#{label}}}\n\n{body}\n\n{caption}\n\n:::"


def listed(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *some, last = names
    return f"{', '.join(some)} and {last}" if some else last


def bullets(items: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {item}" for item in items)


def adamw_default(name: str) -> Any:
    """PyTorch's own, as the installed version has it."""
    from torch.optim import AdamW

    return inspect.signature(AdamW).parameters[name].default


def adamw_defaults() -> str:
    """Betas, epsilon and weight decay in words."""
    first, second = adamw_default("betas")
    return (  # plain spaces: Quarto shows an inline text by its repr
        f"β₁ = {first:g}, β₂ = {second:g}, ε = {rate(adamw_default('eps'))} and "
        f"λ = {adamw_default('weight_decay'):g}"
    )


# --- tables of results ---------------------------------------------------------------------------


def results_table(records: Sequence[Record]) -> str:
    """The runs of one method."""
    rows = [
        (
            implementation(record) + mark(record),
            setting_name(record["run"]) or DASH,
            rate(record["run"]["learning_rate"]),
            f"{record['parameters']['trained']:,}",
            f"{record['parameters']['total']:,}",
            f"**{percent(record['best_accuracy'])}**",
            interval(record),
            percent(record["last_accuracy"]),
        )
        for record in records
    ]
    head = ("implementation", "setting", "learning rate", "trained parameters", "all parameters",
            "best epoch (%)", "95% interval (%)", "last epoch (%)")  # fmt: skip
    return table(rows, head, left=2, without=twice(records))


def ten_results_table(records: Sequence[Record]) -> str:
    """The exercise's ten numbers in its order, the published reference run beside them."""
    rows = [
        (
            record["run"]["number"],
            METHOD_NAMES[record["run"]["method"]] + mark(record),
            implementation(record),
            setting_name(record["run"]) or DASH,
            f"**{percent(record['best_accuracy'])}**",
            interval(record),
            percent(record["last_accuracy"]),
            f"{REFERENCE.accuracy[record['run']['number'] - 1]:.1f}",
        )
        for record in records
    ]
    head = ("run", "method", "implementation", "setting", "best epoch (%)", "95% interval (%)",
            "last epoch (%)", "published reference (%)")  # fmt: skip
    return table(rows, head, left=4, without=twice(records))


def glance_table(records: Iterable[Record], seeds: Iterable[Sequence[Record]]) -> str:
    """The first page's: the four from-scratch methods in one line each.

    seeds: of runs that are stored with several seeds, all their records, the study's own first.
    """
    others = {
        own["run"]["name"]: [percent(x["best_accuracy"]) for x in rest] for own, *rest in seeds
    }
    rows = [
        (
            METHOD_NAMES[record["run"]["method"]] + mark(record),
            f"{record['parameters']['trained']:,}",
            percent(record["parameters"]["trained"] / record["parameters"]["total"], 3),
            kilobytes(record["stored_bytes"]),
            f"**{percent(record['best_accuracy'])}**",
            interval(record),
            ", ".join(others.get(record["run"]["name"], [])) or DASH,
        )
        for record in only(records, implementation="scratch")
    ]
    head = ("method", "trained parameters", "share trained (%)", "to store (kB)",
            "test accuracy (%)", "95% interval (%)", "other seeds (%)")  # fmt: skip
    return table(rows, head)


def memory_table(records: Sequence[Record]) -> str:
    """Claim 1: the optimizer's state, derived and measured, and the peak of the training."""
    full = only(records, method="full")[0]
    rows = [
        (
            run_name(record["run"]) + mark(record),
            f"{record['parameters']['trained']:,}",
            megabytes(ADAMW_BYTES * record["parameters"]["trained"]),
            megabytes(record["memory"]["optimizer_bytes"]),
            f"{record['memory']['peak_bytes'] / MEGABYTE:,.0f}",
            percent(record["memory"]["peak_bytes"] / full["memory"]["peak_bytes"], 0),
        )
        for record in records
    ]
    head = ("run", "trained parameters", "8 bytes each (MB)", "AdamW state, measured (MB)",
            "peak of training (MB)", "peak, of full (%)")  # fmt: skip
    return table(rows, head)


def storage_table(records: Sequence[Record]) -> str:
    """Claim 2: the bytes that one more task costs on a disk."""
    full = only(records, method="full")[0]["stored_bytes"]
    rows = [
        (
            run_name(record["run"]) + mark(record),
            f"{record['parameters']['trained']:,}",
            kilobytes(record["stored_bytes"]),
            percent(record["stored_bytes"] / full, 3),
            f"{full / record['stored_bytes']:,.0f}",
        )
        for record in records
    ]
    head = (
        "run",
        "trained parameters",
        "to store (kB)",
        "of full (%)",
        "tasks in the space of one",
    )
    return table(rows, head)


def gap_table(records: Sequence[Record]) -> str:
    """Claim 3: train minus test accuracy, in percentage points."""
    rows = []
    for record in records:
        best, last = epoch(record, record["best_epoch"]), record["history"][-1]
        rows.append(
            (
                run_name(record["run"]) + mark(record),
                record["best_epoch"],
                percent(best["train_accuracy"]),
                percent(best["test_accuracy"]),
                f"{100 * gap(record, record['best_epoch']):+.1f}",
                percent(last["train_accuracy"]),
                percent(last["test_accuracy"]),
                f"{100 * gap(record, len(record['history'])):+.1f}",
            )
        )
    head = ("run", "best epoch", "best: train (%)", "best: test (%)", "best: gap (points)",
            "last: train (%)", "last: test (%)", "last: gap (points)")  # fmt: skip
    return table(rows, head, without=twice(records))


def retention_table(records: Iterable[Record], kept: Mapping[str, Record]) -> str:
    """Claim 3 by `t5peft retention`: training reviews known, and the span loss afterwards."""
    rows = []
    for record in records:
        measured = kept[record["run"]["name"]]
        rise = measured["span_loss"] - measured["span_loss_before"]
        points = 100 * (measured["train_accuracy"] - record["best_accuracy"])
        rows.append(
            (
                run_name(record["run"]) + mark(record),
                percent(measured["train_accuracy"]),
                percent(record["best_accuracy"]),
                f"{points:+.1f}",
                f"{measured['span_loss']:.3f}",
                f"{rise:+.3f}",
            )
        )
    head = ("run", "training reviews (%)", "test reviews (%)", "gap (points)",
            "span loss (nats)", "its rise (nats)")  # fmt: skip
    return table(rows, head)


# --- models and their parameters -----------------------------------------------------------------


def notation_table(params: Params, models: Mapping[str, Model]) -> str:
    """The letters of the study's hyper-parameters, and of dimensions with each model's values."""
    settings: dict[str, list[float]] = {}
    for run in methods.runs(params):
        for name, setting in run.settings.items():
            settings.setdefault(name, []).append(setting)
    chosen = {
        symbol: " and ".join(dict.fromkeys(number(x) for x in sorted(settings[name])))
        for name, symbol in counting.SETTINGS.values()
    }
    alpha = " and ".join(dict.fromkeys(map(number, settings["alpha"])))
    known = [
        {symbol: f"{x:,}" for symbol, x in counting.dimensions(model).items()} | chosen
        for model in models.values()
    ]
    rows = [
        (f"${counting.latex(symbol)}$", meaning, *(values[symbol] for values in known))
        for symbol, meaning in counting.MEANING.items()
    ]
    place = list(counting.MEANING).index(counting.r) + 1
    rows.insert(place, (r"$\alpha$", "scale of a LoRA update", *(alpha for _ in known)))
    return table(rows, ("symbol", "meaning", *(f"in {name}" for name in models)), left=2)


def parts_table(models: Mapping[str, Model]) -> str:
    """Where the parameters of each model sit, by formula and number."""
    known = {name: counting.parts(model) for name, model in models.items()}
    rows = [
        (part, f"${counting.latex(formula)}$", *(f"{parts[part]:,}" for parts in known.values()))
        for part, formula in counting.PARTS.items()
    ]
    totals = (f"**{sum(parts.values()):,}**" for parts in known.values())
    rows.append(("**all**", "", *totals))
    return table(rows, ("part", "formula", *known), left=2)


def derivations(derived: Mapping[str, Derivation]) -> str:
    """The derivation of an added number of parameters, for each model by name."""
    first, *others = derived.items()
    text = f"For {first[0]}, step by step:\n\n{derivation(first[1])}"
    for name, other in others:
        chain = " = ".join(step.latex for step in other.steps[-2:])
        text += f"\n\nIn the study's backbone {name} the same formula, with {symbols(other)}, gives"
        text += f"\n\n$$\n{chain} .\n$$"
    return text


def derivation(derived: Derivation) -> str:
    """Sites, share, sum, substitution: a step a line."""
    where, share, added, numbers, result = derived.steps
    lines = [
        f"**Sites:** {derived.rule}. Their number is ${where.latex}$.",
        f"**Share of one site:** {terms(derived)}${share.latex}$.",
        f"**Sum over the sites:** ${added.latex}$.",
        f"**Substitution,** with {symbols(derived)}: ${numbers.latex}$.",
        f"**Result:** ${result.latex}$ parameters.",
    ]
    return "\n".join(f"{place}. {line}" for place, line in enumerate(lines, 1))


def terms(derived: Derivation) -> str:
    """The tensors of a site with their numbers of parameters, before their sum."""
    each = [
        re.sub(r"_(\w+)", r"_{\\text{\1}}", f"${name}$") + f" has ${counting.latex(term)}$"
        for name, term in derived.terms.items()
    ]
    return f"{', '.join(each)}; together " if len(each) > 1 else f"${derived.tensors[0]}$ has "


def symbols(derived: Derivation) -> str:
    """The values of a derivation's symbols: `$n = 10$, $d = 512$`."""
    values = derived.values.items()
    return ", ".join(f"${counting.latex(symbol)} = {counting.latex(x)}$" for symbol, x in values)


def formula_table() -> str:
    """Sites, share and sum of each method, as formulas."""
    rows = [
        (METHOD_NAMES[name], f"${counting.latex(f.sites)}$", f"${counting.latex(f.share)}$",
         f"${counting.latex(f.added)}$")
        for name, f in counting.FORMULAS.items()
    ]  # fmt: skip
    return table(rows, ("method", "sites", "share of a site", "added"), left=4)


def counts_table(checked: Iterable[Checked]) -> str:
    """Derived and counted numbers side by side; `equal` says whether both pairs agree."""
    rows = [
        (
            item.model,
            IMPLEMENTATION_NAMES[item.run.implementation],
            setting_name(vars(item.run)) or DASH,
            f"{item.count.derived_added:,}",
            f"{item.count.counted_added:,}",
            f"{item.count.derived_total:,}",
            f"{item.count.counted_total:,}",
            "yes" if item.count.equal else "**NO**",
        )
        for item in checked
    ]
    head = ("model", "implementation", "setting", "added, derived", "added, counted",
            "all, derived", "all, counted", "equal")  # fmt: skip
    return table(rows, head, left=3)


def number_of_parameters_table(checked: Iterable[Checked], model: str) -> str:
    """The exercise's last table: the four from-scratch methods in one model."""
    rows = [
        (
            METHOD_NAMES[item.run.method],
            setting_name(vars(item.run)) or DASH,
            f"{item.count.derived_added:,}",
            f"{item.count.derived_total:,}",
            f"**{item.count.counted_total:,}**",
            "yes" if item.count.equal else "**NO**",
        )
        for item in checked
        if item.run.implementation == "scratch" and item.model == model
    ]
    head = ("method", "setting", "added, derived", "all, derived", "Number of parameters (counted)",
            "equal")  # fmt: skip
    return table(rows, head, left=2)


def other_backbone(checked: Sequence[Checked], params: Params) -> str:
    """The same table for the study's backbone, where it has other dimensions than t5-small."""
    others = {item.model for item in checked} - {"t5-small"}
    if not others:
        return "The study's backbone has the dimensions of T5-small, so these are its numbers too."
    caption = (
        f"The same in the backbone {backbone_name(params)}, on which the study's runs were made."
    )
    body = number_of_parameters_table(checked, others.pop())
    text = "The study's own backbone has other dimensions and obeys the same formulas:"
    return f"{text}\n\n{floating('tbl-other-backbone', body, caption)}"


def family_table(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """What each method would add to the published T5 sizes, derived, and its share in percent."""
    rows = []
    for size in (name for name in SIZES if name.startswith("t5-")):
        bare = sum(counting.parts(size).values())
        added = [counting.derive(method, size, settings[method]).derived for method in settings]
        cells = (f"{count:,} ({percent(count / (bare + count), 4)})" for count in added)
        rows.append((size, f"{bare:,}", *cells))
    heads = (f"{METHOD_NAMES[m]}, {setting_name({'settings': x})} (%)" for m, x in settings.items())
    return table(rows, ("size", "parameters", *heads))
