"""BatchNorm under a memory: it looks across the objects encoded together, so how they are cut makes a difference."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def warn_of_batch_norm(encoder: nn.Module, *, mode: str) -> None:
    """Say what BatchNorm in the encoder means for a memory mode that does not encode all objects together."""
    if found := _batch_norms(encoder):
        warnings.warn(
            f"{mode} memory: the encoder has BatchNorm ({', '.join(found)}), which normalises each chunk by the"
            " chunk's own statistics; full normalises all support objects together, so results differ. GroupNorm"
            " and LayerNorm look at one object at a time and keep both equal.",
            stacklevel=3,
        )


def has_batch_norm(encoder: nn.Module) -> bool:
    """Whether some layer looks across the objects encoded together."""
    return bool(_batch_norms(encoder))


@contextmanager
def running_statistics_restored(encoder: nn.Module) -> Iterator[None]:
    """Within this context chunks that were seen before are seen again; afterwards BatchNorm does not know."""
    buffers = [buffer for norm in _batch_norms(encoder).values() for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            # Through .data: autograd would take the queries' graph, which knows these buffers, to have been spoilt.
            buffer.data.copy_(value)


def _batch_norms(encoder: nn.Module) -> dict[str, nn.modules.batchnorm._BatchNorm]:
    return {name: m for name, m in encoder.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)}
