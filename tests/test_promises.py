"""What the project promises of its stored runs: nothing is lost, and nothing lies."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import edit, run_named
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from t5peft.__main__ import main
from t5peft.base import deciding, files, paths, studies
from t5peft.base.errors import InputError
from t5peft.base.studies import Params
from t5peft.inputs import backbone, data, int8, tokenizers
from t5peft.methods.table import Run, runs_of
from t5peft.report import export
from t5peft.runs import make, records, reopen, store
from t5peft.runs.identity import identity_of
from t5peft.training import checkpoint, jobs

NAME = "lora-scratch-r8"
KILLS = 25
MUTATIONS = 600
SOURCE = deciding.FOLDER

CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["t5peft.runs.make", "t5peft.methods.libraries"])


def run_of(study: Params, name: str = NAME) -> Run:
    return run_named(study, name)


ADDED = ("speed", "environment", "seal", "stale", "verified")


def figures(record: dict[str, Any]) -> dict[str, Any]:
    """A record without times, peak of memory, seal and marks; weights by their SHA-256."""
    kept = {k: v for k, v in record.items() if k not in ADDED}
    history = [{k: v for k, v in x.items() if "seconds" not in k} for x in record["history"]]
    return kept | {"history": history, "memory": record["memory"]["optimizer_bytes"]}


@pytest.fixture
def study(smoke: Params) -> Params:
    """The smoke study, with a rate at which LoRA's accuracy moves."""
    return dataclasses.replace(smoke, lora_learning_rate=0.03, epochs=4)


@pytest.fixture
def stored(study: Params) -> Path:
    """The folder of a stored run."""
    make.train_alone(run_of(study), study)
    return store.folder(run_of(study), study)


def tensors_in(folder: Path) -> Path:
    return folder / store.DELTA


def forge(folder: Path, **changes: Any) -> None:
    """Change a record and seal it anew: what a forger would do, and another version."""
    record = {**json.loads((folder / records.RECORD).read_text()), **changes}
    record["seal"] = records.seal(record)
    (folder / records.RECORD).write_text(records.as_text(record))


# --- 1. killed anywhere, it goes on ------------------------------------------------------------


def train_in(home: Path, study: Params, fatal: tuple[str, str] | None = None) -> None:
    """In a process of its own: train the run, or die while a file is written."""
    os.environ["T5PEFT_HOME"] = str(home)
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    torch.set_num_threads(1)
    if fatal:
        die_at(*fatal)
    make.train_alone(run_of(study), study)


STAGES = ("half written", "not renamed", "renamed")


def die_at(name: str, stage: str) -> None:
    """Kill this process while `files.write_bytes` writes the file that begins with `name`."""
    write, replace = files.write_bytes, Path.replace

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def half(descriptor: int) -> None:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        die()

    def deadly(path: Path, content: bytes) -> None:
        if path.name.startswith(name):
            if stage == "half written":
                os.fsync = half
            elif stage == "not renamed":
                Path.replace = die  # type: ignore[method-assign]
            else:
                Path.replace = lambda *both: die(replace(*both))  # type: ignore[method-assign]
        write(path, content)

    files.write_bytes = deadly


def child(*arguments: Any, seconds: float | None = None) -> int | None:
    """Train in a process of its own; after `seconds` it is killed. Returns its exit code."""
    process = CHILDREN.Process(target=train_in, args=arguments)
    process.start()
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode


@pytest.fixture
def undisturbed(home: Path, study: Params) -> tuple[dict[str, Any], float]:
    """The figures of a run that nobody killed, and how long it took."""
    elsewhere = home.with_name("undisturbed")
    shutil.copytree(home, elsewhere)
    child(home, dataclasses.replace(study, epochs=1))  # the server's start, the tokens' cache
    shutil.rmtree(home / "weights")
    began = time.perf_counter()
    assert child(elsewhere, study) == 0
    seconds = time.perf_counter() - began
    record = json.loads((elsewhere / "weights" / "smoke" / NAME / records.RECORD).read_text())
    return figures(record), seconds


