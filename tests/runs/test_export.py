"""The files that the exercise asks for."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import NAME, run_of

from t5peft.base.errors import InputError
from t5peft.base.studies import Listed, Study
from t5peft.inputs import backbone
from t5peft.methods.table import runs_of
from t5peft.runs import export, make, reopen, store

pytestmark = pytest.mark.slow

SETTINGS = ({"tokens": 10}, {"bottleneck": 8}, {"rank": 8, "alpha": 4.0})

LISTED = (
    Listed("lora", settings={"rank": 2}),
    Listed("lora", "peft", {"rank": 1, "alpha": 3.0}),
    Listed("lora", settings={"rank": 2, "targets": ["k", "o", "wi"]}),
    Listed("lora", "peft", {"rank": 3, "targets": ["wo", "q"]}),
    Listed("ia3", rate=0.1),
    Listed("ia3", "peft", rate=0.1),
    Listed("soft-prompt", settings={"tokens": 3}),
    Listed("soft-prompt", "opendelta", {"tokens": 1}),
    Listed("adapter", settings={"bottleneck": 3}),
    Listed("adapter", "adapterhub", {"bottleneck": 1}),
)

THEIRS = """
import sys
import torch
from transformers import AutoTokenizer, T5ForConditionalGeneration

how, backbone, folder, out = sys.argv[1:]
model = T5ForConditionalGeneration.from_pretrained(folder if how == "plain" else backbone)
if how == "peft":
    from peft import PeftModel
    model = PeftModel.from_pretrained(model, folder)
if how == "adapterhub":
    import adapters
    adapters.init(model)
    model.load_adapter(folder, set_active=True)
assert "t5peft" not in sys.modules
text = AutoTokenizer.from_pretrained(backbone)(["a good film", "a long and bad one"], padding=True)
ids, mask = (torch.tensor(text[key]) for key in ("input_ids", "attention_mask"))
with torch.inference_mode():
    starts = torch.zeros(2, 1, dtype=torch.long)
    logits = model.eval()(input_ids=ids, attention_mask=mask, decoder_input_ids=starts).logits
