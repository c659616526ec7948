"""A support that is there to be read: of values in every hop, and of classes after the last."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from memlab.functional import ClassRead, ValueRead
from memlab.memory.hops import Hops
from memlab.memory.strongest import Strongest


class Readable:
    """A support that is there to be read. Readers are (B, D) queries, as they are after so many hops."""

    def values(self, hop: int, reader: Tensor) -> ValueRead:
        """What is read of values; asked for hop by hop, if there are any.

        Args:
            hop: its number.
            reader: (B, D) queries before it.
        """
        raise NotImplementedError

    def classes(self, reader: Tensor) -> ClassRead:
        """What is read of classes, by (B, D) queries after the last hop."""
        raise NotImplementedError


class ReadWithStrongest(NamedTuple):
    """What queries have read, and which keys weighed most in it."""

    read: ClassRead
    strongest: Strongest
    """Of the read that answers: of the class, or of the last hop where a layer answers."""
    total: Tensor
    """(B,) log of the sum of ``exp(z_bi)`` over all that was read then."""


class ReadInHop(NamedTuple):
    """Which keys weighed most in a hop."""

    strongest: Strongest
    total: Tensor
    """(B,) log of the sum of ``exp(z_bi)`` over all that was read in it."""


class ReadableKeys(Readable):
    """Keys that are there to be read, of which those that weigh most are told, without gradient."""

    def strongest(self, hop: int, reader: Tensor, k: int) -> ReadInHop:
        """The k keys that weigh most in the hop whose values were read last, or all if there are fewer.

        Args:
            hop: its number.
            reader: (B, D) queries before it.
            k: how many.
        """
        raise NotImplementedError

    def classes_with_strongest(self, reader: Tensor, k: int) -> ReadWithStrongest:
        """What `classes` gives, and the k keys that weigh most in it, or all if there are fewer."""
        raise NotImplementedError


def read_after(hops: Hops | None, query: Tensor, support: Readable) -> ClassRead:
    """Answer: read classes, or ask a layer, after all hops.

    Args:
        hops: what queries take up before; None for nothing.
        query: (B, D) encoded queries.
        support: what they read.
    """
    if hops is None:
        return support.classes(query)
    reader = hops.path(query, support.values)[-1]
    return hops.layer(reader) if hops.answers_by_layer else support.classes(reader)


@torch.no_grad()
def read_with_strongest(hops: Hops | None, query: Tensor, keys: ReadableKeys, k: int) -> ReadWithStrongest:
    """As `read_after`, without gradient; and the k keys that weigh most in the read that answers."""
    if hops is None:
        return keys.classes_with_strongest(query, k)
    *_, last, reader = hops.path(query, keys.values)
    if hops.answers_by_layer:
        return ReadWithStrongest(hops.layer(reader), *keys.strongest(hops.number - 1, last, k))
    return keys.classes_with_strongest(reader, k)


@torch.no_grad()
def strongest_in_hops(hops: Hops | None, query: Tensor, keys: ReadableKeys, k: int) -> list[ReadInHop]:
    """The k keys that weigh most in each hop before the read that answers; see `read_with_strongest`."""
    if hops is None:
        return []
    found: list[ReadInHop] = []

    def read(hop: int, reader: Tensor) -> ValueRead:
        values = keys.values(hop, reader)
        found.append(keys.strongest(hop, reader, k))
        return values

    hops.path(query, read)
    return found[: hops.earlier]
