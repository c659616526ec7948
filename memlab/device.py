"""The machine under a run: clock, name, cores, memory that is free or taken or kept by the C library, file systems."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
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


class Moment:
    """Now, as a device sees it: on a GPU when it is done with all it was given so far, which is not waited for.

    Args:
        device: the device.
    """

    def __init__(self, device: torch.device) -> None:
        self._event = torch.cuda.Event(enable_timing=True) if device.type == "cuda" else None
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(device))
        self._time = time.perf_counter()

    def until(self, later: Moment) -> float:
        """Seconds to a later moment of the same device, which is waited for."""
        if self._event is None or later._event is None:
            return later._time - self._time
        later._event.synchronize()
        return float(self._event.elapsed_time(later._event)) / 1000


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
    return int(_this_process(os.getpid()).memory_info().rss)


@cache
def _this_process(pid: int) -> psutil.Process:
    """Made once: psutil asks when a process was started, which takes far longer than to ask what it holds."""
    return psutil.Process(pid)


def machine_name(device: torch.device) -> str:
    """What computes, as ``2 cores, AMD EPYC``."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{psutil.cpu_count()} cores, {processor()}"


def processor() -> str:
    """What the processor is called."""
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Cores of the machine, those of hyper-threading counted."""
    return psutil.cpu_count() or 1


def usable_cores() -> float:
    """Cores that this process may use: those it is bound to, or the share of time that its control groups leave."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores()
    return min([float(bound), *(share for folder, _ in _groups("cpu") for share in _quota(folder))])


def host_memory() -> tuple[int, int]:
    """Bytes of memory of the host that can be had, and that there are."""
    memory = psutil.virtual_memory()
    return memory.available, memory.total


def memory_limit() -> int | None:
    """Bytes that the control group of this process and those above it allow it, the least of them; None without."""
    limits = [folder / names[0] for folder, names in _groups("memory")]
    known = [int(text) for limit in limits if (text := _text(limit).strip()).isdigit()]
    return min((limit for limit in known if limit < psutil.virtual_memory().total), default=None)


def file_system(path: Path) -> str:
    """The kind of file system that a path is on, as ``ext4``, ``tmpfs`` or ``nfs4``; empty if it cannot be told."""
    place = path.resolve()
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    return next((mounts[parent] for parent in (place, *place.parents) if parent in mounts), "")


_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
"""What control groups call the limit, what is used, and the file cache in it that is given up first."""


def _left_by_groups() -> Iterator[int]:
    """Bytes that the control group of this process, and each above it, leaves of its limit, if it has one."""
    for folder, names in _groups("memory"):
        yield from _left_by(folder, *names)


def _groups(controller: str) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Folders of the control group of this process, and of each above it, and what they call memory.

    Linux has two versions of them, and both may be there: the second is one tree, the first has one by controller.
    """
    for line in _text(ROOT / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        group = Path(path.lstrip("/"))
        for place in (group, *group.parents):
            if not controllers:
                yield ROOT / "sys/fs/cgroup" / place, _VERSION_2
            elif controller in controllers.split(","):
                yield ROOT / "sys/fs/cgroup" / controller / place, _VERSION_1


def _quota(folder: Path) -> Iterator[float]:
    """The cores' worth of time that one group has; nothing if it has all there is."""
    words = _text(folder / "cpu.max").split()
    words = words or [_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
    if len(words) == 2 and words[0].isdigit() and words[1].isdigit():  # else "max", or -1
        yield int(words[0]) / int(words[1])


def _text(file: Path) -> str:
    """What is in a file; nothing if it is not there."""
    try:
        return file.read_text()
    except OSError:
        return ""


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


# mallopt's parameters, from glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP_THRESHOLD = 2**30
TRIM_THRESHOLD = 2**31 - 1


def raise_malloc_thresholds() -> bool:
    """Let glibc keep freed memory for the next step, in place of giving it back to the system.

    By default it gives back blocks above 32 MiB as soon as they are freed, and every step faults its activations in
    again, page by page. With the thresholds raised it keeps what is freed, and the heap grows wherever the sizes of
    blocks change from step to step, as pieces too small for the next block stay between those in use: `KeptMemory`
    bounds that.

    Returns:
        whether they were raised; there is nothing to raise without glibc.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD) and mallopt(M_TRIM_THRESHOLD, TRIM_THRESHOLD))


def give_back_freed_memory() -> None:
    """Let glibc give freed memory back to the system now, whatever its thresholds; without glibc nothing happens."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


GROWTH, SLACK = 1.2, 2**27
STEPS = 3


class KeptMemory:
    """Bounds the freed memory that the process keeps between steps.

    What the process holds after a step, in use and kept, may grow by a fifth and 128 MiB over the most that it held in
    the three steps after nothing was kept. Beyond that all freed memory is given back, and the next three steps, the
    first of which faults in again what it needs, set the bound anew. So memory follows what steps need now, however
    long the training, and few steps pay for it.

    Args:
        held: bytes that the process holds now.
        give_back: gives freed memory back.
    """

    def __init__(
        self, *, held: Callable[[], int] = resident_memory, give_back: Callable[[], None] = give_back_freed_memory
    ) -> None:
        self._held = held
        self._give_back = give_back
        self._needed = 0
        self._steps = 0
        self.most = 0
        """Bytes held after any step so far, at most."""
        self.given_back = 0
        """How often freed memory was given back."""

    def after_step(self) -> None:
        """See whether what is held is within the bound, and give freed memory back if it is not."""
        held = self._held()
        self.most = max(self.most, held)
        self._steps += 1
        if self._steps <= STEPS:
            self._needed = max(self._needed, held)
        elif held > GROWTH * self._needed + SLACK:
            self._give_back()
            self.given_back += 1
            self._needed = self._steps = 0
