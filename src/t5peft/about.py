"""Whose numbers the report shows, and how they were made: study, backbone, versions, times."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from t5peft import counting, paths
from t5peft.backbone import RANDOM
from t5peft.data import MADE_UP
from t5peft.findings import retention_sentences, seed_spread
from t5peft.params import Params, read_yaml
from t5peft.show import (
    DASH,
    METHOD_NAMES,
    TIMES,
    Record,
    backbone_name,
    callout,
    duration,
    floating,
    listed,
    mark,
    number,
    percent,
    rate,
    retention_table,
    run_name,
    study_name,
    table,
    wilson,
)

if TYPE_CHECKING:
    from t5peft.counting import Model


def banner(params: Params, records: Sequence[Record]) -> str:
    """The first page's heading, in large type: whose numbers these are, and a loud warning."""
    lines = [f"# Results of the {study_name(params)} {{.unnumbered .unlisted}}", ""]
    void = {
        "a random T5": params.backbone.startswith(RANDOM),
        "made-up reviews": params.data == MADE_UP,
    }
    if any(void.values()):
        lines += callout(
            "important",
            "These numbers mean nothing",
            f"The study runs with {' and '.join(name for name, here in void.items() if here)}. It "
            "shows that everything works; its accuracies say nothing about any method.",
        )
    return "\n".join([*lines, stale_note(records)])


THINGS = {
    "train_examples": "training reviews",
    "test_examples": "test reviews",
    "max_length": "tokens a review",
    "epochs": "epochs",
}
"""What a setting counts, in words."""

COUNTED = ("prompt_tokens", "bottleneck", "lora_rank")
"""How the settings begin on which a method's number of parameters depends."""


def departures(params: Params, exercise: Params, models: Mapping[str, Model]) -> str:
    """What the numbers are not, where the study departs from the exercise; "" where it does not.

    models: the exercise's model and the study's, by name, as `report.models` gives them.
    """
    names = differences(params, exercise)
    if not names:
        return ""
    told = []
    for name in names:
        here, there = (value(getattr(side, name)) for side in (params, exercise))
        if name == "backbone":
            sizes = [number(sum(counting.parts(model).values())) for model in models.values()]
            told.append(
                f"the backbone *{backbone_name(params)}* with {sizes[-1]} parameters "
                f"instead of {backbone_name(exercise)} with {sizes[0]}"
            )
        elif not name.endswith("learning_rate"):
            told.append(
                f"{here} instead of {there} {THINGS[name]}"
                if name in THINGS
                else f"`{name}` {here} instead of {there}"
            )
    if any(name.endswith("learning_rate") for name in names):
        told.append("other learning rates")
    text = (
        f"**These are not the exercise's own settings.** The study departs from {len(names)} of "
        f"them (@sec-differences): {'; '.join(told)}. Its accuracies compare with each other, not "
        "with published ones."
    )
    if "backbone" in names and not any(name.startswith(COUNTED) for name in names):
        text += (
            f" The parameters of @tbl-glance are those of *{backbone_name(params)}*; the "
            f"exercise's, of {backbone_name(exercise)}, are derived and counted in "
            "@sec-parameter-counts."
        )
    return text


def stale_note(records: Sequence[Record]) -> str:
    """A warning that lists the stale runs and why they are; "" where all are fresh."""
    stale = [record for record in records if record.get("stale")]
    if not stale:
        return ""
    items = "\n".join(f"- {run_name(record['run'])}: {record['stale']}" for record in stale)
    text = f"These runs were made by another version of the code and are marked *stale*:\n\n{items}"
    return "\n".join(callout("warning", "Stale runs", text))


def speed_table(records: Iterable[Record]) -> str:
    """How long each run took."""
    rows = [
        (
            run_name(record["run"]) + mark(record),
            f"{record['speed']['train_examples_per_second']:,.0f}",
            f"{record['speed']['test_examples_per_second']:,.0f}",
            duration(record["speed"]["train_seconds"]),
            duration(record["speed"]["test_seconds"]),
            percent(record["history"][-1]["other_words"], 2),
        )
        for record in records
    ]
    head = ("run", "training (reviews/s)", "testing (reviews/s)", "time to train", "time to test",
            "other words (%)")  # fmt: skip
    return table(rows, head)


