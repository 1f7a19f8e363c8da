"""Tables and sentences of the report: from records to Markdown, nothing typed by hand.

A record is what `runs.load` gives; `report.results` adds `stale`, the reason why it is shown with a
mark ("" for a fresh one). Accuracies are shares of 1 in a record and percent in a table.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
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
LETTERS = {**methods.LETTER, "alpha": "α"}

MEGABYTE = 1e6
ADAMW_BYTES = 8
"""State of AdamW for one trained parameter: two moments of 4 bytes each (float32)."""


@dataclass(frozen=True)
class Reference:
    """A published run of the same exercise, by somebody else, on Google's t5-small."""

    repository: str
    citation: str  # key in references.bib
    accuracy: tuple[float, ...]  # percent, best of 10 epochs on the test reviews, runs 1 to 10


REFERENCE = Reference(
    "jrazi/llm-assignments-fall-2023",
    "jrazi2023",
    (89.9, 86.6, 84.7, 86.9, 90.9, 90.4, 89.3, 89.2, 88.8, 88.7),
)

# --- words and numbers ---------------------------------------------------------------------------


def setting_name(run: Record) -> str:
    """`r = 8, α = 4`."""
    return ", ".join(f"{LETTERS[key]} = {value:g}" for key, value in run["settings"].items())


def run_name(run: Record) -> str:
    """`LoRA, PEFT, r = 8, α = 4`."""
    if run["method"] == "full":
        return METHOD_NAMES["full"]
    implementation = IMPLEMENTATION_NAMES[run["implementation"]]
    return f"{METHOD_NAMES[run['method']]}, {implementation}, {setting_name(run)}"


def percent(share: float, digits: int = 1) -> str:
    """0.8765 -> `87.7`; the unit stands in the head of the table."""
    return f"{100 * share:.{digits}f}"


def megabytes(count: float) -> str:
    """Bytes as MB (10^6 bytes), to the kB."""
    return f"{count / MEGABYTE:,.3f}"


def rate(learning_rate: float) -> str:
    """0.0001 -> `1e-4`, 0.1 -> `0.1`."""
    if learning_rate >= 0.01:
        return f"{learning_rate:g}"
    return re.sub(r"\.?0*e-0?", "e-", f"{learning_rate:.3e}")


def duration(seconds: float) -> str:
    """`43 s`, `12 min`, `3.4 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def wilson(share: float, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """The 95% interval of a binomial share (Wilson, 1927); stays inside 0 to 1.

    Raises ValueError where there was no trial.
    """
    if trials <= 0:
        raise ValueError(f"{trials} trials have no share")
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return (centre - spread) / scale, (centre + spread) / scale


def interval(record: Record) -> str:
    """The interval of a run's best accuracy, in percent."""
    low, high = wilson(record["best_accuracy"], record["test_examples"])
    return f"{percent(low)}–{percent(high)}"


def epoch(record: Record, number: int) -> Record:
    """What the history holds of epoch `number` (from 1)."""
    return record["history"][number - 1]


def gap(record: Record, number: int) -> float:
    """Train minus test accuracy after epoch `number`."""
    return epoch(record, number)["train_accuracy"] - epoch(record, number)["test_accuracy"]


def mark(record: Record) -> str:
    """What stands behind the name of a stale run."""
    return " **(stale)**" if record.get("stale") else ""


def table(rows: Iterable[Sequence[object]], head: Sequence[str], left: int = 1) -> str:
    """A pipe table; the first `left` columns are text, the others numbers, to the right."""
    align = ["left"] * left + ["right"] * (len(head) - left)
    return tabulate(list(rows), head, tablefmt="pipe", colalign=align, disable_numparse=True)


def only(records: Iterable[Record], **wanted: object) -> list[Record]:
    """The records whose run has these values, e.g. `method="lora", implementation="scratch"`."""
    return [r for r in records if all(r["run"][key] == value for key, value in wanted.items())]


# --- the study -----------------------------------------------------------------------------------


