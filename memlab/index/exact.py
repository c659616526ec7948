"""All vectors are compared."""

from __future__ import annotations

import torch
from torch import Tensor

from memlab.index.index import Index


class ExactIndex(Index):
    """All vectors are compared, in tiles, on the device where they are; nothing is missed."""

    def _build(self) -> None:
        self._offsets = self._offsets_of(slice(None))

    def _update(self, places: Tensor, before: Tensor) -> None:
        self._offsets[places] = self._offsets_of(places)

    def _remove(self, places: Tensor) -> None:
        self._offsets[places] = -torch.inf

    def _search(self, queries: Tensor, k: int, exclude: Tensor | None) -> Tensor:
        return self._compare(self._offsets, queries, k, exclude)