def settings_table(params: Params) -> str:
    """Every setting of the study."""
    return table(
        ((f"`{key}`", value(x)) for key, x in asdict(params).items()), ("setting", "value")
    )


def value(setting: object) -> str:
    """A setting as it stands in a table; fingerprints are shortened."""
    text = rate(setting) if isinstance(setting, float) else str(setting)
    text = f"{setting:,}" if isinstance(setting, int) else text
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text or DASH


NO_DIFFERENCE = ("study", "train", "backbone_fingerprint", "data_fingerprint")
"""Fields in which a study may differ from the exercise without doing anything else."""


def differences(params: Params, exercise: Params) -> list[str]:
    """The fields in which a study departs from the exercise; the same texts are the same data."""
    ours, theirs = asdict(params), asdict(exercise)
    if params.data_fingerprint == exercise.data_fingerprint != "":
        theirs["data"] = params.data
    return [key for key in ours if key not in NO_DIFFERENCE and ours[key] != theirs[key]]


def differences_section(params: Params, exercise: Params, why: Mapping[str, str]) -> str:
    """What differs from the exercise, and why: a table, or a sentence where nothing does."""
    names = differences(params, exercise)
    if not names:
        return "Nothing: the settings of this study are the exercise to the letter."
    rows = [
        (f"`{name}`", value(getattr(exercise, name)), value(getattr(params, name)),
         why.get(name, DASH))
        for name in names
    ]  # fmt: skip
    body = table(rows, ("setting", "exercise", "here", "why"), left=4)
    text = f"The study differs in {len(names)} settings; all others are those of the exercise."
    if "backbone" in names:
        text += " With the backbone come its tokenizer, vocabulary and dimensions (@tbl-letters)."
    caption = (
        f"Settings of the exercise, and of the study “{params.study}” where it departs from it."
    )
    return f"{text}\n\n{floating('tbl-differences', body, caption)}"


def reasons(study_file: Path, params: Params) -> dict[str, str]:
    """The comments behind a study's settings: `epochs: 3  # two CPU cores` -> {"epochs": ...}.

    Of a setting that was changed since, the file knows no reason.
    """
    if not study_file.exists():  # a study of somebody's own, which is no file in params/
        return {}
    lines = re.findall(r"^(\w+):[^#\n]*#\s*(.+?)\s*$", study_file.read_text("utf-8"), re.MULTILINE)
    values = read_yaml(study_file)
    return {name: why for name, why in lines if values[name] == getattr(params, name)}


def environment_table(records: Sequence[Record]) -> str:
    """Versions, device, threads, precision; where runs differ, with the runs that had each."""
    rows = []
    for key in records[0]["environment"]:
        runs_of: dict[str, list[str]] = {}
        for record in records:
            found = str(record["environment"].get(key, DASH))
            runs_of.setdefault(found, []).append(str(record["run"]["number"]))
        shown = list(runs_of)
        if len(runs_of) > 1:
            names = {x: "runs" if len(numbers) > 1 else "run" for x, numbers in runs_of.items()}
            shown = [f"{x} ({names[x]} {', '.join(numbers)})" for x, numbers in runs_of.items()]
        rows.append((key, "; ".join(shown)))
    return table(rows, ("what", "value"), left=2)


LOSS_NAMES = {"span": "span corruption", "sst2": "SST-2"}


