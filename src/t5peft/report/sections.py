"""What was measured beside the ten runs, a section each; empty where it was not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean

from t5peft.base.studies import Study, arguments
from t5peft.inputs.backbone import RANDOM
from t5peft.measure.measurements import Bench, Kept, Trial
from t5peft.report import speed, tables
from t5peft.report.findings import selection_sentence
from t5peft.report.overfitting import epochs_sentence, gap_sentence, retention_sentences
from t5peft.report.show import (
    METHOD_NAMES,
    REFERENCE,
    TIMES,
    floating,
    listed,
    mark,
    marks,
    number,
    percent,
    rate,
    run_name,
    section,
    table,
)
from t5peft.report.statistics import leads, sample_size, seed_spread, wilson
from t5peft.runs.records import Record


def seeds(several: Sequence[Sequence[Record]]) -> str:
    """The runs that were made with other seeds too; "" where there are none."""
    if not several:
        return ""
    rows = []
    for records in several:
        found = [record["best_accuracy"] for record in records]
        each = ", ".join(
            f"{percent(record['best_accuracy'])}{mark(record)} (seed {record['params']['seed']})"
            for record in records
        )
        spread = f"{seed_spread(records):.1f}"
        rows.append((run_name(records[0]["run"]), each, percent(mean(found)), spread))
    heading = section("sec-seeds", "Other seeds")
    text = (
        f"{heading}\n\nThe seed draws the new parameters, the order of the "
        "reviews and dropout. @tbl-seeds has the runs that were made with several. "
        "The ten results are those of the study's own seed."
    )
    mixed, alike = (
        [run_name(r[0]["run"]) for r in several if (len(devices(r)) > 1) == differ]
        for differ in (True, False)
    )
    if mixed:
        everywhere = listed(sorted(set().union(*map(devices, several))))
        who = "; ".join(mixed)
        if len(alike) < len(mixed):
            who = "all of them" + (f" but {'; '.join(alike)}" if alike else "")
        text += (
            f" The seeds of {who} were not all made on the same kind of machine "
            f"({everywhere}), so the machine may have its part in their spread."
        )
    study = several[0][0]["params"]["study"]
    caption = (
        f"Best test accuracy (percent) by seed (settings of the study “{study}”); spread, the "
        "highest less the lowest."
    )
    body = table(rows, ("run", "each seed", "mean", "spread (points)"), left=2)
    return f"{text}\n\n{floating('tbl-seeds', body, caption)}"


def devices(records: Sequence[Record]) -> set[str]:
    """What the runs were made on."""
    return {record["environment"]["device"] for record in records}


def exercise_rates(
    records: Sequence[Record], others: Sequence[Record], trials: Sequence[Trial]
) -> str:
    """The ten runs with the exercise's own rates beside the study's; "" where there are none.

    trials: as `rates_section` shows them, which then is what to look at for the rates alone.
    """
    if not others:
        return ""
    by_name = {record["run"]["name"]: record for record in records}
    rows = [
        (
            run_name(other["run"]) + mark(other),
            rate(other["run"]["learning_rate"]),
            percent(other["best_accuracy"]),
            rate(by_name[name]["run"]["learning_rate"]),
            percent(by_name[name]["best_accuracy"]),
        )
        for other in others
        if (name := other["run"]["name"]) in by_name
    ]
    ours, theirs = records[0]["params"], others[0]["params"]
    keys = ("train_examples", "max_length", "epochs")
    cut, their_cut = (
        "{} training reviews of at most {} tokens, {} epoch{}".format(
            *(number(settings[key]) for key in keys), "s" if settings["epochs"] > 1 else ""
        )
        for settings in (ours, theirs)
    )
    heading = section("sec-exercise-rates", "With the exercise's own rates")
    text = (
        f"{heading}\n\nThe study "
        f"“{theirs['study']}” has the same backbone and the rates of the exercise ({their_cut}). "
        f"@tbl-exercise-rates puts it beside this one ({cut})."
    )
    reached, here = ([record["best_accuracy"] for record in made] for made in (others, records))
    text += (
        f" With the exercise's rates the runs reach {percent(min(reached))} to "
        f"{percent(max(reached))}%, with this study's {percent(min(here))} to "
        f"{percent(max(here))}%."
    )
    if cut != their_cut:
        text += " As more than the rates differs, it does not show what they do alone"
        text += "; @tbl-rates does, for the runs that were tried." if trials else "."
    caption = (
        f"Best test accuracy with the exercise's rates (study “{theirs['study']}”) and with this "
        f"study's (“{ours['study']}”), percent; reviews {TIMES} tokens that were trained on."
    )
    sizes = [f"{number(s['train_examples'])} {TIMES} {s['max_length']}" for s in (theirs, ours)]
    head = ("run", "exercise's rate", f"accuracy (%) {sizes[0]}", "rate here",
            f"accuracy (%) {sizes[1]}")  # fmt: skip
    return f"{text}\n\n{floating('tbl-exercise-rates', table(rows, head), caption)}"


def learning_rates(trials: Sequence[Trial], records: Sequence[Record]) -> str:
    """How the learning rates were chosen; "" where nothing was tried."""
    if not trials:
        return ""
    used = {r["run"]["name"]: r["run"]["learning_rate"] for r in records}
    rows, (all_of_it, marked) = [], marks(trials)
    for trial, stale in zip(trials, marked, strict=True):
        taken = used.get(trial["run"]) == trial["learning_rate"]
        accuracy = percent(trial["accuracy"])
        rows.append(
            (
                METHOD_NAMES[trial["method"]] + stale,
                rate(trial["learning_rate"]),
                f"{trial['loss']:.3f}",
                f"**{accuracy}**" if taken else accuracy,
            )
        )
    tried = list(dict.fromkeys(METHOD_NAMES[trial["method"]] for trial in trials))
    reviews, held_out = trials[0]["reviews"], trials[0]["held_out"]
    heading = section("sec-rates", "Learning rates")
    text = (
        f"{heading}\n\nThe exercise's rates were made for T5-small and ten epochs. Here "
        f"{listed(tried)}, from scratch, had one epoch on {number(reviews)} training reviews for "
        "every rate of a small grid, and a score on "
        f"{number(held_out)} other training reviews that were held out. No test review was looked "
        "at. In the study all these reviews are trained on."
    )
    by_method = {(r["run"]["method"], r["run"]["learning_rate"]) for r in records}
    if len(by_method) == len({method for method, _ in by_method}):
        text += " The runs with a library or a smaller setting took the rate of their method."
    low, high = wilson(max(trial["accuracy"] for trial in trials), held_out)
    close = [method for method, lead in leads(trials).items() if lead <= (high - low) / 2]
    if close:
        text += (
            f" The best two rates of {listed([METHOD_NAMES[method] for method in close])} lie "
            "within the uncertainty of each other."
        )
    caption = (
        f"Accuracy on {number(held_out)} held-out training reviews by learning rate (study "
        f"“{records[0]['params']['study']}”); bold, that of the rate that the study took. The "
        f"draw of the held-out reviews makes each uncertain by {50 * (high - low):.1f} points or "
        f"more (95%).{all_of_it}"
    )
    body = table(rows, ("method", "learning rate", "training loss", "held out (%)"))
    return f"{text}\n\n{floating('tbl-rates', body, caption)}"


def retention(study: Study, records: Sequence[Record], kept: Kept, vocabulary: int) -> str:
    """What the runs learned by heart and what they kept, measured; or that it was not."""
    if not kept:
        return (
            "What the models still know of their pre-training was not measured for this study; "
            f"`t5peft retention {arguments(study)}` does."
        )
    one = kept["full"]
    text = (
        f"@tbl-retention looks at more: at {number(one['reviews'])} training reviews after the "
        "best epoch, and at what the models still know. Full fine-tuning stores no weights, so it "
        f"was trained once more for it.\n\n{retention_sentences(records, kept, vocabulary)}"
    )
    caption = (
        f"What the runs know of {number(one['reviews'])} training reviews, and their loss in span "
        f"corruption on {number(one['stretches'])} passages of test reviews, with its rise over "
        f"the backbone's own (study “{records[0]['params']['study']}”).{marks([*kept.values()])[0]}"
    )
    return f"{text}\n\n{floating('tbl-retention', tables.retention(records, kept), caption)}"


TOLD = {"study", "train", "data", "train_examples", "max_length", "epochs", "precision"}
"""Settings that `more_epochs` tells of its study, and those that decide nothing."""


def more_epochs(records: Sequence[Record], longer: Sequence[Record]) -> str:
    """Claim 3 where each review is seen many times, on fewer of them; "" where it was not made."""
    if not longer:
        return ""
    settings, ours = longer[0]["params"], records[0]["params"]
    differ = [f"`{key}`" for key in settings if key not in TOLD and settings[key] != ours.get(key)]
    but = f" but {listed(differ)}" if differ else ""
    reviews, tests = number(settings["train_examples"]), number(longer[0]["test_examples"])
    every = len(REFERENCE.accuracy)
    heading = section("sec-ten-epochs", "Claim 3 with more epochs")
    text = (
        f"{heading}\n\nThe study “{settings['study']}” trains on {reviews} of the training "
        f"reviews, of at most {settings['max_length']} tokens, and sees each {settings['epochs']} "
        f"times, in {settings['precision']}. All else{but} is as in this study; the learning "
        "rates were tuned for one epoch. It is there for claim 3: its accuracies, of less text, "
        "are not those of this study. @fig-overfitting draws how the from-scratch runs got there, "
        "and @tbl-ten-epochs has the numbers."
        f"{'' if len(longer) == every else f' {len(longer)} of its {every} runs are stored.'}\n\n"
        f"{gap_sentence(longer, [])} {epochs_sentence(longer)} {selection_sentence(longer)}"
    )
    caption = (
        f"Accuracy on training and on test reviews, and the gap between them in percentage points, "
        f"over {settings['epochs']} epochs (study “{settings['study']}”): "
        f"{number(sample_size(longer[0]))} of the {reviews} training reviews, and {tests} test "
        "reviews."
    )
    return f"{text}\n\n{floating('tbl-ten-epochs', tables.gaps(longer), caption)}"


def bench(measured: Sequence[Bench]) -> str:
    """The exercise's own loop timed against this project's, a table a record; "" without any."""
    if not measured:
        return ""
    heading = section("sec-bench", "Against the exercise's own loop")
    text = (
        f"{heading}\n\nThe exercise trains in "
        "float32, pads each batch to its longest review, and generates an answer to each test "
        "review after each epoch. Model, reviews, optimizer and dropout's rate are the same on "
        "each side. A training step and some batches of test reviews were timed; the evaluation of "
        "all of them and the epoch are put together from these."
    )
    if any(record["params"]["backbone"].startswith(RANDOM) for record in measured):
        text += (
            " A random backbone was first taught to answer with a label word: an untrained one's "
            "answers are of any length."
        )
    return "\n\n".join([text, *map(bench_of, ("tbl-bench", "tbl-bench-other"), measured)])


def bench_of(label: str, measured: Bench) -> str:
    """One record's sentence and table."""
    units = {
        "step": "training step (s)",
        "evaluation": "all test reviews (s)",
        "epoch": "whole epoch (s)",
        "peak_bytes": "peak memory (MB)",
    }
    compared: dict[str, dict[str, str]] = {}
    for method, what, *figures in speed.rows(measured):
        *sides, ratio = map(three_digits, figures)
        compared.setdefault(method, {})[what] = f"{' / '.join(sides)}: **{ratio}**"
    rows = [
        (METHOD_NAMES[method], *(figures[what] for what in units))
        for method, figures in compared.items()
    ]
    settings, where = measured["params"], measured.get("environment", {})
    turns, precision = measured["repeats"], where["precision"]
    figures = {1: "one turn", 2: "means of 2 turns"}.get(turns, f"medians of {turns} turns")
    differs = "nothing differs" if precision == "fp32" else "only the precision differs"
    text = (
        f"In @{label} ours is in {precision}, so {differs} in the mathematics. This machine "
        f"multiplies large matrices, in bf16 or in float32 where that is faster, at "
        f"{three_digits(speed.peak(measured) / 1e9)} GFLOP/s, of which our training step reaches "
        f"{speed.shares(measured)}."
    )
    names = {
        "exercise": "The exercise's own loop (fp32)",
        "trainer": f"transformers' `Seq2SeqTrainer` ({precision}, reviews as it groups them)",
        "ours": f"this project's ({precision})",
    }
    caption = (
        f"{' / '.join(names[side] for side in speed.sides(measured))}, timed in turns on the same "
        f"reviews: {figures}, and the highest memory; in bold the first by the last. Backbone "
        f"{settings['backbone']}, batches of {settings['batch_size']} reviews, at most "
        f"{settings['max_length']} tokens, {where['device']}, "
        f"threads: {where['threads']}.{mark(measured)}"
    )
    return f"{text}\n\n{floating(label, table(rows, ('method', *units.values())), caption)}"


def three_digits(figure: float) -> str:
    """11551.25 -> `11,600`, 1.652 -> `1.65`: no more than a timing tells."""
    rounded = float(f"{figure:.3g}")
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(rounded)))}f}" if rounded else "0"
