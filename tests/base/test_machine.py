"""The machine: its memory, its rate, its processes."""

import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

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


def test_a_matrix_products_rate_counts_products_and_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_accelerator", lambda: False)
    monkeypatch.setattr(machine, "seconds", lambda work: 0.5)
    monkeypatch.setattr(machine, "UNSUITED", 0)
    assert machine.matrix_rate("fp32") == 2 * 2048**3 / 0.5


def rates(monkeypatch: pytest.MonkeyPatch, bf16: float, fp32: float) -> list[int]:
    """A CPU of these rates; returns the sides of the products that are measured, as they are."""
    sides: list[int] = []

    def product_rate(precision: str, side: int, turns: int = 5) -> float:
        sides.append(side)
        return bf16 if precision == "bf16" else fp32

    monkeypatch.setattr(machine, "has_accelerator", lambda: False)
    monkeypatch.setattr(machine, "product_rate", product_rate)
    return sides


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


def test_a_busy_machine_keeps_its_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where most of the short products wait for others, the one that did not counts."""
    waits = iter(9 * [1.0] + [1e-4] + 90 * [1.0])
    monkeypatch.setattr(machine, "has_accelerator", lambda: False)
    monkeypatch.setattr(machine, "seconds", lambda work: next(waits))
    assert machine.matrix_rate("bf16") == 2 * 2048**3 / 1.0


def test_no_large_product_is_asked_of_a_processor_without_the_precision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sides = rates(monkeypatch, 1e9, 60e9)
    assert machine.matrix_rate("bf16") == 1e9
    assert sides == [256]
    assert machine.matrix_rate("fp32") == 60e9
    assert sides == [256, 2048], "float32 is never lacking, however busy the machine"


def test_a_processor_lacks_bf16_where_float32_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    rates(monkeypatch, 1.4e9, 60e9)
    assert machine.lacks_bf16()
    rates(monkeypatch, 900e9, 150e9)
    assert not machine.lacks_bf16()
    rates(monkeypatch, 1.4e9, 60e9)
    monkeypatch.setattr(machine, "has_accelerator", lambda: True)
    assert not machine.lacks_bf16()


def test_a_study_in_float32_is_not_estimated_by_a_faster_bf16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rates(monkeypatch, 900e9, 150e9)
    assert (machine.matrix_peak("fp32"), machine.matrix_peak("bf16")) == (150e9, 900e9)
    rates(monkeypatch, 1.4e9, 60e9)
    assert (machine.matrix_peak("fp32"), machine.matrix_peak("bf16")) == (60e9, 60e9)


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
