"""Many objects a few at a time."""

from __future__ import annotations


def parts(stop: int, size: int, *, start: int = 0) -> list[slice]:
    """Slices of ``size`` places, the last one maybe smaller, that make up ``start`` to ``stop`` - 1 in order.

    >>> parts(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]


def part_of(count: int, *, rank: int, world: int) -> slice:
    """The places, next to one another, that are the r-th's of W who share ``count`` as equally as can be.

    >>> [part_of(5, rank=rank, world=3) for rank in range(3)]
    [slice(0, 1, None), slice(1, 3, None), slice(3, 5, None)]
    """
    return slice(rank * count // world, (rank + 1) * count // world)
