"""A file that was handed in."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import adapters
import pytest
import torch
from helpers import Trap, run_of, trained_once
from safetensors.torch import save_file
from tiny import SETTINGS, injected, tiny
from torch import Tensor

from t5peft.__main__ import main
from t5peft.base.errors import InputError
from t5peft.base.studies import Study
from t5peft.inputs import backbone
from t5peft.measure import check
from t5peft.methods.table import inject
from t5peft.runs import store
from t5peft.training.jobs import trained

RANK = SETTINGS["lora"]["rank"]


def look(path: Path, method: str = "lora", **settings: Any) -> check.Handed:
    return check.identify(path, check.read(path), method, "tiny", SETTINGS[method] | settings)


def lora() -> dict[str, Tensor]:
    return {name: x.clone() for name, x in trained(injected("lora", "scratch")).items()}


def librarys(folder: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Write tensors and what is said of them as PEFT and AdapterHub do."""
    held = {name: x.contiguous() for name, x in tensors.items()}
    save_file(held, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))


WAYS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "a state dict": lambda tensors: tensors,
    "of parameters": lambda tensors: {x: torch.nn.Parameter(t) for x, t in tensors.items()},
    "in half": lambda tensors: {name: x.half() for name, x in tensors.items()},
    "a checkpoint": lambda tensors: {
        "epoch": 3,
        "model_state_dict": tensors,
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(32, RANK)}}},
        "scheduler": {"_last_lr": [torch.ones(1)]},
        "scaler": {"scale": torch.ones(1)},
        "alpha": torch.tensor(4.0),
    },
    "nested": lambda tensors: {"lora": [{name: x} for name, x in tensors.items()]},
    "the whole model": lambda tensors: injected("lora", "scratch").state_dict() | tensors,
}


@pytest.mark.parametrize("way", WAYS)
def test_however_it_was_saved(way: str, tmp_path: Path) -> None:
    tensors = lora()
    torch.save(WAYS[way](tensors), tmp_path / "lora.pt")
    handed = look(tmp_path / "lora.pt")
    assert handed.derived == handed.counted == sum(x.numel() for x in tensors.values())
    for name, tensor in tensors.items():
        torch.testing.assert_close(handed.tensors[name], tensor, rtol=1e-3, atol=1e-3)
    first, *lines, last = handed.lines
    assert len(lines) == len(tensors)
    assert last == "derived 1,536, counted 1,536: equal"
    assert ("of them the T5's own" in first) == (way == "the whole model")


def test_it_is_said_where_the_order_alone_tells_what_is_what(tmp_path: Path) -> None:
    """Else a file of another order is taken for a bad training."""
    said = "no name says where it belongs: taken by number, else in the order of the file"
    for named in (True, False):
        tensors = {x if named else f"{at}": t for at, (x, t) in enumerate(lora().items())}
        torch.save(tensors, tmp_path / "lora.pt")
        assert (said in look(tmp_path / "lora.pt").lines) == (not named)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "x.safetensors"])
def test_safetensors_alone_and_in_a_librarys_folder(name: str, tmp_path: Path) -> None:
    save_file({x: t.contiguous() for x, t in lora().items()}, tmp_path / name)
    path = tmp_path if name.startswith("adapter_model") else tmp_path / name
    assert look(path).names.keys() == lora().keys()


