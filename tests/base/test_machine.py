"""The machine: its memory, its rate, its processes."""

import platform
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from t5peft.base import machine

glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="glibc's allocator")

PAGES = 4_000_000 // 4096
"""Pages of an array of 4 MB."""

STEPS = f"""
import resource
import numpy as np
from t5peft.base import machine

KEEP
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(12):
    if step == 2:
        before = faults()
    arrays = [np.ones({PAGES} * 4096, np.int8) for _ in range(8)]
    del arrays
print(faults() - before)
"""

TRAININGS = """
import numpy as np
import torch  # as peak_memory does
from t5peft.base import machine

machine.keep_freed_memory()
arrays = [np.ones(1_000_000, np.int8) for _ in range(200)]
kept = arrays[-1]
del arrays
print(machine.peak_memory())
machine.reset_peak_memory()
print(machine.peak_memory())
"""


def printed(code: str) -> list[int]:
    """The numbers that a process of its own prints."""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return [int(line) for line in done.stdout.split()]


@glibc
def test_freed_memory_serves_the_next_step() -> None:
    (returned,) = printed(STEPS.replace("KEEP", ""))
    (kept,) = printed(STEPS.replace("KEEP", "machine.keep_freed_memory()"))
    assert returned > PAGES
    assert kept < PAGES / 10


@glibc
def test_a_training_does_not_count_the_memory_of_the_one_before() -> None:
    before, after = printed(TRAININGS)
    assert after < before - 150_000_000


def processor_with(monkeypatch: pytest.MonkeyPatch, *instructions: str) -> None:
    monkeypatch.setattr(machine, "has_accelerator", lambda: False)
    has = {"avx512_bf16": False} | dict.fromkeys(instructions, True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)


@pytest.mark.parametrize(
    ("instructions", "precision", "kind"),
    [
        (["avx512_f", "avx512_bf16"], "bf16", torch.bfloat16),
        (["avx512_f", "avx512_bf16"], "fp32", torch.float32),
        (["avx512_f"], "bf16", torch.float32),
    ],
)
def test_a_matrix_products_rate_counts_products_and_sums(
    monkeypatch: pytest.MonkeyPatch, instructions: list[str], precision: str, kind: torch.dtype
) -> None:
    products, waits = [], iter([0.1, 2.0, 2.0, 0.5, 2.0, 2.0])

    def seconds(work: Callable[[], Tensor]) -> float:
        products.append(work())
        return next(waits)

    processor_with(monkeypatch, *instructions)
    monkeypatch.setattr(torch, "randn", lambda *shape, dtype, **_: torch.ones(2, 2, dtype=dtype))
    monkeypatch.setattr(machine, "seconds", seconds)
    assert machine.matrix_peak(precision) == 2 * 2048**3 / 0.5, "the best, after one that warms up"
    assert {product.dtype for product in products} == {kind}


def test_a_container_has_what_its_limit_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "has_accelerator", lambda: False)
    monkeypatch.setattr(machine, "LIMIT", tmp_path)
    all_of_it = machine.free_memory()
    assert all_of_it > 10**8
    for most, used, left in (("5000000", "4000000", 1_000_000), ("400", "500", 0)):
        (tmp_path / "memory.max").write_text(f"{most}\n")
        (tmp_path / "memory.current").write_text(f"{used}\n")
        assert machine.free_memory() == left
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.free_memory() > 10**8


@pytest.mark.parametrize("instruction", ["avx512_bf16", "bf16", "sve_bf16"])
def test_a_processor_has_bf16_by_its_instructions(
    monkeypatch: pytest.MonkeyPatch, instruction: str
) -> None:
    processor_with(monkeypatch, "avx512_f", "neon")
    assert machine.lacks_bf16()
    processor_with(monkeypatch, instruction)
    assert not machine.lacks_bf16()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)  # as on macOS
    assert machine.lacks_bf16()
    monkeypatch.setattr(machine, "has_accelerator", lambda: True)
    assert not machine.lacks_bf16()


def test_the_kind_of_a_machine_tells_what_last_digits_depend_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine, "has_accelerator", lambda: False)
    words = machine.kind().split(", ")
    assert words[0] == machine.processor()
    assert words[1] == torch.backends.cpu.get_cpu_capability()
    assert words[2].startswith(f"{torch.get_num_threads()} thread")
    assert words[3] == f"torch {torch.__version__}"


ORPHAN = """
import os, time
from t5peft.base import machine

if os.fork() == 0:
    machine.end_with_parent()
    print(os.getpid(), flush=True)
time.sleep(60)
"""


def test_a_number_of_processes_alone_is_no_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")  # as some schedulers leave it
    assert not machine.launched()
    assert machine.is_main_process()
    monkeypatch.setenv("RANK", "1")
    assert machine.launched()
    assert not machine.is_main_process()


@glibc
def test_a_child_ends_with_its_parent() -> None:
    with subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        state = Path(f"/proc/{int(parent.stdout.readline())}/stat")
        assert state.exists()
        parent.kill()
    deadline = time.monotonic() + 10
    while state.exists() and ") Z " not in state.read_text():  # gone, or waiting to be reaped
        assert time.monotonic() < deadline, "an orphan"
        time.sleep(0.05)


def test_the_kind_of_a_gpu_is_told_from_a_cpus() -> None:
    assert machine.is_gpu("NVIDIA H200, torch 2.11.0+cu130")
    assert machine.is_gpu(machine.kind()) == machine.has_accelerator()


def test_a_c_compiler_is_found_by_its_name_or_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    (tmp_path / "Python.h").touch()
    assert not machine.has_compiler()
    (tmp_path / "mycc").touch(0o755)
    monkeypatch.setenv("CC", "mycc")
    assert machine.has_compiler()
    (tmp_path / "Python.h").unlink()
    assert not machine.has_compiler()


@pytest.mark.parametrize("words", ["CUDA error: out of memory", "CUBLAS_STATUS_NOT_INITIALIZED"])
def test_want_of_memory_is_known_by_what_cuda_says(words: str) -> None:
    assert machine.out_of_memory(RuntimeError(words))
    assert not machine.out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