def test_killed_at_random_moments_a_run_ends_as_if_undisturbed(
    home: Path, study: Params, undisturbed: tuple[dict[str, Any], float]
) -> None:
    wanted, duration = undisturbed
    assert len({epoch["test_accuracy"] for epoch in wanted["history"]}) > 1, "nothing was learnt"
    draw = random.Random(0)
    kills = 0
    while kills < KILLS:
        code = child(home, study, seconds=draw.uniform(0, duration))
        kills += code == -signal.SIGKILL
        if code == 0:  # it was through before: look at it, and begin again
            assert figures(store.load(run_of(study), study)) == wanted
            shutil.rmtree(home / "weights")
    assert child(home, study) == 0
    assert figures(store.load(run_of(study), study)) == wanted


def test_killed_while_it_writes_a_run_ends_as_if_undisturbed(
    home: Path, study: Params, undisturbed: tuple[dict[str, Any], float]
) -> None:
    wanted, _ = undisturbed
    assert child(home, study, (records.RECORD, "renamed")) == -signal.SIGKILL
    assert figures(store.load(run_of(study), study)) == wanted, "the record makes it whole"
    shutil.rmtree(home / "weights")
    for name in ("checkpoint.pt", "trace-", "delta-", records.RECORD):
        for stage in STAGES[: 2 if name == records.RECORD else 3]:
            assert child(home, study, (name, stage)) == -signal.SIGKILL
            assert store.status(run_of(study), study).state == "missing"
    assert child(home, study) == 0
    assert figures(store.load(run_of(study), study)) == wanted
    folder = store.folder(run_of(study), study)
    left = {"lock", records.RECORD, store.DELTA, store.TRACE}
    assert {path.name for path in folder.iterdir()} == left, "nothing half-written is left"


def endless(study: Params, *options: str, interrupt: Any = signal.SIG_DFL) -> subprocess.Popen[str]:
    """A training that goes on until it is stopped; interrupt: what SIGINT does at its start."""
    command = [sys.executable, "-m", "t5peft", "train", "smoke", *options]
    return subprocess.Popen(
        [*command, "--set", f"tokenizer={study.tokenizer}", "--set", "epochs=100000"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, interrupt),
    )


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "kill"])
def test_ctrl_c_ends_within_two_seconds_and_says_how_to_go_on(
    stop: signal.Signals, study: Params
) -> None:
    process = endless(study, "--only", NAME)
    assert process.stderr is not None
    assert any(": epoch 2 of" in line for line in process.stderr)
    process.send_signal(stop)
    began = time.perf_counter()
    said = process.communicate(timeout=30)[1]
    assert time.perf_counter() - began < 2
    assert process.returncode == 130
    assert "the same command goes on" in said.splitlines()[-1]
    assert "Traceback" not in said


TRAIN_PIECES = """
import os, random, sys, time
from pathlib import Path
from t5peft import tokenizer
draw = random.Random(0)
texts = [" ".join("%x" % draw.getrandbits(40) for _ in range(50)) for _ in range(20000)]
print("begun", flush=True)
try:
    tokenizer.train(texts, 8000, Path(sys.argv[1]) / "pieces")
    print("at its end", flush=True)
except KeyboardInterrupt:
    print("stopped", flush=True)
os._exit(0)
"""


