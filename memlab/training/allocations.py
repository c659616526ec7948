"""What a computation takes of memory, tensor by tensor; and what the same computation takes of more objects."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


@dataclass(frozen=True)
class Allocations:
    """What was taken and given back, in order.

    Args:
        order: i where the storage i came to life, and ~i where it was given back.
        sizes: bytes of each storage.
        mark: how much of ``order`` was before the computation set its mark.
    """

    order: Sequence[int]
    sizes: Sequence[float]
    mark: int = 0

    def peak(self) -> float:
        """Bytes that were in use at most."""
        return max(self._in_use(), default=0.0)

    def peak_before_mark(self) -> float:
        """Of what was before the mark."""
        return max(list(self._in_use())[: self.mark], default=0.0)

    def _in_use(self) -> Iterator[float]:
        return accumulate(self.sizes[i] if i >= 0 else -self.sizes[~i] for i in self.order)


Mark = Callable[[], None]
"""Sets the mark: what follows is after it."""


def recorded(compute: Callable[[Mark], object]) -> Allocations:
    """What a computation takes and gives back, of all that torch's operators make.

    Memory that an operator takes and gives back within itself, as the convolutions of oneDNN and cuDNN do, is not seen.

    Args:
        compute: the computation.
    """
    collecting = gc.isenabled()
    gc.disable()  # when cycles are let go must not be chance
    try:
        with _Recorder() as recorder:
            made = compute(recorder.set_mark)
            del made
        return Allocations(recorder.order, recorder.sizes, recorder.mark)
    finally:
        recorder.close()
        if collecting:
            gc.enable()


class _Recorder(TorchDispatchMode):
    """Sees every storage that an operator returns, and is told when it dies."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[int] = []
        self.sizes: list[int] = []
        self.mark = 0
        self._known: dict[int, weakref.finalize[Any, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._meet(tensor, made=False)
        made = func(*args, **(kwargs or {}))
        for tensor in _tensors(made):
            self._meet(tensor, made=True)
        return made

    def set_mark(self) -> None:
        self.mark = len(self.order)

    def close(self) -> None:
        """Follow what is still there no longer."""
        for follower in self._known.values():
            follower.detach()

    def _meet(self, tensor: Tensor, *, made: bool) -> None:
        storage = tensor.untyped_storage()
        name = storage._cdata
        if name in self._known:
            return
        number = None
        if made:
            number = len(self.sizes)
            self.order.append(number)
            self.sizes.append(storage.nbytes())
        self._known[name] = weakref.finalize(storage, self._gone, name, number)

    def _gone(self, name: int, number: int | None) -> None:
        del self._known[name]  # another may get its place in memory
        if number is not None:
            self.order.append(~number)


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor))


class Size(NamedTuple):
    """Of what a computation is done: two numbers that its tensors have as many rows or columns of."""

    queries: int
    objects: int


def extrapolated(found: Mapping[Size, Allocations], size: Size, *, largest_product: float = math.inf) -> Allocations:
    """What a computation takes of more queries and objects.

    Every storage has ``a + b Q + c M + d Q M`` bytes. The four are known of each from four small computations, and so
    the peak is that of the large one, wherever in it that is. Where the four do not take and give back the same in the
    same order, as they may with code of the user's own, it is the peak itself that is taken to be such a number.

    Args:
        found: of two numbers of queries with two of objects each.
        size: the numbers wanted.
        largest_product: what Q M is at most, where a (Q, M) matrix is made in tiles.
    """
    corners = [found[each] for each in sorted(found)]
    fit = _Fit.at(sorted(found), size, largest_product)
    order, mark = corners[0].order, corners[0].mark
    if all(each.order == order for each in corners):
        return Allocations(
            order, [fit.value(each) for each in zip(*(each.sizes for each in corners), strict=True)], mark
        )
    before, peak = (
        fit.value([each.peak_before_mark() for each in corners]),
        fit.value([each.peak() for each in corners]),
    )
    return Allocations([0, 1], [before, max(peak - before, 0.0)], mark=1)


class _Fit(NamedTuple):
    """The bilinear function through four corners: two numbers of queries with two of objects each."""

    corners: Sequence[Size]
    """In order."""
    size: Size
    product: float

    @classmethod
    def at(cls, corners: Sequence[Size], size: Size, largest_product: float) -> _Fit:
        return cls(corners, size, min(size.queries * size.objects, largest_product))

    def value(self, found: Sequence[float]) -> float:
        """The value at the size wanted of what was found at the corners; not below 0."""
        (few, few_objects), (more, more_objects) = self.corners[0], self.corners[-1]
        queries, objects = more - few, more_objects - few_objects
        by_product = (found[3] - found[2] - found[1] + found[0]) / (queries * objects)
        by_queries = (found[2] - found[0]) / queries - by_product * few_objects
        by_objects = (found[1] - found[0]) / objects - by_product * few
        constant = found[0] - by_queries * few - by_objects * few_objects - by_product * few * few_objects
        size = constant + by_queries * self.size.queries + by_objects * self.size.objects + by_product * self.product
        return max(size, 0.0)
