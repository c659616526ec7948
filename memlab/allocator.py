"""How the C library hands memory back, which decides the speed of large steps on a CPU."""

from __future__ import annotations

import ctypes
import logging

import pytorch_lightning as pl

log = logging.getLogger(__name__)

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


class RaiseMallocThresholds(pl.Callback):
    """Calls `raise_malloc_thresholds` before training, and says so."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raise them at the start of ``fit``."""
        if stage == "fit" and raise_malloc_thresholds():
            log.info(
                "glibc's malloc thresholds raised: steps are faster, up to 2 GiB stay reserved"
                " (trainer.raise_malloc_thresholds=false leaves them)"
            )
