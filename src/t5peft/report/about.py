"""Whose numbers the report shows, and how they were made: study, backbone, versions, times."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

from t5peft.base import paths
from t5peft.base.machine import PACKAGES
from t5peft.base.settings import read_yaml, study_file
from t5peft.base.studies import Study, load
from t5peft.inputs.backbone import RANDOM
from t5peft.inputs.data import MADE_UP
from t5peft.pretrain.settings import ZERO_SHOT_REVIEWS
from t5peft.report import counts, show
from t5peft.report.evidence import Evidence
from t5peft.report.gaps import split
from t5peft.report.show import DASH, number, table
from t5peft.runs.records import Record


def warnings(study: Study, records: Sequence[Record]) -> str:
    """Where the numbers mean nothing (loud), are missing or stale, or are another study's too."""
    stored, lacking = split(records)

    def each(key: str) -> str:
        return "\n".join(f"- {show.run_name(x['run'])}: {x[key]}" for x in stored if x.get(key))

    lines = []
    if without := void(study):
        lines += show.callout(
            "important",
            "These numbers mean nothing",
            f"The study runs with {' and '.join(without)}. It "
            "shows that everything works; its accuracies say nothing about any method.",
        )
    if lacking:
        count = f"{len(lacking)} of {len(stored) + len(lacking)}"
        text = f"{count} runs are missing; what needs them is marked as a gap."
        lines += show.callout("warning", "Not the whole report", text)
    imdb = load("assignment").data_fingerprint
    if study.data != MADE_UP and {x["identity"]["data"] for x in stored} - {imdb}:
        text = f"Where IMDB is spoken of, the reviews are those of `{study.data}`."
        lines += show.callout("note", "Other reviews than IMDB's, or another split", text)
    if runs := each("stale"):
        text = "These runs were made by another version of the code and are marked *stale*:\n\n"
        lines += show.callout("warning", "Stale runs", text + runs)
    if runs := each("trained_for"):
        text = "These were trained for another study, where all that decides them is the same:\n\n"
        lines += show.callout("note", "Runs of another study", text + runs)
    return "\n".join(lines)


def void(study: Study) -> list[str]:
    """What a study's numbers mean nothing with."""
    is_random, is_made_up = study.backbone.startswith(RANDOM), study.data == MADE_UP
    return ["a random T5"] * is_random + ["made-up reviews"] * is_made_up


def departures(study: Study, exercise: Study) -> str:
    """In one line what the numbers are not, where the study departs from the exercise; else ""."""
    names = differences(study, exercise)
    if not names:
        return ""
    told = f"{len(names)} setting{'s differ' if len(names) > 1 else ' differs'} (@sec-differences)"
    if "backbone" in names and len(counts.models(study)) > 1:
        size = number(counts.total(counts.model(study)))
        told += f", first the backbone, *{show.backbone_name(study)}* ({size} parameters)"
    return f"**Not the exercise itself**: {told}."


