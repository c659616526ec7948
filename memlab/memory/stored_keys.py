"""A whole support encoded once, to be read by many queries: at validation, test and prediction."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from memlab import functional
from memlab.data.parts import parts
from memlab.data.support import Support
from memlab.functional import ClassRead, ValueRead, Values, are_bounded
from memlab.memory.hops import Hops
from memlab.memory.readable import (
    ReadableKeys,
    ReadInHop,
    ReadWithStrongest,
    read_after,
    read_with_strongest,
)
from memlab.memory.similarity import Similarity
from memlab.memory.strongest import Strongest
from memlab.memory.tiles import Tiles, read_tiles, read_value_tiles, read_with_blocks

SCORES_AT_A_TIME = {"cpu": 2**19, "cuda": 2**24}
"""Entries of a (B, tile) matrix of scores: on a CPU so many for each thread stay in the cache of its core, on a GPU
they are enough to be worth a launch."""


@torch.no_grad()
def encoded_as_it_is(encoder: nn.Module, support: Support, part: slice, *, batch_size: int) -> Tensor:
    """Keys of a part of a support: of its objects without augmentation, by the encoder as in evaluation.

    Each batch goes into its place at once. Small keys kept one by one lie between the large activations of the next
    batches in the heap of a CPU, where these are then not put into the room of those before.

    Args:
        encoder: f; its layers are put into evaluation mode meanwhile.
        support: the objects.
        part: which of them, with start and stop.
        batch_size: objects encoded at a time.

    Returns:
        (m, D) keys.
    """
    first, *others = parts(part.stop, batch_size, start=part.start)
    with in_evaluation(encoder):
        made: Tensor = encoder(support.inputs_as_they_are(first))
        if not others:
            return made
        keys = made.new_empty(part.stop - part.start, *made.shape[1:])
        keys[: len(made)] = made
        del made
        for batch in others:
            keys[batch.start - part.start : batch.stop - part.start] = encoder(support.inputs_as_they_are(batch))
    return keys


@contextmanager
def in_evaluation(encoder: nn.Module) -> Iterator[None]:
    """Within this context all layers are as in evaluation; afterwards each is as it was."""
    before = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@dataclass(frozen=True)
class StoredKeys:
    """The keys of N support objects with their labels and ids.

    Args:
        keys: (N, D) encoded objects; sorted by class they are read fastest.
        labels: (N,) class ids.
        ids: (N,) which object each key is.
        num_classes: C.
        similarity: scores keys for queries.
        hops: what queries take up before the class is read; None for nothing.
    """

    keys: Tensor
    labels: Tensor
    ids: Tensor
    num_classes: int
    similarity: Similarity
    hops: Hops | None = None

    @classmethod
    def encode(
        cls,
        *,
        encoder: nn.Module,
        similarity: Similarity,
        support: Support,
        batch_size: int,
        hops: Hops | None = None,
    ) -> StoredKeys:
        """Encode a support as it is, ``batch_size`` objects at a time; see `encoded_as_it_is`."""
        keys = encoded_as_it_is(encoder, support, slice(0, len(support)), batch_size=batch_size)
        return cls(keys, support.labels, support.ids, support.num_classes, similarity, hops)

    def __len__(self) -> int:
        return len(self.keys)

    def part(self, part: slice) -> StoredKeys:
        """Some of them, next to one another."""
        return replace(self, keys=self.keys[part], labels=self.labels[part], ids=self.ids[part])

    def class_scores(self, query: Tensor, exclude: Tensor | None = None) -> Tensor:
        """(B, C) class scores alone, of what `read` gives."""
        return self.read(query, exclude).class_scores

    def read(self, query: Tensor, exclude: Tensor | None = None) -> ClassRead:
        """Read all keys; see `memlab.functional.ClassRead`. No (B, N) matrix is held.

        Differentiable in queries, keys and scale; the backward scores the keys again.

        Args:
            query: (B, D) encoded queries.
            exclude: (B,) id of the object that each query must not read, or None to read all.
        """
        if self.hops is not None:
            return read_after(self.hops, query, self.readable(exclude))
        query_terms, key_terms = self._terms(query)
        return read_tiles(query_terms, key_terms, self._tiles(query_terms, key_terms, exclude))

    @torch.no_grad()
    def read_with_strongest(self, query: Tensor, k: int, exclude: Tensor | None = None) -> ReadWithStrongest:
        """Read all keys, and find in the same pass the k of highest score of each query. Without gradient.

        Args:
            query: (B, D) encoded queries.
            k: at most N.
            exclude: (B,) id of the object that each query must not read, or None to read all.
        """
        if self.hops is not None:
            return read_with_strongest(self.hops, query, self.readable(exclude), k)
        query_terms, key_terms = self._terms(query)
        read, blocks = read_with_blocks(query_terms, key_terms, self._tiles(query_terms, key_terms, exclude))
        places = blocks.candidates(k) if k else self.ids.new_empty(len(query), 0)
        if exclude is not None:
            places = places.masked_fill(self.ids[places.clamp(min=0)] == exclude[:, None], -1)
        scores, chosen = self.scores_of(query, places).topk(k, dim=-1)
        return ReadWithStrongest(read, Strongest(places.gather(-1, chosen), scores), read.class_scores.logsumexp(-1))

    def readable(self, exclude: Tensor | None = None) -> ReadableKeys:
        """All keys, to be read in every hop and after the last.

        Args:
            exclude: (B,) id of the object that each query must not read, or None to read all.
        """
        return _AllKeys(self, exclude)

    def scores_of(self, query: Tensor, places: Tensor) -> Tensor:
        """(B, K) scores of some keys for each query.

        Args:
            query: (B, D) encoded queries.
            places: (B, K) places of keys; -1, for none, has minus infinity.
        """
        query_terms, key_terms = self._terms(query)
        of_places = key_terms.index_select(0, places.clamp(min=0).flatten()).view(*places.shape, key_terms.shape[1])
        products = (of_places * query_terms[:, None]).sum(-1)
        scores = functional.root_scores(products) if self.similarity.is_root else products
        return scores.masked_fill(places < 0, -torch.inf)

    def tiles(self, queries: int) -> list[slice]:
        """The places of the tiles that so many queries read at a time."""
        kind = self.keys.device.type
        entries = SCORES_AT_A_TIME.get(kind, 2**19) * (torch.get_num_threads() if kind == "cpu" else 1)
        return parts(len(self), max(entries // max(queries, 1), 128))

    @property
    def plain(self) -> StoredKeys:
        """The same without hops, as the class is read."""
        return self if self.hops is None else self._plain

    def in_hop(self, hop: int) -> StoredKeys:
        """The keys that a hop reads, without hops."""
        assert self.hops is not None
        if not self.hops.has_own_keys:
            return self.plain
        return replace(self.plain, keys=self.hops.keys(hop, self.keys)) if torch.is_grad_enabled() else self._fixed[hop]

    def values(self) -> Values:
        """What a hop reads of the objects."""
        return self._made_values() if torch.is_grad_enabled() else self._fixed_values

    def read_values(self, hop: int, query: Tensor, values: Values, exclude: Tensor | None) -> ValueRead:
        """What queries read in a hop of all keys, tile by tile.

        Args:
            hop: its number.
            query: (B, D) queries before it.
            values: see `values`.
            exclude: (B,) id of the object that each query must not read, or None to read all.
        """
        assert self.hops is not None
        return self.in_hop(hop)._read_values(query, values, self.hops.origins(query), exclude)

    def read_values_of(self, hop: int, query: Tensor, places: Tensor) -> ValueRead:
        """What queries read in a hop of some keys each.

        Args:
            hop: its number.
            query: (B, D) queries before it.
            places: (B, K) of the keys; -1 for none.
        """
        assert self.hops is not None
        scores, near = self.in_hop(hop).scores_of(query, places), places.clamp(min=0)
        return functional.value_read(scores, self.values().to(scores.dtype).of(near), self.hops.origins(query))

    def _read_values(self, query: Tensor, values: Values, origins: Tensor | None, exclude: Tensor | None) -> ValueRead:
        query_terms, key_terms = self._terms(query)
        each = 1 if origins is None else origins.shape[1]
        tiles = Tiles(
            parts=self.tiles(len(query) * each),
            labels=self.labels,
            num_classes=self.num_classes,
            ids=self.ids,
            exclude=exclude,
            bounded=False,
            is_root=self.similarity.is_root,
        )
        return read_value_tiles(query_terms, key_terms, tiles, values.to(key_terms.dtype), origins)

    def _tiles(self, query_terms: Tensor, key_terms: Tensor, exclude: Tensor | None) -> Tiles:
        return Tiles(
            parts=self.tiles(len(query_terms)),
            labels=self.labels,
            num_classes=self.num_classes,
            ids=self.ids,
            exclude=exclude,
            bounded=self._are_bounded(query_terms, key_terms),
            is_root=self.similarity.is_root,
            ends=self._ends,
        )

    def _terms(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D') and (N, D') what is multiplied to score the keys, in the wider type; see `Similarity`."""
        query_terms = self.similarity.query_terms(query, self._centre)
        key_terms = self.similarity.key_terms(self.keys, self._centre) if self._are_trained else self._fixed_terms
        wide = torch.promote_types(query_terms.dtype, key_terms.dtype)
        return query_terms.to(wide), key_terms.to(wide)

    def _are_bounded(self, query_terms: Tensor, key_terms: Tensor) -> bool:
        """See `memlab.functional.are_bounded`: as the similarity tells, or as ``|a . b| <= |a| |b|`` tells."""
        if are_bounded(self.similarity.bound):
            return True
        if key_terms.device.type != "cpu":  # a GPU is not waited for
            return False
        largest = _longest(query_terms) * (_longest(key_terms) if self._are_trained else self._longest_fixed)
        return are_bounded(math.sqrt(largest) if self.similarity.is_root else largest)

    @property
    def _are_trained(self) -> bool:
        return torch.is_grad_enabled() and self.keys.requires_grad

    @cached_property
    def _centre(self) -> Tensor | None:
        return self.similarity.centre(self.keys)

    @cached_property
    @torch.no_grad()
    def _fixed_terms(self) -> Tensor:
        """(N, D') key terms without gradient, made once for all queries."""
        return self.similarity.key_terms(self.keys, self._centre)

    @cached_property
    def _plain(self) -> StoredKeys:
        return replace(self, hops=None)

    @cached_property
    @torch.no_grad()
    def _fixed(self) -> list[StoredKeys]:
        """What each hop reads, without gradient, made once for all queries."""
        assert self.hops is not None
        return [replace(self.plain, keys=self.hops.keys(hop, self.keys)) for hop in range(self.hops.number)]

    @cached_property
    @torch.no_grad()
    def _fixed_values(self) -> Values:
        return self._made_values()

    def _made_values(self) -> Values:
        assert self.hops is not None
        return self.hops.values(self.keys, self.labels, self.ids)

    @cached_property
    def _ends(self) -> Tensor | None:
        """(C,) where the keys of each class end, if they are sorted by class."""
        if not len(self) or (self.labels.diff() < 0).any():
            return None
        return self.labels.bincount(minlength=self.num_classes).cumsum(0)

    @cached_property
    def _longest_fixed(self) -> float:
        return _longest(self._fixed_terms)


