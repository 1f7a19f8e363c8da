"""Claims 1 and 2, memory and storage, and the conclusions: computed sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from t5peft.inputs.backbone import RANDOM
from t5peft.inputs.sizes import SIZES
from t5peft.measure.measurements import Baselines, Bench, Kept
from t5peft.methods import formulas
from t5peft.report.findings import NEITHER, beside, of_all, versus
from t5peft.report.overfitting import claim_3
from t5peft.report.show import (
    ADAMW_BYTES,
    MEGABYTE,
    METHOD_NAMES,
    REFERENCE,
    bullets,
    listed,
    mark,
    megabytes,
    only,
    percent,
)
from t5peft.report.speed import rows
from t5peft.report.statistics import apart
from t5peft.runs.records import Record


def memory_shares(records: Sequence[Record], key: str) -> list[float]:
    """A figure of each PEFT run's memory, as a share of full fine-tuning's."""
    full = only(records, method="full")[0]["memory"][key]
    return [r["memory"][key] / full for r in records if r["run"]["method"] != "full"]


def optimizer_sentence(records: Sequence[Record]) -> str:
    """Claim 1, in one sentence."""
    state = memory_shares(records, "optimizer_bytes")
    return f"The optimizer's state of the PEFT runs is {span(state, 3)} of full fine-tuning's."


def peak_sentence(records: Sequence[Record], bench: Bench | None) -> str:
    """The peak of a training: the bench's, which measures each method alone, if there is one."""
    if not bench:
        peaks = memory_shares(records, "peak_bytes")
        return f"The peak of the process is {span(peaks, 0)} of full fine-tuning's."
    peaks = {method: exercise for method, what, exercise, *_ in rows(bench) if what == "peak_bytes"}
    full = peaks.pop("full")
    shares = span([peak / full for peak in peaks.values()], 0)
    backbone = bench["params"]["backbone"]
    size = backbone.removeprefix(RANDOM)
    model = f"a {size} with random weights" if size != backbone else f"the backbone {backbone}"
    text = (
        "The peak of a process that trains and tests, measured for the exercise's own loop with "
        f"each method alone, in float32 and on {model} (@tbl-bench{mark(bench)}), is "
        f"{full:,.0f} MB with full fine-tuning, and {shares} of that with a PEFT method."
    )
    if size in SIZES:
        state = ADAMW_BYTES * sum(formulas.parts(size).values()) / MEGABYTE
        text += (
            f" AdamW's state for all parameters is {state:,.0f} MB of it, "
            f"{percent(state / full, 0)}%, and the gradients half as much. The rest is weights, "
            "activations, of which PEFT saves a part (@sec-adamw-bytes), and the process itself."
        )
    return text


def process_sentence(seeds: Sequence[Sequence[Record]]) -> str:
    """How far the peak of one method's process moves by itself; "" where it was made once."""
    full = [record for records in seeds for record in only(records, method="full")]
    if not full:
        return ""
    peaks = listed([f"{record['memory']['peak_bytes'] / MEGABYTE:,.0f}" for record in full])
    return (
        f"It moves between runs of one method: full fine-tuning's was {peaks} MB with {len(full)} "
        "seeds."
    )


def in_t5_small(added: Mapping[str, int], bytes_each: int, what: str) -> str:
    """What the exercise's own model takes, from the derived counts, at so many bytes each."""
    trained = {METHOD_NAMES["full"]: sum(formulas.parts("t5-small").values()), **added}
    each = [f"{megabytes(bytes_each * count)} MB ({name})" for name, count in trained.items()]
    return f"For T5-small, at {bytes_each} bytes a trained parameter, {what} is {listed(each)}."


def span(shares: Sequence[float], digits: int) -> str:
    """`0.1% to 0.9%`, or `0.1%` where all are the same."""
    low, high = percent(min(shares), digits), percent(max(shares), digits)
    return f"{low}%" if low == high else f"{low}% to {high}%"


