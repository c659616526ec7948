"""The cells of a training step that reads K of them for each query: they are encoded when it is known which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from memlab import draws
from memlab.data.parts import parts
from memlab.data.support import Support
from memlab.functional import ClassRead, read_cells
from memlab.index import Places
from memlab.memory.batch_norm import has_batch_norm
from memlab.memory.cells import Cells
from memlab.memory.classes import Classes
from memlab.memory.hops import Hops
from memlab.memory.kept_keys import kept_keys
from memlab.memory.readable import Readable
from memlab.memory.replay import AutocastState, RandomState
from memlab.memory.scored_support import ScoredSupport
from memlab.memory.similarity import Similarity
from memlab.memory.stored_keys import StoredKeys
from memlab.memory.two_pass import read_in_two_passes


class CellsRead(NamedTuple):
    """What a step has read, until it is over."""

    cells: Tensor
    """(U,) places."""
    vectors: Tensor | None
    """(U, D) their search vectors, if they are as evaluation would make them."""
    queries: int
    """B."""
    encoded: int
    """Unique cells of all processes."""


@dataclass(frozen=True)
class CellsToRead:
    """Where the cells of a step are, and what is done to find and encode them.

    Args:
        encoder: f.
        similarity: scores keys for queries.
        support: all objects.
        chunk_size: cells encoded at a time.
        find: gives, of (B, D) readers, (B, K) places of the cells that each reads, -1 for none, none last; and (U,) ids
            of the unique cells that are read in all, if other processes read some.
        note: is told what has been read, each time that something has.
    """

    encoder: nn.Module
    similarity: Similarity
    support: Support
    chunk_size: int
    find: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    note: Callable[[CellsRead], None]

    def opened(self, hops: Hops | None) -> Readable:
        """The cells, to be read by one batch of queries."""
        return _CellsOfClasses(self) if hops is None else Cells(hops, _CellsOfHops(self, hops).find)


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
        cells: where they are.
    """

    def __init__(self, cells: CellsToRead) -> None:
        self._cells = cells

    def classes(self, reader: Tensor) -> ClassRead:
        """See `Readable.classes`."""
        here = self._cells
        found, of_all = here.find(reader)
        missing = found < 0
        # What is missing becomes what is found first, or any cell where nothing is: a GPU need not be waited for.
        filled = torch.where(missing, torch.where(missing[:, :1], found.amax(), found[:, :1]), found).clamp(min=0)
        cells, number = filled.unique(return_inverse=True)
        scored = _ScoredCells(here.encoder, here.similarity, here.support.of(cells), None, number, missing)
        made = _Making(here)
        if len(cells) <= here.chunk_size:
            read = scored.read_at_once(reader)
        else:
            chunks = parts(len(cells), here.chunk_size)
            read = read_in_two_passes(reader, scored, classes=Classes.of(scored.support), parts=chunks, kept=0)
        vectors = scored.vectors if made.as_in_evaluation() else None
        here.note(CellsRead(cells, vectors, len(reader), len(cells if of_all is None else of_all)))
        return read


class _CellsOfHops:
    """The cells of a step with hops: keys of those that some read has found, with gradient.

    Args:
        cells: where they are.
        hops: what they are read for.
    """

    def __init__(self, cells: CellsToRead, hops: Hops) -> None:
        self._cells, self._hops = cells, hops
        ids = cells.support.ids
        self._autocast = AutocastState(ids.device)
        self._places = ids.new_empty(0)  # (U,) of the cells, in the order in which they were encoded
        self._of_all = ids.new_empty(0)
        self._keys: list[Tensor] = []
        self._as_in_evaluation = True

    def find(self, reader: Tensor) -> tuple[StoredKeys, Tensor]:
        """See `memlab.memory.cells.Find`; cells that are not among those found before are encoded."""
        here = self._cells
        found, of_all = here.find(reader.detach())
        cells = found[found >= 0].unique()
        new = cells[Places(self._places).of(cells) < 0]
        if not len(cells) and not len(self._places):  # nothing to read: of any cell there are keys
            new = new.new_zeros(1)
        if len(new):
            self._places = torch.cat([self._places, new])
            self._keys.append(self._encoded(new))
        self._of_all = torch.cat([self._of_all, here.support.ids[cells] if of_all is None else of_all]).unique()
        keys = torch.cat(self._keys)
        vectors = here.similarity.search_vectors(keys.detach()) if self._as_in_evaluation else None
        here.note(CellsRead(self._places, vectors, len(reader), len(self._of_all)))
        read = here.support.of(self._places)
        stored = StoredKeys(keys, read.labels, read.ids, read.num_classes, here.similarity, self._hops)
        return stored, Places(self._places).of(found)

    def _encoded(self, cells: Tensor) -> Tensor:
        here = self._cells
        scored = ScoredSupport(here.encoder, here.similarity, here.support.of(cells), None)
        chunks = parts(len(cells), here.chunk_size)
        made = _Making(here)
        with self._autocast.again():
            keys = scored.keys(chunks[0]) if len(chunks) == 1 else kept_keys(scored, parts=chunks, kept=0)
        self._as_in_evaluation &= made.as_in_evaluation()
        return keys


class _Making:
    """Whether cells that are encoded from here on become what they would in evaluation."""

    def __init__(self, cells: CellsToRead) -> None:
        self._cells = cells
        self._random_state, self._drawn = RandomState(cells.support.ids.device), draws.made()

    def as_in_evaluation(self) -> bool:
        """Of those that have been encoded by now."""
        by_chance = draws.made() > self._drawn or not self._random_state.is_as_kept()
        return self._cells.support.augmentation is None and not by_chance and not has_batch_norm(self._cells.encoder)
