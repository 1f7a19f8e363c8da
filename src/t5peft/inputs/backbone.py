"""T5 models of the classic family: by hub name, from a local folder, or random of a known size.

The project's own backbones are stored as int8 with one scale a row. The backbone *is* the
dequantized tensor: what is loaded from the folder is what every run starts from.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5peft.base import files, paths
from t5peft.base.errors import InputError, first_line
from t5peft.base.studies import Study
from t5peft.inputs import hub, int8, tokenizers
from t5peft.inputs.sizes import CLASSIC, KNOWN, SIZES, Size, config

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


RANDOM = "random:"
CARD = "pretraining.json"


def load(name: str, seed: int = 0) -> T5ForConditionalGeneration:
    """The model on the CPU in float32, in evaluation mode.

    `random:SIZE` draws the weights from `seed`. Raises `InputError` for anything but a classic T5.
    """
    import torch
    from transformers import T5ForConditionalGeneration

    if name.startswith(RANDOM):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return T5ForConditionalGeneration(config(random_size(name))).eval()
    settings = read_config(name)
    folder = hub.fetch(name, *hub.WEIGHTS)
    if list(folder.glob("int8-*.safetensors")):
        model = T5ForConditionalGeneration(settings)
        try:
            model.load_state_dict(int8.load(folder))
        except (KeyError, RuntimeError) as error:
            raise InputError(
                f"backbone {name}", "other tensors", "those of its config.json", "fetch it again"
            ) from error
        return model.eval()
    try:
        return T5ForConditionalGeneration.from_pretrained(
            folder, config=settings, use_safetensors=True
        ).eval()
    except Exception as error:  # of many kinds
        raise hub.unreachable(name, first_line(error)) from error


def load_on_meta(name: str) -> T5ForConditionalGeneration:
    """The model without its weights: shapes and counts only; `name` may be a known size too."""
    import torch
    from transformers import T5ForConditionalGeneration

    size = random_size(name) if name.startswith(RANDOM) else name
    settings = config(size) if size in CLASSIC else read_config(name)
    with torch.device("meta"):
        return T5ForConditionalGeneration(settings)


def random_size(name: str) -> str:
    """The size in `random:SIZE`. Raises `InputError` for one that is unknown."""
    size = name.removeprefix(RANDOM)
    if size not in CLASSIC:
        expected = "one of " + ", ".join(CLASSIC)
        raise InputError(f"backbone {name}", f"size {size!r}", expected, "name one of these")
    return size


def read_config(name: str) -> Any:
    """The configuration behind a hub name or folder: a T5 whose feed-forward is ReLU.

    Raises `InputError` where there is none, or it is another model's.
    """
    settings = any_config(name)
    if settings.model_type != "t5":
        raise InputError(f"backbone {name}", settings.model_type, "a T5", "give a T5 checkpoint")
    if settings.is_gated_act:
        raise InputError(
            f"backbone {name}",
            f"feed_forward_proj {settings.feed_forward_proj} (T5 v1.1 or later)",
            "T5's first form with DenseReluDense.wi",
            "give a t5-small, t5-base, ... checkpoint",
        )
    return settings


def any_config(name: str) -> Any:
    """The configuration behind a hub name or folder, of any model; `InputError` for none."""
    from transformers import AutoConfig

    folder = hub.fetch(name, hub.CONFIG)
    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # of many kinds
        raise hub.unreachable(name, first_line(error)) from error


def sized(name: str) -> Any:
    """What is to be counted: a known size by its name, with or without an organisation's before it,
    or as a `T5Config` that of a folder, whose T5 may be of any form.

    Raises `InputError` where it is neither, or another model whose parameters lie elsewhere.
    """
    short = name.rpartition("/")[2]
    if name in SIZES or (short in SIZES and not paths.local(name)):
        return short
    if not paths.local(name):
        way_out = "name one of these, or give a folder with a config.json"
        raise InputError("size", repr(name), f"one of {KNOWN}", way_out)
    thing, expected = f"size {name}", "a folder whose config.json is a T5's, an mT5's or a ByT5's"
    try:
        found = any_config(name)
    except InputError as error:
        raise InputError(thing, error.found, expected, "give another") from error
    if found.model_type not in ("t5", "mt5"):  # umT5 has relative positions in each layer
        raise InputError(thing, found.model_type, expected, "give another")
    from transformers import T5Config

    inner = "gated-gelu" if found.is_gated_act else "relu"  # which function counts nothing
    tied = bool(found.tie_word_embeddings)
    return T5Config(**numbers(thing, found), feed_forward_proj=inner, tie_word_embeddings=tied)


def numbers(thing: str, settings: Any) -> dict[str, Any]:
    """What a configuration says of a T5's shapes. Raises `InputError` for what no shape can be."""
    names = [*(field.name for field in fields(Size)), "relative_attention_num_buckets"]
    found = {key: getattr(settings, key) for key in names}
    for key, x in found.items():
        if not isinstance(x, int) or isinstance(x, bool) or not 0 < x < 10**6:
            expected = "a whole number from 1, below 10^6"
            raise InputError(thing, f"{key} {x!r}", expected, "mend its config.json")
    return found