def study_name(params: Params) -> str:
    """What every caption of results says: the study and its backbone."""
    return f"study “{params.study}”, backbone {backbone_name(params)}"


def backbone_name(params: Params) -> str:
    """`t5-small` of the hub, `mini` of weights/backbone/mini, `random:tiny`."""
    return params.backbone.rstrip("/").rpartition("/")[2]


def banner(params: Params, records: Sequence[Record]) -> str:
    """The first page's heading: whose numbers these are, in large type, and how far to trust them."""
    lines = [f"# Results of the {study_name(params)} {{.unnumbered .unlisted}}", ""]
    if params.study == "smoke":
        lines += callout(
            "warning",
            "These numbers mean nothing",
            "The smoke study runs a random, tiny T5 on a few made-up reviews, in seconds. It shows "
            "that everything works; its accuracies say nothing about any method.",
        )
    return "\n".join([*lines, stale_note(records)])


def stale_note(records: Sequence[Record]) -> str:
    """A warning that lists the stale runs and why they are; "" where all are fresh."""
    stale = [record for record in records if record.get("stale")]
    if not stale:
        return ""
    items = "\n".join(f"- {run_name(record['run'])}: {record['stale']}" for record in stale)
    text = f"These runs were made by another version of the code and are marked *stale*:\n\n{items}"
    return "\n".join(callout("warning", "Stale runs", text))


def callout(kind: str, title: str, text: str) -> list[str]:
    """The lines of a Quarto callout."""
    return [f'::: {{.callout-{kind} title="{title}"}}', text, ":::", ""]


def source(thing: Callable[..., Any] | type) -> str:
    """The source of what ran, as a code block."""
    return f"```python\n{inspect.getsource(thing).rstrip()}\n```"


# --- tables of results ---------------------------------------------------------------------------


def results_table(records: Iterable[Record]) -> str:
    """The runs of one method."""
    rows = [
        (
            IMPLEMENTATION_NAMES[record["run"]["implementation"]] + mark(record),
            setting_name(record["run"]) or "–",
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
    return table(rows, head, left=2)


def ten_results_table(records: Iterable[Record]) -> str:
    """The exercise's ten numbers in its order, the published reference run beside them."""
    rows = [
        (
            record["run"]["number"],
            METHOD_NAMES[record["run"]["method"]] + mark(record),
            "–" if record["run"]["method"] == "full"
            else IMPLEMENTATION_NAMES[record["run"]["implementation"]],
            setting_name(record["run"]) or "–",
            f"**{percent(record['best_accuracy'])}**",
            interval(record),
            percent(record["last_accuracy"]),
            f"{REFERENCE.accuracy[record['run']['number'] - 1]:.1f}",
        )
        for record in records
    ]  # fmt: skip
    head = ("run", "method", "implementation", "setting", "best epoch (%)", "95% interval (%)",
            "last epoch (%)", "published reference (%)")  # fmt: skip
    return table(rows, head, left=4)


def glance_table(records: Iterable[Record]) -> str:
    """The first page's: the four from-scratch methods in one line each."""
    rows = [
        (
            METHOD_NAMES[record["run"]["method"]] + mark(record),
            f"{record['parameters']['trained']:,}",
            percent(record["parameters"]["trained"] / record["parameters"]["total"], 3),
            megabytes(record["stored_bytes"]),
            f"**{percent(record['best_accuracy'])}**",
            interval(record),
        )
        for record in only(records, implementation="scratch")
    ]
    head = ("method", "trained parameters", "share trained (%)", "to store (MB)",
            "test accuracy (%)", "95% interval (%)")  # fmt: skip
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
            megabytes(record["stored_bytes"]),
            percent(record["stored_bytes"] / full, 3),
            f"{full / record['stored_bytes']:,.0f}",
        )
        for record in records
    ]
    head = (
        "run",
        "trained parameters",
        "to store (MB)",
        "of full (%)",
        "tasks in the space of one",
    )
    return table(rows, head)


