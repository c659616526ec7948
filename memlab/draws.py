"""Random numbers of objects: a function of the training step, the object and the place where they are drawn.

Of nothing else: whether a support is encoded at once or in chunks, in which order and how often, an object meets the
same dropout and the same augmentation. Torch's generators give numbers in turn, to whoever asks next.

The numbers are integer hashes of 32 bits, mixed as by C. Wellons's ``lowbias32`` (nullprogram.com, "Prospecting for
Hash Functions", 2018), and the same on every device.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ENCODED_SUPPORT, AUGMENTED_QUERIES, ENCODED_QUERIES, READ_VALUES = range(4)
"""What random numbers are for: an object may be a query and in the support at the same step."""

_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B  # of lowbias32
_OF_OBJECTS, _OF_COLUMNS, _OF_CALLS = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D  # odd, so that no two become one; of xxHash


class _Step:
    seed = 0
    draws = 0


class _Now(threading.local):
    objects: _Objects | None = None


_now = _Now()


def begin_step(seed: int) -> None:
    """From now on random numbers are those of another training step."""
    _Step.seed = seed


def seed_of_step() -> int:
    """What `begin_step` was given last."""
    return _Step.seed


def made() -> int:
    """How often numbers have been drawn in this process."""
    return _Step.draws


@contextmanager
def of_objects(ids: Tensor, *, purpose: int, seed: int | None = None) -> Iterator[None]:
    """Within this context random numbers for as many rows are those of these objects.

    Args:
        ids: (n,) which object each row is.
        purpose: one of those above.
        seed: of a step that is not the one under way.
    """
    before, _now.objects = _now.objects, _Objects(ids, purpose=purpose, seed=_Step.seed if seed is None else seed)
    try:
        yield
    finally:
        _now.objects = before


def of_each(lots: Sequence[Tensor], make: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """What is made of the objects at hand lot by lot, with the random numbers that they have all together.

    Args:
        lots: places of some of them among all, which are as many as all lots have.
        make: of a lot; asks as often for numbers whatever the lot is.
    """
    whole = _now.objects
    if whole is None or len(whole) != sum(map(len, lots)):
        return [make(lot) for lot in lots]
    made = []
    try:
        for lot in lots:
            _now.objects = some = whole.some(lot)
            made.append(make(lot))
    finally:
        _now.objects = whole
    whole.calls = some.calls
    return made


def uniform(count: int, width: int, *, device: torch.device) -> Tensor:
    """(count, width) float32 numbers from -1 to below 1: of the objects at hand if they are so many, else of torch's.

    >>> with of_objects(torch.tensor([3, 5]), purpose=ENCODED_SUPPORT):
    ...     both = uniform(2, 4, device=torch.device("cpu"))
    >>> with of_objects(torch.tensor([5]), purpose=ENCODED_SUPPORT):
    ...     alone = uniform(1, 4, device=torch.device("cpu"))
    >>> torch.equal(both[1:], alone)
    True
    """
    _Step.draws += 1
    bits = _bits(count, width)
    if bits is None:
        return torch.empty(count, width, device=device).uniform_(-1, 1)
    return bits.bitwise_right_shift_(8).to(torch.float32).mul_(2.0**-23)  # 24 bits, which float32 holds exactly


def dropped(count: int, width: int, *, p: float, device: torch.device) -> Tensor:
    """(count, width) whether each is dropped, true with probability p; see `uniform`."""
    _Step.draws += 1
    bits = _bits(count, width)
    if bits is None:
        return torch.rand(count, width, device=device) < p
    return bits < round(p * 2**32) - 2**31


def leave_uncompiled() -> None:
    """Have torch.compile call these functions as they are: what they give is no constant.

    Not said where they are defined, as that would load the compiler, which takes a second.
    """
    for function in (uniform, dropped):
        globals()[function.__name__] = torch.compiler.disable(function)


class _Objects:
    """The objects at hand, and how often numbers were drawn for them: which layer it is that asks."""

    def __init__(self, ids: Tensor, *, purpose: int, seed: int) -> None:
        self._ids, self._place = ids, (seed, purpose)
        self._rows: Any = None
        self.calls = 0

    def __len__(self) -> int:
        return len(self._ids)

    def some(self, places: Tensor) -> _Objects:
        """Some of them, for which numbers were drawn as often."""
        seed, purpose = self._place
        made = _Objects(self._ids[places.to(self._ids.device)], purpose=purpose, seed=seed)
        made.calls = self.calls
        return made

    def bits(self, width: int) -> Tensor:
        """(n, width) words of 32 bits as int32, of which the highest are the best."""
        of: Any = _numpy if self._ids.device.type == "cpu" else _torch
        if self._rows is None:  # most encoders draw nothing
            word = int.from_bytes(blake2b(b"%d %d" % self._place, digest_size=4).digest())
            self._rows = of.mixed(of.line(of.words(self._ids), _OF_OBJECTS, word))[:, None]
        columns = _columns(of, width, self.calls, self._ids.device)
        self.calls += 1
        words: Tensor = of.tensor(of.mixed(self._rows + columns))
        return words


def _bits(count: int, width: int) -> Tensor | None:
    objects = _now.objects
    return objects.bits(width) if objects is not None and len(objects) == count else None


@lru_cache(maxsize=256)
def _columns(of: Any, width: int, call: int, device: torch.device) -> Any:
    with torch.inference_mode(False):
        return of.mixed(of.line(of.count(width, device), _OF_COLUMNS, call * _OF_CALLS + 1))


class _numpy:  # noqa: N801  # the name of what it computes with
    """For host memory: of a few hundred words torch's operations take three times as long."""

    @staticmethod
    def words(numbers: Tensor) -> NDArray[np.uint32]:
        return numbers.numpy().astype(np.uint32)

    @staticmethod
    def count(number: int, _: torch.device) -> NDArray[np.uint32]:
        return np.arange(number, dtype=np.uint32)

    @staticmethod
    def line(words: NDArray[np.uint32], factor: int, word: int) -> NDArray[np.uint32]:
        return words * np.uint32(factor) + np.uint32(word & 0xFFFFFFFF)

    @staticmethod
    def mixed(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
        words ^= words >> 16
        words *= _FIRST
        words ^= words >> 15
        words *= _SECOND
        return words

    @staticmethod
    def tensor(words: NDArray[np.uint32]) -> Tensor:
        return torch.from_numpy(words.view(np.int32))


class _torch:  # noqa: N801
    """For a GPU. int32 has no shift that brings in zeros, hence the masks."""

    @staticmethod
    def words(numbers: Tensor) -> Tensor:
        return numbers.to(torch.int32)

    @staticmethod
    def count(number: int, device: torch.device) -> Tensor:
        return torch.arange(number, dtype=torch.int32, device=device)

    @staticmethod
    def line(words: Tensor, factor: int, word: int) -> Tensor:
        return words.mul(_signed(factor)).add_(_signed(word))

    @staticmethod
    def mixed(words: Tensor) -> Tensor:
        words.bitwise_xor_(words.bitwise_right_shift(16).bitwise_and_(0xFFFF)).mul_(_signed(_FIRST))
        return words.bitwise_xor_(words.bitwise_right_shift(15).bitwise_and_(0x1FFFF)).mul_(_signed(_SECOND))

    @staticmethod
    def tensor(words: Tensor) -> Tensor:
        return words


def _signed(word: int) -> int:
    """The same 32 bits as a number of int32."""
    return ((word & 0xFFFFFFFF) ^ 0x80000000) - 0x80000000
