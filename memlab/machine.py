"""What a run takes of the machine: its name, time and memory."""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import torch


def seconds(compute: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes until the device is done with it: a GPU works on after a call has returned."""
    synchronise(device)
    start = time.perf_counter()
    compute()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait until the device is done with all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Most bytes in use so far: of a GPU what torch allocated, else what the process held."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def machine_name(device: torch.device) -> str:
    """What computes, as ``2 cores, AMD EPYC``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{psutil.cpu_count()} cores, {_processor()}"


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
