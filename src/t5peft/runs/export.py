"""Trained deltas as others open them: the exercise's files, PEFT's and AdapterHub's folders, plain
checkpoints of transformers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import T5ForConditionalGeneration

from t5peft.base import files, paths
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import backbone, tokenizers
from t5peft.methods import counting, matching
from t5peft.methods.table import LIBRARY, Run, inject, runs_of, told
from t5peft.runs import store
from t5peft.runs.records import Record
from t5peft.training import jobs

FILES = {"lora": "lora.pt", "adapter": "adapter.pt", "soft-prompt": "prompts.pt"}
"""What a from-scratch method's file is called."""

OPENED_BY = LIBRARY | {"soft-prompt": "peft"}  # OpenDelta has no folder
"""Whose folder a method's delta becomes, from whichever implementation."""


# --- the exercise's files ----------------------------------------------------------------------


def export(study: Study, folder: Path, only: Sequence[Run] = ()) -> list[Path]:
    """Write the files that `torch.load(..., weights_only=True)` opens; returns their paths.

    only: those of these runs. A file says of which method, settings and backbone its `state_dict`
    is. A stale run is written as it is stored. Raises `InputError` where one is missing or damaged,
    another file is there, or the study lists several runs that would be the same one.
    """
    ours = [run for run in only or runs_of(study) if run.implementation == "scratch"]
    wanted, contents = [run for run in ours if run.method in FILES], {}
    if not wanted or len({run.method for run in wanted}) < len(wanted):
        found = ", ".join(run.name for run in wanted) or "no from-scratch run of a PEFT method"
        expected = f"one run for each file: {', '.join(FILES.values())}"
        raise InputError(f"study {study.study}", found, expected, "export a study that has these")
    for run, record in zip(wanted, store.require(wanted, study), strict=True):
        content = io.BytesIO()
        held = {
            "method": run.method,
            "settings": run.settings,
            "backbone": study.backbone,
            "backbone_fingerprint": record["identity"]["backbone"],
            "state_dict": dict(sorted(store.tensors(store.folder(run, study))[1].items())),
        }
        torch.save(held, content)
        contents[folder / FILES[run.method]] = content.getvalue()
    for path, content in contents.items():  # all three are written, or none
        if path.exists() and (path.is_dir() or path.read_bytes() != content):
            way_out = "remove it, or give another -o"
            raise InputError(f"file {path}", "another of that name", "none", way_out)
    for path, content in contents.items():
        files.write_bytes(path, content)
    return list(contents)


# --- folders that libraries open ---------------------------------------------------------------


def in_folders(study: Study, folder: Path, how: str, only: Sequence[Run]) -> Iterator[str]:
    """A folder a run of a kind (peft, adapterhub, merged), named like it; a line on each.

    What the same command wrote before it was stopped is kept. Raises `InputError` where none of the
    runs is of the kind, or one is missing or damaged.
    """
    fits = ["lora"] if how == "merged" else [x for x, by in OPENED_BY.items() if by == how]
    wanted = [run for run in only if run.method in fits]
    if not wanted:
        found, expected = ", ".join(run.name for run in only), f"a run of {' or '.join(fits)}"
        raise InputError(f"{how} of study {study.study}", found, expected, "name another run")
    ways: dict[str, Callable[..., str | None]]
    ways = {"peft": as_peft, "adapterhub": as_adapterhub, "merged": merged}
    for run, record in zip(wanted, store.require(wanted, study), strict=True):
        target = folder / (f"{run.name}-merged" if how == "merged" else run.name)
        held = card(run, study, record, how)
        if (target / CARD).is_file() and (target / CARD).read_bytes() == held.encode():
            yield f"{target}: is there"  # whole, else it were not in its place
            continue
        with files.new_folder(target) as new, torch.no_grad():
            told = ways[how](run, study, new)
            files.write_text(new / CARD, held)
        yield f"{target}{told or ''}"


def filled(run: Run, study: Study, model: torch.nn.Module) -> None:
    """Put a run's tensors into a model that has the method in place, from whichever library."""
    config = backbone.load_on_meta(study.backbone).config
    ours, _ = counting.tensors(run.method, config, run.settings)
    held, own = store.tensors(store.folder(run, study))[1], jobs.trained(model)
    source, target = (matching.matched(f"run {run.name}", side, ours) for side in (held, own))
    for name in ours:
        there = own[target[name]]
        there.copy_(matching.laid(held[source[name]], there.shape))  # type: ignore[arg-type]


def as_peft(run: Run, study: Study, new: Path) -> None:
    """What `PeftModel.from_pretrained(backbone, folder)` opens."""
    import peft

    if run.method == "soft-prompt":
        config: Any = peft.PromptTuningConfig(
            task_type="SEQ_2_SEQ_LM",
            num_virtual_tokens=run.settings["tokens"],
            num_transformer_submodules=1,  # the encoder alone
        )
    else:
        like: Any = counting.hollow(backbone.load_on_meta(study.backbone).config)
        inject(like, run.method, LIBRARY[run.method], run.settings)
        config = like.peft_config["default"]
    config.base_model_name_or_path = study.backbone
    model = peft.get_peft_model(backbone.load(study.backbone, study.seed), config)
    filled(run, study, model)
    model.save_pretrained(str(new), save_embedding_layers=False)


