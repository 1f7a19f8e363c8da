"""A T5 in int8 files of 16 MiB at most: how our own backbones are committed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from t5peft.base import files
from t5peft.base.errors import InputError

if TYPE_CHECKING:
    import torch
    from transformers import T5ForConditionalGeneration

SHARD_BYTES = 15 * 2**20


def quantize(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows (first dimension) as int8 in [-127, 127] and one float32 scale each."""
    rows = tensor.detach().float().reshape(tensor.shape[0], -1)
    scale = rows.abs().amax(dim=1).clamp_min(1e-12) / 127
    return (rows / scale[:, None]).round().char().reshape(tensor.shape), scale


def dequantize(values: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The float32 tensor that int8 `values` and the rows' `scale` stand for."""
    return values.float() * scale.reshape(-1, *[1] * (values.dim() - 1))


def save(model: T5ForConditionalGeneration, folder: Path) -> None:
    """Write config.json and int8-*.safetensors shards, each under 16 MiB, into a new folder."""
    from safetensors.torch import save

    shards: list[dict[str, torch.Tensor]] = [{}]
    for name, parameter in model.named_parameters():
        values, scale = quantize(parameter)
        held = sum(t.numel() * t.element_size() for t in shards[-1].values())
        if held and held + values.numel() > SHARD_BYTES:
            shards.append({})
        shards[-1] |= {name: values.contiguous(), f"{name}.scale": scale}
    for number, shard in enumerate(shards, 1):
        path = folder / f"int8-{number:02d}-of-{len(shards):02d}.safetensors"
        files.write_bytes(path, save(shard))
    model.config.save_pretrained(folder)


def load(folder: Path) -> dict[str, torch.Tensor]:
    """The state dict (float32) in a folder that `save` wrote.

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