class _AllKeys(ReadableKeys):
    """Stored keys, every one of which is read.

    Args:
        stored: the keys.
        exclude: (B,) id of the object that each query must not read, or None to read all.
    """

    def __init__(self, stored: StoredKeys, exclude: Tensor | None) -> None:
        self._stored, self._exclude = stored, exclude

    def values(self, hop: int, reader: Tensor) -> ValueRead:
        """See `memlab.memory.readable.Readable.values`."""
        return self._stored.read_values(hop, reader, self._values, self._exclude)

    def classes(self, reader: Tensor) -> ClassRead:
        """See `memlab.memory.readable.Readable.classes`."""
        return self._stored.plain.read(reader, self._exclude)

    def strongest(self, hop: int, reader: Tensor, k: int) -> ReadInHop:
        """See `memlab.memory.readable.ReadableKeys.strongest`."""
        _, strongest, total = self._with_strongest(self._stored.in_hop(hop), reader, k)
        return ReadInHop(strongest, total)

    def classes_with_strongest(self, reader: Tensor, k: int) -> ReadWithStrongest:
        """See `memlab.memory.readable.ReadableKeys.classes_with_strongest`."""
        return self._with_strongest(self._stored.plain, reader, k)

    def _with_strongest(self, stored: StoredKeys, reader: Tensor, k: int) -> ReadWithStrongest:
        return stored.read_with_strongest(reader, min(k, len(stored)), self._exclude)

    @cached_property
    def _values(self) -> Values:
        """Of all hops."""
        return self._stored.values()


def _longest(vectors: Tensor) -> float:
    """Length of the longest of (n, D') vectors."""
    return float(vectors.detach().norm(dim=1).amax()) if len(vectors) else 0.0