def test_a_file_without_checksums_is_no_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(lora(), tmp_path / "lora.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert look(tmp_path / "lora.pt").counted == 1536


def test_a_prompt_may_be_a_tensor_alone(tmp_path: Path) -> None:
    torch.save(torch.nn.Parameter(torch.ones(3, 32)), tmp_path / "prompts.pt")
    assert look(tmp_path / "prompts.pt", "soft-prompt").counted == 96


def test_what_runs_code_is_not_run(tmp_path: Path) -> None:
    torch.save(tiny(), tmp_path / "model.pt")
    torch.save({"a": Trap(tmp_path / "ran")}, tmp_path / "trap.pt")
    (tmp_path / "text.pt").write_text("no tensors")
    torch.save({"a": torch.zeros(10_000)}, tmp_path / "whole.pt")
    (tmp_path / "cut.pt").write_bytes((tmp_path / "whole.pt").read_bytes()[:20_000])
    (tmp_path / "cut.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    flat = (tmp_path / "whole.pt").read_bytes()
    (tmp_path / "bit.pt").write_bytes(flat[:9_999] + bytes([flat[9_999] ^ 1]) + flat[10_000:])
    with pytest.raises(InputError, match=r"bit.pt: found whole/data/0 changed, expected what was"):
        check.read(tmp_path / "bit.pt")
    for name, found in (
        ("model.pt", "objects, which may run code"),
        ("trap.pt", "objects, which may run code"),
        ("text.pt", "nothing that can be read"),
        ("cut.pt", "nothing that can be read"),
        ("cut.safetensors", "nothing that can be read"),
    ):
        with pytest.raises(InputError, match=f"{name}: found {found}, expected tensors"):
            check.read(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"alpha": 8.0}, "alpha 4.0, expected alpha 8.0; give --alpha 4.0"),
        ({"rank": 8}, "rank 2, expected rank 8; give --rank 2"),
    ],
)
def test_a_file_of_ours_says_what_it_is(change: dict[str, Any], found: str, tmp_path: Path) -> None:
    """A wrong alpha fits every shape, and would change every answer."""
    held = {"method": "lora", "settings": SETTINGS["lora"], "state_dict": lora()}
    torch.save(held, tmp_path / "lora.pt")
    assert look(tmp_path / "lora.pt").derived == 1536
    with pytest.raises(InputError, match=f"lora.pt: found {found}"):
        look(tmp_path / "lora.pt", **change)
    with pytest.raises(InputError, match="found method lora, expected method adapter"):
        look(tmp_path / "lora.pt", "adapter")


def test_a_librarys_folder_says_what_it_is(tmp_path: Path) -> None:
    """PEFT's alpha and rank; what would make another map of the same tensors is refused."""
    config = {"r": RANK, "lora_alpha": 16, "use_rslora": False, "rank_pattern": {}}
    for change, found in (
        ({}, "alpha 16.0, expected alpha 4.0"),
        ({"lora_alpha": 4, "r": 8}, "rank 8, expected rank 2"),
        ({"lora_alpha": 4, "use_rslora": True}, "use_rslora True, expected use_rslora False"),
        *(
            ({"init_lora_weights": begun}, f"init_lora_weights {begun}, expected")
            for begun in ("pissa_niter_4", "corda")
        ),
        ({"num_transformer_submodules": 2}, "num_transformer_submodules 2, expected num_"),
        (
            {"config": {"non_linearity": "swish"}},
            "non_linearity swish, expected non_linearity relu",
        ),
        *(
            ({"config": {key: not usual}}, f"{key} {not usual}, expected {key} {usual}")
            for key, usual in {
                "use_gating": False,
                "mh_adapter": False,
                "output_adapter": True,
                "cross_adapter": False,
                "residual_before_ln": True,
                "original_ln_after": True,
            }.items()
        ),
        ({"feedforward_modules": ["k", "wo"]}, r"feedforward_modules \['k', 'wo'\], expected"),
    ):
        librarys(tmp_path, config | change, lora())
        with pytest.raises(InputError, match=f"found {found}"):
            look(tmp_path)
    librarys(tmp_path, config | {"lora_alpha": 4}, lora())
    assert look(tmp_path).counted == 1536
    wider = {"lora_alpha": 4, "target_modules": ["model.wi_1", "q", "wi_0"]}
    librarys(tmp_path, config | wider, lora())
    assert check.said(tmp_path, {})["targets"] == ["q", "wi"]
    wider["target_modules"] = "(q|v)"
    librarys(tmp_path, config | wider, lora())
    assert "targets" not in check.said(tmp_path, {}), "a pattern says nothing that is read here"
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match="expected a readable YAML file"):
        look(tmp_path)


def test_adapterhubs_lora_says_what_it_is_too(tmp_path: Path) -> None:
    model: Any = tiny()
    adapters.init(model)
    config = adapters.LoRAConfig(r=RANK, alpha=16, attn_matrices=["q", "k"], output_lora=True)
    model.add_adapter("imdb", config=config)
    model.save_adapter(str(tmp_path), "imdb", with_head=False)
    own = {"alpha": 16.0, "targets": ["q", "k", "wo"]}
    assert check.said(tmp_path, {}) == {"rank": RANK} | own
    assert look(tmp_path, **own).counted == 2304
    with pytest.raises(InputError, match=r"found alpha 16.0, expected alpha 4.0; give --alpha 16"):
        look(tmp_path, targets=own["targets"])


