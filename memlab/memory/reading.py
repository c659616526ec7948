"""How a stored memory is read at validation, test and prediction: all of it, or the K nearest keys alone."""

from __future__ import annotations

import copy

from torch import Tensor

from memlab import functional
from memlab.checks import check_whole_number
from memlab.functional import ClassRead
from memlab.index import ExactIndex, Index, Places
from memlab.memory.evidence import Evidence, weigh
from memlab.memory.stored_keys import StoredKeys


class ReadAll:
    """Every stored key is read, in tiles: what `memlab.memory.FullMemory` and `ChunkedMemory` give."""

    def open(self, stored: StoredKeys) -> None:
        """Read these keys from now on."""
        self.stored = stored
        self._index: Index | None = None

    def close(self) -> None:
        """Let the keys go."""
        del self.stored, self._index

    def cells(self, available: int) -> int:
        """How many keys of so many a query reads."""
        return available

    def class_scores(self, query: Tensor, exclude: Tensor | None = None) -> Tensor:
        """(B, C) class scores alone, of what `read` gives."""
        return self.read(query, exclude).class_scores

    def read(self, query: Tensor, exclude: Tensor | None = None) -> ClassRead:
        """Read the keys.

        Args:
            query: (B, D) encoded queries.
            exclude: (B,) id of the object that each query must not read, or None to read all.
        """
        return self.stored.read(query, exclude)

    def evidence(
        self, query: Tensor, *, k: int, exclude: Tensor | None = None, read: ClassRead | None = None
    ) -> Evidence:
        """The k keys that weigh most in the read of each query.

        Args:
            query: (B, D) encoded queries.
            k: how many, at most as many as are read.
            exclude: (B,) id of the object that each query must not read, or None to read all.
            read: what `read` gave for the same queries, so that the keys are not read again; None to read them.

        Raises:
            ValueError: if k is not a whole number from 1 to the keys read.
        """
        check_k(k, available=self.cells(len(self.stored)))
        total = (read or self.read(query, exclude)).class_scores.logsumexp(-1)
        return weigh(self.stored, query, self._nearest(query, k, exclude), total=total)

    def _nearest(self, query: Tensor, k: int, exclude: Tensor | None) -> Tensor:
        """(B, k) places of the nearest keys."""
        if self._index is None:
            self._index = self._build()
        own = None if exclude is None else Places(self.stored.ids).of(exclude)
        return self._index.search(self.stored.similarity.search_vectors(query), k, exclude=own)

    def _build(self) -> Index:
        index = self._empty_index()
        index.build(self.stored.similarity.search_vectors(self.stored.keys), metric=self.stored.similarity.metric)
        return index

    def _empty_index(self) -> Index:
        return ExactIndex()


class ReadTopK(ReadAll):
    """The K nearest keys of each query are read, and the softmax is over them (section 4.3).

    ``s_bc = log sum_{i in N_K(b): y_i=c} exp(z_bi)``: a class that none of the K belongs to has mass 0.

    Args:
        k: K.
        index: finds them; built anew for every memory opened.

    Raises:
        ValueError: if K is not a whole number of at least 1.
    """

    def __init__(self, *, k: int, index: Index) -> None:
        self.k = check_whole_number("k", k)
        self._template = index

    def _empty_index(self) -> Index:
        return copy.copy(self._template)

    def cells(self, available: int) -> int:
        """See `ReadAll.cells`."""
        return min(self.k, available)

    def read(self, query: Tensor, exclude: Tensor | None = None) -> ClassRead:
        """See `ReadAll.read`. Without gradient of the choice; differentiable in queries and keys."""
        places = self._nearest(query, self.cells(len(self.stored)), exclude)
        scores = self.stored.scores_of(query, places)
        return functional.read_cells(scores, self.stored.labels[places.clamp(min=0)], self.stored.num_classes)


def check_k(k: object, *, available: int) -> None:
    """See that ``k`` objects can be shown of ``available`` that are read.

    Raises:
        ValueError: if k is not a whole number from 1 to ``available``.
    """
    if check_whole_number("k", k) > available:
        raise ValueError(f"k={k}: must be at most {available}, the objects that a query reads")