def storage_sentence(records: Sequence[Record]) -> str:
    """Claim 2, in one sentence."""
    full = only(records, method="full")[0]["stored_bytes"]
    shares = [r["stored_bytes"] / full for r in records if r["run"]["method"] != "full"]
    return (
        f"One more task costs {megabytes(full)} MB with full fine-tuning, and "
        f"{span(shares, 3)} of that with a PEFT method."
    )


def conclusions(
    records: Sequence[Record],
    seeds: Sequence[Sequence[Record]],
    kept: Kept,
    longer: Sequence[Record],
    baselines: Baselines | None,
) -> str:
    """The answer to the report's question and a verdict on each claim, as computed sentences."""
    full, *ours = only(records, implementation="scratch")
    best = max(ours, key=lambda record: record["best_accuracy"])
    trained, state, stored = shares_of(best, full)
    most = max(
        share for record in records if record is not full for share in shares_of(record, full)
    )
    verdict = (
        "hold, in proportion to the trained parameters: for the optimizer's state (@tbl-memory), "
        "not for the whole of a training, and for what is stored (@tbl-storage)"
        if most < 1
        else "do not hold for every PEFT run: see the optimizer's state (@tbl-memory) and what is "
        "stored (@tbl-storage)"
    )
    return bullets(
        [
            f"**The order.** {order_sentence(records, seeds)}",
            f"**What it costs, what it saves.** Our best PEFT method, "
            f"{METHOD_NAMES[best['run']['method']]}, is {versus(best, full)} full fine-tuning"
            f"{beside(best, full, seeds)}. Of what full fine-tuning takes it trains "
            f"{percent(trained, 2)}% of the parameters, holds {percent(state, 2)}% of the "
            f"optimizer's state and stores {percent(stored, 2)}% of the bytes.",
            f"**Claims 1 and 2** {verdict}.",
            f"**Claim 3.** {claim_3(records, seeds, kept, longer)}",
            *limits(records, baselines),
        ]
    )


def shares_of(record: Record, full: Record) -> tuple[float, float, float]:
    """A run's trained parameters, optimizer state and stored bytes, as shares of another's."""
    return (
        record["parameters"]["trained"] / full["parameters"]["trained"],
        record["memory"]["optimizer_bytes"] / full["memory"]["optimizer_bytes"],
        record["stored_bytes"] / full["stored_bytes"],
    )


def limits(records: Sequence[Record], baselines: Baselines | None) -> list[str]:
    """How strong the backbone is: what a bag of words says of all ten."""
    if not baselines:
        return []
    bag = baselines["bag_of_words_accuracy"]
    above = of_all(sum(record["best_accuracy"] > bag for record in records), len(records))
    return [
        f"**How strong.** A bag of words reaches {percent(bag)}%{mark(baselines)}; {above} runs "
        "are above it. The methods are compared with each other; how far they get depends on the "
        "backbone and on the length of the training as well."
    ]


def order_sentence(records: Sequence[Record], seeds: Sequence[Sequence[Record]]) -> str:
    """Our four methods by accuracy, which of them are not told apart, and the published order."""
    ours = sorted(only(records, implementation="scratch"), key=lambda r: -r["best_accuracy"])
    published = sorted(ours, key=lambda r: -reference(r))
    here = ", ".join(f"{method(r)} {percent(r['best_accuracy'])}%" for r in ours)
    there = ", ".join(f"{method(r)} {reference(r):.1f}%" for r in published)
    text = f"Ours, from the best down: {here}."
    pairs = [pair for pair in pairwise(ours) if versus(*pair) != NEITHER]
    near = [f"{method(a)} and {method(b)}" for a, b in pairs if not apart(a, b, seeds)]
    if near:
        level = "By their seeds these are not told apart" if seeds else "Level are"
        text += f" {level}: {'; '.join(near)}."
    text += f" The published reference: {there}."
    if ours != published:
        text += " Why its order is another, these runs cannot tell."
    return text


def method(record: Record) -> str:
    """The name of a run's method."""
    return METHOD_NAMES[record["run"]["method"]]


def reference(record: Record) -> float:
    """The published run's accuracy, percent."""
    return REFERENCE.accuracy[record["run"]["number"] - 1]