def test_ctrl_c_stops_the_training_of_pieces_too(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", TRAIN_PIECES, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    began = time.perf_counter()
    assert process.communicate(timeout=60)[0] == "stopped\n"
    assert time.perf_counter() - began < 2


def test_a_checkout_that_cannot_be_written_answers(
    study: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make.train(run_named(study, NAME), study)
    shutil.rmtree(paths.cache())

    def read_only(*given: Any, **named: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    for name in ("mkdir", "write_bytes", "unlink", "replace"):
        monkeypatch.setattr(Path, name, read_only)
    monkeypatch.setattr(files.tempfile, "NamedTemporaryFile", read_only)
    deciding.code.cache_clear()
    command = ["status", *studies.arguments(study).split()]
    assert main(command) == 0
    assert f"{NAME:27} fresh" in capsys.readouterr().out
    assert main([*command, "--why", NAME]) == 0


@pytest.mark.parametrize(
    ("stop", "interrupt"),
    [(signal.SIGINT, signal.SIG_DFL), (signal.SIGTERM, signal.SIG_IGN)],
    ids=["ctrl-c", "kill of what `&` started"],
)
def test_all_runs_that_are_side_by_side_are_stopped(
    stop: signal.Signals, interrupt: Any, study: Params
) -> None:
    names = {"lora-scratch-r8", "adapter-scratch-b8"}
    process = endless(study, "--jobs", "2", "--only", *names, interrupt=interrupt)
    assert process.stderr is not None
    begun: set[str] = set()
    for line in process.stderr:
        begun |= {name for name in names if line.startswith(f"{name}: epoch 2 of")}
        if begun == names:
            break
    process.send_signal(stop)
    said = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert "Traceback" not in said
    for name in names:
        with store.lock(run_named(study, name), study) as free:
            assert free, "no child trains on"


# --- 2. a stored run is what it says -----------------------------------------------------------


def flip(draw: random.Random, content: bytes) -> bytes:
    at = draw.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]


def cut(draw: random.Random, content: bytes) -> bytes:
    return content[: draw.randrange(len(content))]


def lengthen(draw: random.Random, content: bytes) -> bytes:
    return content + draw.choice([b"\0", b"\n", b" ", b"}", content])


def test_no_damaged_run_is_shown(study: Params, stored: Path) -> None:
    """Flipped bits, cut and lengthened files, files of other runs, of another identity."""
    run, draw = run_of(study), random.Random(0)
    strangers = []
    for other in (run_of(study, "lora-peft-r8"), run_of(study, "adapter-scratch-b8")):
        make.train_alone(other, study)
        strangers.append(store.folder(other, study))
    elsewhere = dataclasses.replace(study, study="elsewhere", seed=1)
    make.train_alone(run, elsewhere)
    strangers.append(store.folder(run, elsewhere))

    record, tensors = stored / records.RECORD, tensors_in(stored)
    sound = {path: path.read_bytes() for path in (record, tensors, stored / store.TRACE)}

    def swap_record(stranger: Path) -> None:
        shutil.copy(stranger / records.RECORD, record)

    def swap_tensors(stranger: Path) -> None:
        shutil.copy(tensors_in(stranger), tensors)

    def swap_both(stranger: Path) -> None:
        swap_record(stranger)
        shutil.copy(tensors_in(stranger), stored)

    for _ in range(MUTATIONS):
        if draw.random() < 0.9:
            path, change = draw.choice(list(sound)), draw.choice([flip, cut, lengthen])
            path.write_bytes(change(draw, sound[path]))
        else:
            draw.choice([swap_record, swap_tensors, swap_both])(draw.choice(strangers))
        with pytest.raises(InputError, match=run.name):
            store.load(run, study)
        with pytest.raises(InputError, match=run.name):
            reopen.load(f"smoke/{run.name}")
        for path, content in sound.items():
            path.write_bytes(content)
    assert store.load(run, study)["run"]["name"] == run.name
    assert reopen.load(f"smoke/{run.name}")[0] == run


def test_what_is_damaged_is_named(study: Params, stored: Path) -> None:
    path = tensors_in(stored)
    path.write_bytes(flip(random.Random(0), path.read_bytes()))
    state = store.status(run_of(study), study)
    assert state.state == "damaged"
    assert path.name in state.reason
    assert "make it again" in state.reason


@pytest.mark.parametrize("lost", ["params", "best_accuracy"])
def test_a_record_of_another_version_is_refused(lost: str, study: Params, stored: Path) -> None:
    record = json.loads((stored / records.RECORD).read_text())
    del record[lost]
    record["seal"] = records.seal(record)
    (stored / records.RECORD).write_text(records.as_text(record))
    with pytest.raises(InputError, match=f"no {lost}"):
        store.load(run_of(study), study)
    with pytest.raises(InputError, match=f"no {lost}"):
        reopen.load(f"smoke/{NAME}")


def test_a_record_without_a_field_of_params_is_refused(study: Params, stored: Path) -> None:
    forge(stored, params={k: v for k, v in vars(study).items() if k != "lora_alpha"})
    with pytest.raises(InputError, match="no lora_alpha"):
        reopen.load(f"smoke/{NAME}")


# --- 3. no stale number unseen -----------------------------------------------------------------


@pytest.fixture
def on_folders(study: Params, home: Path) -> Params:
    """A study whose data and backbone are folders, so that both can be changed."""
    for split in data.SPLITS:
        for number, (text, label) in enumerate(data.read(data.MADE_UP, split)):
            path = home / "imdb" / split / ("neg", "pos")[label] / f"{number}_1.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    int8.save(backbone.load("random:tiny"), home / "t5")
    shutil.copy(Path(study.tokenizer) / tokenizers.MODEL_FILE, home / "t5")
    return dataclasses.replace(study, data="imdb", backbone="t5", tokenizer="", epochs=1)


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package's source, which counts as the source while the test runs."""
    copy = tmp_path / "source"
    shutil.copytree(SOURCE, copy)
    monkeypatch.setattr(deciding, "FOLDER", copy)
    yield copy
    deciding.code.cache_clear()
    deciding.sources.cache_clear()


def change_setting(study: Params, code: Path) -> Params:
    return dataclasses.replace(study, lora_alpha=study.lora_alpha + 1)


def change_data(study: Params, code: Path) -> Params:
    path = next((paths.root() / "imdb" / "test" / "pos").iterdir())
    path.write_text(path.read_text() + "!")
    return study


def change_backbone(study: Params, code: Path) -> Params:
    path = next((paths.root() / "t5").glob("int8-*"))
    path.write_bytes(flip(random.Random(0), path.read_bytes()))
    return study


def change_tokenizer(study: Params, code: Path) -> Params:
    path = paths.root() / "t5" / tokenizers.MODEL_FILE
    path.write_bytes(path.read_bytes() + b"\0")
    return study


def change_code(study: Params, code: Path) -> Params:
    edit(code / "methods/lora.py", "self.scale = alpha / rank", "self.scale = alpha * rank")
    return study


def change_comment(study: Params, code: Path) -> Params:
    edit(code / "methods/lora.py", "# x W + (alpha / r) x A B", "# the sum")
    return study


def change_docstring(study: Params, code: Path) -> Params:
    edit(code / "methods/lora.py", "A frozen linear map with a trained", "A linear map with a")
    return study


def change_plot(study: Params, code: Path) -> Params:
    path = code / "report/plots.py"
    path.write_text(path.read_text() + "\nMARK = 1\n")
    return study


CHANGES: dict[Callable[[Params, Path], Params], str] = {
    change_setting: "missing",
    change_data: "missing",
    change_backbone: "missing",
    change_tokenizer: "missing",
    change_code: "stale",
    change_comment: "fresh",
    change_docstring: "fresh",
    change_plot: "fresh",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_is_seen(
    change: Callable[[Params, Path], Params], on_folders: Params, code: Path
) -> None:
    make.train_alone(run_of(on_folders), on_folders)
    assert store.status(run_of(on_folders), on_folders).state == "fresh"
    changed = change(on_folders, code)
    deciding.code.cache_clear()
    deciding.sources.cache_clear()
    state = store.status(run_of(changed), changed)
    assert state.state == CHANGES[change], state.reason
    if state.state == "missing":
        assert "->" in state.reason
    if state.state == "stale":
        assert state.reason == "code that decides has changed since: lora.LoRALinear"


def test_why_a_run_is_stale_is_told_definition_by_definition(
    study: Params, stored: Path, code: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(code / "methods/lora.py", "self.scale = alpha / rank", "self.scale = alpha * rank")
    deciding.code.cache_clear()
    deciding.sources.cache_clear()
    changes = ("tokenizer", "lora_learning_rate", "epochs")
    command = ["status", "smoke", "--why", NAME]
    assert main([*command, *(f"--set={key}={getattr(study, key)}" for key in changes)]) == 0
    first, _, *listed = capsys.readouterr().out.splitlines()
    assert first.split()[1:3] == [NAME, "stale"]
    assert [line.split()[1] for line in listed if line.startswith("*")] == ["lora.LoRALinear"]
    assert any(line.split()[0] == "training.epochs" for line in listed)


FIELDS = {field.name: str(field.type) for field in dataclasses.fields(Params)}
VALUES: dict[str, some.SearchStrategy[Any]] = {
    "int": some.integers(1, 60),
    "float": some.floats(1e-6, 10),
    "Precision": some.sampled_from(["fp32", "bf16"]),
    "Train": some.sampled_from(["auto", "yes", "no"]),
    "str": some.sampled_from(["random:mini", "made-up", "f00d", "other"]),
}
NAMES = {"backbone", "data", "tokenizer"}
"""Names that are not themselves part of an identity, but what they name is."""


@given(some.data())
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_field_changes_the_identity_or_is_known_not_to(
    study: Params, data: some.DataObject
) -> None:
    name = data.draw(some.sampled_from(list(FIELDS)))
    value = data.draw(VALUES[FIELDS[name]])
    before = [identity_of(run, study) for run in runs_of(study)]
    try:
        changed = dataclasses.replace(study, **{name: value})
        after = [identity_of(run, changed) for run in runs_of(changed)]
    except InputError:
        return  # refused: no number is shown at all
    if value == getattr(study, name) or name in ("study", "train"):
        assert after == before
    elif name not in NAMES or value == "random:mini":
        assert after != before


def test_the_same_contents_under_another_name_are_the_same_run(
    on_folders: Params, home: Path
) -> None:
    shutil.move(home / "imdb", home / "reviews")
    shutil.move(home / "t5", home / "model")
    moved = dataclasses.replace(on_folders, data="reviews", backbone="model")
    after = identity_of(run_of(moved), moved)
    shutil.move(home / "reviews", home / "imdb")
    shutil.move(home / "model", home / "t5")
    assert after == identity_of(run_of(on_folders), on_folders)


# --- 4. loading is safe ------------------------------------------------------------------------


class Trap:
    """Unpickled, it writes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


@pytest.fixture
def begun(study: Params, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run that was stopped before its record."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(make, "describe", stop)
        with pytest.raises(KeyboardInterrupt):
            make.train_alone(run_of(study), study)
    return store.folder(run_of(study), study) / "checkpoint.pt"


def test_a_run_that_was_stopped_is_said_to_be(study: Params, begun: Path) -> None:
    said = store.status(run_of(study), study)
    assert begun.exists()
    assert (said.state, said.reason) == ("missing", "begun, goes on")


def test_a_checkpoint_with_a_program_is_left_aside(
    study: Params, begun: Path, tmp_path: Path
) -> None:
    held = checkpoint.read(begun, torch.device("cpu"))
    torch.save({**held, "trap": Trap(tmp_path / "ran")}, begun)
    with pytest.warns(UserWarning, match="is damaged .*: the run begins anew"):
        make.train_alone(run_of(study), study)
    assert not (tmp_path / "ran").exists()


def test_a_checkpoint_that_inflates_is_left_aside(study: Params, begun: Path) -> None:
    held = checkpoint.read(begun, torch.device("cpu"))
    torch.save({**held, "bomb": torch.zeros(10_000_000)}, begun)
    with zipfile.ZipFile(begun) as parts:
        contents = {part: parts.read(part) for part in parts.namelist()}
    with zipfile.ZipFile(begun, "w", zipfile.ZIP_DEFLATED) as parts:
        for part, content in contents.items():
            parts.writestr(part, content)
    assert begun.stat().st_size < 10_000_000
    with pytest.warns(UserWarning, match=r"is damaged .*: the run begins anew"):
        make.train_alone(run_of(study), study)


def saved(held: dict[str, Any]) -> bytes:
    content = io.BytesIO()
    torch.save(held, content)
    return content.getvalue()


def test_a_flipped_bit_of_a_checkpoint_changes_nothing_unseen(begun: Path) -> None:
    cpu, draw, content = torch.device("cpu"), random.Random(0), begun.read_bytes()
    sound = checkpoint.read(begun, cpu)
    refused = 0
    for _ in range(100):
        begun.write_bytes(flip(draw, content))
        try:
            held = checkpoint.read(begun, cpu)
        except Exception:
            refused += 1
        else:  # a bit between the parts
            assert saved(held) == saved(sound)
    assert refused > 50


def test_tensors_that_are_a_pickle_are_refused(stored: Path, tmp_path: Path) -> None:
    tensors_in(stored).unlink()
    scratch = stored / "pickle"
    torch.save({"A": Trap(tmp_path / "ran")}, scratch)
    sha256 = hashlib.sha256(scratch.read_bytes()).hexdigest()
    scratch.rename(stored / store.DELTA)
    forge(stored, files={store.DELTA: {"bytes": 1, "sha256": sha256}})
    with pytest.raises(InputError, match="expected safetensors"):
        reopen.load(f"smoke/{NAME}")
    assert not (tmp_path / "ran").exists()


def test_a_trap_is_a_trap(tmp_path: Path) -> None:
    torch.save(Trap(tmp_path / "ran"), tmp_path / "trap.pt")
    torch.load(tmp_path / "trap.pt", weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["../{}", "{root}/{}", "../../smoke/lora-scratch-r8/{}", "record"])
def test_a_record_names_no_file_outside_its_folder(name: str, study: Params, stored: Path) -> None:
    path = tensors_in(stored)
    shutil.copy(path, stored.parent)
    facts = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    forge(stored, files={name.format(path.name, root=stored): facts})
    for load in (lambda: store.load(run_of(study), study), lambda: reopen.load(f"smoke/{NAME}")):
        with pytest.raises(InputError, match="no plain file of that name"):
            load()


def test_links_are_refused(study: Params, stored: Path, tmp_path: Path) -> None:
    for path in (tensors_in(stored), stored / records.RECORD):
        shutil.move(path, tmp_path / "moved")
        path.symlink_to(tmp_path / "moved")
        with pytest.raises(InputError):
            store.load(run_of(study), study)
        path.unlink()
        shutil.move(tmp_path / "moved", path)
    store.load(run_of(study), study)


def test_exported_weights_open_without_unpickling(study: Params, tmp_path: Path) -> None:
    for name in ("soft-prompt-scratch-n10", "adapter-scratch-b8", NAME):
        make.train_alone(run_of(study, name), study)
    clash = tmp_path / "clash"
    (clash / "prompts.pt").mkdir(parents=True)
    with pytest.raises(InputError, match=r"prompts.pt: found a folder of that name"):
        export.export(study, clash)
    assert [path.name for path in clash.iterdir()] == ["prompts.pt"], "all three, or none"
    written = export.export(study, tmp_path)
    assert [path.name for path in written] == ["prompts.pt", "adapter.pt", "lora.pt"]
    for path in written:
        assert all(map(torch.is_tensor, torch.load(path, weights_only=True).values()))


def test_the_source_opens_nothing_that_could_run() -> None:
    text = "\n".join(path.read_text() for path in SOURCE.glob("*.py"))
    loads = re.findall(r"torch\.load\((?!\.\.\.).*", text)  # but for a docstring's
    assert loads
    assert all("weights_only=True" in line for line in loads)
    assert set(re.findall(r"trust_remote_code\W*\w+", text)) == {"trust_remote_code=False"}
    unsafe = (r"import pickle", "allow_pickle=True", r"yaml\.(load\((?!text, _Loader)|unsafe|full)")
    for word in unsafe:
        assert not re.search(word, text), word


def test_an_offline_hub_is_not_called(
    home: Path,
    words_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    called: list[object] = []
    monkeypatch.setattr(socket.socket, "connect", lambda self, where: called.append(where))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *where, **_: called.append(where))
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    here = "--set backbone=random:tiny"
    changes = {
        "": "backbone google-t5/t5-small",
        f"{here} --set tokenizer=nobody/nothing": "tokenizer nobody/nothing",
        f"{here} --set tokenizer={words_folder}": "data stanfordnlp/imdb",
    }
    for change, asked in changes.items():
        command = f"train assignment --only full {change}"
        assert main(command.split()) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert asked in line.partition(": found")[0]
    assert called == []


# --- 5. two at once ----------------------------------------------------------------------------

SHARED = ["soft-prompt-scratch-n10", "adapter-scratch-b8", "lora-peft-r1", NAME]


def train_together(home: Path, study: Params, log: Path) -> None:
    """In a process of its own: the command that trains all, each training noted in `log`."""
    os.environ["T5PEFT_HOME"] = str(home)
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    torch.set_num_threads(1)
    train = make.train

    def noted(run: Run, study: Params) -> dict[str, Any]:
        with log.open("a") as file:
            file.write(f"{os.getpid()} {run.name}\n")
        return train(run, study)

    make.train = noted
    changes = [x for k in ("tokenizer", "epochs") for x in ("--set", f"{k}={getattr(study, k)}")]
    raise SystemExit(main(["train", "smoke", "--only", *SHARED, *changes]))


def test_two_trainings_share_a_study_and_a_reader_sees_whole_runs(
    home: Path, study: Params, tmp_path: Path
) -> None:
    study = studies.load("smoke", {"tokenizer": study.tokenizer, "epochs": 4})
    data.tokens(study, "train")
    log = tmp_path / "log"
    both = [CHILDREN.Process(target=train_together, args=(home, study, log)) for _ in range(2)]
    for process in both:
        process.start()
    seen = set()
    while any(process.is_alive() for process in both):
        seen |= {store.status(run_of(study, name), study).state for name in SHARED}
        time.sleep(0.01)
    assert [process.exitcode for process in both] == [0, 0]
    assert seen <= {"missing", "fresh"}
    trained = [line.split() for line in log.read_text().splitlines()]
    assert sorted(name for _, name in trained) == sorted(SHARED), "each run once"
    assert {int(pid) for pid, _ in trained} == {process.pid for process in both}
    assert {store.status(run_of(study, name), study).state for name in SHARED} == {"fresh"}


def test_a_run_that_is_replaced_is_whole_at_every_moment(
    study: Params, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge(stored, source="of another day")
    states = []

    def watch(name: str) -> None:
        original = getattr(Path, name)

        def watched(self: Path, *rest: Any, **options: Any) -> Any:
            done = original(self, *rest, **options)
            states.append(store.status(run_of(study), study).state)
            return done

        monkeypatch.setattr(Path, name, watched)

    for name in ("replace", "unlink"):
        watch(name)
    make.train_alone(run_of(study), dataclasses.replace(study, seed=1))
    make.train_alone(run_of(study), study)
    assert len(states) > 8
    assert "damaged" not in states


def test_a_reader_that_is_overtaken_looks_again(
    study: Params, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run is replaced after its old record has been read, before its tensors have."""
    check = store.contents

    def overtaken(where: Path, record: dict[str, Any]) -> dict[str, bytes]:
        monkeypatch.setattr(store, "contents", check)
        make.train(run_of(study), dataclasses.replace(study, seed=1))
        return check(where, record)

    monkeypatch.setattr(store, "contents", overtaken)
    assert store.status(run_of(study), dataclasses.replace(study, seed=1)).state == "fresh"


# --- 6. full disk, read-only folder ------------------------------------------------------------


def mount(*options: str) -> None:
    done = subprocess.run(["mount", *options], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("no tmpfs may be mounted here: the injected errors below stand for it")


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    """A disk of 1 MiB where the weights lie."""
    folder = home / "weights"
    folder.mkdir()
    mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def refused(study: Params, capsys: pytest.CaptureFixture[str]) -> str:
    """The line that `t5peft train` ends with; the stored run is as it was."""
    folder = store.folder(run_of(study), study)
    before = {p: p.read_bytes() for p in folder.iterdir() if p.name in (records.RECORD, "lock")}
    state = store.status(run_of(study), study)
    changes = [x for k, v in vars(study).items() for x in ("--set", f"{k}={v}")]
    capsys.readouterr()
    assert main(["train", "smoke", "--only", NAME, *changes]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert {p: p.read_bytes() for p in before} == before
    assert store.status(run_of(study), study) == state
    assert not list(folder.glob(".*.tmp"))
    return line


@pytest.mark.usefixtures("small_disk")
def test_a_full_disk_keeps_what_was_there(
    study: Params, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make.train_alone(run_of(study), study)
    forge(store.folder(run_of(study), study), source="of another day")
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filler").write_bytes(bytes(2**20))
    line = refused(study, capsys)
    assert "No space left on device, expected a folder that can be written" in line
    assert "what was there is unchanged" in line


def test_a_disk_that_cannot_be_written_keeps_what_was_there(
    study: Params, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make.train_alone(run_of(study), study)
    forge(store.folder(run_of(study), study), source="of another day")
    mount("-o", "remount,ro", str(small_disk))
    assert "Read-only file system, expected a folder" in refused(study, capsys)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("name", ["checkpoint.pt", "delta-", records.RECORD])
def test_an_error_while_a_file_is_written_keeps_what_was_there(
    name: str,
    code: int,
    study: Params,
    stored: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    forge(stored, source="of another day")
    write = files.write_bytes

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    def failing(path: Path, content: bytes) -> None:
        with monkeypatch.context() as patched:
            if path.name.startswith(name):
                patched.setattr(os, "fsync", fail)
            write(path, content)

    monkeypatch.setattr(files, "write_bytes", failing)
    line = refused(study, capsys)
    assert f"file {stored / name}" in line
    assert os.strerror(code) in line


# --- caches can be made again ------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b'{"a": 1', b"[" * 9999])
def test_a_damaged_cache_is_made_again(content: bytes, study: Params) -> None:
    wanted, tokens = data.fingerprint(study), data.tokens(study, "test").ids.copy()
    for path in paths.cache().rglob("*"):
        if path.is_file():
            path.write_bytes(content)
    assert data.fingerprint(study) == wanted
    assert (data.tokens(study, "test").ids == tokens).all()


# --- 8. reproducible ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["full", "soft-prompt-opendelta-n10", "adapter-adapterhub-b8", "adapter-scratch-b8"]
)
def test_two_trainings_with_one_seed_are_the_same(name: str, study: Params) -> None:
    one, two = (make.train(run_of(study, name), study) for _ in range(2))
    assert figures(one) == figures(two)
    three = dataclasses.replace(study, seed=1)
    assert figures(make.train(run_of(three, name), three))["history"] != one["history"]


@pytest.mark.parametrize("other", ["identity", "source"])
def test_a_checkpoint_of_other_settings_or_other_code_is_left_aside(
    other: str, study: Params, begun: Path
) -> None:
    run = run_of(study)
    held = checkpoint.read(begun, torch.device("cpu"))
    identity = records.digest(identity_of(run, study))
    for content, epochs in (({**held, other: "another"}, 0), (held, study.epochs)):
        torch.save(content, begun)
        job = jobs.prepare(run, study)
        checkpoint.restore(job, begun, identity)
        assert len(job.history) == epochs


def test_a_stored_run_is_not_put_into_another_backbone(on_folders: Params, code: Path) -> None:
    make.train_alone(run_of(on_folders), on_folders)
    reopen.load("smoke/lora-scratch-r8")
    change_backbone(on_folders, code)
    with pytest.raises(InputError, match="backbone of run smoke/lora-scratch-r8"):
        reopen.load("smoke/lora-scratch-r8")
