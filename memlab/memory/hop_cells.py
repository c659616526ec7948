"""Hops where every query reads K cells: each read searches its own, or all take those of the first."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from memlab import functional
from memlab.functional import ValueRead
from memlab.memory.hops import Hops
from memlab.memory.stored_keys import ReadInHop, ReadWithStrongest, StoredKeys
from memlab.memory.strongest import Strongest

Find = Callable[[Tensor], tuple[StoredKeys, Tensor]]
"""Of (B, D) queries: keys, and (B, K) the places among them that each query is to read; -1 for none."""


class _Cells:
    """The cells of the reads of one batch, as they are asked for."""

    def __init__(self, hops: Hops, find: Find) -> None:
        self._hops, self._find = hops, find
        self.now: tuple[StoredKeys, Tensor] | None = None
        """Those of the last read."""

    def of(self, reader: Tensor) -> tuple[StoredKeys, Tensor]:
        """Those of the next read."""
        if self.now is None or self._hops.searches_anew:
            self.now = self._find(reader)
        return self.now

    def read(self, hop: int, reader: Tensor, origins: Tensor | None) -> ValueRead:
        """See `memlab.memory.hops.ReadValues`."""
        stored, places = self.of(reader)
        return stored.read_values_of(hop, reader, places, origins)

    def in_hop(self, hop: int, reader: Tensor) -> ReadInHop:
        """All cells of a hop that has just been read, in the order in which they were found."""
        assert self.now is not None
        stored, places = self.now
        scores = stored.in_hop(hop).scores_of(reader, places)
        return ReadInHop(Strongest(places, scores), scores.detach().logsumexp(-1))


def read_cells_after_hops(hops: Hops, query: Tensor, find: Find) -> ReadWithStrongest:
    """Read the K nearest cells of each query, in every hop and for the class.

    Differentiable in queries and keys, and in what makes hops of them; not in the choice.

    Args:
        hops: how.
        query: (B, D) encoded queries.
        find: searches; asked once for each read, or once for all.

    Returns:
        what is read, and all K cells of the read that answers, in the order in which they were found.
    """
    cells = _Cells(hops, find)
    *_, last, reader = hops.path(query, cells.read)
    if hops.answers_by_layer:
        return ReadWithStrongest(hops.layer(reader), *cells.in_hop(hops.number - 1, last))
    stored, places = cells.of(reader)
    scores = stored.plain.scores_of(reader, places)
    read = functional.read_cells(scores, stored.labels[places.clamp(min=0)], stored.num_classes)
    return ReadWithStrongest(read, Strongest(places, scores), scores.detach().logsumexp(-1))


def cells_in_hops(hops: Hops, query: Tensor, find: Find) -> list[ReadInHop]:
    """All K cells of each query in each hop before the read that answers; see `read_cells_after_hops`."""
    cells, found = _Cells(hops, find), []

    def read(hop: int, reader: Tensor, origins: Tensor | None) -> ValueRead:
        values = cells.read(hop, reader, origins)
        found.append(cells.in_hop(hop, reader))
        return values

    hops.path(query, read)
    return found[: hops.earlier]