# --- fingerprint -------------------------------------------------------------------------------

COMPUTING: dict[str, Any] = {
    **{"model_type": None, "vocab_size": 32128, "d_model": 512, "d_kv": 64, "d_ff": 2048},
    **{"num_layers": 6, "num_decoder_layers": None, "num_heads": 8, "dropout_rate": 0.1},
    **{"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128},
    **{"layer_norm_epsilon": 1e-6, "feed_forward_proj": "relu", "tie_word_embeddings": True},
    **{"decoder_start_token_id": None, "pad_token_id": 0, "eos_token_id": 1},
}
"""What of a config.json decides what a T5 computes, and what stands for an entry left out."""


def fingerprint(study: Study) -> str:
    """SHA-256 of what decides the backbone: tensors, dimensions, and pieces where it has the words.

    Where it is not at hand, the fingerprint that the study expects stands for it, "" for none;
    where it is and differs from that, `InputError`.
    """
    name, expected = study.backbone, study.backbone_fingerprint
    if name.startswith(RANDOM):
        found = hashlib.sha256(repr(CLASSIC[random_size(name)]).encode()).hexdigest()
    else:
        folder = at_hand(study)
        found = contents(folder, needed(study)) if folder else expected
    if expected and found != expected:
        raise InputError(
            f"backbone {name}",
            f"contents with fingerprint {found[:12]}",
            f"{expected[:12]}, as the study pins them",
            "give the study's backbone, or --set backbone_fingerprint= to take this one",
        )
    return found


def needed(study: Study) -> tuple[str, ...]:
    """What a study reads of its backbone's folder: no pieces where it has its own tokenizer."""
    return hub.WEIGHTS if study.tokenizer else (*hub.WEIGHTS, *hub.PIECES)


def at_hand(study: Study) -> Path | None:
    """The folder of a study's backbone on this machine; None for a random one, which has none."""
    name = study.backbone
    return None if name.startswith(RANDOM) else hub.at_hand(name, *needed(study))


def contents(folder: Path, parts: Sequence[str]) -> str:
    """SHA-256 of these parts of a model, however they are cut into files; no other counts.

    Raises `InputError` where one is damaged.
    """

    def compute() -> str:
        tensors = sorted(each for path in folder.glob(hub.TENSORS) for each in tensor_digests(path))
        words = tokenizers.contents(folder) if hub.PIECES[0] in parts else ""
        values = [*computing(folder).values()]
        return hashlib.sha256(repr((values, tensors, words)).encode()).hexdigest()

    read = (*parts, *tokenizers.SAYING)
    held = sorted(path for part in read for path in folder.glob(part) if path.is_file())
    return files.remembered("backbone", held, compute)


def computing(folder: Path) -> dict[str, Any]:
    """The values of `COMPUTING` in a folder. Raises `InputError` where they cannot be read."""
    try:
        given = COMPUTING | json.loads((folder / hub.CONFIG).read_text())
    except (OSError, ValueError, TypeError) as error:
        found = f"no {hub.CONFIG}" if isinstance(error, OSError) else f"no JSON in {hub.CONFIG}"
        raise hub.unreachable(str(folder), found) from None
    given["num_decoder_layers"] = given["num_decoder_layers"] or given["num_layers"]
    return {key: given[key] for key in COMPUTING}


def tensor_digests(path: Path) -> list[tuple[str, str]]:
    """Name and SHA-256 of each tensor in a safetensors file, its type and shape among the bytes.

    The format: 8 bytes with the length of a JSON header, the header, the tensors. Copies of the
    embedding, which the stacks share, are left out. Raises `InputError` for a damaged file.
    """
    hub.check(path)
    found = []
    try:
        with path.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(start - 8))
            header.pop("__metadata__", None)
            for name, facts in header.items():
                if not name.endswith("embed_tokens.weight"):
                    first, last = facts["data_offsets"]
                    file.seek(start + first)
                    held = f"{facts['dtype']} {facts['shape']} ".encode() + file.read(last - first)
                    found.append((name, hashlib.sha256(held).hexdigest()))
    except (ValueError, LookupError, TypeError, AttributeError, MemoryError, OverflowError):
        raise InputError(
            f"backbone file {path}", "a damaged file", "safetensors", "fetch it again"
        ) from None
    return found


def described(study: Study) -> dict[str, Any]:
    """What a record says of the backbone: enough to show the record where that is not at hand."""
    name, folder = study.backbone, at_hand(study)
    return {
        "name": name,
        "commit": hub.commit(name, folder) if folder else "",
        "config": computing(folder) if folder else {},
        "card": card(name),
    }


def card(name: str) -> dict[str, Any]:
    """The pre-training record of one of the project's own backbones; {} for others."""
    folder = paths.local(name)
    path = folder / CARD if folder else None
    return json.loads(path.read_text()) if path and path.exists() else {}
