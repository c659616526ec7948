"""How a stored memory is read at validation, test and prediction: all of it, or the K nearest keys alone."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from memlab.checks import check_whole_number
from memlab.functional import ClassRead
from memlab.index import ExactIndex, Index, Places
from memlab.index.index import COMPARED_AT_A_TIME
from memlab.memory.cells import Cells
from memlab.memory.evidence import Evidence, weigh
from memlab.memory.readable import ReadableKeys, read_after, read_with_strongest, strongest_in_hops
from memlab.memory.stored_keys import SCORES_AT_A_TIME, StoredKeys


class ReadAll:
    """Every stored key is read, in tiles: what `memlab.memory.FullMemory` and `ChunkedMemory` give."""

    def open(self, stored: StoredKeys) -> None:
        """Read these keys from now on."""
        self.stored = stored

    def close(self) -> None:
        """Let the keys go."""
        del self.stored

    @property
    def alone(self) -> ReadAll:
        """Reads by itself what this reads, maybe as one of several processes."""
        return self

    @property
    def labels(self) -> Tensor:
        """(N,) classes of the keys that are read."""
        return self.stored.labels

    @property
    def ids(self) -> Tensor:
        """(N,) which object each of them is."""
        return self.stored.ids

    def whole(self) -> StoredKeys | None:
        """All keys that are read; nothing where another process has them."""
        return self.stored

    def cells(self, available: int) -> int:
        """How many keys of so many a query reads."""
        return available

    def scores_at_a_time(self, device: torch.device) -> int:
        """Entries of the largest (B, tile) matrix of scores."""
        return SCORES_AT_A_TIME.get(device.type, 2**19) * (torch.get_num_threads() if device.type == "cpu" else 1)

    def small(self) -> ReadAll:
        """One as this to try a read of few keys with."""
        return copy.copy(self)

    def class_scores(self, query: Tensor, exclude: Tensor | None = None) -> Tensor:
        """(B, C) class scores alone, of what `read` gives."""
        return self.read(query, exclude).class_scores

    def read(self, query: Tensor, exclude: Tensor | None = None) -> ClassRead:
        """Read the keys.

        Args:
            query: (B, D) encoded queries.
            exclude: (B,) id of the object that each query must not read, or None to read all.
        """
        return read_after(self.stored.hops, query, self._readable(exclude))

    @torch.no_grad()
    def read_with_evidence(self, query: Tensor, *, k: int, exclude: Tensor | None = None) -> tuple[ClassRead, Evidence]:
        """Read the keys once, and tell which weigh most. Without gradient.

        Args:
            query: (B, D) encoded queries.
            k: how many keys are told, at most as many as are read.
            exclude: (B,) id of the object that each query must not read, or None to read all.

        Returns:
            what `read` gives, and the k keys that weigh most in it.

        Raises:
            ValueError: if k is not a whole number from 1 to the keys read.
        """
        check_k(k, available=self.cells(len(self.ids)))
        read, strongest, total = read_with_strongest(self.stored.hops, query, self._readable(exclude), k)
        return read, weigh(strongest, labels=self.labels, ids=self.ids, total=total)

    @torch.no_grad()
    def evidence_of_hops(self, query: Tensor, *, k: int, exclude: Tensor | None = None) -> tuple[Evidence, ...]:
        """The k keys that weigh most in each hop before the read that answers; see `read_with_evidence`."""
        check_k(k, available=self.cells(len(self.ids)))
        reads = strongest_in_hops(self.stored.hops, query, self._readable(exclude), k)
        return tuple(weigh(read.strongest, labels=self.labels, ids=self.ids, total=read.total) for read in reads)

    def _readable(self, exclude: Tensor | None) -> ReadableKeys:
        """The keys, for one batch of queries, of which each must not read one."""
        return self.stored.readable(exclude)


class ReadTopK(ReadAll):
    """The K nearest keys of each query are read, and the softmax is over them (section 4.3).

    ``s_bc = log sum_{i in N_K(b): y_i=c} exp(z_bi)``: a class that none of the K belongs to has mass 0. There is no
    gradient of the choice.

    Args:
        k: K.
        index: finds them; built anew for every memory opened.

    Raises:
        ValueError: if K is not a whole number of at least 1.
    """

    def __init__(self, *, k: int, index: Index) -> None:
        self.k = check_whole_number("k", k)
        self._template = index
        self._index: Index | None = None

    def open(self, stored: StoredKeys) -> None:
        """See `ReadAll.open`; the index is built when they are first read."""
        super().open(stored)
        self._index = None

    def close(self) -> None:
        """See `ReadAll.close`."""
        super().close()
        self._index = None

    def cells(self, available: int) -> int:
        """See `ReadAll.cells`."""
        return min(self.k, available)

    def scores_at_a_time(self, device: torch.device) -> int:
        """See `ReadAll.scores_at_a_time`."""
        return COMPARED_AT_A_TIME.get(device.type, 2**23)

    def small(self) -> ReadTopK:
        """See `ReadAll.small`; nothing is approximate."""
        return ReadTopK(k=1, index=ExactIndex())

    def _readable(self, exclude: Tensor | None) -> ReadableKeys:
        return Cells(self.stored.hops, lambda reader: (self.stored, self._found(reader, exclude)))

    def _found(self, query: Tensor, exclude: Tensor | None) -> Tensor:
        """(B, K) places of the K nearest keys, as the index finds them."""
        if self._index is None:
            self._index = copy.copy(self._template)
            vectors = self.stored.similarity.search_vectors(self.stored.keys)
            self._index.build(vectors, metric=self.stored.similarity.metric)
        own = None if exclude is None else Places(self.stored.ids).of(exclude)
        vectors = self.stored.similarity.search_vectors(query)
        return self._index.search(vectors, self.cells(len(self.stored)), exclude=own)


def check_k(k: object, *, available: int) -> None:
    """See that ``k`` objects can be shown of ``available`` that are read.

    Raises:
        ValueError: if k is not a whole number from 1 to ``available``.
    """
    if check_whole_number("k", k) > available:
        raise ValueError(f"k={k}: must be at most {available}, the objects that a query reads")