def gap_table(records: Iterable[Record]) -> str:
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
    head = ("run", "best epoch", "train (%)", "test (%)", "gap (points)", "last: train (%)",
            "test (%)", "gap (points)")  # fmt: skip
    return table(rows, head)


def speed_table(records: Iterable[Record]) -> str:
    """How long each run took."""
    rows = [
        (
            run_name(record["run"]) + mark(record),
            f"{record['speed']['train_examples_per_second']:,.0f}",
            f"{record['speed']['test_examples_per_second']:,.0f}",
            duration(record["speed"]["train_seconds"]),
            duration(record["speed"]["test_seconds"]),
            percent(max(item["other_words"] for item in record["history"][-1:]), 2),
        )
        for record in records
    ]
    head = ("run", "training (reviews/s)", "testing (reviews/s)", "time to train", "time to test",
            "neither label, last epoch (%)")  # fmt: skip
    return table(rows, head)


# --- models and their parameters ------------------------------------------------------------------


def notation_table() -> str:
    """The letters of dimensions and hyper-parameters, with the values that t5-small has."""
    known = counting.dimensions("t5-small")
    rows = [
        (f"${counting.latex(symbol)}$", meaning, f"{known[symbol]:,}" if symbol in known else "–")
        for symbol, meaning in counting.MEANING.items()
    ]
    return table(rows, ("symbol", "meaning", "in t5-small"), left=2)


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


def derivation(derived: Derivation) -> str:
    """The derivation of an added number of parameters, a step a line."""
    values = ", ".join(
        f"${counting.latex(s)} = {counting.latex(x)}$" for s, x in derived.values.items()
    )
    steps = [f"{step.title.capitalize()}: ${step.latex}$." for step in derived.steps]
    lines = [f"Where: {derived.rule}.", *steps[:3], f"Numbers: {values}.", *steps[3:]]
    return "\n".join(f"{number}. {line}" for number, line in enumerate(lines, 1))


