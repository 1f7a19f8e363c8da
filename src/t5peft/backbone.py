"""T5 models of the classic family: by hub name, from a local folder, or random of a known size.

The project's own backbones are stored as int8 with one scale a row. The backbone *is* the
dequantized tensor: what is loaded from the folder is what every run starts from.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t5peft import files, paths
from t5peft.errors import InputError
from t5peft.params import Params
from t5peft.sizes import SIZES, config

if TYPE_CHECKING:
    import torch
    from transformers import T5ForConditionalGeneration

RANDOM = "random:"
SHARD_BYTES = 15 * 2**20
FINGERPRINTED = ("config.json", "*.safetensors", "spiece.model", "tokenizer.json")


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
    folder = paths.local(name)
    if folder and list(folder.glob("int8-*.safetensors")):
        model = T5ForConditionalGeneration(settings)
        try:
            model.load_state_dict(load_int8(folder))
        except (KeyError, RuntimeError) as error:
            raise InputError(
                f"backbone {name}", "other tensors", "those of its config.json", "fetch it again"
            ) from error
        return model.eval()
    try:
        return T5ForConditionalGeneration.from_pretrained(
            folder or name, config=settings, use_safetensors=True
        ).eval()
    except Exception as error:  # the hub's client raises many kinds
        raise _unreachable(name, error) from error


def load_on_meta(name: str) -> T5ForConditionalGeneration:
    """The model without its weights: shapes and counts only; `name` may be a known size too."""
    import torch
    from transformers import T5ForConditionalGeneration

    size = random_size(name) if name.startswith(RANDOM) else name
    settings = config(size) if size in SIZES else read_config(name)
    with torch.device("meta"):
        return T5ForConditionalGeneration(settings)


def random_size(name: str) -> str:
    """The size in `random:SIZE`. Raises `InputError` for one that is unknown."""
    size = name.removeprefix(RANDOM)
    if size not in SIZES:
        raise InputError(
            f"backbone {name}", f"size {size!r}", "one of " + ", ".join(SIZES), "name a known size"
        )
    return size


def read_config(name: str) -> Any:
    """The configuration behind a hub name or folder: a T5 whose feed-forward is ReLU.

    Raises `InputError` where there is none, or it is another model's.
    """
    from transformers import AutoConfig

    try:
        settings = AutoConfig.from_pretrained(paths.local(name) or name, trust_remote_code=False)
    except Exception as error:  # the hub's client raises many kinds
        raise _unreachable(name, error) from error
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


def _unreachable(name: str, error: Exception) -> InputError:
    return InputError(
        f"backbone {name}",
        type(error).__name__,
        "a folder with a T5, or a hub name that can be reached",
        "give a folder with --set backbone=FOLDER",
    )


# --- int8 storage ------------------------------------------------------------------------------


def quantize(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (first dimension) as int8 in [-127, 127] and one float32 scale each."""
    rows = tensor.detach().float().reshape(tensor.shape[0], -1)
    scale = rows.abs().amax(dim=1).clamp_min(1e-12) / 127
    return (rows / scale[:, None]).round().char().reshape(tensor.shape), scale


def dequantize(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The float32 tensor that int8 `values` and the rows' `scale` stand for."""
    return values.float() * scale.reshape(-1, *[1] * (values.dim() - 1))


def save_int8(model: T5ForConditionalGeneration, folder: Path) -> None:
    """Write config.json and int8-*.safetensors shards, each under 16 MiB."""
    from safetensors.torch import save

    shards: list[dict[str, torch.Tensor]] = [{}]
    for name, parameter in model.named_parameters():
        values, scale = quantize(parameter)
        held = sum(t.numel() * t.element_size() for t in shards[-1].values())
        if held and held + values.numel() > SHARD_BYTES:
            shards.append({})
        shards[-1] |= {name: values.contiguous(), f"{name}.scale": scale}
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("int8-*.safetensors"):
        old.unlink()
    for number, shard in enumerate(shards, 1):
        path = folder / f"int8-{number:02d}-of-{len(shards):02d}.safetensors"
        files.write_bytes(path, save(shard))
    model.config.save_pretrained(folder)


def load_int8(folder: Path) -> dict[str, torch.Tensor]:
    """The state dict (float32) in a folder that `save_int8` wrote.

    Raises `InputError` for a damaged shard.
    """
    from safetensors.torch import load_file

    stored: dict[str, torch.Tensor] = {}
    for shard in sorted(folder.glob("int8-*.safetensors")):
        try:
            stored |= load_file(shard)
        except Exception as error:
            raise InputError(
                f"backbone shard {shard}", "a damaged file", "safetensors", "fetch it again"
            ) from error
    state = {
        name: dequantize(values, stored[f"{name}.scale"])
        for name, values in stored.items()
        if not name.endswith(".scale")
    }
    for tied in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
        state[tied] = state["shared.weight"]
    return state


# --- fingerprint -------------------------------------------------------------------------------


def fingerprint(params: Params) -> str:
    """SHA-256 of what decides the backbone: its files, or its dimensions if it is random.

    Where a hub's backbone is not at hand, the fingerprint that the study expects stands for it;
    where it is and differs from it, `InputError`.
    """
    name, expected = params.backbone, params.backbone_fingerprint
    if name.startswith(RANDOM):
        found = hashlib.sha256(repr(SIZES[random_size(name)]).encode()).hexdigest()
    else:
        try:
            found = paths.fingerprint(paths.snapshot(name), FINGERPRINTED)
        except FileNotFoundError as error:
            if expected:
                return expected
            raise _unreachable(name, error) from None
    if expected and found != expected:
        raise InputError(
            f"backbone {name}",
            f"files with fingerprint {found[:12]}",
            f"{expected[:12]}, as the study pins them",
            "give the study's backbone, or --set backbone_fingerprint= to take this one",
        )
    return found


def card(name: str) -> dict[str, Any]:
    """The pre-training record of one of the project's own backbones; {} for others."""
    folder = paths.local(name)
    path = folder / "pretraining.json" if folder else None
    return json.loads(path.read_text()) if path and path.exists() else {}