def test_a_lora_elsewhere_says_so_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of ours and a folder of PEFT's; what is asked for goes before, and must agree."""
    settings = {"rank": RANK, "alpha": 4.0, "targets": ["k", "o", "wo"]}
    ours, theirs = tiny(), tiny()
    for model, kind in ((ours, "scratch"), (theirs, "peft")):
        inject(model, "lora", kind, settings)
    held = {"method": "lora", "settings": settings, "state_dict": trained(ours)}
    torch.save(held, tmp_path / "lora.pt")
    config = {"r": RANK, "lora_alpha": 4, "target_modules": ["wo", "o", "k"]}
    librarys(tmp_path, config, trained(theirs))
    for path in (tmp_path / "lora.pt", tmp_path):
        command = ["check", str(path), "--method", "lora", "--size", "tiny"]
        assert main(command) == 0
        assert capsys.readouterr().out.endswith("derived 2,304, counted 2,304: equal\n")
        assert main([*command, "--targets", "wo", "k", "o"]) == 0
        capsys.readouterr()
        for other in (["k", "o"], ["q", "v"]):
            assert main([*command, "--targets", *other]) == 2
            expected = f"found targets ['k', 'o', 'wo'], expected targets {other}"
            assert expected in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ("--bottleneck 4", "setting bottleneck: found 4, expected settings of lora: rank, alpha"),
        ("--rank 0", "--rank: found 0, expected a whole number from 1"),
        ("--alpha nan", "--alpha: found nan, expected a positive number"),
        ("--alpha -1", "--alpha: found -1.0, expected a positive number"),
        ("--method adapter --targets q v", "setting targets: found ['q', 'v'], expected settings"),
        ("--size t6", "size: found 't6', expected one of t5-small"),
    ],
)
def test_an_option_of_another_method_is_refused(
    options: str, found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(lora(), tmp_path / "x")
    assert main(["check", str(tmp_path / "x"), "--method", "lora", *options.split()]) == 2
    assert found in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"alpha": "four"}, "its alpha: found 'four', expected a positive number"),
        ({"alpha": None}, "its alpha: found None, expected a positive number"),
        ({"rank": 2.5}, "its rank: found 2.5, expected a whole number from 1"),
        ({"targets": 5}, "its targets: found 5, expected some of q, k"),
    ],
)
def test_a_setting_that_cannot_be_is_the_files(
    settings: dict[str, Any], found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    held = {"method": "lora", "settings": SETTINGS["lora"] | settings, "state_dict": lora()}
    torch.save(held, tmp_path / "lora.pt")
    assert main(["check", str(tmp_path / "lora.pt"), "--method", "lora", "--size", "tiny"]) == 2
    assert f"lora.pt: {found}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"lora_alpha": 4}, "its rank: found None"),
        ({"lora_alpha": "four", "r": RANK}, "its alpha: found 'four'"),
        ({"lora_alpha": None, "r": RANK, "config": 5}, "its alpha: found None"),
    ],
)
def test_and_a_folders(
    config: dict[str, Any], found: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    librarys(tmp_path, config, lora())
    assert main(["check", str(tmp_path), "--method", "lora", "--size", "tiny"]) == 2
    assert f"{found}, expected a" in capsys.readouterr().err


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tensors_of_a_training_that_diverged_are_named(value: float, tmp_path: Path) -> None:
    tensors = lora()
    name = [*tensors][3]
    tensors[name][0, 0] = value
    torch.save(tensors, tmp_path / "lora.pt")
    with pytest.raises(InputError, match=f"lora.pt: found tensor {name} with inf or nan"):
        look(tmp_path / "lora.pt")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda x: x.to(torch.int8), "of torch.int8, torch.strided, on cpu"),
        (lambda x: x.to(torch.complex64), "of torch.complex64"),
        (lambda x: x.to_sparse(), "of torch.float32, torch.sparse_coo"),
        (lambda x: x.to("meta"), "of torch.float32, torch.strided, on meta"),
    ],
)
def test_tensors_that_are_no_plain_numbers_are_named(
    change: Callable[[Tensor], Tensor], found: str, tmp_path: Path
) -> None:
    tensors = lora()
    name = [*tensors][3]
    torch.save(tensors | {name: change(tensors[name])}, tmp_path / "lora.pt")
    with pytest.raises(InputError, match=rf"lora.pt: found tensor {name} {found}"):
        look(tmp_path / "lora.pt")


