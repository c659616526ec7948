"""What torch's state was, to compute something a second time as it was computed at first."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class RandomState:
    """State of torch's global generators, to replay what was drawn from here on."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._host_state = torch.get_rng_state()
        self._device_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def restore(self) -> None:
        """Set the generators to the state kept."""
        torch.set_rng_state(self._host_state)
        if self._device_state is not None:
            torch.cuda.set_rng_state(self._device_state, self._device)

    def is_as_kept(self) -> bool:
        """Whether nothing has been drawn since."""
        if not torch.equal(self._host_state, torch.get_rng_state()):
            return False
        return self._device_state is None or torch.equal(self._device_state, torch.cuda.get_rng_state(self._device))

    @contextmanager
    def again(self) -> Iterator[None]:
        """Within this context the generators start from the state kept; afterwards they are as before."""
        with torch.random.fork_rng(devices=[] if self._device_state is None else [self._device]):
            self.restore()
            yield


class AutocastState:
    """Whether and how autocast is on, to enter it again where torch does not carry it: into a custom backward."""

    def __init__(self, device: torch.device) -> None:
        self._device_type = device.type
        self._dtype = torch.get_autocast_dtype(device.type)
        self._enabled = torch.is_autocast_enabled(device.type)

    def again(self) -> torch.autocast:
        """Autocast as it was. Without its weight cache: casts cached in a pass without graph would lose gradients."""
        return torch.autocast(self._device_type, self._dtype, self._enabled, cache_enabled=False)