def backbone_table(card: Mapping[str, Any]) -> str:
    """What the pre-training of one of the project's own backbones took."""
    settings = card["params"]
    rows = [
        ("parameters", f"{card['parameters']:,}"),
        ("pieces of the tokenizer, without sentinels", f"{settings['vocabulary']:,}"),
        ("text (tokens)", f"{card['corpus_tokens']:,}"),
        ("tokens seen in span corruption", f"{card['seen_tokens']:,}"),
        ("SST-2 sentences seen", f"{card['sst2_sentences']:,}"),
        ("steps", f"{card['steps']:,}"),
        (
            f"batch (texts {TIMES} tokens that the encoder reads)",
            f"{settings['batch_size']} {TIMES} {settings['input_length']}",
        ),
        ("highest learning rate, of a matrix's RMS", rate(settings["learning_rate"])),
        ("time", duration(card["seconds"])),
        ("device", card["device"]),
        *(
            (f"loss at the end: {LOSS_NAMES[kind]}", f"{loss:.3f}")
            for kind, loss in card["losses"].items()
        ),
        (
            "SST-2 validation sentences labelled right, before fine-tuning (%)",
            percent(card["zero_shot_sst2"]),
        ),
        (
            "IMDB training reviews labelled right, before fine-tuning (%)",
            percent(card["zero_shot_imdb_train"]),
        ),
    ]
    return table(rows, ("pre-training", "value"))


HARDLY = 0.1
"""Nats a target token: a backbone whose input is worth less hardly reads it."""


def reading_sentence(card: Mapping[str, Any]) -> str:
    """Whether the backbone reads its input; "" where it was not measured."""
    if "span_loss" not in card:
        return ""
    own, other = card["span_loss"], card["span_loss_other_input"]
    text = (
        f" Its span loss is {own:.2f} nats a target token with the text's own input and "
        f"{other:.2f} with another text's"
    )
    if other - own < HARDLY:
        return f"{text}: it hardly reads its input."
    return f"{text}: the difference is what reading the input is worth to it."


def backbone_section(params: Params, card: Mapping[str, Any]) -> str:
    """Where the backbone comes from, and what it cost if it is the project's own."""
    name = backbone_name(params)
    if params.backbone.startswith(RANDOM):
        return (
            "The backbone is random: it was never pre-trained, so there is nothing to keep or lose."
        )
    if not card and paths.local(params.backbone):
        return f"The backbone is the checkpoint in the folder `{params.backbone}`."
    if not card:
        return f"The backbone is the published checkpoint `{params.backbone}` [@raffel2020t5]."
    text = (
        f"The backbone *{name}* is not Google's. This project pre-trained it with the objective of "
        "T5: span corruption [@raffel2020t5] on the training and the unlabelled reviews of IMDB, "
        "never a test review, mixed with the labelled sentences of SST-2 [@socher2013sst], whose "
        "targets are the same two label words; Google's mixture had SST-2 too. The tokenizer, a "
        "unigram model [@kudo2018subword], is its own. So the backbone has seen film reviews and "
        "sentiment before, the runs' training reviews among them (without labels), but far less "
        "text than Google's. Start and optimizer make the most of few tokens: the encoder's heads "
        "start by looking near, with biases that fall with the distance, as ALiBi's do "
        "[@press2022alibi]; cross-attention starts with equal query and key projections, in the "
        "spirit of mimetic initialization [@trockman2023mimetic]; Muon [@jordan2024muon] steps the "
        "matrices of the blocks, each of which is scaled back to its first root mean square after "
        "the step, and AdamW [@loshchilov2019adamw] the rest."
        + reading_sentence(card)
        + " These figures were measured before the weights were rounded to 8-bit integers with a "
        "scale for each row, as they are stored; what the integers stand for is the backbone that "
        "all runs start from."
    )
    caption = f"What the pre-training of *{name}* took."
    return f"{text}\n\n{floating('tbl-backbone', backbone_table(card), caption)}"


