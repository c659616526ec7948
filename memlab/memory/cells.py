"""Cells: the K keys that a query reads. Each read has its own, or all reads of a query those of the first."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from memlab import functional
from memlab.functional import ClassRead, ValueRead
from memlab.memory.hops import Hops
from memlab.memory.readable import ReadableKeys, ReadInHop, ReadWithStrongest
from memlab.memory.stored_keys import StoredKeys
from memlab.memory.strongest import Strongest

Find = Callable[[Tensor], tuple[StoredKeys, Tensor]]
"""Of (B, D) readers: keys, and (B, K) the places among them that each is to read; -1 for none."""


class Cells(ReadableKeys):
    """The cells of one batch of queries, found when they are to be read.

    Differentiable in queries and keys, and in what makes hops of them; not in the choice.

    Args:
        hops: whether each searches anew; None for no hops.
        find: searches; asked once for each read, or once for all.
    """

    def __init__(self, hops: Hops | None, find: Find) -> None:
        self._searches_anew = hops is None or hops.searches_anew
        self._find = find
        self._now: tuple[StoredKeys, Tensor] | None = None

    def values(self, hop: int, reader: Tensor) -> ValueRead:
        """See `memlab.memory.readable.Readable.values`."""
        stored, places = self._found(reader)
        return stored.read_values_of(hop, reader, places)

    def classes(self, reader: Tensor) -> ClassRead:
        """See `memlab.memory.readable.Readable.classes`."""
        return self._classes(reader)[0]

    def strongest(self, hop: int, reader: Tensor, k: int) -> ReadInHop:
        """See `memlab.memory.readable.ReadableKeys.strongest`."""
        assert self._now is not None, "a hop has been read"
        stored, places = self._now
        scores = stored.in_hop(hop).scores_of(reader, places)
        return ReadInHop(_best(places, scores, k), scores.logsumexp(-1))

    def classes_with_strongest(self, reader: Tensor, k: int) -> ReadWithStrongest:
        """See `memlab.memory.readable.ReadableKeys.classes_with_strongest`."""
        read, places, scores = self._classes(reader)
        return ReadWithStrongest(read, _best(places, scores, k), scores.logsumexp(-1))

    def _classes(self, reader: Tensor) -> tuple[ClassRead, Tensor, Tensor]:
        """What is read, of which cells, and their scores."""
        stored, places = self._found(reader)
        scores = stored.plain.scores_of(reader, places)
        read = functional.read_cells(scores, stored.labels[places.clamp(min=0)], stored.num_classes)
        return read, places, scores

    def _found(self, reader: Tensor) -> tuple[StoredKeys, Tensor]:
        """Those of the next read."""
        if self._now is None or self._searches_anew:
            self._now = self._find(reader)
        return self._now


def _best(places: Tensor, scores: Tensor, k: int) -> Strongest:
    """The k of highest score of (B, K) that were found."""
    best, order = scores.topk(min(k, scores.shape[1]), dim=-1)
    return Strongest(places.gather(-1, order), best)
