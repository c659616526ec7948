"""Who is near: indexes over stored vectors that find the k nearest of a query.

An index holds N vectors by their place, 0 to N - 1. It is made from tensors and never read from a file: a file of a
library's own format can run code or crash the process that loads it.

Metrics: ``inner product``, the nearest has the largest ``q . v``; ``L2``, the smallest ``|q - v|^2``.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from memlab.argument_checks import check_choice, check_whole_number

METRICS = ("inner product", "L2")


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


COMPARED_AT_A_TIME = {"cpu": 2**23, "cuda": 2**26}
"""Entries of a (B, tile) matrix of scores: large, because choosing the best k of few has a price of its own."""


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
        vectors = self.vectors[places]
        offsets = vectors.square().sum(-1).div(-2) if self.metric == "L2" else vectors.new_zeros(len(vectors))
        return offsets.masked_fill(~self.present[places], -torch.inf)

    def _compare(self, offsets: Tensor, queries: Tensor, k: int, exclude: Tensor | None) -> Tensor:
        """Search by comparing all vectors, in tiles.

        A score is one product and one sum: ``q . v`` or, for L2, ``q . v - |v|^2 / 2``, which orders as the distance
        does.
        """
        size = max(COMPARED_AT_A_TIME.get(queries.device.type, 2**23) // max(len(queries), 1), k)
        best = queries.new_full((len(queries), k), -torch.inf)
        places = torch.full((len(queries), k), -1, device=queries.device)
        for start in range(0, len(self), size):
            tile = self.vectors[start : start + size]
            scores = torch.addmm(offsets[start : start + size], queries, tile.mT)
            if exclude is not None:
                _leave_out(scores, exclude - start)
            top = scores.topk(min(k, len(tile)), dim=-1)
            if start == 0 and len(tile) >= k:
                best, places = top
                continue
            best, chosen = torch.cat([best, top.values], dim=-1).topk(k, dim=-1)
            places = torch.cat([places, top.indices + start], dim=-1).gather(-1, chosen)
        return places.masked_fill(best.isneginf(), -1)


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


def _leave_out(scores: Tensor, columns: Tensor) -> None:
    """Give minus infinity to one column of each row, where there is such a column; a GPU need not be waited for."""
    inside = (columns >= 0) & (columns < scores.shape[1])
    column = columns.clamp(0, scores.shape[1] - 1)[:, None]
    scores.scatter_(1, column, scores.gather(1, column).masked_fill(inside[:, None], -torch.inf))


class FaissIndex(Index):
    """What the indexes of faiss (Douze et al. 2024) share: they are on the CPU and compute in float32.

    Raises:
        ValueError: if faiss is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        if not find_spec("faiss"):
            raise ValueError(f'{type(self).__name__}: needs faiss; pip install -e ".[ann]", or take the exact index')

    def _metric(self, faiss: Any) -> int:
        return faiss.METRIC_L2 if self.metric == "L2" else faiss.METRIC_INNER_PRODUCT  # type: ignore[no-any-return]

    def _array(self, places: Tensor | None = None) -> Any:
        vectors = self.vectors if places is None else self.vectors[places]
        return vectors.to("cpu", torch.float32).contiguous().numpy()

    def _search(self, queries: Tensor, k: int, exclude: Tensor | None) -> Tensor:
        # One more than asked for: among them may be the place to be left out.
        wanted = k if exclude is None else k + 1
        found = self._find(queries.to("cpu", torch.float32).contiguous().numpy(), wanted).to(queries.device)
        if exclude is not None:
            found = found.masked_fill(found == exclude[:, None], -1)
            order = (found < 0).byte().sort(dim=-1, stable=True).indices
            found = found.gather(-1, order)[:, :k]
        lost = (found[:, 0] < 0).nonzero().flatten()
        if len(lost):  # where it has looked there was nothing: no reason to leave a query without an answer
            own = None if exclude is None else exclude[lost]
            found[lost] = self._compare(self._offsets_of(slice(None)), queries[lost], k, own)
        return found

    def _find(self, queries: Any, k: int) -> Tensor:
        raise NotImplementedError


