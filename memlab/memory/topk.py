"""Sparse reads: each query reads its K nearest cells of all M, found in an index."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from memlab import draws
from memlab.checks import check_whole_number
from memlab.data.parts import parts
from memlab.data.support import Support
from memlab.device import Moment
from memlab.functional import ClassRead, read_cells
from memlab.index import ExactIndex, Index, Places
from memlab.memory.batch_norm import has_batch_norm, warn_of_batch_norm
from memlab.memory.cells import Cells
from memlab.memory.chunked import halved
from memlab.memory.classes import Classes
from memlab.memory.hops import Hops
from memlab.memory.index_vectors import IndexVectors, Refresh, Share, joined
from memlab.memory.kept_keys import kept_keys
from memlab.memory.memory import Memory
from memlab.memory.readable import Readable, read_after
from memlab.memory.replay import AutocastState, RandomState
from memlab.memory.scored_support import ScoredSupport
from memlab.memory.similarity import Similarity
from memlab.memory.stored_keys import StoredKeys, encoded_as_it_is
from memlab.memory.two_pass import read_in_two_passes

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
        self._read_now: _ReadNow | None = None
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
        if self.hops is None:
            return _CellsOfClasses(self, encoder, support, own)
        return Cells(self.hops, _CellsOfHops(self, encoder, support, own).find)

    def found(self, reader: Tensor, own: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What is read of what the index finds for (B, D) readers, each of which must not read one; see `Choose`."""
        vectors = self.similarity.search_vectors(reader)
        return self._choose(vectors, self.index.search(vectors, self.k, exclude=own))

    def note(self, read: _ReadNow) -> None:
        """Keep in mind what the step under way has read, until `after_step`."""
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


@dataclass
class _ScoredCells(ScoredSupport):
    """The unique cells of a step.

    Args:
        number: (B, K) which of the cells a query has found.
        missing: (B, K) true where it has found none and ``number`` means nothing.
    """

    number: Tensor
    missing: Tensor

    def __post_init__(self) -> None:
        self._vectors: dict[int, Tensor] = {}
        number, nothing = self.number.mT, self.missing[:, 0]
        unread = torch.ones(len(self.support), len(nothing), dtype=torch.bool, device=number.device)
        self._unread = unread.scatter_(0, number, nothing.expand_as(number))  # (U, B), as scores lie in memory

    def read_at_once(self, query: Tensor) -> ClassRead:
        """Read all cells with one graph: each query its K, of which there are far fewer than of scores."""
        scores = self._all_scores(query, slice(0, len(self.support))).gather(1, self.number)
        labels = self.support.labels[self.number]
        return read_cells(scores.masked_fill(self.missing, -torch.inf), labels, self.support.num_classes)

    def scores(self, query: Tensor, part: slice) -> Tensor:
        """Minus infinity for cells that a query does not read; see `ScoredSupport.scores`."""
        return self._all_scores(query, part).masked_fill(self._unread[part].mT, -torch.inf)

    def _all_scores(self, query: Tensor, part: slice) -> Tensor:
        keys = self.keys(part)
        self._vectors[part.start] = self.similarity.search_vectors(keys.detach())
        scores: Tensor = self.similarity(query, keys)
        return scores

    @property
    def vectors(self) -> Tensor:
        """(U, D) search vectors of the cells as last encoded."""
        return torch.cat(list(self._vectors.values()))


