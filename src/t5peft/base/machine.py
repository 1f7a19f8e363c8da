"""The machine: device, launches, versions, time, memory, and what the system is asked for."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import os
import platform
import resource
import shutil
import signal
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "accelerate", "peft", "adapters", "opendelta")

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`, as in <malloc.h>."""

BF16 = ("avx512_bf16", "bf16", "sve_bf16")
"""Instructions for bf16 of x86 (one) and ARM (two): a processor with any of them multiplies it."""

PR_SET_PDEATHSIG = 1
"""The request of `prctl` for a signal at the parent's death, as in <sys/prctl.h>."""

# cuDNN's attention, which PyTorch prefers on Hopper for a bias without gradient, is said to round
# dropout's rate to sixteenths, and to give gradients that are no number; `test_gpu` looks.
os.environ.setdefault("TORCH_CUDNN_SDPA_DEPRIORITIZED", "1")

if sys.platform == "darwin":  # Apple's GPU is none that the loop was made for: accelerate is told
    os.environ.setdefault("ACCELERATE_USE_CPU", "true")


def has_accelerator() -> bool:
    """Is there a GPU that PyTorch can use?"""
    import torch

    return torch.cuda.is_available()


def device() -> str:
    """Where a model goes, as PyTorch names it."""
    return "cuda" if has_accelerator() else "cpu"


def launched() -> bool:
    """Is this one of several processes of one launch (`accelerate launch`, torchrun)?"""
    return "RANK" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1"


def is_main_process() -> bool:
    """Is this the only process, or the first of those that one launch started?"""
    return not launched() or os.environ["RANK"] == "0"


def processor() -> str:
    """The CPU's name, as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


NO_MEMORY = ("can't allocate memory", "bad_alloc", "could not create a memory", "ALLOC_FAILED")
NO_MEMORY += ("can't start new thread", "out of memory", "CUBLAS_STATUS_NOT_INITIALIZED")
"""As PyTorch's allocator, C++, oneDNN, cuBLAS, Python and CUDA put it."""


def out_of_memory(error: BaseException) -> bool:
    """Is this a want of memory? PyTorch's CPU allocator raises a plain RuntimeError.

    A process that broke a pool is taken for one that the system ended for want of memory.
    """
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ in ("OutOfMemoryError", "BrokenProcessPool")
        or getattr(error, "errno", None) == errno.ENOMEM
        or any(words in str(error) for words in NO_MEMORY)
    )


def version(package: str) -> str:
    """The version of an installed package; "" where it is not installed."""
    from importlib import metadata  # which takes long to import

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def environment(precision: str) -> dict[str, Any]:
    """Versions, device, threads, precision: recorded and shown, no part of a run's identity."""
    import torch

    name = torch.cuda.get_device_name() if has_accelerator() else processor()
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "device": name,
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


def wait() -> None:
    """Until the accelerator, where there is one, has done what it was given."""
    import torch

    if has_accelerator():
        torch.cuda.synchronize()


def seconds(work: Callable[[], Any]) -> float:
    """How long `work` takes, the accelerator's part included."""
    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


def matrix_peak(precision: str = "bf16") -> float:
    """Operations a second of large matrix products: best of five, in float32 if bf16 is lacking."""
    import torch

    side = 8192 if has_accelerator() else 2048
    kind = torch.bfloat16 if precision == "bf16" and not lacks_bf16() else torch.float32
    square = torch.randn(side, side, dtype=kind, device=device())
    times = [seconds(lambda: square @ square) for _ in range(1 + 5)]
    return 2 * side**3 / min(times[1:])  # the first warms up


def lacks_bf16() -> bool:
    """Has this processor no instructions for bf16, or PyTorch no oneDNN that uses them?

    It is asked, not timed: a busy machine would be taken for one that lacks it.
    """
    import torch

    able = torch.backends.mkldnn.is_available()
    has = torch.cpu.get_capabilities()
    return not has_accelerator() and not (able and any(has.get(name) for name in BF16))


def emulates_bf16() -> bool:
    """Is this a GPU from before bf16, as T4 and V100 are?"""
    import torch

    return has_accelerator() and not torch.cuda.is_bf16_supported(including_emulation=False)


def kind() -> str:
    """What last digits depend on: processor and its instructions, or GPU; threads; PyTorch."""
    import torch

    if has_accelerator():
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    instructions = torch.backends.cpu.get_cpu_capability()
    told = f"{threads} thread{'s' * (threads > 1)}"
    return f"{processor()}, {instructions}, {told}, torch {torch.__version__}"


def is_gpu(kind: str) -> bool:
    """Is this the `kind` of a GPU? A CPU's has its threads."""
    return " thread" not in kind


def has_compiler() -> bool:
    """Is there what Triton compiles its launchers with: a C compiler and Python's headers?"""
    compilers = filter(None, (os.environ.get("CC"), "cc", "gcc", "clang"))
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return headers.exists() and any(map(shutil.which, compilers))


def keep_freed_memory() -> None:
    """Let glibc keep what is freed for the tensors to come, in place of returning it to the system.

    A training asks for the same sizes at every step, and what comes anew from the system is cleared
    first, page by page.
    """
    call_glibc("mallopt", M_MMAP_MAX, 0)
    call_glibc("mallopt", M_TRIM_THRESHOLD, -1)


@contextlib.contextmanager
def without_ctrl_c() -> Iterator[None]:
    """Processes that are started here leave Ctrl-C, from their first moment, to this one."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which they inherit
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def end_with_parent() -> None:
    """Die (on Linux) when the process that started this one does."""
    call_glibc("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)


def call_glibc(function: str, *arguments: int) -> None:
    """Call one of glibc's functions; another C library, which may lack it, is left alone."""
    with contextlib.suppress(OSError, AttributeError):
        getattr(ctypes.CDLL("libc.so.6"), function)(*arguments)


def reset_peak_memory() -> None:
    """Forget the peak so far: of the GPU, or of this process (on Linux), whose free memory goes."""
    if has_accelerator():
        import torch

        torch.cuda.reset_peak_memory_stats()
    elif sys.platform == "linux":
        gc.collect()
        call_glibc("malloc_trim", 0)
        with contextlib.suppress(OSError):  # where not allowed, the peak is the process's own
            Path("/proc/self/clear_refs").write_text("5")


def resident_memory() -> int:
    """Bytes that this process has now; of the GPU's it has none before a run."""
    import psutil

    return 0 if has_accelerator() else psutil.Process().memory_info().rss


LIMIT = Path("/sys/fs/cgroup")
"""Where a container's share of the memory is told (cgroup v2)."""


def free_memory() -> int:
    """Bytes that a run may take: of the GPU, or of what this machine or its container has left."""
    if has_accelerator():
        import torch

        return torch.cuda.mem_get_info()[0]
    import psutil

    free = psutil.virtual_memory().available
    with contextlib.suppress(OSError, ValueError):  # no container, or "max"
        most, used = (int((LIMIT / f"memory.{name}").read_text()) for name in ("max", "current"))
        free = min(free, max(0, most - used))
    return free


def peak_memory() -> int:
    """Bytes at the peak: allocated on the GPU, or resident in this process."""
    if has_accelerator():
        import torch

        return torch.cuda.max_memory_allocated()
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(x.split()[1]) for x in lines if x.startswith("VmHWM"))
    except (OSError, StopIteration):
        unit = 1 if sys.platform == "darwin" else 1024
        return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
