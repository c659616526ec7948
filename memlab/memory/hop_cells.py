"""Hops where every query reads K cells: each read searches its own, or all take those of the first."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from memlab import functional
from memlab.functional import ValueRead
from memlab.memory.hops import Hops
from memlab.memory.stored_keys import ReadWithStrongest, StoredKeys
from memlab.memory.strongest import Strongest

Find = Callable[[Tensor], tuple[StoredKeys, Tensor]]
"""Of (B, D) queries: keys, and (B, K) the places among them that each query is to read; -1 for none."""


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
    cells: tuple[StoredKeys, Tensor] | None = None

    def cells_of(reader: Tensor) -> tuple[StoredKeys, Tensor]:
        nonlocal cells
        if cells is None or hops.searches_anew:
            cells = find(reader)
        return cells

    def read(hop: int, reader: Tensor, origins: Tensor | None) -> ValueRead:
        stored, places = cells_of(reader)
        return stored.read_values_of(hop, reader, places, origins)

    *_, last, reader = hops.path(query, read)
    if hops.answers_by_layer:
        assert cells is not None
        stored, places = cells
        scores = stored.in_hop(hops.number - 1).scores_of(last, places)
        answered = hops.layer(reader)
    else:
        stored, places = cells_of(reader)
        scores = stored.plain.scores_of(reader, places)
        answered = functional.read_cells(scores, stored.labels[places.clamp(min=0)], stored.num_classes)
    return ReadWithStrongest(answered, Strongest(places, scores), scores.detach().logsumexp(-1))