class _CellsOfClasses(Readable):
    """The cells of a step without hops, which are encoded when they are read.

    Args:
        memory: has the index.
        encoder: f.
        support: where the cells are.
        own: (B,) place of what each query must not read, or None.
    """

    def __init__(self, memory: TopKMemory, encoder: nn.Module, support: Support, own: Tensor | None) -> None:
        self._memory, self._encoder, self._support, self._own = memory, encoder, support, own

    def classes(self, reader: Tensor) -> ClassRead:
        """See `Readable.classes`."""
        memory, support = self._memory, self._support
        found, of_all = memory.found(reader, self._own)
        missing = found < 0
        # What is missing becomes what is found first, or any cell where nothing is: a GPU need not be waited for.
        filled = torch.where(missing, torch.where(missing[:, :1], found.amax(), found[:, :1]), found).clamp(min=0)
        cells, number = filled.unique(return_inverse=True)
        scored = _ScoredCells(self._encoder, memory.similarity, support.of(cells), None, number, missing)
        made = _Making(self._encoder, support)
        if len(cells) <= memory.chunk_size:
            read = scored.read_at_once(reader)
        else:
            chunks = parts(len(cells), memory.chunk_size)
            read = read_in_two_passes(reader, scored, classes=Classes.of(scored.support), parts=chunks, kept=0)
        vectors = scored.vectors if made.as_in_evaluation() else None
        memory.note(_ReadNow(cells, vectors, len(reader), len(cells if of_all is None else of_all)))
        return read


class _CellsOfHops:
    """The cells of a step with hops: keys of those that some read has found, with gradient.

    Args:
        memory: has the index.
        encoder: f.
        support: where the cells are.
        own: (B,) place of what each query must not read, or None.
    """

    def __init__(self, memory: TopKMemory, encoder: nn.Module, support: Support, own: Tensor | None) -> None:
        self._memory, self._encoder, self._support, self._own = memory, encoder, support, own
        self._autocast = AutocastState(support.ids.device)
        self._places = support.ids.new_empty(0)  # (U,) of the cells, in the order in which they were encoded
        self._of_all = support.ids.new_empty(0)
        self._keys: list[Tensor] = []
        self._as_in_evaluation = True

    def find(self, reader: Tensor) -> tuple[StoredKeys, Tensor]:
        """See `memlab.memory.cells.Find`; cells that are not among those found before are encoded."""
        memory = self._memory
        found, of_all = memory.found(reader.detach(), self._own)
        cells = found[found >= 0].unique()
        new = cells[Places(self._places).of(cells) < 0]
        if not len(cells) and not len(self._places):  # nothing to read: of any cell there are keys
            new = new.new_zeros(1)
        if len(new):
            self._places = torch.cat([self._places, new])
            self._keys.append(self._encoded(new))
        self._of_all = torch.cat([self._of_all, self._support.ids[cells] if of_all is None else of_all]).unique()
        keys = torch.cat(self._keys)
        vectors = memory.similarity.search_vectors(keys.detach()) if self._as_in_evaluation else None
        memory.note(_ReadNow(self._places, vectors, len(reader), len(self._of_all)))
        read = self._support.of(self._places)
        stored = StoredKeys(keys, read.labels, read.ids, read.num_classes, memory.similarity, memory.hops)
        return stored, Places(self._places).of(found)

    def _encoded(self, cells: Tensor) -> Tensor:
        scored = ScoredSupport(self._encoder, self._memory.similarity, self._support.of(cells), None)
        chunks = parts(len(cells), self._memory.chunk_size)
        made = _Making(self._encoder, self._support)
        with self._autocast.again():
            keys = scored.keys(chunks[0]) if len(chunks) == 1 else kept_keys(scored, parts=chunks, kept=0)
        self._as_in_evaluation &= made.as_in_evaluation()
        return keys


class _Making:
    """Whether objects of a support that are encoded from here on become what they would in evaluation."""

    def __init__(self, encoder: nn.Module, support: Support) -> None:
        self._encoder, self._support = encoder, support
        self._random_state, self._drawn = RandomState(support.ids.device), draws.made()

    def as_in_evaluation(self) -> bool:
        """Of those that have been encoded by now."""
        by_chance = draws.made() > self._drawn or not self._random_state.is_as_kept()
        return self._support.augmentation is None and not by_chance and not has_batch_norm(self._encoder)


class _ReadNow(NamedTuple):
    """What a step has read, until it is over."""

    cells: Tensor
    """(U,) places."""
    vectors: Tensor | None
    """(U, D) their search vectors, if they are as evaluation would make them."""
    queries: int
    """B."""
    encoded: int
    """Unique cells of all processes."""