def settings_table(study: Study) -> str:
    """Every setting of the study, two a line."""
    cells = [(f"`{key}`", value(x)) for key, x in asdict(study).items()]
    half = -(-len(cells) // 2)
    pairs = zip_longest(cells[:half], cells[half:], fillvalue=("", ""))
    heads = "setting", "value", "setting ", "value "  # to the eye the same twice
    return table((dict(zip(heads, one + other, strict=True)) for one, other in pairs), left=4)


def value(setting: object) -> str:
    """A setting as it stands in a table; fingerprints are shortened."""
    if setting in ("", ()):
        return DASH
    if isinstance(setting, tuple) and isinstance(setting[0], str):
        return ", ".join(setting)
    text = {float: show.rate, int: number}.get(type(setting), str)(setting)
    return f"{text[:12]}…" if re.fullmatch(r"[0-9a-f]{64}", text) else text


NO_DIFFERENCE = ("study", "train", "micro_batch_size", "backbone_fingerprint", "data_fingerprint")
"""Fields in which a study may differ from the exercise without doing anything else."""


def differences(study: Study, exercise: Study) -> list[str]:
    """The fields in which a study departs from the exercise; the same texts are the same data."""
    ours, theirs = asdict(study), asdict(exercise)
    if study.data_fingerprint == exercise.data_fingerprint != "":
        theirs["data"] = study.data
    return [key for key in ours if key not in NO_DIFFERENCE and ours[key] != theirs[key]]


def differences_table(study: Study, exercise: Study) -> str:
    """Where a study departs from the exercise, and why; or that it does not."""
    why = reasons(study)
    rows = [
        {
            "setting": f"`{name}`",
            "exercise": value(getattr(exercise, name)),
            "here": value(getattr(study, name)),
            "why": why.get(name, DASH),
        }
        for name in differences(study, exercise)
    ]
    none = dict.fromkeys(("exercise", "here", "why"), DASH)
    return table(rows or [{"setting": "none", **none}], left=4)


def reasons(study: Study) -> dict[str, str]:
    """The comments behind a study's settings: `epochs: 3  # two CPU cores` -> {"epochs": ...}.

    Of a setting that was changed since, the file knows no reason.
    """
    file = study_file(study.study)
    if not file.exists():  # a study of somebody's own, which is no file in params/
        return {}
    lines = re.findall(
        r"^(\w+):[^#\n]*#[ \t]*(\S.*?)[ \t]*$", file.read_text("utf-8"), re.MULTILINE
    )
    values = read_yaml(file)
    return {name: why for name, why in lines if values[name] == getattr(study, name)}


def origins(found: Evidence) -> str:
    """Where the report's numbers were made, and how many records of which are from there."""
    made = {
        "the ten runs (@tbl-ten)": found.records(),
        "other seeds (@tbl-seeds)": [record for each in found.seeds for record in each[1:]],
        "the longer study (@tbl-ten-epochs)": found.longer,
        "the sizes (@tbl-by-size)": found.sizes,
        **found.beside,
    }
    there: dict[str, list[str]] = {}
    for what, records in made.items():
        for where, count in Counter(map(place, records)).items():
            there.setdefault(where, []).append(f"{what}, {count}")
    return "\n".join(f"- {where}: {'; '.join(each)}" for where, each in there.items())


def place(record: Mapping[str, Any]) -> str:
    """`AMD EPYC, 1 thread, bf16`."""
    made = record["environment"]
    threads = f"{made['threads']} thread{'s' * (made['threads'] > 1)}"
    return f"{made['device']}, {threads}, {made['precision']}"


def versions(records: Iterable[Record]) -> str:
    """`python 3.11.7, torch 2.13.0, ...`, all that there were."""
    each = [record["environment"] for record in records]
    found = {key: dict.fromkeys(x.get(key, DASH) for x in each) for key in ("python", *PACKAGES)}
    return ", ".join(f"{key} {show.listed([*versions])}" for key, versions in found.items())


LOSS_NAMES = {"span": "span corruption", "sst2": "SST-2"}


def backbone_table(card: Mapping[str, Any]) -> str:
    """What the pre-training of one of the project's own backbones took."""
    settings, losses = card["params"], card["losses"].items()
    batch = f"{settings['batch_size']} {show.TIMES} {settings['input_length']}"
    found = {
        "parameters": f"{card['parameters']:,}",
        "pieces of the tokenizer, without sentinels": f"{settings['vocabulary']:,}",
        "text (tokens)": f"{card['corpus_tokens']:,}",
        "tokens seen in span corruption": f"{card['seen_tokens']:,}",
        "SST-2 sentences seen": f"{card['sst2_sentences']:,}",
        "steps": f"{card['steps']:,}",
        f"batch (texts {show.TIMES} tokens that the encoder reads)": batch,
        "highest learning rate, of a matrix's RMS": show.rate(settings["learning_rate"]),
        "time": show.duration(card["seconds"]),
        "device": card["device"],
        **{f"loss at the end: {LOSS_NAMES[kind]}": f"{loss:.3f}" for kind, loss in losses},
        "SST-2 validation before fine-tuning (% right)": show.percent(card["zero_shot_sst2"]),
        f"{number(ZERO_SHOT_REVIEWS)} IMDB training reviews before fine-tuning (% right)": (
            show.percent(card["zero_shot_imdb_train"])
        ),
    }
    return table({"pre-training": what, "value": value} for what, value in found.items())


def backbone(study: Study, record: Record) -> str:
    """Where a backbone comes from that is not the project's own; "" of one that is."""
    made_with = record["backbone"]
    if study.backbone.startswith(RANDOM):
        return "The backbone is random: never pre-trained, it has nothing to keep or lose."
    if made_with["card"]:
        return ""
    if paths.local(study.backbone):
        return f"The backbone is the checkpoint in the folder `{study.backbone}`."
    commit = made_with.get("commit")
    at = f", commit `{commit[:12]}` of the hub" if commit else ""
    return f"The backbone is the published checkpoint `{study.backbone}`{at} [@raffel2020t5]."
