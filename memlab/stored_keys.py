"""A whole support encoded once, to be read by many queries without gradient: at validation, test and prediction."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from memlab import functional
from memlab.similarity import Similarity
from memlab.support import Support

TILE = 8192
"""Keys scored at a time: a (B, tile) matrix of a few megabytes, large enough for the matrix product."""


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

        Args:
            query: (B, D) encoded queries.
            exclude: (B,) id of the object that each query must not read, or None to read all.
        """
        sums: functional.ClassSums | None = None
        for part, scores in self.score_tiles(query, exclude):
            tile_sums = functional.class_sums(scores, self.labels[part], self.num_classes)
            sums = tile_sums if sums is None else functional.merge_class_sums(sums, tile_sums)
        assert sums is not None, "a memory has at least one object"
        return functional.log_class_sums(sums)

    def score_tiles(self, query: Tensor, exclude: Tensor | None = None) -> Iterator[tuple[slice, Tensor]]:
        """The scores (B, tile) of one tile of keys after the other, each with its place."""
        for start in range(0, len(self), TILE):
            part = slice(start, start + TILE)
            scores = self.similarity(query, self.keys[part])
            yield part, scores if exclude is None else functional.exclude_rows(scores, self.ids[part], exclude)
