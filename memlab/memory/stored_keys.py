"""A whole support encoded once, to be read by many queries: at validation, test and prediction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from memlab.data.parts import parts
from memlab.data.support import Support
from memlab.functional import ClassRead
from memlab.memory.similarity import Similarity
from memlab.memory.tiles import Tiles, read_tiles

SCORES_AT_A_TIME = {"cpu": 2**20, "cuda": 2**24}
"""Entries of a (B, tile) matrix of scores: on a CPU it stays in the cache, on a GPU it is large enough to be worth a
launch."""


@torch.no_grad()
def encoded_as_it_is(encoder: nn.Module, support: Support, part: slice, *, batch_size: int) -> list[Tensor]:
    """Keys of a part of a support: of its objects without augmentation, by the encoder as in evaluation.

    Args:
        encoder: f; its layers are put into evaluation mode meanwhile.
        support: the objects.
        part: which of them, with start and stop.
        batch_size: objects encoded at a time.

    Returns:
        (m, D) keys, batch by batch.
    """
    batches = parts(part.stop, batch_size, start=part.start)
    with in_evaluation(encoder):
        return [encoder(support.inputs_as_they_are(batch)) for batch in batches]


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


@dataclass
class StoredKeys:
    """The keys of N support objects with their labels and ids.

    Args:
        keys: (N, D) encoded objects.
        labels: (N,) class ids.
        ids: (N,) which object each key is.
        num_classes: C.
        similarity: scores keys for queries.
    """

    keys: Tensor
    labels: Tensor
    ids: Tensor
    num_classes: int
    similarity: Similarity

    @classmethod
    def encode(cls, *, encoder: nn.Module, similarity: Similarity, support: Support, batch_size: int) -> StoredKeys:
        """Encode a support as it is, ``batch_size`` objects at a time; see `encoded_as_it_is`."""
        keys = torch.cat(encoded_as_it_is(encoder, support, slice(0, len(support)), batch_size=batch_size))
        return cls(keys, support.labels, support.ids, support.num_classes, similarity)

    def __len__(self) -> int:
        return len(self.keys)

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
        centre = self.similarity.centre(query)
        tiles = Tiles(
            parts=self.tiles(len(query)),
            key_terms=partial(self.similarity.key_terms, centre=centre),
            labels=self.labels,
            num_classes=self.num_classes,
            ids=self.ids,
            exclude=exclude,
        )
        wide = query.to(torch.promote_types(query.dtype, self.keys.dtype))
        return read_tiles(self.similarity.query_terms(wide, centre), self.keys, tiles)

    def scores_of(self, query: Tensor, places: Tensor) -> Tensor:
        """(B, K) scores of some keys for each query.

        Args:
            query: (B, D) encoded queries.
            places: (B, K) places of keys; -1, for none, has minus infinity.
        """
        centre = self.similarity.centre(query)
        terms = self.similarity.query_terms(query, centre)
        key_terms = self.similarity.key_terms(self.keys[places.clamp(min=0).flatten()], centre)
        scores = (terms[:, None] * key_terms.view(*places.shape, -1)).sum(-1)
        return scores.masked_fill(places < 0, -torch.inf)

    def tiles(self, queries: int) -> list[slice]:
        """The places of the tiles that so many queries read at a time."""
        size = max(SCORES_AT_A_TIME.get(self.keys.device.type, 2**20) // max(queries, 1), 128)
        return parts(len(self), size)