def counts_table(checked: Iterable[Checked]) -> str:
    """Derived and counted numbers side by side; `equal` says whether both pairs agree."""
    rows = [
        (
            item.model,
            IMPLEMENTATION_NAMES[item.run.implementation],
            setting_name(vars(item.run)) or "–",
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
            setting_name(vars(item.run)) or "–",
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


def family_table(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """What each method would add to the published T5 sizes, derived, and its share in percent."""
    rows = []
    for size in (name for name in SIZES if name.startswith("t5-")):
        bare = sum(counting.parts(size).values())
        added = [counting.derive(method, size, settings[method]).derived for method in settings]
        cells = (f"{count:,} ({percent(count / bare, 4)})" for count in added)
        rows.append((size, f"{bare:,}", *cells))
    heads = (f"{METHOD_NAMES[m]}, {setting_name({'settings': x})} (%)" for m, x in settings.items())
    return table(rows, ("size", "parameters", *heads))


# --- sentences -------------------------------------------------------------------------------------


def findings(records: Sequence[Record]) -> str:
    """What the ten results say, as a list of computed sentences."""
    full = only(records, method="full")[0]
    items = [
        f"**{METHOD_NAMES[record['run']['method']]}** trains "
        f"{percent(record['parameters']['trained'] / full['parameters']['trained'], 3)}% as many "
        f"parameters as full fine-tuning and reaches {percent(record['best_accuracy'])}%: "
        f"{versus(record, full)} full fine-tuning’s {percent(full['best_accuracy'])}%."
        for record in only(records, implementation="scratch")
        if record["run"]["method"] != "full"
    ]
    return bullets([*items, *map(twin_sentence, twins(records)), selection_sentence(records)])


def twins(records: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Each from-scratch run with the library's run of the same setting."""
    return [
        (ours, theirs)
        for ours in only(records, implementation="scratch")
        for theirs in only(records, method=ours["run"]["method"])
        if theirs is not ours and theirs["run"]["settings"] == ours["run"]["settings"]
    ]


def twin_sentence(pair: tuple[Record, Record]) -> str:
    """How far our run and the library's twin are apart, and whether their rates differ."""
    ours, theirs = pair
    rates = [run["run"]["learning_rate"] for run in pair]
    same = "the same learning rate" if rates[0] == rates[1] else (
        f"other learning rates, as the exercise wants it ({rate(rates[0])} and {rate(rates[1])})"
    )  # fmt: skip
    return (
        f"Our {METHOD_NAMES[ours['run']['method']]} ({percent(ours['best_accuracy'])}%) is "
        f"{versus(ours, theirs)} {IMPLEMENTATION_NAMES[theirs['run']['implementation']]}’s "
        f"({percent(theirs['best_accuracy'])}%) with {setting_name(ours['run'])} and {same}."
    )


def versus(record: Record, other: Record) -> str:
    """`1.2 points below`, or `0.4 points above`, or `level with`; and whether intervals overlap."""
    points = 100 * (record["best_accuracy"] - other["best_accuracy"])
    if round(abs(points), 1) == 0:
        return "level with"
    low, high = wilson(record["best_accuracy"], record["test_examples"])
    other_low, other_high = wilson(other["best_accuracy"], other["test_examples"])
    overlap = low <= other_high and other_low <= high
    side = "above" if points > 0 else "below"
    return f"{abs(points):.1f} points {side} (intervals {'overlap' if overlap else 'apart'})"


def selection_sentence(records: Sequence[Record]) -> str:
    """What the choice of the best epoch is worth here."""
    gains = [100 * (r["best_accuracy"] - r["last_accuracy"]) for r in records]
    return (
        f"Choosing the best epoch on the test reviews lifts a run by {mean(gains):.1f} points on "
        f"average over its last epoch, and by {max(gains):.1f} at most."
    )


def optimizer_sentence(records: Sequence[Record]) -> str:
    """Claim 1, in one sentence."""
    full = only(records, method="full")[0]["memory"]
    ratios = [
        (record["memory"]["optimizer_bytes"] / full["optimizer_bytes"],
         record["memory"]["peak_bytes"] / full["peak_bytes"])
        for record in records if record["run"]["method"] != "full"
    ]  # fmt: skip
    return (
        "The optimizer’s state of the PEFT runs is "
        f"{percent(min(r[0] for r in ratios), 3)}% to {percent(max(r[0] for r in ratios), 3)}% of "
        f"full fine-tuning’s; the peak of the whole training is {percent(min(r[1] for r in ratios), 0)}% "
        f"to {percent(max(r[1] for r in ratios), 0)}% of it."
    )


def storage_sentence(records: Sequence[Record]) -> str:
    """Claim 2, in one sentence."""
    full = only(records, method="full")[0]["stored_bytes"]
    shares = [r["stored_bytes"] / full for r in records if r["run"]["method"] != "full"]
    return (
        f"One more task costs {megabytes(full)} MB with full fine-tuning, and "
        f"{percent(min(shares), 3)}% to {percent(max(shares), 3)}% of that with a PEFT method."
    )


def gap_sentence(records: Sequence[Record]) -> str:
    """Claim 3, in one sentence that says which way it went."""
    full = only(records, method="full")[0]
    reference = gap(full, len(full["history"]))
    others = [r for r in records if r["run"]["method"] != "full"]
    smaller = [r for r in others if gap(r, len(r["history"])) < reference]
    return (
        f"After the last epoch full fine-tuning is {100 * reference:.1f} points better on training "
        f"reviews than on test reviews; the gap is smaller in {len(smaller)} of the {len(others)} "
        "PEFT runs."
    )


def bullets(items: Iterable[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {item}" for item in items)


# --- how it was made -------------------------------------------------------------------------------


def settings_table(params: Params) -> str:
    """Every setting of the study."""
    return table(
        ((f"`{key}`", value(x)) for key, x in asdict(params).items()), ("setting", "value")
    )


def value(setting: object) -> str:
    """A setting as it stands in a table; fingerprints are shortened."""
    text = rate(setting) if isinstance(setting, float) else str(setting)
    text = f"{setting:,}" if isinstance(setting, int) else text
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text or "–"


NO_DIFFERENCE = ("study", "train", "backbone_fingerprint", "data_fingerprint")
"""Fields in which a study may differ from the exercise without doing anything else."""


def differences(params: Params, exercise: Params) -> list[str]:
    """The fields in which a study departs from the exercise."""
    ours, theirs = asdict(params), asdict(exercise)
    return [key for key in ours if key not in NO_DIFFERENCE and ours[key] != theirs[key]]


def differences_table(params: Params, exercise: Params, reasons: Mapping[str, str]) -> str:
    """What differs from the exercise and why; a sentence where nothing does."""
    names = differences(params, exercise)
    if not names:
        return "Nothing: this study is the exercise to the letter."
    rows = [
        (f"`{name}`", value(getattr(exercise, name)), value(getattr(params, name)),
         reasons.get(name, "–"))
        for name in names
    ]  # fmt: skip
    return table(rows, ("setting", "exercise", "here", "why"), left=4)


def reasons(study_file: Path) -> dict[str, str]:
    """The comments behind a study's settings: `epochs: 3  # two CPU cores` -> {"epochs": ...}."""
    lines = re.findall(r"^(\w+):[^#\n]*#\s*(.+?)\s*$", study_file.read_text("utf-8"), re.MULTILINE)
    return dict(lines)


def environment_table(records: Sequence[Record]) -> str:
    """Versions, device, threads, precision; where runs differ, with the runs that had each."""
    rows = []
    for key in records[0]["environment"]:
        runs_of: dict[str, list[str]] = {}
        for record in records:
            found = str(record["environment"].get(key, "–"))
            runs_of.setdefault(found, []).append(str(record["run"]["number"]))
        shown = list(runs_of) if len(runs_of) == 1 else [
            f"{found} (runs {', '.join(numbers)})" for found, numbers in runs_of.items()
        ]  # fmt: skip
        rows.append((key, "; ".join(shown)))
    return table(rows, ("what", "value"), left=2)


def backbone_table(card: Mapping[str, Any]) -> str:
    """What the pre-training of one of the project's own backbones took."""
    settings = card["params"]
    rows = [
        ("parameters", f"{card['parameters']:,}"),
        ("vocabulary (pieces)", f"{settings['vocabulary']:,}"),
        ("text (tokens)", f"{card['corpus_tokens']:,}"),
        ("tokens seen in span corruption", f"{card['seen_tokens']:,}"),
        ("SST-2 sentences seen", f"{card['sst2_sentences']:,}"),
        ("steps", f"{card['steps']:,}"),
        ("batch (texts × tokens)", f"{settings['batch_size']} × {settings['input_length']}"),
        ("learning rate, relative to each tensor’s RMS", rate(settings["learning_rate"])),
        ("time", duration(card["seconds"])),
        ("device", card["device"]),
        *((f"loss at the end: {kind}", f"{loss:.3f}") for kind, loss in last_losses(card).items()),
    ]
    return table(rows, ("pre-training", "value"))


def last_losses(card: Mapping[str, Any]) -> dict[str, float]:
    """The losses in the last entry of a pre-training's history."""
    names = {"span": "span corruption", "sst2": "SST-2"}
    history = card["history"][-1] if card["history"] else {}
    return {name: history[key] for key, name in names.items() if key in history}


def backbone_note(params: Params, card: Mapping[str, Any]) -> str:
    """Where the backbone comes from, in one paragraph."""
    if card:
        return (
            f"The backbone “{backbone_name(params)}” is not Google’s: this project pre-trained it, on "
            f"{card['seen_tokens']:,} tokens of text in {duration(card['seconds'])}."
        )
    if params.backbone.startswith("random:"):
        return (
            "The backbone is random: it was never pre-trained, so there is nothing to keep or lose."
        )
    return f"The backbone is the published checkpoint `{params.backbone}`."


def total_seconds(records: Iterable[Record]) -> float:
    """Time of all the runs, training and testing."""
    return sum(r["speed"]["train_seconds"] + r["speed"]["test_seconds"] for r in records)
