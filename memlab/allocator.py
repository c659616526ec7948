"""How the C library hands memory back, which decides the speed of large steps on a CPU."""

from __future__ import annotations

import ctypes
from contextlib import suppress

# mallopt's parameters, from glibc's malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MMAP_THRESHOLD = 2**30
TRIM_THRESHOLD = 2**31 - 1


def raise_malloc_thresholds() -> bool:
    """Let glibc keep freed memory for the next step, in place of giving it back to the system.

    By default it gives back blocks above 32 MiB as soon as they are freed, and every step faults its activations in
    again, page by page. With the thresholds raised the process keeps up to 2 GiB that it does not use.

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
