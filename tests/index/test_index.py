"""One contract for all indexes, against a plain loop over all vectors; then what each has of its own."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from memlab.data.datasets import torchvision_images
from memlab.index import ExactIndex, HNSWIndex, Index, IVFIndex, Places, approximate
from memlab.index import index as index_module
from memlab.index.index import METRICS

N, D, B = 60, 5, 7
# All lists are searched and all nodes kept in view, so that nothing may be missed.
INDEXES: dict[str, Callable[[], Index]] = {
    "exact": ExactIndex,
    "ivf": lambda: IVFIndex(lists=6, probes=6),
    "hnsw": lambda: HNSWIndex(links=16, candidates=200),
}
CPU = torch.device("cpu")
METRIC = pytest.mark.parametrize("metric", METRICS)


@pytest.fixture(params=INDEXES)
def empty(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Index:
    """Each index; the exact one in tiles of 13 vectors, or k, and in blocks of 2."""
    if request.param != "exact":
        pytest.importorskip("faiss")
    monkeypatch.setattr(index_module, "COMPARED_AT_A_TIME", {"cpu": 13 * B})
    monkeypatch.setattr(index_module, "BLOCK", 2)
    return INDEXES[request.param]()


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def nearness(query: Tensor, vector: Tensor, metric: str) -> float:
    pairs: list[tuple[float, float]] = list(zip(query.tolist(), vector.tolist(), strict=True))
    if metric == "L2":
        return -sum((a - b) ** 2 for a, b in pairs)
    return sum(a * b for a, b in pairs)


def definition(vectors: dict[int, Tensor], queries: Tensor, k: int, metric: str, exclude: list[int]) -> list[list[int]]:
    """Places sorted by nearness, one query after the other; -1 at the end where there are fewer than k."""
    found = []
    for query, own in zip(queries, exclude, strict=True):
        near = {place: nearness(query, vector, metric) for place, vector in vectors.items() if place != own}
        found.append((sorted(near, key=lambda place: -near[place]) + [-1] * k)[:k])
    return found


class TestPlaces:
    DEVICES = pytest.mark.parametrize(
        "device",
        ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))],
    )

    @DEVICES
    @pytest.mark.parametrize("largest", [40, 2**40])
    def test_are_those_of_a_dict(self, largest: int, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(largest, (30,), generator=generator).unique()
        ids = ids[torch.randperm(len(ids), generator=generator)]
        asked = torch.cat([ids.flip(0), torch.randint(largest, (50,), generator=generator), torch.tensor([-1, -7])])
        place_of = {each: place for place, each in enumerate(ids.tolist())}
        found = Places(ids.to(device)).of(asked.to(device))
        assert found.tolist() == [place_of.get(each, -1) for each in asked.tolist()]

    def test_of_no_objects_there_are_none(self) -> None:
        assert Places(torch.empty(0, dtype=torch.int64)).of(torch.tensor([0, -1, 5])).tolist() == [-1, -1, -1]
        assert Places(torch.tensor([4])).of(torch.empty(0, dtype=torch.int64)).tolist() == []

    def test_keys_that_are_no_object_have_none(self) -> None:
        assert Places(torch.tensor([-1, -1, 2])).of(torch.tensor([-1, 2, 0])).tolist() == [-1, 2, -1]


@METRIC
class TestContract:
    def check(
        self, index: Index, vectors: dict[int, Tensor], metric: str, k: int = 4, exclude: list[int] | None = None
    ) -> None:
        queries = random(B, D, seed=9)
        expected = definition(vectors, queries, k, metric, exclude or [-1] * B)
        found = index.search(queries, k, exclude=None if exclude is None else torch.tensor(exclude))
        assert found.tolist() == expected

    def built(self, empty: Index, metric: str) -> tuple[Index, dict[int, Tensor]]:
        vectors = random(N, D, seed=0)
        empty.build(vectors, metric=metric)
        return empty, dict(enumerate(vectors.clone()))

    @pytest.mark.parametrize("k", [1, 4, 59])
    def test_finds_the_nearest_nearest_first(self, empty: Index, metric: str, k: int) -> None:
        self.check(*self.built(empty, metric), metric, k)

    def test_vectors_far_from_the_origin_lose_nothing_of_their_distances(self, empty: Index, metric: str) -> None:
        """In float32 the squares of vectors at 1,000 are known to a tenth, and their distances are about 1."""
        if metric != "L2":
            pytest.skip("inner products do depend on the origin")
        vectors, queries = (1000 + random(size, D, seed=seed) for size, seed in ((N, 0), (B, 9)))
        empty.build(vectors, metric=metric)
        empty.update(torch.arange(3), vectors[:3])
        expected = definition(dict(enumerate(vectors.double())), queries.double(), 4, metric, [-1] * B)
        assert empty.search(queries, 4).tolist() == expected

    @pytest.mark.parametrize("other", INDEXES)
    def test_is_restored_from_the_state_of_any_index(self, empty: Index, metric: str, other: str) -> None:
        if other != "exact":
            pytest.importorskip("faiss")
        first = INDEXES[other]()
        vectors = random(N, D, seed=0)
        first.build(vectors, metric=metric)
        first.update(torch.tensor([4, 5]), 2 * vectors[:2])
        first.remove(torch.tensor([3, 17]))
        empty.restore({name: value.clone() for name, value in first.state().items()}, metric=metric, device=CPU)
        there = dict(enumerate(vectors)) | {4: 2 * vectors[0], 5: 2 * vectors[1]}
        del there[3], there[17]
        self.check(empty, there, metric)

    @pytest.mark.parametrize("k", [1, 4, 20])
    def test_never_gives_a_query_its_own_place(self, empty: Index, metric: str, k: int) -> None:
        index, vectors = self.built(empty, metric)
        best = [row[0] for row in definition(vectors, random(B, D, seed=9), 1, metric, [-1] * B)]
        self.check(index, vectors, metric, k, [*best[:4], -1, N - 1, 0])

    def test_more_than_there_are_is_filled_with_minus_one(self, empty: Index, metric: str) -> None:
        index, vectors = self.built(empty, metric)
        self.check(index, vectors, metric, N + 3)
        self.check(index, vectors, metric, N, list(range(B)))

    def test_never_gives_what_was_removed_until_it_is_put_back(self, empty: Index, metric: str) -> None:
        index, vectors = self.built(empty, metric)
        gone = definition(vectors, random(B, D, seed=9), 2, metric, [-1] * B)[0]
        index.remove(torch.tensor(gone))
        index.remove(torch.tensor(gone[:1]))  # a second time is no harm
        for place in gone:
            del vectors[place]
        self.check(index, vectors, metric)
        index.update(torch.tensor(gone), random(2, D, seed=3))
        self.check(index, vectors | dict(zip(gone, random(2, D, seed=3), strict=True)), metric)

    def test_finds_at_once_what_was_updated(self, empty: Index, metric: str) -> None:
        index, _ = self.built(empty, metric)
        query = 3 * random(1, D, seed=9)
        index.update(torch.tensor([41]), query)
        if metric == "inner product":
            index.update(torch.tensor([41]), 5 * query)
        assert index.search(query, 1).tolist() == [[41]]

    def test_is_after_many_changes_what_it_would_be_if_built_anew(self, empty: Index, metric: str) -> None:
        index, vectors = self.built(empty, metric)
        generator = torch.Generator().manual_seed(5)
        for step in range(12):
            places = torch.randperm(N, generator=generator)[:9]
            if step % 3 == 2:
                index.remove(places)
                vectors = {place: vector for place, vector in vectors.items() if place not in places.tolist()}
            else:
                index.update(places, random(9, D, seed=100 + step))
                vectors |= dict(zip(places.tolist(), random(9, D, seed=100 + step), strict=True))
            self.check(index, vectors, metric)

    def test_duplicates_are_all_found(self, empty: Index, metric: str) -> None:
        vectors = random(N, D, seed=0)
        vectors[[3, 30, 59]] = 4 * vectors[0]
        empty.build(vectors, metric=metric)
        query = 4 * vectors[:1]
        assert set(empty.search(query, 3)[0].tolist()) == {3, 30, 59}
        assert set(empty.search(query, 2, exclude=torch.tensor([30]))[0].tolist()) == {3, 59}

    def test_of_ties_any_are_given_once_and_no_others(self, empty: Index, metric: str) -> None:
        empty.build(torch.cat([torch.ones(30, D), -torch.ones(30, D)]), metric=metric)
        found = empty.search(torch.ones(1, D), 20)[0].tolist()
        assert len(set(found)) == 20
        assert max(found) < 30

    def test_built_again_holds_the_new_vectors_alone(self, empty: Index, metric: str) -> None:
        index, _ = self.built(empty, metric)
        other = random(40, D, seed=1)
        index.build(other, metric=metric)
        other_as_given = dict(enumerate(other.clone()))
        other.zero_()  # what was given is the caller's
        self.check(index, other_as_given, metric)

    def test_float64_and_bfloat16_queries_and_gradient(self, empty: Index, metric: str) -> None:
        vectors = random(N, D, seed=0).double().requires_grad_()
        empty.build(vectors, metric=metric)
        for dtype in (torch.float64, torch.bfloat16):
            assert not empty.search(random(B, D, seed=9).to(dtype).requires_grad_(), 3).requires_grad


def test_metric_is_one_of_two() -> None:
    with pytest.raises(ValueError, match="metric=cosine: must be one of inner product, L2"):
        ExactIndex().build(torch.ones(2, 2), metric="cosine")


class TestExact:
    @METRIC
    @pytest.mark.parametrize("k", [1, 7, 200])
    @pytest.mark.parametrize("size", [1, 223, 224, 225, 3001])
    def test_finds_the_nearest_at_the_size_of_tiles_and_blocks_as_they_are(
        self, metric: str, k: int, size: int
    ) -> None:
        vectors, queries = random(size, D, seed=0).double(), random(B, D, seed=9).double()
        index = ExactIndex()
        index.build(vectors, metric=metric)
        own = torch.arange(B) % size
        near = -torch.cdist(queries, vectors) if metric == "L2" else queries @ vectors.T
        near[torch.arange(B), own] = -torch.inf
        expected = near.argsort(descending=True)[:, : min(k, size - 1)]
        found = index.search(queries, k, exclude=own)
        assert torch.equal(found[:, : expected.shape[1]], expected)
        assert (found[:, expected.shape[1] :] == -1).all()

    def test_neighbours_may_lie_side_by_side_and_the_rest_be_removed(self) -> None:
        index = ExactIndex()
        index.build(torch.arange(5000.0)[:, None], metric="inner product")
        assert index.search(torch.tensor([[1.0], [-1.0]]), 3).tolist() == [[4999, 4998, 4997], [0, 1, 2]]
        index.remove(torch.arange(2, 5000))
        assert index.search(torch.tensor([[1.0]]), 4).tolist() == [[1, 0, -1, -1]]


class TestIVF:
    @pytest.fixture(autouse=True)
    def faiss(self) -> None:
        pytest.importorskip("faiss")

    @METRIC
    def test_centroids_are_found_once_and_kept(self, metric: str) -> None:
        index = IVFIndex(lists="auto", probes=2)
        index.build(random(100, D, seed=0), metric=metric)
        centroids = index.state()["centroids"].clone()
        assert centroids.shape == (20, D)
        index.build(5 + random(100, D, seed=1), metric=metric)
        assert torch.equal(index.state()["centroids"], centroids)
        restored = IVFIndex(lists="auto", probes=2)
        restored.restore(index.state(), metric=metric, device=CPU)
        restored.build(5 + random(100, D, seed=1), metric=metric)
        queries = random(30, D, seed=2)
        assert torch.equal(restored.search(queries, 5), index.search(queries, 5))

    def test_a_query_that_would_find_nothing_is_searched_among_all(self) -> None:
        vectors = torch.cat([torch.full((20, 2), 10.0), torch.full((20, 2), -10.0)]) + 0.1 * random(40, 2, seed=0)
        index = IVFIndex(lists=2, probes=1)
        index.build(vectors, metric="L2")
        index.remove(torch.arange(1, 20))
        queries = torch.tensor([[10.0, 10.0], [10.0, 10.0], [-10.0, -10.0]])
        found = index.search(queries, 3, exclude=torch.tensor([-1, 0, -1]))
        assert found[0].tolist() == [0, -1, -1]  # what its list has
        distances = (vectors - queries[1]).square().sum(1)
        assert found[1].tolist() == (20 + distances[20:].argsort()[:3]).tolist()  # its list has nothing but its own
        assert (found[2] >= 20).all()

    def test_searches_as_many_lists_as_told(self) -> None:
        vectors = torch.cat([torch.tensor([[10.0, 0.0]]).repeat(20, 1), torch.tensor([[0.0, 10.0]]).repeat(20, 1)])
        for probes, found in ((1, 20), (2, 40)):
            index = IVFIndex(lists=2, probes=probes)
            index.build(vectors + 0.1 * random(40, 2, seed=0), metric="L2")
            assert int((index.search(torch.tensor([[10.0, 0.0]]), 40) >= 0).sum()) == found

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ({"lists": 0, "probes": 1}, "lists=0: must be a whole number of at least 1, or auto"),
            ({"lists": 4, "probes": 5}, "probes=5: must be at most 4, the number of lists"),
            ({"lists": "auto", "probes": 0}, "probes=0: must be a whole number"),
        ],
    )
    def test_refuses_bad_sizes(self, words: dict[str, int], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            IVFIndex(**words)

    @METRIC
    def test_what_is_updated_lies_in_the_list_of_the_nearest_centroid(self, metric: str) -> None:
        """However far it has moved: the lists on the way are gone through."""
        index = IVFIndex(lists=40, probes=1)
        line = torch.linspace(0, 40, 400)[:, None] * torch.tensor([1.0, 0.0]) + 0.01 * random(400, 2, seed=0)
        turned = torch.stack([(line[:, 0] / 20).cos(), (line[:, 0] / 20).sin()], dim=1)
        vectors = line if metric == "L2" else turned  # along a line, or an arc of less than half a circle
        index.build(vectors, metric=metric)
        places = torch.arange(0, 400, 3)
        moved = vectors[places.flip(0)]
        index.update(places, moved)
        found = index.search(moved, 400)
        assert (found == places[:, None]).any(1).all()

    def test_what_is_updated_before_and_after_a_removal_is_found(self) -> None:
        """As long as nothing has been removed vectors are replaced; afterwards they are taken out and put in."""
        vectors, queries = random(N, D, seed=0), random(B, D, seed=9)
        index, exact = IVFIndex(lists=6, probes=6), ExactIndex()
        for each in (index, exact):
            each.build(vectors, metric="L2")
        for number, places in enumerate(torch.arange(N).split(20)):
            for each in (index, exact):
                each.update(places, random(len(places), D, seed=number + 1))
                if number == 1:
                    each.remove(torch.tensor([3, 25, 59]))
            assert torch.equal(index.search(queries, 8), exact.search(queries, 8))


class TestHNSW:
    def test_a_graph_mostly_dead_is_built_anew(self) -> None:
        pytest.importorskip("faiss")
        index = HNSWIndex(links=8, candidates=100)
        index.build(random(20, D, seed=0), metric="L2")
        sizes = []
        for step in range(4):
            index.update(torch.arange(10), random(10, D, seed=step))
            sizes.append(len(index._alive))
        assert sizes == [30, 40, 20, 30]  # 40 nodes are 20 alive; with 50 more than half would be dead

    @pytest.mark.parametrize("words", [{"links": 1, "candidates": 5}, {"links": 8, "candidates": 0}])
    def test_refuses_bad_sizes(self, words: dict[str, int]) -> None:
        pytest.importorskip("faiss")
        with pytest.raises(ValueError, match="must be a whole number of at least"):
            HNSWIndex(**words)


@pytest.mark.parametrize("make", [lambda: IVFIndex(lists=4, probes=2), lambda: HNSWIndex(links=8, candidates=8)])
def test_without_faiss_it_says_what_to_install(make: Callable[[], Index], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate, "find_spec", lambda name: None if name == "faiss" else find_spec(name))
    with pytest.raises(ValueError, match=r'Index: needs faiss; pip install -e "\.\[ann\]", or take the exact index'):
        make()


@METRIC
@pytest.mark.parametrize(
    "make", [lambda: IVFIndex(lists="auto", probes=16), lambda: HNSWIndex(links=32, candidates=64)]
)
def test_recall_on_60000_real_images(make: Callable[[], Index], metric: str, mnist_root: str) -> None:
    """At the settings of conf/, on the 32 leading principal components of MNIST."""
    pytest.importorskip("faiss")
    images = torchvision_images(name="mnist", root=mnist_root, download=False).store.inputs.flatten(1).float() / 255
    torch.manual_seed(0)
    _, _, directions = torch.pca_lowrank(images[:10_000], q=32)
    vectors = (images - images[:60_000].mean(0)) @ directions
    exact, index = ExactIndex(), make()
    for each in (exact, index):
        each.build(vectors[:60_000], metric=metric)
    nearest, found = (each.search(vectors[60_000:60_500], 10) for each in (exact, index))
    recall = (nearest[:, :, None] == found[:, None, :]).any(2).float().mean()
    assert recall >= 0.95