def rates_section(trials: Sequence[Mapping[str, Any]], records: Sequence[Record]) -> str:
    """How the learning rates were chosen; "" where nothing was tried."""
    if not trials:
        return ""
    used = {r["run"]["name"]: r["run"]["learning_rate"] for r in records}
    rows = []
    for trial in trials:
        taken = used.get(trial["run"]) == trial["learning_rate"]
        accuracy = percent(trial["accuracy"])
        rows.append(
            (
                METHOD_NAMES[trial["method"]],
                rate(trial["learning_rate"]),
                f"{trial['loss']:.3f}",
                f"**{accuracy}**" if taken else accuracy,
            )
        )
    reviews, held_out = trials[0]["reviews"], trials[0]["held_out"]
    text = (
        "## Learning rates {#sec-rates}\n\nThe exercise's rates were made for another backbone and "
        "a longer training. Here each from-scratch method was trained for one epoch on "
        f"{number(reviews)} training reviews, once for every rate of a small grid, and scored on "
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
            f" For {listed([METHOD_NAMES[method] for method in close])} the second best rate "
            "is within the uncertainty: which of the two is better is not told."
        )
    caption = (
        f"Accuracy on {number(held_out)} held-out training reviews by learning rate (study "
        f"“{records[0]['params']['study']}”); bold, the rate that the study took. The draw of the "
        f"held-out reviews makes each uncertain by {50 * (high - low):.1f} points or more (95%)."
    )
    body = table(rows, ("method", "learning rate", "training loss", "held out (%)"))
    return f"{text}\n\n{floating('tbl-rates', body, caption)}"


