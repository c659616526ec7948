"""Sparse reads: each query reads its K nearest cells of all M, found in an index."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from memlab.checks import check_whole_number
from memlab.data.support import Support
from memlab.device import Moment
from memlab.functional import ClassRead
from memlab.index import ExactIndex, Index
from memlab.memory.batch_norm import warn_of_batch_norm
from memlab.memory.chunked import halved
from memlab.memory.hops import Hops
from memlab.memory.index_vectors import IndexVectors, Refresh, Share, joined
from memlab.memory.memory import Memory
from memlab.memory.readable import Readable, read_after
from memlab.memory.similarity import Similarity
from memlab.memory.stored_keys import encoded_as_it_is
from memlab.memory.topk_cells import CellsRead, CellsToRead

Choose = Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]]
"""Of (B, D) search vectors of queries and (B, k) places found, -1 for none: (B, k) which of them are read, none last;
and (U,) ids of the unique cells that are read in all, if others read some."""


def _all_that_are_found(_: Tensor, found: Tensor) -> tuple[Tensor, None]:
    return found, None


class TopKMemory(Memory):
    """Reads the K nearest cells of every query, so that the cost follows K and not M (section 4.3; Rae et al. 2016).

    A vector of every support object is in an index. Of each query the K with the highest scores are found there, its
    own row left out; the *unique* cells found are encoded again, with gradient, and the softmax is over the K cells
    that the query reads:

    ``s_bc = log sum_{i in N_K(b): y_i=c} exp(z_bi)``.

    With hops each read is of K cells, found by its own queries or taken over from the first read; a cell that several
    reads have found is encoded once, and the keys of all cells are kept until the step is over.

    With K = M that is `memlab.memory.FullMemory`. More cells than a chunk are read in two passes, as of a
    `memlab.memory.ChunkedMemory`.

    Index vectors are only searched, never read, and are all made as in evaluation. They drift as the encoder learns,
    and are brought up to date in two ways. `after_step` takes over those encoded in the step, at no cost, if they are
    what evaluation would give: not of augmented objects, nothing drawn at random on the way (dropout), no BatchNorm.
    And a share of each step goes into encoding others again, in turn (`memlab.memory.index_vectors.Refresh`). An
    encoder with dropout has the second way alone, because to encode the cells that were read once more would cost as
    much as refreshing as many others, which are older.

    A step costs about ``3 (U + B)`` encodings forward (U unique cells, at most B K), what the refresh adds to it, and a
    search, where full costs ``3 (M + B)``.

    Args:
        similarity: scores keys for queries.
        k: K, cells that a query reads.
        index: holds the vectors and finds the nearest.
        chunk_size: objects encoded at a time, cells and index vectors alike.
        refresh_every: training steps between two refreshes of all index vectors; ``auto`` for some at every step, in
            turn; None with ``max_age``.
        refresh_share: of ``auto``, share of a step's encoding that goes into refreshing, between 0 and 1.
        max_age: largest age of an index vector in training steps, a slice being refreshed at every step; None with
            ``refresh_every``.
        hops: see `memlab.memory.hops.Hops`.

    Raises:
        ValueError: for a number out of range, if not exactly one of ``refresh_every`` and ``max_age`` is given, or for
            an index that does not take updates.
    """

    has_hops = True
    needs_whole_support = True
    encodes_as_it_finds = True

    def __init__(
        self,
        *,
        similarity: Similarity,
        k: int,
        index: Index,
        chunk_size: int,
        refresh_every: int | str | None,
        refresh_share: float,
        max_age: int | None = None,
        hops: Hops | None = None,
    ) -> None:
        super().__init__(similarity=similarity, hops=hops)
        self.k = check_whole_number("k", k)
        self.chunk_size = self._asked = check_whole_number("chunk_size", chunk_size)
        self._refresh = Refresh(every=refresh_every, share=refresh_share, max_age=max_age)
        if not index.takes_updates:
            raise ValueError(
                f"index={type(index).__name__}: must be exact or ivf in training, where keys change at every step; in"
                " this index a change costs several insertions and makes the search worse"
            )
        self.index = index
        self._vectors: IndexVectors | None = None
        self._interrupted: dict[str, Any] = {}
        self._read_now: CellsRead | None = None
        self._step_began: float | None = None
        self._refreshed: list[tuple[Moment, Moment]] = []
        self._seconds = {"refresh": 0.0, "step": 0.0}
        self._knows_encoder = False
        self._share = Share()
        self._size: int | None = None
        self._choose: Choose = _all_that_are_found

    def share(self, share: Share, *, size: int, choose: Choose | None) -> None:
        """From now on the supports read are shares of supports that several processes read.

        Args:
            share: which objects of them they are.
            size: M, how many objects those have.
            choose: of what is found in the share; None before anything is read.
        """
        self._share, self._size, self._choose = share, size, choose or _all_that_are_found

    def read(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None = None) -> ClassRead:
        """Read the K nearest cells; see `Memory.read`.

        The first read of a support, and the first after it has changed, encodes all of it. Computed a second time
        before `after_step`, a step searches the same vectors.
        """
        return read_after(self.hops, query, self.opened(encoder, support, exclude))

    def opened(self, encoder: nn.Module, support: Support, exclude: Tensor | None) -> Readable:
        """The support, to be read by one batch of queries; see `read`. What they read is noted for `after_step`."""
        if self._step_began is None:
            self._step_began = time.perf_counter()
        if not self._knows_encoder:
            self._knows_encoder = True
            warn_of_batch_norm(encoder, mode="topk")
        before = Moment(support.ids.device)
        self._bring_up_to_date(encoder, support)
        self._refreshed.append((before, Moment(support.ids.device)))
        assert self._vectors is not None
        own = None if exclude is None else self._vectors.places.of(exclude)
        find = partial(self._found, own=own)
        return CellsToRead(encoder, self.similarity, support, self.chunk_size, find, self._note).opened(self.hops)

    def _found(self, reader: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What is read of what the index finds for (B, D) readers, each of which must not read one; see `Choose`."""
        vectors = self.similarity.search_vectors(reader)
        return self._choose(vectors, self.index.search(vectors, self.k, exclude=own))

    def _note(self, read: CellsRead) -> None:
        self._read_now = read

    def after_step(self) -> dict[str, Tensor | float]:
        """Take over the keys encoded in the step that is over; see `Memory.after_step`.

        Returns:
            ``unique_cells`` read; ``key_age_mean`` and ``key_age_max`` of the vectors searched, in steps;
            ``refresh_share`` of the time of all steps so far that went into encoding them.
        """
        assert self._vectors is not None, "a step begins with a read"
        assert self._read_now is not None
        assert self._step_began is not None
        cells, vectors, queries, encoded = self._read_now
        age_mean, age_max = self._vectors.ages()
        if vectors is not None:
            self._vectors.write(cells, vectors)
        self._vectors.end_step(self._refresh, cells=encoded, queries=queries)
        while self._refreshed:
            before, refreshed = self._refreshed.pop()
            self._seconds["refresh"] += before.until(refreshed)
        self._seconds["step"] += time.perf_counter() - self._step_began
        self._read_now = self._step_began = None
        return {
            "unique_cells": float(encoded),
            "key_age_mean": age_mean,
            "key_age_max": age_max,
            "refresh_share": self._seconds["refresh"] / self._seconds["step"],
        }

    @torch.no_grad()
    def recall(self, query: Tensor, keys: Tensor, ids: Tensor) -> Tensor | None:
        """See `Memory.recall`; None too if there are more or fewer keys than index vectors."""
        vectors = self.index_vectors(ids.device)
        if vectors is None or len(keys) != len(self.index):
            return None
        fresh = ExactIndex()
        fresh.build(self.similarity.search_vectors(keys), metric=self.similarity.metric)
        points = self.similarity.search_vectors(query)
        nearest, found = (index.search(points, min(self.k, len(keys))) for index in (fresh, self.index))
        return recalled(vectors.places.of(ids[nearest]), found)

    def index_vectors(self, device: torch.device) -> IndexVectors | None:
        """Those that are searched, also before the first step after an interruption; None if there are none yet."""
        if self._vectors is None and "ids" in self._interrupted:
            self._take_over(self._interrupted["ids"].to(device))
        return self._vectors

    @property
    def sizes(self) -> dict[str, int | None]:
        """See `Memory.sizes`."""
        return {"k": self.k, "chunk": self.chunk_size}

    def shrink(self) -> None:
        """Halve the chunk, after memory has run out in a step.

        Raises:
            OutOfMemoryError: if a chunk is one object already.
        """
        self.chunk_size = halved(self.chunk_size)

    def encoded_with_graph(self, *, support: int, queries: int) -> tuple[int, int]:
        """See `Memory.encoded_with_graph`: K cells of each query and read, none of which another has found."""
        reads = 1 + self.hops.number if self.hops is not None and self.hops.searches_anew else 1
        cells = min(queries * self.k * reads, support)
        return cells, min(self.chunk_size, cells)

    def held_bytes(self, *, support: int, embedding_size: int) -> int:
        """See `Memory.held_bytes`: of each object its vector in float32 and some numbers, as its id and its age."""
        return support * (4 * embedding_size + 64)

    def small(self, *, objects: int, at_once: int) -> TopKMemory:
        """See `Memory.small`; every object is found by two queries that have half of them for K, or by more."""
        made = copy.copy(self)
        made._modules = copy.deepcopy(self._modules)
        made.k, made.index = max(self.k, -(-objects // 2)), _InTurn()
        made.chunk_size, made._knows_encoder = at_once, True
        made._vectors, made._interrupted = None, {}
        made._refreshed, made._seconds = [], {"refresh": 0.0, "step": 0.0}
        return made

    def state(self) -> dict[str, Any]:
        """The index vectors with their ages, what the index cannot find again, and the chunk; see `Memory.state`."""
        chunk = {"asked": self._asked, "chunk_size": self.chunk_size}
        return self._interrupted if self._vectors is None else {**chunk, **self._vectors.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state` when the same support is read; another is encoded anew. See `Memory.restore`."""
        self._interrupted = state = joined(state["shares"]) if "shares" in state else state
        self._vectors = None
        if state.get("asked") == self._asked:
            self.chunk_size = state["chunk_size"]

    @torch.no_grad()
    def _bring_up_to_date(self, encoder: nn.Module, support: Support) -> None:
        """Of a support that is new take the vectors over from an interruption or encode them; refresh what is due."""

        def encode(part: slice) -> Tensor:
            keys = encoded_as_it_is(encoder, support, part, batch_size=self.chunk_size)
            return self.similarity.search_vectors(keys)

        if self._vectors is None or not self._vectors.holds(support):
            state = self._interrupted
            if "ids" in state and torch.equal(state["ids"].to(support.ids.device), support.ids):
                self._take_over(support.ids)
            else:
                self._vectors = self._new_vectors(support.ids)
                self._vectors.encode_all(encode)
        assert self._vectors is not None
        self._vectors.refresh(encode, self._refresh)

    def _new_vectors(self, ids: Tensor) -> IndexVectors:
        metric = self.similarity.metric
        return IndexVectors(ids=ids, index=self.index, metric=metric, share=self._share, size=self._size)

    def _take_over(self, ids: Tensor) -> None:
        """Go on with the vectors of an interruption, of the same objects."""
        self._vectors = self._new_vectors(ids)
        self._vectors.restore(self._interrupted)
        self._interrupted = {}


def recalled(nearest: Tensor, found: Tensor) -> Tensor:
    """Share of the nearest (B, K) that are among what was found (B, K), be it by place or by id."""
    return torch.stack([(found == each[:, None]).any(-1).float() for each in nearest.mT]).mean()


class _InTurn(ExactIndex):
    """Gives its vectors to the queries in turn, however near they are, so that few queries find all."""

    def _search(self, queries: Tensor, k: int, exclude: Tensor | None) -> Tensor:
        return torch.arange(len(queries) * k, device=queries.device).remainder(len(self)).view(len(queries), k)
