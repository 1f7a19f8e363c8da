"""A file that was handed in: which tensor is what, how many there are, what they are worth."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from t5peft.base.errors import InputError
from t5peft.base.settings import read_yaml
from t5peft.base.studies import Study, in_order
from t5peft.inputs import backbone, checks
from t5peft.methods import counting, formulas, matching
from t5peft.methods.formulas import Model
from t5peft.methods.table import SETTINGS, Run, expected_of, named, ours, told
from t5peft.runs import reopen
from t5peft.training import jobs, loop

HELD_AS = ("adapter_model.safetensors", "pytorch_adapter.bin", "adapter_model.bin")
HELD_AS += ("model.safetensors", "pytorch_model.bin")
"""The file of tensors in a folder, as PEFT, AdapterHub and transformers call it."""

CONFIG = "adapter_config.json"
ONLY = {"use_rslora": False, "use_dora": False, "rank_pattern": {}, "alpha_pattern": {}}
ONLY |= {"non_linearity": "relu", "scaling": 1.0, "is_parallel": False, "use_gating": False}
ONLY |= {"ln_before": False, "ln_after": False, "original_ln_before": True, "phm_layer": False}
ONLY |= {"mh_adapter": False, "output_adapter": True, "cross_adapter": False}
ONLY |= {"residual_before_ln": True, "original_ln_after": True}
ONLY |= {"num_transformer_submodules": 1, "feedforward_modules": ["wo"]}
"""What such a folder may say in one way only: else its numbers mean another map."""

CHANGED = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""How PEFT begins a LoRA whose first product it takes from the T5's own weights."""

BESIDES = ("optim", "sched", "scaler")
"""How the keys begin of what a training checkpoint has beside the model."""


@dataclass(frozen=True)
class Handed:
    """The tensors of a file, and which of them is which."""

    path: Path
    found: dict[str, Tensor]  # all, by their names
    frozen: dict[str, str]  # ours of the T5's own, by theirs
    names: dict[str, str]  # theirs of the method's, by ours
    tensors: dict[str, Tensor]  # the method's, by our names and laid as ours
    derived: int
    backbone: str  # the fingerprint that the file names; "" for none

    @property
    def counted(self) -> int:
        """Parameters of the method that are there."""
        return matching.count(self.tensors.values())

    @property
    def lines(self) -> Iterator[str]:
        """What maps where, and both counts."""
        aside = len(self.found) - len(self.names)
        number = f"{len(self.found)} tensor{'s' * (len(self.found) != 1)}"
        yield f"{number}, {aside} of them the T5's own" if aside else number
        for name, theirs in self.names.items():
            shape = self.found[theirs].shape
            turned = ", turned" if shape != self.tensors[name].shape else ""
            yield f"  {name:48} <- {theirs or 'the tensor'} {matching.told(shape)}{turned}"
        if len(matching.sites(self.tensors)) > 1 and matching.nowhere(self.names.values()):
            yield "no name says where it belongs: taken by number, else in the order of the file"
        verdict = "equal" if self.derived == self.counted else "NOT EQUAL"
        yield f"derived {self.derived:,}, counted {self.counted:,}: {verdict}"


# --- reading -----------------------------------------------------------------------------------


def read(path: Path) -> Any:
    """The content of a file of tensors, or of the one in a folder; nothing in it is run.

    Raises `InputError` where it holds more than that, or nothing that can be read.
    """
    path = next((path / name for name in HELD_AS if (path / name).is_file()), path)
    if path.is_dir():
        expected = f"a file of tensors, or a folder with {HELD_AS[0]}"
        raise InputError(f"folder {path}", "none of a library", expected, "name a file in it")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            return load(path.read_bytes())
        if part := changed_part(path):
            raise InputError(f"file {path}", f"{part} changed", "what was saved", "fetch it again")
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zipfile, pickle and safetensors raise many kinds
        if isinstance(error, InputError) or getattr(error, "filename", None):
            raise  # other OSErrors are torch's, on a file that was cut
        whole = "GLOBAL" in str(error)
        found = "objects, which may run code" if whole else "nothing that can be read"
        way_out = "save model.state_dict(), not the model or arrays of NumPy"
        raise InputError(
            f"file {path}", found, "tensors, as torch.save or safetensors write them", way_out
        ) from None