def as_adapterhub(run: Run, study: Study, new: Path) -> None:
    """What `load_adapter(folder)` opens."""
    model: Any = jobs.build(replace(run, implementation=LIBRARY[run.method]), study)
    filled(run, study, model)
    model.save_adapter(str(new), "imdb", with_head=False)


# --- plain checkpoints -------------------------------------------------------------------------


def merged(run: Run, study: Study, new: Path) -> str:
    """The merged backbone, for transformers."""
    model, apart = merge(run, study)
    plain(study, new, model)
    return f": max |difference of logits| {apart:.2g}"


@torch.no_grad()
def merge(run: Run, study: Study) -> tuple[T5ForConditionalGeneration, float]:
    """The backbone with a LoRA's update in its weights, W + (alpha / r) A B.

    And the largest difference of a logit from that of the update beside the weights.
    """
    beside = jobs.build(replace(run, implementation="scratch"), study)
    filled(run, study, beside)
    model = backbone.load(study.backbone, study.seed)
    for name, site in beside.named_modules():
        if hasattr(site, "A"):
            model.get_submodule(name).weight += site.scale * (site.A @ site.B).T  # type: ignore[operator]
    ids = torch.arange(2 * 32).reshape(2, 32) % model.config.vocab_size
    one, other = (each(input_ids=ids, decoder_input_ids=ids).logits for each in (beside, model))
    return model, (one - other).abs().max().item()


def bare(study: Study, folder: Path) -> Path:
    """The backbone as a folder that transformers opens, which cannot open our int8."""
    with files.new_folder(folder / "backbone") as new:
        plain(study, new, backbone.load(study.backbone, study.seed))
        own = backbone.at_hand(study)
        if own and (own / CARD).exists():
            files.write_text(new / CARD, (own / CARD).read_text())
    return folder / "backbone"


def plain(study: Study, new: Path, model: T5ForConditionalGeneration) -> None:
    """A checkpoint of transformers, with its tokenizer."""
    model.save_pretrained(new)
    tokenizers.load(study.tokenizer or study.backbone).save_pretrained(new)


# --- model card --------------------------------------------------------------------------------

CARD = "README.md"

OPENS = {
    "peft": """from peft import PeftModel
from transformers import T5ForConditionalGeneration

model = PeftModel.from_pretrained(T5ForConditionalGeneration.from_pretrained(BACKBONE), FOLDER)""",
    "adapterhub": """import adapters
from transformers import T5ForConditionalGeneration

model = T5ForConditionalGeneration.from_pretrained(BACKBONE)
adapters.init(model)
model.load_adapter(FOLDER, set_active=True)""",
    "merged": """from transformers import T5ForConditionalGeneration

model = T5ForConditionalGeneration.from_pretrained(FOLDER)""",
}
TAGS = {"peft": "peft", "adapterhub": "adapter-transformers", "merged": "transformers"}


def card(run: Run, study: Study, record: Record, how: str) -> str:
    """The README.md of an exported run, filled from its record."""
    of_hub = not paths.local(study.backbone) and not study.backbone.startswith(backbone.RANDOM)
    settings = told(run.settings) or "no settings"
    counts, identity = record["parameters"], record["identity"]
    head = [
        f"library_name: {TAGS[how]}",
        *([f"base_model: {study.backbone}"] if of_hub else []),
        "metrics: [accuracy]",
        f"tags: [t5, {run.method}]",
    ]
    opened = "" if of_hub else " (`t5peft export --backbone` writes it for transformers)"
    stale = f"\n- {record['stale']}" if record["stale"] else ""
    return f"""---
{chr(10).join(head)}
---

# {run.name}

{run.method} ({run.implementation}; {settings}) of a T5, trained to write \
`negative` or `positive` of a review.

- digest of the run: {store.result(record)[:12]}
- backbone: {study.backbone}{opened}, fingerprint {identity["backbone"][:12]}
- {counts["trained"]:,} trained parameters, {counts["added"]:,} added to the backbone's \
{counts["total"] - counts["added"]:,}
- best accuracy on {record["test_examples"]:,} test reviews: {100 * record["best_accuracy"]:.2f}% \
(epoch {record["best_epoch"]} of {study.epochs})
- trained on {study.train_examples:,} reviews of {study.data}, of at most {study.max_length} \
tokens, lower-cased, `<br />` as a space; batch {study.batch_size}, rate {run.learning_rate:g}, \
{study.precision}, seed {study.seed}{stale}

```python
{OPENS[how]}
```
"""
