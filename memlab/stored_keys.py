"""A whole support encoded once, to be read by many queries: at validation, test and prediction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memlab.similarity import Similarity
from memlab.support import Support
from memlab.two_pass import Tiles, read_tiles

SCORES_AT_A_TIME = {"cpu": 2**20, "cuda": 2**24}
"""Entries of a (B, tile) matrix of scores: on a CPU it stays in the cache, on a GPU it is large enough to be worth a
launch."""


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
    @torch.no_grad()
    def encode(cls, *, encoder: nn.Module, similarity: Similarity, support: Support, batch_size: int) -> StoredKeys:
        """Encode a support as it is, ``batch_size`` objects at a time."""
        parts = [
            encoder(support.inputs(slice(start, start + batch_size))) for start in range(0, len(support), batch_size)
        ]
        return cls(torch.cat(parts), support.labels, support.ids, support.num_classes, similarity)

    def __len__(self) -> int:
        return len(self.keys)

    def class_scores(self, query: Tensor, exclude: Tensor | None = None) -> Tensor:
        """(B, C) class scores over all keys; see `memlab.functional.class_scores`. No (B, N) matrix is held.

        Differentiable in queries, keys and scale; the backward scores the keys again.

        Args:
            query: (B, D) encoded queries.
            exclude: (B,) id of the object that each query must not read, or None to read all.
        """
        tiles = Tiles(
            parts=self.tiles(len(query)),
            key_terms=self.similarity.key_terms,
            labels=self.labels,
            num_classes=self.num_classes,
            ids=self.ids,
            exclude=exclude,
        )
        wide = query.to(torch.promote_types(query.dtype, self.keys.dtype))
        return read_tiles(self.similarity.query_terms(wide), self.keys, tiles)

    def scores_of(self, query: Tensor, places: Tensor) -> Tensor:
        """(B, K) scores of some keys for each query.

        Args:
            query: (B, D) encoded queries.
            places: (B, K) places of keys; -1, for none, has minus infinity.
        """
        terms = self.similarity.query_terms(query)
        key_terms = self.similarity.key_terms(self.keys[places.clamp(min=0).flatten()])
        scores = (terms[:, None] * key_terms.view(*places.shape, -1)).sum(-1)
        return scores.masked_fill(places < 0, -torch.inf)

    def tiles(self, queries: int) -> list[slice]:
        """The places of the tiles that so many queries read at a time."""
        size = max(SCORES_AT_A_TIME.get(self.keys.device.type, 2**20) // max(queries, 1), 128)
        return [slice(start, min(start + size, len(self))) for start in range(0, len(self), size)]
