"""Where objects lie, from their ids."""

from __future__ import annotations

import torch
from torch import Tensor


class Places:
    """Where objects lie. As long as there are objects, however large their ids are.

    Args:
        ids: (N,) which object is at each place, each at one; below 0 for what is no object.

    >>> Places(torch.tensor([7, 3])).of(torch.tensor([3, 7, 5, -1, 99]))
    tensor([ 1,  0, -1, -1, -1])
    """

    def __init__(self, ids: Tensor) -> None:
        self._ids, self._places = ids.sort()

    def of(self, ids: Tensor) -> Tensor:
        """(n,) the place of each object, -1 for one that is not there."""
        if not len(self._ids):
            return torch.full_like(ids, -1)
        near = torch.searchsorted(self._ids, ids).clamp(max=len(self._ids) - 1)
        there = (self._ids[near] == ids) & (ids >= 0)
        return self._places[near].masked_fill(~there, -1)
