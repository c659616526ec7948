"""How long a device takes: a GPU works on after a call has returned, so that both ends of a time must wait for it."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def seconds(compute: Callable[[], object], device: torch.device) -> float:
    """Seconds that a call takes until the device is done with it."""
    synchronise(device)
    start = time.perf_counter()
    compute()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    """Wait until the device is done with all it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
