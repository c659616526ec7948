"""Indexes that look at a part of the vectors only, of the library faiss: an inverted file and a graph."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from memlab.checks import check_whole_number
from memlab.index.index import Index

NEIGHBOURS = 5
"""Centroids nearest to one, among which a vector that leaves its list looks for the next."""


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
        vectors = self.vectors if places is None else self.vectors.index_select(0, places.to(self.vectors.device))
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

    A vector that is updated goes from its list to the neighbouring one whose centroid is nearer, and on from there
    until none is: the nearest centroid is at most a few lists away, and need not be looked for among all.

    Args:
        lists: number of lists; ``auto`` takes twice the square root of N.
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
        """The centroids besides, and in which list each vector is, if none is missing; see `Index.state`."""
        own = {} if self._centroids is None else {"centroids": self._centroids}
        if own and self._maps_places:
            own["lists"] = torch.from_numpy(self._entries() >> 32).int()
        return super().state() | own

    def restore(self, state: dict[str, Tensor], *, metric: str, device: torch.device) -> None:
        """With centroids and lists of the state, or with new ones if an index without made it; see `Index.restore`."""
        self._centroids = state.get("centroids")
        super().restore(state, metric=metric, device=device)
        if "lists" in state and self._maps_places:
            self._put(torch.arange(len(self)), state["lists"].long())

    def _build(self) -> None:
        import faiss

        array, metric = self._array(), self._metric(faiss)
        dimension = array.shape[1]
        if self._centroids is None or self._centroids.shape[1] != dimension:
            lists = min(self._lists or max(2 * math.isqrt(len(self)), 1), len(self))
            # Of a sample, which finds no worse lists than all vectors would in ten times the time.
            sample = {"min_points_per_centroid": 1, "max_points_per_centroid": 64, "niter": 10}
            means = faiss.Kmeans(dimension, lists, spherical=self.metric != "L2", **sample)
            means.train(array)
            self._centroids = torch.from_numpy(means.centroids) + self.centre.cpu().float()
        quantizer = faiss.IndexFlat(dimension, metric)
        self._compared = self._centroids - self.centre.cpu().float()
        quantizer.add(self._compared.numpy())
        near = torch.from_numpy(quantizer.search(self._compared.numpy(), min(NEIGHBOURS, len(self._compared)))[1])
        self._neighbours = torch.cat([torch.arange(len(near))[:, None], near], dim=1)  # each first of its own
        self._faiss = faiss.IndexIVFFlat(quantizer, dimension, len(self._centroids), metric)
        self._faiss.nprobe = min(self._probes, len(self._centroids))
        # With a map from places a vector is found without going over all. Where none has been removed it is an array.
        if self.present.all():
            self._faiss.set_direct_map_type(faiss.DirectMap.Array)
            self._faiss.add(array)
        else:
            self._faiss.set_direct_map_type(faiss.DirectMap.Hashtable)
            self._add(self.present.nonzero().flatten())

    def _add(self, places: Tensor) -> None:
        self._faiss.add_with_ids(self._array(places), places.cpu().numpy())

    def _find(self, queries: Any, k: int) -> Tensor:
        _, found = self._faiss.search(queries, k)
        return torch.from_numpy(found)

    def _update(self, places: Tensor, before: Tensor) -> None:
        if self._maps_places:
            places = places.cpu()
            lists = torch.from_numpy(self._entries()[places.numpy()] >> 32)
            self._put(places, self._walk(torch.from_numpy(self._array(places)), lists))
        else:
            self._remove(places[before])
            self._add(places)

    @property
    def _maps_places(self) -> bool:
        import faiss

        return bool(self._faiss.direct_map.type == faiss.DirectMap.Array)

    def _entries(self) -> Any:
        """(N,) list and offset in it of each vector, in the upper and lower half of a number."""
        import faiss

        return faiss.rev_swig_ptr(self._faiss.direct_map.array.data(), len(self))

    def _put(self, places: Tensor, lists: Tensor) -> None:
        """Put the vectors at some places, as they are now, into these lists."""
        import faiss

        arrays = places.numpy(), lists.numpy(), self._array(places).view("uint8")
        self._faiss.direct_map.update_codes(self._faiss.invlists, len(places), *map(faiss.swig_ptr, arrays))

    def _walk(self, vectors: Tensor, lists: Tensor) -> Tensor:
        """(n,) the list of each vector, from the one it was in over ever nearer neighbours."""
        squares = self._compared.square().sum(-1) / 2 if self.metric == "L2" else None
        walking = torch.arange(len(lists))
        while len(walking):
            near = self._neighbours[lists[walking]]  # (n, 1 + neighbours)
            centroids = self._compared.index_select(0, near.flatten()).view(*near.shape, -1)
            closeness = (centroids * vectors[walking, None]).sum(-1)
            if squares is not None:
                closeness -= squares[near]
            nearest, place = closeness.max(-1)
            lists[walking] = near.gather(-1, place[:, None])[:, 0]
            walking = walking[nearest > closeness[:, 0]]
        return lists

    def _remove(self, places: Tensor) -> None:
        import faiss

        self._faiss.set_direct_map_type(faiss.DirectMap.Hashtable)
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