def changed_part(path: Path) -> str:
    """The first part of PyTorch's zip that has another checksum than was saved; "" for none."""
    if not zipfile.is_zipfile(path):
        return ""
    with zipfile.ZipFile(path) as whole:
        saved = any(part.CRC for part in whole.infolist())  # else without `set_crc32_options`
        return (saved and whole.testzip()) or ""


def flat(content: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Each tensor in dictionaries and lists, by the keys that lead to it; no optimizer's."""
    if isinstance(content, Tensor):
        yield name, content.detach()
    elif isinstance(content, Mapping | list | tuple):
        items = content.items() if isinstance(content, Mapping) else enumerate(content)
        for key, inner in items:
            if not str(key).lower().startswith(BESIDES):
                yield from flat(inner, f"{name}.{key}" if name else str(key))


def said(path: Path, content: Any) -> dict[str, Any]:
    """What a file of ours says of its method and settings, or a library's folder; {} for others.

    Raises `InputError` for a folder of a kind that our method is not.
    """
    if isinstance(content, Mapping) and isinstance(content.get("settings"), Mapping):
        usual = {"targets": [*Study.lora_targets]} if content.get("method") == "lora" else {}
        return {"method": content.get("method"), **usual, **content["settings"]}
    if not (path / CONFIG).is_file():
        return {}
    whole = read_yaml(path / CONFIG)  # as JSON is YAML
    deeper = whole.get("config")  # as AdapterHub's lies
    config = deeper if isinstance(deeper, Mapping) else whole
    for key, usual in ONLY.items():
        if (value := config.get(key, usual)) not in (usual, None):
            thing, expected = f"file {path / CONFIG}", f"{key} {usual}, as our method has it"
            raise InputError(thing, f"{key} {value}", expected, "this kind is not known here")
    if (begun := str(config.get("init_lora_weights")).lower()).startswith(CHANGED):
        thing, expected = f"file {path / CONFIG}", "a LoRA beside the T5 as it was"
        way_out = "save it with path_initial_model_for_weight_conversion"
        raise InputError(thing, f"init_lora_weights {begun}", expected, way_out)
    if "lora_alpha" in config or config.get("composition_mode") == "add":  # PEFT's, AdapterHub's
        alpha = config.get("lora_alpha", config.get("alpha"))
        alpha = float(alpha) if isinstance(alpha, int) else alpha
        return {"rank": config.get("r"), "alpha": alpha} | targets(config)
    return {"tokens": config["num_virtual_tokens"]} if "num_virtual_tokens" in config else {}


def targets(config: Mapping[str, Any]) -> dict[str, Any]:
    """The targets that a library's configuration lists; {} where it has a pattern."""
    names = config.get("target_modules", config.get("attn_matrices"))
    wide = {"intermediate_lora": "wi", "output_lora": "wo"}  # AdapterHub's
    if not isinstance(names, list):
        return {}
    names = names + [name for key, name in wide.items() if config.get(key)]
    last = [str(name).rpartition(".")[2] for name in names]
    ours = sorted({"wi" if name in ("wi_0", "wi_1") else name for name in last})
    return {"targets": [*(in_order(ours) or ours)]}


def settings(
    path: Path, said: Mapping[str, Any], method: str, study: Study, asked: dict[str, Any]
) -> dict[str, Any]:
    """A method's, as the study has them, the file says, and the command line asks for.

    Raises `InputError` for one that cannot be.
    """
    own = {key: value for key, value in said.items() if key in SETTINGS.get(method, {})} | asked
    for key, value in own.items():
        if expected := expected_of(key, value, study):
            thing = f"--{key}" if key in asked else f"file {path}: its {key}"
            raise InputError(thing, repr(value), expected, "give another")
    run = ours(study).get(method)
    found = (run.settings if run else {}) | own
    return named(found) if method == "lora" else found


# --- what is what ------------------------------------------------------------------------------


def identify(
    path: Path, content: Any, method: str, model: Model, settings: Mapping[str, Any]
) -> Handed:
    """Which tensor of the content is what. Raises `InputError` where they are not the method's."""
    asked = {"method": method, "targets": [*Study.lora_targets], **settings}
    for key, other in said(path, content).items():
        if (value := asked.get(key, other)) != other:
            given = " ".join(other) if isinstance(other, list) else other
            way_out = f"give --{key} {given}"
            raise InputError(f"file {path}", f"{key} {other}", f"{key} {value}", way_out)
    thing, derived = f"file {path}", formulas.derive(method, model, settings).derived
    found = {name: x for name, x in flat(content) if x.dim()}  # a number is a scale or a step
    wanted, bare = counting.tensors(method, model, settings)
    frozen = matching.backbone_in(found, bare)
    if method == "full":
        names = matching.whole(thing, found, wanted, frozen)
        derived, frozen = sum(formulas.parts(model).values()), {}  # nothing is
    else:
        rest = {name: x for name, x in found.items() if name not in frozen}
        names = matching.matched(thing, rest, wanted)
    for name in (*names.values(), *frozen):
        x = found[name]
        if not x.is_floating_point() or x.layout != torch.strided or x.is_meta:
            kind = f"tensor {name} of {x.dtype}, {x.layout}, on {x.device}"
            raise InputError(thing, kind, "plain floating-point numbers", "save them as float32")
    laid = {ours: matching.laid(found[name], wanted[ours].shape) for ours, name in names.items()}
    tensors = {ours: x.float() for ours, x in laid.items() if x is not None}
    if diverged := [names[name] for name, x in tensors.items() if not x.isfinite().all()]:
        found_there, way_out = f"tensor {diverged[0]} with inf or nan", "train at a lower rate"
        raise InputError(thing, found_there, "finite numbers", way_out)
    named = content.get("backbone_fingerprint", "") if isinstance(content, Mapping) else ""
    return Handed(path, found, frozen, names, tensors, derived, str(named))


def difference(found: Tensor, own: Tensor) -> float:
    """The largest, once both are of the precision that was found."""
    return float((found.float() - own.to(found.dtype).float()).abs().max())


# --- what it is worth --------------------------------------------------------------------------


def accuracy(handed: Handed, method: str, study: Study, settings: dict[str, Any]) -> Iterator[str]:
    """A line on the backbone's tensors that are in the file, and one on the test reviews.

    Raises `InputError` where the study's backbone or reviews are not at hand, or the file names
    another backbone.
    """
    checks.check(study)
    own = backbone.fingerprint(study)
    if handed.backbone not in ("", own):
        found, expected = (f"backbone {x[:12]}" for x in (handed.backbone, own))
        raise InputError(f"file {handed.path}", found, expected, "give the study of its backbone")
    run = Run(0, method, "scratch", settings, learning_rate=1.0)
    bare = backbone.load(study.backbone, study.seed).state_dict()
    off = {x: difference(handed.found[x], bare[ours]) for x, ours in handed.frozen.items()}
    if changed := {name: x for name, x in off.items() if x}:
        name = max(changed, key=lambda each: changed[each])
        yield (
            f"{len(changed)} of the T5's own tensors are not {study.backbone}'s: "
            f"{name} by {changed[name]:.2g} (was it frozen?)"
        )
    model = jobs.build(run, study)
    with torch.no_grad():
        reopen.put(model, handed.tensors, str(handed.path))
    job = jobs.with_fast_model(run, study, model)
    found = loop.accuracy(job, job.test, "test reviews")
    how = told(settings) or method
    yield f"accuracy {100 * found:.2f}% of {len(job.test):,} test reviews ({how})"
