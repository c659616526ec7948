"""Sparse reads: each query reads its K nearest cells of all M, found among stored keys."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from memlab.argument_checks import check_whole_number
from memlab.index import ExactIndex, Index, Places
from memlab.machine import seconds
from memlab.memory.batch_norm import running_statistics_restored, warn_of_batch_norm
from memlab.memory.chunked import halved
from memlab.memory.full import FullMemory
from memlab.similarity import Similarity
from memlab.support import Support
from memlab.two_pass import read_encoded_again

log = logging.getLogger(__name__)


class TopKMemory(FullMemory):
    """Reads the K nearest cells of every query, so that the cost follows K and not M (section 4.3; Rae et al. 2016).

    A key of every support object is stored. Of each query the K with the highest scores are found among the stored
    keys, its own row left out; the *unique* cells found are encoded again, with gradient, and the softmax is over the K
    cells that the query reads:

    ``s_bc = log sum_{i in N_K(b): y_i=c} exp(z_bi)``.

    With K = M that is `FullMemory`. More cells than a chunk are read in two passes, as `ChunkedMemory` does.

    Stored keys are only searched, never read. They drift as the encoder learns, and are brought up to date in two ways.
    `after_step` stores those encoded in the step, at no cost, unless they are of augmented objects: a key of another
    picture would be found in place of the object's own. And all are encoded again every ``refresh_every`` steps, or one
    slice of them each step so that none is older than ``max_age`` steps; as in evaluation, without dropout.

    A step costs about ``3 U + M / R`` encodings forward (U unique cells, at most B K; R steps between refreshes) and a
    search, where full costs ``3 M``.

    Args:
        similarity: scores keys for queries.
        k: K, cells that a query reads.
        index: finds the nearest stored keys.
        chunk_size: objects encoded at a time, cells and refreshed keys alike.
        refresh_every: R, training steps between two refreshes of all keys; None with ``max_age``.
        max_age: largest age of a key in training steps; None with ``refresh_every``.

    Raises:
        ValueError: for a number that is not whole or below 1, if not exactly one of ``refresh_every`` and ``max_age``
            is given, or for an index that does not take updates.
    """

    needs_whole_support = True

    def __init__(
        self,
        *,
        similarity: Similarity,
        k: int,
        index: Index,
        chunk_size: int,
        refresh_every: int | None = None,
        max_age: int | None = None,
    ) -> None:
        super().__init__(similarity=similarity)
        self.k = check_whole_number("k", k)
        self.chunk_size = check_whole_number("chunk_size", chunk_size)
        if (refresh_every is None) == (max_age is None):
            raise ValueError(
                f"refresh_every={refresh_every}: must be given, or max_age (it is {max_age}), one of the two and null"
                " for the other"
            )
        if refresh_every is not None:
            check_whole_number("refresh_every", refresh_every)
        if max_age is not None:
            check_whole_number("max_age", max_age)
        if not index.takes_updates:
            raise ValueError(
                f"index={type(index).__name__}: must be exact or ivf in training, where keys change at every step; in"
                " this index a change costs several insertions and makes the search worse"
            )
        self.index = index
        self._refresh_every = refresh_every
        self._max_age = max_age
        self._stored: _StoredCells | None = None
        self._interrupted: dict[str, Any] = {}
        self._read_now: tuple[Tensor, Tensor | None] | None = None
        self._step_began: float | None = None
        self._seconds = {"refresh": 0.0, "step": 0.0}
        self._knows_encoder = False

    def forward(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None = None) -> Tensor:
        """Read the K nearest cells; see `FullMemory.forward`.

        The first read of a support, and the first after it has changed, encodes and stores all of it. Computed a second
        time before `after_step`, a step searches the same stored keys.
        """
        if self._step_began is None:
            self._step_began = time.perf_counter()
        self._seconds["refresh"] += seconds(lambda: self._refresh(encoder, support), query.device)
        assert self._stored is not None
        own = None if exclude is None else self._stored.places.of(exclude)
        found = self.index.search(self.similarity.search_vectors(query), self.k, exclude=own)
        cells, reads = _unique_cells(found)
        read_support = support.of(cells)
        parts = [slice(start, start + self.chunk_size) for start in range(0, len(cells), self.chunk_size)]
        keys: dict[int, Tensor] = {}

        def score(reader: Tensor, part: slice) -> Tensor:
            encoded = encoder(read_support.inputs(part))
            keys[part.start] = self.similarity.search_vectors(encoded.detach())
            scores: Tensor = self.similarity(reader, encoded)
            return scores.masked_fill(~reads[:, part], -torch.inf)

        class_scores = read_encoded_again(
            score,
            parts=parts,
            kept=1 if len(parts) == 1 and torch.is_grad_enabled() else 0,
            again=lambda: running_statistics_restored(encoder),
            labels=read_support.labels,
            num_classes=support.num_classes,
            query=query,
            parameters=[p for module in (encoder, self.similarity) for p in module.parameters() if p.requires_grad],
        )
        self._read_now = cells, torch.cat(list(keys.values())) if support.augmentation is None else None
        return class_scores

    def after_step(self) -> dict[str, Tensor | float]:
        """Store the keys encoded in the step that is over; see `FullMemory.after_step`.

        Returns:
            ``unique_cells`` read; ``key_age_mean`` and ``key_age_max`` of the keys searched, in steps;
            ``refresh_share`` of the time of all steps so far that went into storing and refreshing.
        """
        assert self._stored is not None, "a step begins with a read"
        assert self._read_now is not None
        assert self._step_began is not None
        cells, keys = self._read_now
        stored = self._stored
        ages = (stored.step - stored.encoded_at).float()
        if keys is not None:
            self.index.update(cells, keys)
            stored.encoded_at[cells] = stored.step
        stored.step += 1
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
        if self._stored is None:
            return self._interrupted
        return {
            "vectors": self.index.vectors,
            "ids": self._stored.ids,
            "encoded_at": self._stored.encoded_at,
            "step": self._stored.step,
            "refreshed_at": self._stored.refreshed_at,
            "index": self.index.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state` when the same support is read; another is stored anew. See `FullMemory.restore`."""
        self._interrupted = state
        self._stored = None

    @torch.no_grad()
    def _refresh(self, encoder: nn.Module, support: Support) -> None:
        """Encode again what is due at this step, unless it was done in an earlier attempt at the step."""
        if not self._knows_encoder:
            self._knows_encoder = True
            warn_of_batch_norm(encoder, mode="topk")
        if not self._holds(support):
            self._store(encoder, support)
        stored = self._stored
        assert stored is not None
        if stored.refreshed_at == stored.step:
            return
        if self._refresh_every is not None:
            if stored.step % self._refresh_every:
                return
            self.index.build(self._encode(encoder, support, slice(0, len(support))), metric=self.similarity.metric)
            stored.encoded_at.fill_(stored.step)
        else:
            assert self._max_age is not None
            size = -(-len(support) // self._max_age)
            first = stored.step % self._max_age * size
            if first < len(support):
                part = slice(first, min(first + size, len(support)))
                places = torch.arange(part.start, part.stop, device=stored.ids.device)
                self.index.update(places, self._encode(encoder, support, part))
                stored.encoded_at[part] = stored.step
        stored.refreshed_at = stored.step

    def _holds(self, support: Support) -> bool:
        """Whether the keys stored are of this support; the same rows object is not compared again."""
        if self._stored is not None and self._stored.rows is support.rows:
            return True
        if self._stored is not None and torch.equal(self._stored.ids, support.ids):
            self._stored.rows = support.rows
            return True
        return False

    def _store(self, encoder: nn.Module, support: Support) -> None:
        """Take a support for what is stored from now on: as it was at the interruption, or encoded anew."""
        state, self._interrupted = self._interrupted, {}
        self._stored = _StoredCells(support)
        if state and torch.equal(state["ids"].to(support.ids.device), support.ids):
            self._stored.encoded_at = state["encoded_at"].to(support.ids.device)
            self._stored.step, self._stored.refreshed_at = state["step"], state["refreshed_at"]
            self.index.restore(state["index"])
            vectors = state["vectors"].to(support.ids.device)
        else:
            vectors = self._encode(encoder, support, slice(0, len(support)))
        self.index.build(vectors, metric=self.similarity.metric)

    def _encode(self, encoder: nn.Module, support: Support, part: slice) -> Tensor:
        """(m, D) search vectors of a part of the support as it is, by the encoder as in evaluation."""
        starts = range(part.start, part.stop, self.chunk_size)
        chunks = [slice(start, min(start + self.chunk_size, part.stop)) for start in starts]
        with _in_evaluation(encoder):
            return torch.cat(
                [self.similarity.search_vectors(encoder(support.inputs_as_they_are(chunk))) for chunk in chunks]
            )


class _StoredCells:
    """Whose keys an index holds, and how old they are."""

    def __init__(self, support: Support) -> None:
        self.rows = support.rows
        self.ids = support.ids
        self.places = Places(support.ids)
        self.encoded_at = torch.zeros(len(support), dtype=torch.int64, device=support.ids.device)
        """(M,) the step at which each key was encoded."""
        self.step = 0
        """Training steps since the support was first stored."""
        self.refreshed_at = 0
        """The last step at which a refresh was due and done."""


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


@contextmanager
def _in_evaluation(encoder: nn.Module) -> Iterator[None]:
    """Within this context all layers are as in evaluation; afterwards each is as it was."""
    before = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