class IVFIndex(FaissIndex):
    """An inverted file: vectors lie in lists around centroids, and only the lists nearest to a query are searched.

    The centroids are found once, by k-means on the vectors first built from, and kept: what is built later, a refresh
    of all keys, goes into the same lists. For inner products they have length 1, so that they fit vectors whose length
    grows. Source: Jegou et al. 2011, "Product quantization for nearest neighbor search", section IV, without the codes.

    Args:
        lists: number of lists; ``auto`` takes the square root of N.
        probes: lists searched for each query; more find more, in more time.

    Raises:
        ValueError: for numbers that are not whole or below 1, more probes than lists, or if faiss is not installed.
    """

    def __init__(self, *, lists: int | str, probes: int) -> None:
        super().__init__()
        self._lists = None if lists == "auto" else check_whole_number("lists", lists, or_else="auto")
        self._probes = check_whole_number("probes", probes)
        if self._lists is not None and self._probes > self._lists:
            raise ValueError(f"probes={probes}: must be at most {lists}, the number of lists")
        self._centroids: Tensor | None = None

    def state(self) -> dict[str, Tensor]:
        """The centroids besides; see `Index.state`."""
        return super().state() | ({} if self._centroids is None else {"centroids": self._centroids})

    def restore(self, state: dict[str, Tensor], *, metric: str, device: torch.device) -> None:
        """With the centroids of the state, or with new ones if it is of an index that has none; see `Index.restore`."""
        self._centroids = state.get("centroids")
        super().restore(state, metric=metric, device=device)

    def _build(self) -> None:
        import faiss

        array, metric = self._array(), self._metric(faiss)
        dimension = array.shape[1]
        if self._centroids is None or self._centroids.shape[1] != dimension:
            lists = min(self._lists or max(math.isqrt(len(self)), 1), len(self))
            means = faiss.Kmeans(dimension, lists, spherical=self.metric != "L2", min_points_per_centroid=1)
            means.train(array)
            self._centroids = torch.from_numpy(means.centroids) + self.centre.cpu().float()
        quantizer = faiss.IndexFlat(dimension, metric)
        quantizer.add((self._centroids - self.centre.cpu().float()).numpy())
        self._faiss = faiss.IndexIVFFlat(quantizer, dimension, len(self._centroids), metric)
        self._faiss.nprobe = min(self._probes, len(self._centroids))
        self._faiss.set_direct_map_type(faiss.DirectMap.Hashtable)  # to remove one vector without going over all
        self._add(self.present.nonzero().flatten())

    def _add(self, places: Tensor) -> None:
        self._faiss.add_with_ids(self._array(places), places.cpu().numpy())

    def _find(self, queries: Any, k: int) -> Tensor:
        _, found = self._faiss.search(queries, k)
        return torch.from_numpy(found)

    def _update(self, places: Tensor, before: Tensor) -> None:
        self._remove(places[before])
        self._add(places)

    def _remove(self, places: Tensor) -> None:
        import faiss

        gone = places.cpu().numpy()
        self._faiss.remove_ids(faiss.IDSelectorArray(len(gone), faiss.swig_ptr(gone)))


class HNSWIndex(FaissIndex):
    """A hierarchical navigable small-world graph, for vectors that rarely change (Malkov and Yashunin 2020).

    Nothing can be taken out of the graph: what is removed stays in it, is walked through and not given; an update is a
    removal and an insertion. When more is dead than alive the graph is built anew.

    Args:
        links: edges of a node.
        candidates: nodes that a search keeps in view; more find more, in more time.

    Raises:
        ValueError: for numbers that are not whole or out of range, or if faiss is not installed.
    """

    takes_updates = False

    def __init__(self, *, links: int, candidates: int) -> None:
        super().__init__()
        self._links = check_whole_number("links", links, minimum=2)
        self._candidates = check_whole_number("candidates", candidates)

    def _build(self) -> None:
        import faiss

        self._faiss = faiss.IndexHNSWFlat(self.vectors.shape[1], self._links, self._metric(faiss))
        self._place_of_node = torch.empty(0, dtype=torch.int64)
        self._node_of_place = torch.full((len(self),), -1)
        self._alive = torch.empty(0, dtype=torch.bool)
        self._insert(self.present.cpu().nonzero().flatten())

    def _insert(self, places: Tensor) -> None:
        self._node_of_place[places] = len(self._place_of_node) + torch.arange(len(places))
        self._place_of_node = torch.cat([self._place_of_node, places])
        self._alive = torch.cat([self._alive, torch.ones(len(places), dtype=torch.bool)])
        self._faiss.add(self._array(places))

    def _find(self, queries: Any, k: int) -> Tensor:
        import faiss
        import numpy as np

        bits = np.packbits(self._alive.numpy(), bitorder="little")
        parameters = faiss.SearchParametersHNSW(
            sel=faiss.IDSelectorBitmap(len(self._alive), faiss.swig_ptr(bits)), efSearch=max(self._candidates, k)
        )
        _, nodes = self._faiss.search(queries, k, params=parameters)
        found = torch.from_numpy(nodes)
        return self._place_of_node[found.clamp(min=0)].masked_fill(found < 0, -1)

    def _update(self, places: Tensor, before: Tensor) -> None:
        places = places.cpu()
        self._alive[self._node_of_place[places[before.cpu()]]] = False
        self._insert(places)
        self._rebuild_if_mostly_dead()

    def _remove(self, places: Tensor) -> None:
        self._alive[self._node_of_place[places.cpu()]] = False
        self._rebuild_if_mostly_dead()

    def _rebuild_if_mostly_dead(self) -> None:
        if 2 * int(self._alive.sum()) < len(self._alive):
            self._build()