def test_a_folder_of_no_library_is_refused(tmp_path: Path) -> None:
    torch.save(lora(), tmp_path / "lora.pt")
    with pytest.raises(InputError, match=r"found none of a library, .*; name a file in it"):
        check.read(tmp_path)


def test_another_size_is_refused_by_the_first_tensor(tmp_path: Path) -> None:
    torch.save(lora(), tmp_path / "lora.pt")
    with pytest.raises(InputError, match=r"SelfAttention.q.A \(32, 2\), expected .* \(32, 3\)"):
        look(tmp_path / "lora.pt", rank=3)


def test_it_is_worth_what_the_run_was(
    study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On all test reviews, from the command line; in a whole model that was not frozen, it says."""
    folder = trained_once(run_of(study), study)
    record, tensors = store.tensors(folder)
    whole = backbone.load(study.backbone, study.seed).state_dict()
    for side, more in (("encoder", 0.25), ("decoder", 0.125)):
        name = f"{side}.final_layer_norm.weight"
        whole[name] = whole[name] + more
    whole = {name: x.half() for name, x in whole.items()}
    torch.save(whole | {f"{x[:-1]}lora_{x[-1]}": t.T for x, t in tensors.items()}, tmp_path / "x")
    command = ["check", str(tmp_path / "x"), "--method", "lora", "--study", "smoke"]
    command += ["--set", f"tokenizer={study.tokenizer}"]
    assert main(command) == 0
    *_, equal, changed, worth = capsys.readouterr().out.splitlines()
    assert equal.endswith(": equal")
    assert changed.startswith("2 of the T5's own tensors are not random:tiny's")
    assert "encoder.final_layer_norm.weight by 0.25" in changed
    held = {"method": "lora", "settings": record["run"]["settings"], "state_dict": tensors}
    torch.save(held | {"backbone_fingerprint": "f00d"}, tmp_path / "x")
    assert main(command) == 2
    assert "found backbone f00d, expected backbone" in capsys.readouterr().err
    expected = 100 * record["best_accuracy"]
    assert worth == f"accuracy {expected:.2f}% of 64 test reviews (rank 8, alpha 4)"


def test_another_number_than_is_derived_is_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(lora(), tmp_path / "lora.pt")
    wrong = dataclasses.replace(look(tmp_path / "lora.pt"), derived=7)
    monkeypatch.setattr(check, "identify", lambda *_: wrong)
    assert main(["check", str(tmp_path / "lora.pt"), "--method", "lora", "--size", "tiny"]) == 1


def test_full_fine_tuning_is_a_whole_t5(tmp_path: Path) -> None:
    torch.save({f"module.{name}": x for name, x in tiny().state_dict().items()}, tmp_path / "t5.pt")
    handed = look(tmp_path / "t5.pt", "full")
    assert handed.derived == handed.counted == tiny().num_parameters()
    assert handed.tensors.keys() == dict(tiny().named_parameters()).keys()


@pytest.mark.slow
def test_a_whole_t5_small_is_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = backbone.load("random:t5-small")
    torch.save(model.state_dict(), tmp_path / "t5.pt")
    assert main(["check", str(tmp_path / "t5.pt"), "--method", "full"]) == 0
    assert "derived 60,506,624, counted 60,506,624: equal" in capsys.readouterr().out
    held = model.state_dict() | {"prompt": torch.zeros(10, 512)}
    torch.save(held, tmp_path / "t5.pt")
    assert main(["check", str(tmp_path / "t5.pt"), "--method", "soft-prompt"]) == 0
    assert "derived 5,120, counted 5,120: equal" in capsys.readouterr().out
