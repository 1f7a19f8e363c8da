"""Are a study's backbone, data and precision fit for it? Asked before hours are spent.

What a checkpoint lacks `transformers` draws at random, with no more than a warning; and for data of
the hub `data.fingerprint` takes the study's word, so that stored runs are shown without them.
"""

from __future__ import annotations

import warnings
from pathlib import Path

from t5peft.base import paths
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import backbone, data, hub


def check(study: Study) -> None:
    """`fetch`, `check_backbone` and `data.check`, for what reads all.

    Warns of a wide bottleneck, and provides for bf16 where the processor lacks it.
    """
    fetch(study)
    from t5peft.base import bfloat16  # with torch: a hub that fails is told of before that

    check_backbone(study)
    data.check(study)
    width = backbone.load_on_meta(study.backbone).config.d_model
    for name in ("bottleneck", "bottleneck_small"):
        if (given := getattr(study, name)) > width:
            warnings.warn(
                f"{name} = {given} is wider than the backbone's d_model = {width}: no bottleneck "
                "any more",
                stacklevel=2,
            )
    bfloat16.provide(study.precision)


def fetch(study: Study) -> None:
    """Have backbone, tokenizer and reviews here before anything is asked of them; `InputError`."""
    if not study.backbone.startswith(backbone.RANDOM):
        hub.fetch(study.backbone, *backbone.needed(study))
    if study.tokenizer:
        hub.fetch(study.tokenizer, *hub.PIECES)
    if study.data != data.MADE_UP and not paths.local(study.data):
        hub.fetch(study.data, *hub.REVIEWS)


AS_OURS = {
    "dense_act_fn": "relu",
    "is_encoder_decoder": True,
    "pad_token_id": data.PAD,
    "eos_token_id": data.EOS,
    "decoder_start_token_id": data.PAD,
    "use_return_dict": True,
    "output_attentions": False,
    "output_hidden_states": False,
}
"""What a configuration may say in one way only; all else that it says of a T5 is used."""


def check_backbone(study: Study) -> None:
    """Refuse a folder or a hub's snapshot that holds less than a whole T5, or another kind of T5.

    A hub's backbone that is not on this machine is not looked at, nor are random ones and the
    project's own, whose tensors `backbone.load` compares itself. Raises `InputError`.
    """
    name, folder = study.backbone, backbone.at_hand(study)
    if folder is None:
        return
    stored = list(folder.glob(hub.TENSORS))
    try:
        backbone.card(name)
    except ValueError:
        raise InputError(
            f"backbone file {name}/{backbone.CARD}",
            "no JSON",
            "what `t5peft pretrain` wrote",
            "restore it, or remove it",
        ) from None
    settings = backbone.read_config(name)
    backbone.numbers(f"backbone {name}", settings)
    for key, value in AS_OURS.items():
        if (given := getattr(settings, key)) != value:
            raise InputError(
                f"backbone {name}",
                f"{key} {given}",
                f"{key} {value}, as T5's first form has it",
                f"mend {hub.CONFIG} where it is wrong; else give another backbone",
            )
    if not stored or any(path.name.startswith("int8-") for path in stored):
        return  # what `backbone.load` compares, or refuses
    model = backbone.load_on_meta(name)
    tied = {tensor for tensor in model.state_dict() if tensor.endswith("embed_tokens.weight")}
    if model.config.tie_word_embeddings:
        tied.add("lm_head.weight")
    held = tensors(stored)
    outer = {tensor.partition(".")[0] for tensor in held}
    if len(outer) == 1 and not held & model.state_dict().keys():
        raise refused(name, f"tensors named {min(outer)}..., as of a model that was wrapped")
    lacking = model.state_dict().keys() - tied - held
    if lacking:
        raise refused(name, f"no {min(lacking)} ({len(lacking)} tensors are not there)")


def tensors(stored: list[Path]) -> set[str]:
    """The names of the tensors in safetensors files. Raises `InputError` for a damaged one."""
    from safetensors import SafetensorError, safe_open

    names: set[str] = set()
    for path in stored:
        try:
            with safe_open(path, "pt") as file:
                names.update(file.keys())
        except SafetensorError as error:
            raise InputError(
                f"backbone file {path}", error, "safetensors", "fetch it again"
            ) from None
    return names


def refused(name: str, found: str) -> InputError:
    """The line about a backbone that is not whole."""
    return InputError(
        f"backbone {name}",
        found,
        "every tensor of its config.json, encoder and decoder",
        "give a whole T5, as save_pretrained of T5ForConditionalGeneration writes it",
    )