def leads(trials: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """How far each method's best rate is ahead of its second best."""
    tried: dict[str, list[float]] = {}
    for trial in trials:
        tried.setdefault(trial["method"], []).append(trial["accuracy"])
    ordered = {method: sorted(found, reverse=True) for method, found in tried.items()}
    return {method: found[0] - found[1] for method, found in ordered.items() if len(found) > 1}


def seeds_section(seeds: Sequence[Sequence[Record]]) -> str:
    """The runs that were made with other seeds too; "" where there are none."""
    if not seeds:
        return ""
    rows = []
    for records in seeds:
        found = [record["best_accuracy"] for record in records]
        each = ", ".join(
            f"{percent(record['best_accuracy'])}{mark(record)} (seed {record['params']['seed']})"
            for record in records
        )
        spread = f"{seed_spread(records):.1f}"
        rows.append((run_name(records[0]["run"]), each, percent(mean(found)), spread))
    text = (
        "## Other seeds {#sec-seeds}\n\nThe seed draws the new parameters, the order of the "
        "reviews and dropout. @tbl-seeds has the runs that were made with several. "
        "The ten results are those of the study's own seed."
    )
    devices = sorted({r["environment"]["device"] for records in seeds for r in records})
    if len(devices) > 1:
        text += f" They were made on {' and '.join(devices)}, so the spread has the machine in it."
    study = seeds[0][0]["params"]["study"]
    caption = (
        f"Best test accuracy (percent) by seed (settings of the study “{study}”); spread, the "
        "highest less the lowest."
    )
    body = table(rows, ("run", "each seed", "mean", "spread (points)"), left=2)
    return f"{text}\n\n{floating('tbl-seeds', body, caption)}"


def exercise_rates_section(
    records: Sequence[Record], others: Sequence[Record], trials: Sequence[Mapping[str, Any]]
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
    text = (
        "## With the exercise's own rates {#sec-exercise-rates}\n\nThe study "
        f"“{theirs['study']}” has the same backbone and the rates of the exercise ({their_cut}). "
        f"@tbl-exercise-rates puts it beside this one ({cut})."
    )
    if cut != their_cut:
        text += " As more than the rates differs, it does not show what they do alone"
        text += "; @tbl-rates does." if trials else "."
    caption = (
        f"Best test accuracy with the exercise's rates (study “{theirs['study']}”) and with this "
        f"study's (“{ours['study']}”), percent; reviews {TIMES} tokens that were trained on."
    )
    sizes = [f"{number(s['train_examples'])} {TIMES} {s['max_length']}" for s in (theirs, ours)]
    head = ("run", "exercise's rate", f"accuracy (%) {sizes[0]}", "rate here",
            f"accuracy (%) {sizes[1]}")  # fmt: skip
    return f"{text}\n\n{floating('tbl-exercise-rates', table(rows, head), caption)}"


def retention_section(records: Sequence[Record], kept: Mapping[str, Record]) -> str:
    """What the runs learned by heart and what they kept, measured; or that it was not."""
    if not kept:
        return (
            "What the models still know of their pre-training was not measured for this study; "
            f"`t5peft retention {records[0]['params']['study']}` does."
        )
    one = kept["full"]
    text = (
        f"@tbl-retention looks at more: at {number(one['reviews'])} training reviews after the "
        "best epoch, and at what the models still know. Full fine-tuning stores no weights, so it "
        f"was trained once more for it.\n\n{retention_sentences(records, kept)}"
    )
    caption = (
        f"What the runs know of {number(one['reviews'])} training reviews, and their loss in span "
        f"corruption on {number(one['stretches'])} stretches of test reviews, with its rise over "
        f"the backbone's own (study “{records[0]['params']['study']}”)."
    )
    return f"{text}\n\n{floating('tbl-retention', retention_table(records, kept), caption)}"


def bench_section(bench: Mapping[str, Any]) -> str:
    """The exercise's own loop timed against this project's; "" where it was not measured."""
    if not bench:
        return ""
    from t5peft.bench import shares
    from t5peft.bench import table as timed

    names = {
        "step": "training step (s)",
        "evaluation": "all test reviews (s)",
        "epoch": "whole epoch (s)",
        "peak_bytes": "peak memory (MB)",
    }
    rows = [
        (METHOD_NAMES[method], names[what], *map(three_digits, figures))
        for method, what, *figures in timed(dict(bench))
    ]
    settings, where = bench["params"], bench["environment"]
    caption = (
        f"The exercise's own loop (fp32) and this project's ({where['precision']}), timed in turns "
        f"on the same reviews: {'means' if bench['repeats'] == 2 else 'medians'} of "
        f"{bench['repeats']} turns, and the highest memory. Backbone "
        f"{settings['backbone']}, batches of {settings['batch_size']} reviews, at most "
        f"{settings['max_length']} tokens, {where['device']}, {where['threads']} threads."
    )
    text = (
        "## Against the exercise's own loop {#sec-bench}\n\nThe exercise trains in float32, pads "
        "each batch to its longest review, and generates an answer to each test review after each "
        "epoch. Model, reviews, optimizer and dropout's rate are the same in both; what differs in "
        "the mathematics is the precision. A training step and some batches of test reviews were "
        "timed; the evaluation of all of them and the epoch are put together from these."
    )
    if settings["backbone"].startswith(RANDOM):
        text += (
            " The backbone is random, and was first taught to answer with a label word: an "
            "untrained one's answers are of any length."
        )
    text += (
        " Of the machine's rate for large bf16 matrix products, a training step reaches this "
        f"share: {shares(dict(bench))}."
    )
    head = ("method", "what", "exercise's loop", "ours", "ratio")
    return f"{text}\n\n{floating('tbl-bench', table(rows, head, left=2), caption)}"


def three_digits(figure: float) -> str:
    """11551.25 -> `11,600`, 1.652 -> `1.65`: no more than a timing tells."""
    rounded = float(f"{figure:.3g}")
    return f"{rounded:,.{max(0, 2 - math.floor(math.log10(rounded)))}f}" if rounded else "0"


def commands(params: Params) -> str:
    """How to make these numbers, this report and what is handed in again."""
    study = params.study
    lines = {
        "make venv": "everything, from PyPI",
        f"t5peft status {study}": "which runs are stored",
        f"t5peft train {study}": "what is missing or stale",
        f"make report STUDY={study}": "this document",
        f"t5peft export {study} -o .": "lora.pt, adapter.pt, prompts.pt",
        f"t5peft handin {study} --name NAME --number NUMBER -o .": "what is uploaded",
    }
    width = max(map(len, lines))
    code = [f"{command:{width}}  # {why}" for command, why in lines.items()]
    return "```bash\n" + "\n".join(code) + "\n```"


def total_seconds(records: Iterable[Record]) -> float:
    """Time of all the runs, training and testing."""
    return sum(r["speed"]["train_seconds"] + r["speed"]["test_seconds"] for r in records)
