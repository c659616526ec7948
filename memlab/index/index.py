"""What all indexes do: hold vectors by their place, and find those nearest to a query."""

from __future__ import annotations

import torch
from torch import Tensor

from memlab.checks import check_choice
from memlab.data.parts import parts

METRICS = ("inner product", "L2")

COMPARED_AT_A_TIME = {"cpu": 2**23, "cuda": 2**26}
"""Entries of a (B, tile) matrix of scores: large, because choosing the best k of few has a price of its own."""
SCORED_AT_A_TIME = {"cpu": 2**19, "cuda": 2**26}
"""Of these as many as stay in the cache of a CPU while a product adds to them."""
BLOCK = 32
"""Neighbouring scores of which the highest stands for all at first. Fewer take longer to go through on a CPU."""


class Index:
    """What all indexes do. Every search is without gradient."""

    takes_updates = True
    """Whether vectors may change all the time, as the keys of an encoder in training do."""

    def __init__(self) -> None:
        self.metric = METRICS[0]
        self.vectors = torch.empty(0, 0)
        """(N, D) the vectors as they are compared now: less the centre."""
        self.centre = torch.empty(0)
        """(D,) what is subtracted from vectors and queries alike: for L2 the mean of the vectors first built from, for
        in float32 the squares of distant vectors leave nothing of their distance; for inner products 0."""
        self.present = torch.empty(0, dtype=torch.bool)
        """(N,) false where a place has been removed."""

    def __len__(self) -> int:
        return len(self.vectors)

    @torch.no_grad()
    def build(self, vectors: Tensor, *, metric: str) -> None:
        """Hold these vectors and no others.

        Args:
            vectors: (N, D); copied.
            metric: one of `METRICS`.

        Raises:
            ValueError: for another metric.
        """
        self.metric = check_choice("metric", metric, METRICS)
        vectors = vectors.detach()
        self.centre = vectors.mean(0) if metric == "L2" else vectors.new_zeros(vectors.shape[1])
        self.vectors = vectors - self.centre
        self.present = torch.ones(len(vectors), dtype=torch.bool, device=vectors.device)
        self._build()

    @torch.no_grad()
    def search(self, queries: Tensor, k: int, *, exclude: Tensor | None = None) -> Tensor:
        """Find the k nearest of each query.

        Args:
            queries: (B, D).
            k: how many; may be more than there are.
            exclude: (B,) the place that each query must not be given, -1 for none, or None for none at all.

        Returns:
            (B, k) places, nearest first; -1 where no more could be found.
        """
        return self._search(queries.to(self.vectors) - self.centre, k, exclude)

    @torch.no_grad()
    def nearness(self, queries: Tensor, places: Tensor) -> Tensor:
        """How near what was found is, by which findings of several indexes can be put into one order.

        Args:
            queries: (B, D).
            places: (B, k) places; -1 for none.

        Returns:
            (B, k) ``q . v`` or ``-|q - v|^2``; minus infinity for none.
        """
        near = (queries.to(self.vectors) - self.centre)[:, None]
        vectors = self.vectors[places.clamp(min=0)]
        found = -(near - vectors).square().sum(-1) if self.metric == "L2" else (near * vectors).sum(-1)
        return found.masked_fill(places < 0, -torch.inf)

    @torch.no_grad()
    def update(self, places: Tensor, vectors: Tensor) -> None:
        """Put other vectors at some places; one that was removed is there again.

        Args:
            places: (n,) distinct places.
            vectors: (n, D).
        """
        before = self.present[places]
        self.vectors[places] = vectors.to(self.vectors) - self.centre
        self.present[places] = True
        self._update(places, before)

    @torch.no_grad()
    def remove(self, places: Tensor) -> None:
        """From now on give these places to no query.

        Args:
            places: (n,) distinct places.
        """
        before = self.present[places]
        self.present[places] = False
        self._remove(places[before])

    def state(self) -> dict[str, Tensor]:
        """Tensors from which the same index can be built again."""
        return {"vectors": self.vectors, "centre": self.centre, "present": self.present}

    def restore(self, state: dict[str, Tensor], *, metric: str, device: torch.device) -> None:
        """Be as in a `state`, also of an index of another kind, whose vectors are taken over.

        Args:
            state: the state.
            metric: one of `METRICS`, the one of then.
            device: where the vectors are to be.
        """
        self.metric = check_choice("metric", metric, METRICS)
        self.vectors, self.centre, self.present = (
            state[name].to(device, copy=True) for name in ("vectors", "centre", "present")
        )
        self._build()

    def _build(self) -> None:
        """Make from the vectors that are present what a search needs."""
        raise NotImplementedError

    def _search(self, queries: Tensor, k: int, exclude: Tensor | None) -> Tensor:
        raise NotImplementedError

    def _update(self, places: Tensor, before: Tensor) -> None:
        raise NotImplementedError

    def _remove(self, places: Tensor) -> None:
        raise NotImplementedError

    def _offsets_of(self, places: Tensor | slice) -> Tensor:
        """(n,) what is added to the products with the vectors at some places, for `_compare`."""
        present = self.present[places]
        if self.metric == "L2":
            offsets = self.vectors[places].square().sum(-1).div(-2)
        else:
            offsets = self.vectors.new_zeros(len(present))
        return offsets.masked_fill(~present, -torch.inf)

    def _compare(self, offsets: Tensor, queries: Tensor, k: int, exclude: Tensor | None) -> Tensor:
        """Search by comparing all vectors, in tiles.

        A score is one product and one sum: ``q . v`` or, for L2, ``q . v - |v|^2 / 2``, which orders as the distance
        does.
        """
        size = max(COMPARED_AT_A_TIME.get(queries.device.type, 2**23) // max(len(queries), 1), k)
        of_product = max(SCORED_AT_A_TIME.get(queries.device.type, 2**19) // max(len(queries), 1), BLOCK)
        best = queries.new_full((len(queries), k), -torch.inf)
        places = torch.full((len(queries), k), -1, device=queries.device)
        for start in range(0, len(self), size):
            tile = self.vectors[start : start + size]
            # Blocks are whole: beyond the tile there is nothing to be found.
            scores = queries.new_empty(len(queries), -(-len(tile) // BLOCK) * BLOCK)
            scores[:, len(tile) :] = -torch.inf
            for part in parts(len(tile), of_product):
                torch.addmm(offsets[start:][part], queries, tile[part].mT, out=scores[:, part])
            if exclude is not None:
                _leave_out(scores, exclude - start)
            of_tile, places_in_tile = _highest(scores, min(k, scores.shape[1]))
            best, chosen = torch.cat([best, of_tile], dim=-1).topk(k, dim=-1)
            places = torch.cat([places, places_in_tile + start], dim=-1).gather(-1, chosen)
        return places.masked_fill(best.isneginf(), -1)


def _highest(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k highest scores of each row and their columns, highest first.

    They lie in the k blocks whose maxima are highest: to take a maximum goes over the scores far faster than to choose
    k, and chosen is among few.

    Args:
        scores: (B, n), n a multiple of `BLOCK`.
        k: at most n.
    """
    rows, columns = scores.shape
    blocks = columns // BLOCK
    if blocks <= k:
        return scores.topk(k, dim=-1)
    by_block = scores.view(rows * blocks, BLOCK)
    chosen = by_block.amax(-1).view(rows, blocks).topk(k, dim=-1, sorted=False).indices
    first = torch.arange(0, len(by_block), blocks, device=scores.device)
    found = by_block.index_select(0, (first[:, None] + chosen).flatten())
    values, places = found.view(rows, k * BLOCK).topk(k, dim=-1)
    return values, chosen.gather(-1, places // BLOCK) * BLOCK + places % BLOCK


def _leave_out(scores: Tensor, columns: Tensor) -> None:
    """Give minus infinity to one column of each row, where there is such a column; a GPU need not be waited for."""
    inside = (columns >= 0) & (columns < scores.shape[1])
    column = columns.clamp(0, scores.shape[1] - 1)[:, None]
    scores.scatter_(1, column, scores.gather(1, column).masked_fill(inside[:, None], -torch.inf))
