"""How the C library keeps and hands back freed memory, which decides speed and size of large steps on a CPU."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress

from memlab.machine import resident_memory

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
