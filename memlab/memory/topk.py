"""Sparse reads: each query reads its K nearest cells of all M, found among stored keys."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from memlab.argument_checks import check_whole_number
from memlab.functional import ClassRead
from memlab.index import ExactIndex, Index
from memlab.machine import seconds
from memlab.memory.batch_norm import has_batch_norm, running_statistics_restored, warn_of_batch_norm
from memlab.memory.chunked import halved
from memlab.memory.full import FullMemory
from memlab.memory.stored_cells import Refresh, StoredCells
from memlab.replay import RandomState
from memlab.similarity import Similarity
from memlab.stored_keys import encoded_as_it_is
from memlab.support import Support
from memlab.two_pass import read_encoded_again


class TopKMemory(FullMemory):
    """Reads the K nearest cells of every query, so that the cost follows K and not M (section 4.3; Rae et al. 2016).

    A key of every support object is stored. Of each query the K with the highest scores are found among the stored
    keys, its own row left out; the *unique* cells found are encoded again, with gradient, and the softmax is over the K
    cells that the query reads:

    ``s_bc = log sum_{i in N_K(b): y_i=c} exp(z_bi)``.

    With K = M that is `FullMemory`. More cells than a chunk are read in two passes, as `ChunkedMemory` does.

    Stored keys are only searched, never read, and are all made as in evaluation. They drift as the encoder learns, and
    are brought up to date in two ways. `after_step` stores those encoded in the step, at no cost, if they are what
    evaluation would give: not of augmented objects, nothing drawn at random on the way (dropout), no BatchNorm. And
    a share of each step goes into encoding others again, in turn (`memlab.memory.stored_cells.Refresh`). An encoder
    with dropout has the second way alone, because to encode the cells that were read once more would cost as much as
    refreshing as many others, which are older.

    A step costs about ``3 (U + B)`` encodings forward (U unique cells, at most B K), what the refresh adds to it, and a
    search, where full costs ``3 (M + B)``.

    Args:
        similarity: scores keys for queries.
        k: K, cells that a query reads.
        index: finds the nearest stored keys.
        chunk_size: objects encoded at a time, cells and refreshed keys alike.
        refresh_every: training steps between two refreshes of all keys; ``auto`` for some at every step, in turn; None
            with ``max_age``.
        refresh_share: of ``auto``, share of a step's encoding that goes into refreshing, between 0 and 1.
        max_age: largest age of a key in training steps, a slice being refreshed at every step; None with
            ``refresh_every``.

    Raises:
        ValueError: for a number out of range, if not exactly one of ``refresh_every`` and ``max_age`` is given, or for
            an index that does not take updates.
    """

    needs_whole_support = True

    def __init__(
        self,
        *,
        similarity: Similarity,
        k: int,
        index: Index,
        chunk_size: int,
        refresh_every: int | str | None = "auto",
        refresh_share: float = 0.2,
        max_age: int | None = None,
    ) -> None:
        super().__init__(similarity=similarity)
        self.k = check_whole_number("k", k)
        self.chunk_size = check_whole_number("chunk_size", chunk_size)
        self._refresh = Refresh(every=refresh_every, share=refresh_share, max_age=max_age)
        if not index.takes_updates:
            raise ValueError(
                f"index={type(index).__name__}: must be exact or ivf in training, where keys change at every step; in"
                " this index a change costs several insertions and makes the search worse"
            )
        self.index = index
        self._stored: StoredCells | None = None
        self._interrupted: dict[str, Any] = {}
        self._read_now: _ReadNow | None = None
        self._step_began: float | None = None
        self._seconds = {"refresh": 0.0, "step": 0.0}
        self._knows_encoder = False

    def read(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None = None) -> ClassRead:
        """Read the K nearest cells; see `FullMemory.read`.

        The first read of a support, and the first after it has changed, encodes and stores all of it. Computed a second
        time before `after_step`, a step searches the same stored keys.
        """
        if self._step_began is None:
            self._step_began = time.perf_counter()
        if not self._knows_encoder:
            self._knows_encoder = True
            warn_of_batch_norm(encoder, mode="topk")
        self._seconds["refresh"] += seconds(lambda: self._bring_up_to_date(encoder, support), query.device)
        assert self._stored is not None
        own = None if exclude is None else self._stored.places.of(exclude)
        found = self.index.search(self.similarity.search_vectors(query), self.k, exclude=own)
        cells, reads = _unique_cells(found)
        read_support = support.of(cells)
        parts = [slice(start, start + self.chunk_size) for start in range(0, len(cells), self.chunk_size)]
        vectors: dict[int, Tensor] = {}

        def score(reader: Tensor, part: slice) -> Tensor:
            encoded = encoder(read_support.inputs(part))
            vectors[part.start] = self.similarity.search_vectors(encoded.detach())
            scores: Tensor = self.similarity(reader, encoded)
            return scores.masked_fill(~reads[:, part], -torch.inf)

        random_state = RandomState(query.device)
        read = read_encoded_again(
            score,
            parts=parts,
            kept=1 if len(parts) == 1 and torch.is_grad_enabled() else 0,
            again=lambda: running_statistics_restored(encoder),
            labels=read_support.labels,
            num_classes=support.num_classes,
            query=query,
            parameters=[p for module in (encoder, self.similarity) for p in module.parameters() if p.requires_grad],
        )
        as_in_evaluation = support.augmentation is None and random_state.is_as_kept() and not has_batch_norm(encoder)
        self._read_now = _ReadNow(cells, torch.cat(list(vectors.values())) if as_in_evaluation else None, len(query))
        return read

    def after_step(self) -> dict[str, Tensor | float]:
        """Store the keys encoded in the step that is over; see `FullMemory.after_step`.

        Returns:
            ``unique_cells`` read; ``key_age_mean`` and ``key_age_max`` of the keys searched, in steps;
            ``refresh_share`` of the time of all steps so far that went into storing and refreshing.
        """
        assert self._stored is not None, "a step begins with a read"
        assert self._read_now is not None
        assert self._step_began is not None
        cells, vectors, queries = self._read_now
        ages = (self._stored.step - self._stored.encoded_at).float()
        if vectors is not None:
            self._stored.write(cells, vectors)
        self._stored.end_step(self._refresh, cells=len(cells), queries=queries)
        self._seconds["step"] += time.perf_counter() - self._step_began
        self._read_now = self._step_began = None
        return {
            "unique_cells": float(len(cells)),
            "key_age_mean": ages.mean(),
            "key_age_max": ages.max(),
            "refresh_share": self._seconds["refresh"] / self._seconds["step"],
        }

    @torch.no_grad()
    def recall(self, query: Tensor, keys: Tensor) -> Tensor | None:
        """Share of the K nearest among fresh keys that the search of the stored ones finds.

        Args:
            query: (B, D) encoded queries, none of them in the memory.
            keys: (M, D) all keys as they are now, in the order of the support.

        Returns:
            a scalar; None before anything is stored, or if there are more or fewer keys than are stored.
        """
        if self._stored is None or len(keys) != len(self.index):
            return None
        fresh = ExactIndex()
        fresh.build(self.similarity.search_vectors(keys), metric=self.similarity.metric)
        vectors = self.similarity.search_vectors(query)
        nearest, found = (index.search(vectors, min(self.k, len(keys))) for index in (fresh, self.index))
        return torch.stack([(found == each[:, None]).any(-1).float() for each in nearest.mT]).mean()

    @property
    def sizes(self) -> dict[str, int | None]:
        """See `FullMemory.sizes`."""
        return {"k": self.k, "chunk": self.chunk_size}

    def shrink(self) -> None:
        """Halve the chunk, after memory has run out in a step.

        Raises:
            OutOfMemoryError: if a chunk is one object already.
        """
        self.chunk_size = halved(self.chunk_size, mode="topk")

    def state(self) -> dict[str, Any]:
        """The stored keys with their ages, and what the index cannot find again; see `FullMemory.state`."""
        return self._interrupted if self._stored is None else self._stored.state()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state` when the same support is read; another is stored anew. See `FullMemory.restore`."""
        self._interrupted = state
        self._stored = None

    @torch.no_grad()
    def _bring_up_to_date(self, encoder: nn.Module, support: Support) -> None:
        """Store a support that is new, as it was at an interruption or encoded anew; refresh what is due."""

        def encode(part: slice) -> Tensor:
            keys = encoded_as_it_is(encoder, support, part, batch_size=self.chunk_size)
            return torch.cat([self.similarity.search_vectors(batch) for batch in keys])

        if self._stored is None or not self._stored.holds(support):
            state = self._interrupted
            stored = StoredCells(support=support, index=self.index, metric=self.similarity.metric)
            if state and torch.equal(state["ids"].to(support.ids.device), support.ids):
                stored.restore(state)
            else:
                stored.store(encode)
            self._stored, self._interrupted = stored, {}
        self._stored.refresh(encode, self._refresh)


class _ReadNow(NamedTuple):
    """What a step has read, until it is over."""

    cells: Tensor
    """(U,) places."""
    vectors: Tensor | None
    """(U, D) their search vectors, if they are as evaluation would make them."""
    queries: int
    """B."""


def _unique_cells(found: Tensor) -> tuple[Tensor, Tensor]:
    """The cells that any query reads, and which of them each query reads.

    Args:
        found: (B, K) places, -1 for none.

    Returns:
        (U,) places in order, at least one, and (B, U) true where the query reads the cell.
    """
    cells, number = found.unique(return_inverse=True)
    missing = int(cells[0] < 0)
    if missing and len(cells) == 1:
        return torch.zeros_like(cells), torch.zeros(len(found), 1, dtype=torch.bool, device=found.device)
    reads = torch.zeros(len(found), len(cells), dtype=torch.bool, device=found.device).scatter_(1, number, True)
    return cells[missing:], reads[:, missing:]
