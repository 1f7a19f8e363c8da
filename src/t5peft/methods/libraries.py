"""The three libraries, each behind one explicit builder that changes a T5 in place.

Every builder freezes the backbone and leaves a `T5ForConditionalGeneration` whose `forward` is used
as before, so that nothing else in the project needs to know which implementation it has.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import T5ForConditionalGeneration


def opendelta_soft_prompt(model: T5ForConditionalGeneration, tokens: int) -> None:
    """OpenDelta's soft prompt: n embeddings before the encoder's, initialized from ids 0 .. n - 1.

    It wraps `encoder.forward`, and lengthens the caller's attention mask in place: give it a mask
    of its own at every step.
    """
    delta = _opendelta().SoftPromptModel(backbone_model=model, soft_token_num=tokens)
    delta.freeze_module()


def adapterhub_adapter(model: T5ForConditionalGeneration, bottleneck: int) -> None:
    """AdapterHub's sequential bottleneck after each feed-forward sublayer (Pfeiffer placement)."""
    import adapters

    logging.getLogger("adapters").setLevel(logging.ERROR)  # it warns before one is activated
    adapters.init(model)
    reduction = model.config.d_model / (bottleneck + 0.5)  # the library rounds the quotient down
    adapted: Any = model
    adapted.add_adapter("imdb", config=adapters.SeqBnConfig(reduction_factor=reduction))
    adapted.train_adapter("imdb")


def peft_lora(
    model: T5ForConditionalGeneration,
    rank: int,
    alpha: float,
    targets: Sequence[str] = ("q", "v"),
) -> None:
    """PEFT's LoRA on the targets in every attention and feed-forward, without dropout or bias."""
    from peft import LoraConfig, get_peft_model

    gated = {"wi": ["wi_0", "wi_1"]} if model.config.is_gated_act else {}
    config = LoraConfig(
        task_type="SEQ_2_SEQ_LM",
        r=rank,
        lora_alpha=alpha,  # type: ignore[arg-type]  # a float works; PEFT only divides by it
        target_modules=[name for target in targets for name in gated.get(target, [target])],
        lora_dropout=0.0,
        bias="none",
    )
    get_peft_model(model, config)


def peft_ia3(model: T5ForConditionalGeneration) -> None:
    """PEFT's IA3 on the keys and values of every attention, and within every feed-forward."""
    from peft import IA3Config, get_peft_model

    config = IA3Config(
        task_type="SEQ_2_SEQ_LM", target_modules=["k", "v", "wo"], feedforward_modules=["wo"]
    )
    get_peft_model(model, config)


def _opendelta() -> ModuleType:
    """OpenDelta 0.3.2 (2023), imported under today's transformers.

    It wants a module that transformers has moved, a download client and a web page that its soft
    prompt never calls, and, by an editor's accident, `turtle`: they get stand-ins for the import.
    """
    if "opendelta" not in sys.modules:
        sys.modules["transformers.deepspeed"] = importlib.import_module(
            "transformers.integrations.deepspeed"
        )
        stand_ins = {
            "DeltaCenter": "OssClient",
            "opendelta.utils.interactive.web": "interactive",
            "turtle": "back",
        }
        added = {name: ModuleType(name) for name in stand_ins if name not in sys.modules}
        for name, module in added.items():
            setattr(module, stand_ins[name], None)
        sys.modules.update(added)
        try:
            importlib.import_module("opendelta")
        finally:
            for name in added:
                del sys.modules[name]
    return sys.modules["opendelta"]
