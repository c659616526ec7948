"""What a run takes of the machine: its name, time and memory; and the memory that is free."""

from __future__ import annotations

import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import torch

ROOT = Path("/")
"""Where the system tells of itself."""


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


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device: of a GPU what torch has reserved and does not use included.

    Of the host's memory a process has no more than its control group and the groups above it leave, as in a container
    or a job of a cluster.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return max(min([psutil.virtual_memory().available, *_left_by_groups()]), 0)


def resident_memory() -> int:
    """Bytes of host memory that the process holds now, what its allocator keeps of freed memory included."""
    return int(psutil.Process().memory_info().rss)


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


_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
"""What control groups call the limit, what is used, and the file cache in it that is given up first."""


def _left_by_groups() -> Iterator[int]:
    """Bytes that the control group of this process, and each above it, leaves of its limit, if it has one.

    Linux has two versions of them, and both may be there: the second is one tree, the first has one for memory.
    """
    own = ROOT / "proc/self/cgroup"
    if not own.exists():
        return
    for line in own.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        group = Path(path.lstrip("/"))
        for place in (group, *group.parents):
            if not controllers:
                yield from _left_by(ROOT / "sys/fs/cgroup" / place, *_VERSION_2)
            elif "memory" in controllers.split(","):
                yield from _left_by(ROOT / "sys/fs/cgroup/memory" / place, *_VERSION_1)


def _left_by(folder: Path, limit: str, used: str, cache: str) -> Iterator[int]:
    """The limit of one group less what is used, the cache apart; nothing if it has no limit."""
    try:
        most = (folder / limit).read_text().strip()
        in_use = int((folder / used).read_text())
        statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:  # the root of the tree has no such files, and a container sees no others than its own
        return
    if most != "max":
        yield int(most) - in_use + int(statistics[cache])