torch.save((ids, mask, logits), out)
"""


def test_exported_weights_open_without_unpickling(study: Study, tmp_path: Path) -> None:
    for name in ("soft-prompt-scratch-n10", "adapter-scratch-b8", NAME):
        make.train_alone(run_of(study, name), study)
    clash = tmp_path / "clash"
    (clash / "prompts.pt").mkdir(parents=True)
    with pytest.raises(InputError, match=r"prompts.pt: found another of that name"):
        export.export(study, clash)
    assert [path.name for path in clash.iterdir()] == ["prompts.pt"], "all three, or none"
    (tmp_path / "lora.pt").write_text("a user's own")
    with pytest.raises(InputError, match=r"lora.pt: found another of that name, .* remove it, or"):
        export.export(study, tmp_path)
    assert (tmp_path / "lora.pt").read_text() == "a user's own"
    (tmp_path / "lora.pt").unlink()
    written = export.export(study, tmp_path)
    assert export.export(study, tmp_path) == written, "its own are there already"
    assert [path.name for path in written] == ["prompts.pt", "adapter.pt", "lora.pt"]
    one = export.export(study, tmp_path / "one", [run_of(study)])
    assert [path.name for path in one] == ["lora.pt"], "--only"
    for path, settings in zip(written, SETTINGS, strict=True):
        held = torch.load(path, weights_only=True)
        assert held["settings"] == settings
        assert held["backbone_fingerprint"] == backbone.fingerprint(study)
        assert all(map(torch.is_tensor, held["state_dict"].values()))


def test_two_sizes_of_a_method_are_not_one_file(study: Study, tmp_path: Path) -> None:
    runs = tuple(Listed("lora", settings={"rank": rank}) for rank in (1, 2))
    with pytest.raises(InputError, match=r"found lora-scratch-r1, lora-scratch-r2, expected one"):
        export.export(dataclasses.replace(study, runs=runs), tmp_path)
    with pytest.raises(InputError, match="found no from-scratch run of a PEFT method"):
        export.export(dataclasses.replace(study, runs=(Listed("full"),)), tmp_path)
    assert not list(tmp_path.glob("*.pt"))


@pytest.fixture
def many(study: Study) -> Study:
    """A study with a stored run of each method, by either implementation."""
    study = dataclasses.replace(study, study="many", epochs=1, runs=LISTED)
    for run in runs_of(study):
        make.train_alone(run, study)
    return study


def theirs(how: str, backbone: Path, folder: Path) -> list[torch.Tensor]:
    """Ids, mask and logits, from a process that knows the library alone."""
    out = folder / "logits"
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    given = [how, str(backbone), str(folder), str(out)]
    subprocess.run([sys.executable, "-c", THEIRS, *given], check=True, cwd=folder, env=kept)
    return torch.load(out)


@torch.inference_mode()
def test_libraries_open_what_is_exported_and_say_the_same(many: Study, tmp_path: Path) -> None:
    """Ours and theirs, merged and beside; in a process that imports the library alone."""
    bare = export.bare(many, tmp_path)
    runs = {run.name: run for run in runs_of(many)}
    found = [
        (
            how.replace("merged", "plain"),
            runs[Path(line.partition(":")[0]).name.removesuffix("-merged")],
            line,
        )
        for how in ("peft", "adapterhub", "merged")
        for line in export.in_folders(many, tmp_path, how, [*runs.values()])
    ]
    assert len(found) == len(LISTED) + 4
    *_, nothing = theirs("plain", bare, bare)
    for how, run, line in found:
        folder = Path(line.partition(":")[0])
        ids, mask, logits = theirs(how, bare, folder)
        _, _, model = reopen.load(f"many/{run.name}")
        front = run.placeholders
        own = model(
            input_ids=torch.nn.functional.pad(ids, (front, 0)),
            attention_mask=torch.nn.functional.pad(mask, (front, 0), value=1),
            decoder_input_ids=torch.zeros(2, 1, dtype=torch.long),
        ).logits
        torch.testing.assert_close(logits, own, rtol=1e-4, atol=1e-4)
        assert (logits - nothing).abs().max() > 1e-3, "the method does something"
        if how == "peft" and run.method == "lora":
            named = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
            assert sorted(named) == sorted(run.settings.get("targets", ["q", "v"]))
        card = (folder / "README.md").read_text()
        assert ("targets k o wi" in card) == (run.settings.get("targets") == ["k", "o", "wi"])
        assert run.name in card
        assert f"{many.train_examples} reviews of {many.data}, of" in card
        assert f"{100 * store.load(run, many)['best_accuracy']:.2f}%" in card
        if how == "plain":
            assert float(line.rpartition(" ")[2]) < 1e-4
    record = store.load(run, many)
    record["stale"] = "of other code"
    assert "\n- of other code\n" in export.card(run, many, record, "peft")


def test_nothing_is_exported_over_and_no_run_of_another_kind(many: Study, tmp_path: Path) -> None:
    wanted = runs_of(many)
    (tmp_path / "adapter-scratch-b3").mkdir()
    (tmp_path / "adapter-scratch-b3" / export.CARD).write_text("Another's.")
    with pytest.raises(InputError, match="adapter-scratch-b3: found something there"):
        list(export.in_folders(many, tmp_path, "adapterhub", wanted))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"folder .*/file/adapter-scratch-b3|file .*/file/adapter"):
        list(export.in_folders(many, tmp_path / "file", "adapterhub", wanted))
    with pytest.raises(InputError, match="found ia3-scratch, expected a run of lora"):
        list(export.in_folders(many, tmp_path, "merged", wanted[4:5]))


def test_an_export_that_was_stopped_goes_on(many: Study, tmp_path: Path) -> None:
    wanted = runs_of(many)
    before = [next(export.in_folders(many, tmp_path, "adapterhub", wanted))]
    stood = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    after = [*export.in_folders(many, tmp_path, "adapterhub", wanted)]
    assert after[0] == f"{before[0]}: is there"
    assert len(after) > 1
    assert not any("is there" in line for line in after[1:])
    assert all(path.stat().st_mtime_ns == time for path, time in stood.items() if path.is_file())
