"""Reading a whole encoded memory, and the evidence for what was read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

from memlab import functional
from memlab.functional import definition
from memlab.index import ExactIndex, HNSWIndex, Index, IVFIndex
from memlab.memory import FullMemory, strongest
from memlab.memory.reading import ReadAll, ReadTopK
from memlab.memory.similarity import Cosine, Distance, Dot, Euclidean, Similarity
from memlab.memory.stored_keys import StoredKeys
from tests.conftest import random_support

N, C = 29, 3


@pytest.fixture(params=[1, 8, N, 100])
def stored(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> StoredKeys:
    """A memory of 29 keys, read in tiles of several sizes."""
    tiles = [slice(start, start + request.param) for start in range(0, N, request.param)]
    monkeypatch.setattr(StoredKeys, "tiles", lambda *_: tiles)
    torch.manual_seed(0)
    return StoredKeys.encode(
        encoder=nn.Linear(6, 4).double(), similarity=Dot(), support=random_support(N, num_classes=C), batch_size=10
    )


def queries() -> torch.Tensor:
    return torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("exclude", [None, torch.tensor([0, 28, -1, 5, 5])])
def test_reading_in_tiles_is_reading_at_once(stored: StoredKeys, exclude: torch.Tensor | None) -> None:
    scores = queries() @ stored.keys.T
    if exclude is not None:
        scores = functional.exclude_rows(scores, stored.ids, exclude)
    expected = functional.class_scores(scores, stored.labels, C)
    torch.testing.assert_close(stored.class_scores(queries(), exclude), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("scale", [5.0, 100.0], ids=["bounded", "not bounded"])
@pytest.mark.parametrize("kind", [Cosine, Distance])
@pytest.mark.parametrize("exclude", [None, torch.tensor([0, 28, -1, 5, 5])])
def test_gradient_of_queries_keys_and_scale_is_that_of_reading_at_once(
    stored: StoredKeys, exclude: torch.Tensor | None, scale: float, kind: type[Similarity]
) -> None:
    similarity = kind(scale=scale, learn_scale=True).double()
    query, keys = queries().requires_grad_(), stored.keys.clone().requires_grad_()
    stored = replace(stored, keys=keys, similarity=similarity)
    scores = stored.similarity(query, stored.keys)
    if exclude is not None:
        scores = functional.exclude_rows(scores, stored.ids, exclude)
    wanted = [query, stored.keys, *stored.similarity.parameters()]
    targets = torch.arange(5) % C
    expected = functional.nll(functional.class_scores(scores, stored.labels, C), targets).sum()
    found = functional.nll(stored.class_scores(query, exclude), targets).sum()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    gradients = torch.autograd.grad(found, wanted), torch.autograd.grad(expected, wanted)
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.float64, torch.float32)])
def test_the_wider_type_of_queries_and_keys_decides(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    keys, labels = torch.randn(N, 4, dtype=dtypes[1]), torch.arange(N) % C
    query = queries().to(dtypes[0])
    found = StoredKeys(keys, labels, torch.arange(N), C, Dot()).class_scores(query)
    expected = functional.class_scores(query.double() @ keys.double().T, labels, C)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_autocast_does_not_touch_the_read() -> None:
    keys, query = torch.randn(N, 4, requires_grad=True), queries().float().requires_grad_()
    stored = StoredKeys(keys, torch.arange(N) % C, torch.arange(N), C, Dot())
    results = []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            class_scores = stored.class_scores(query)
            results.append([class_scores, *torch.autograd.grad(class_scores.sum(), [query, keys])])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("order", ["sorted", "as it comes"])
@pytest.mark.parametrize("exclude", [None, torch.tensor([5])])
@pytest.mark.parametrize(
    "similarity", [Dot(), Cosine(scale=5.0), Cosine(scale=100.0), Euclidean(scale=400.0), Distance(scale=9)]
)
def test_one_query_alone_reads_what_it_reads_among_others(
    stored: StoredKeys, similarity: Similarity, exclude: torch.Tensor | None, order: str
) -> None:
    """Also of classes that have no keys, before, between and after those that have."""
    labels = 2 * stored.labels + 1
    rows = labels.argsort(stable=True) if order == "sorted" else torch.arange(N)
    stored = StoredKeys(stored.keys[rows], labels[rows], stored.ids[rows], 2 * C + 3, similarity)
    scores = similarity(queries(), stored.keys)
    if exclude is not None:
        scores = functional.exclude_rows(scores, stored.ids, exclude.expand(5))
    expected = definition.class_read(scores, stored.labels, 2 * C + 3)
    for number, query in enumerate(queries().split(1)):
        found = stored.read(query, exclude)
        torch.testing.assert_close(found.class_scores[0], expected.class_scores[number], rtol=1e-12, atol=1e-11)
        torch.testing.assert_close(found.lowest[0], expected.lowest[number], rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("block", [1, 2, 5])
def test_the_strongest_are_found_whatever_the_blocks(
    stored: StoredKeys, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strongest, "BLOCK", block)
    expected = (queries() @ stored.keys.T).sort(dim=1, descending=True)
    for k in (1, 4, N):
        found = stored.read_with_strongest(queries(), k).strongest
        torch.testing.assert_close(found.scores, expected.values[:, :k])
        assert torch.equal(found.places, expected.indices[:, :k])


@pytest.mark.parametrize("queries", [0, 1, 100, 10**7])
def test_tiles_cover_the_keys_once(queries: int) -> None:
    stored = StoredKeys(torch.randn(100_000, 2), torch.zeros(100_000), torch.arange(100_000), 1, Dot())
    assert torch.equal(torch.cat([stored.ids[tile] for tile in stored.tiles(queries)]), stored.ids)


@pytest.mark.parametrize("size", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("similarity", [Dot(), Cosine(scale=64.0), Cosine(scale=100.0), Euclidean(), Distance()])
def test_scores_of_any_size_are_read_as_exactly_whether_bounded_or_not(similarity: Similarity, size: float) -> None:
    """To the rounding of the largest products, also where a class is hundreds of nats away from the best."""
    keys, query = size * torch.randn(N, 4), size * torch.randn(5, 4)
    found = StoredKeys(keys, (torch.arange(N) % C).sort().values, torch.arange(N), C, similarity).class_scores(query)
    scores = similarity(query.double(), keys.double())
    expected = functional.class_scores(scores, (torch.arange(N) % C).sort().values, C)
    torch.testing.assert_close(found.double(), expected, rtol=2e-6, atol=2e-6 * scores.abs().max().item())


def test_reading_stored_keys_is_reading_the_support() -> None:
    encoder, support = nn.Linear(6, 4).double(), random_support(N, num_classes=C)
    keys = StoredKeys.encode(encoder=encoder, similarity=Dot(), support=support, batch_size=7)
    found = keys.class_scores(queries())
    torch.testing.assert_close(found, FullMemory(similarity=Dot())(encoder, queries(), support))
    assert not found.requires_grad


def test_a_memory_is_stored_of_objects_as_they_are_by_the_encoder_as_in_evaluation() -> None:
    encoder = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5)).double()
    support = replace(random_support(N, num_classes=C), augmentation=lambda x: x + 100)
    keys = StoredKeys.encode(encoder=encoder, similarity=Dot(), support=support, batch_size=7).keys
    assert encoder.training
    with torch.no_grad():
        torch.testing.assert_close(keys, encoder[0](support.store.inputs), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reading", [ReadAll(), ReadTopK(k=2, index=ExactIndex())], ids=["all", "topk"])
def test_a_query_that_has_read_nothing_has_an_even_mass_and_no_evidence(reading: ReadAll) -> None:
    one = StoredKeys(torch.ones(1, 4).double(), torch.tensor([2]), torch.tensor([7]), C, Dot())
    reading.open(one)
    exclude = torch.tensor([7, -1])
    class_scores, lowest = reading.read(queries()[:2], exclude)
    assert functional.class_log_mass(class_scores)[0].exp().tolist() == pytest.approx([1 / C] * C)
    assert functional.answers(class_scores).tolist() == [-1, 2]
    assert lowest[0] == torch.inf
    _, evidence = reading.read_with_evidence(queries()[:2], k=1, exclude=exclude)
    assert evidence.weights.tolist() == [[0.0], [1.0]]
    assert evidence.ids.tolist() == [[-1], [7]]


def opened(reading: ReadAll, stored: StoredKeys) -> ReadAll:
    reading.open(stored)
    return reading


@pytest.mark.parametrize("k", [1, 4, N - 1])
@pytest.mark.parametrize("exclude", [None, torch.tensor([0, 28, -1, 5, 5])])
def test_evidence_is_the_top_of_the_weights(stored: StoredKeys, k: int, exclude: torch.Tensor | None) -> None:
    scores = queries() @ stored.keys.T
    if exclude is not None:
        scores = functional.exclude_rows(scores, stored.ids, exclude)
    expected = scores.softmax(dim=1).sort(dim=1, descending=True)
    reading = opened(ReadAll(), stored)
    read, found = reading.read_with_evidence(queries(), k=k, exclude=exclude)
    torch.testing.assert_close(found.weights, expected.values[:, :k])
    assert torch.equal(found.labels, stored.labels[found.ids])
    assert all(torch.equal(*each) for each in zip(read, reading.read(queries(), exclude), strict=True))
    weights_of_ids = scores.softmax(dim=1).gather(1, found.ids)
    torch.testing.assert_close(weights_of_ids, found.weights)


@pytest.mark.parametrize(
    "index", [ExactIndex, lambda: IVFIndex(lists=3, probes=3), lambda: HNSWIndex(links=8, candidates=64)]
)
@pytest.mark.parametrize("k", [1, 4, 100])
@pytest.mark.parametrize("exclude", [None, torch.tensor([0, 28, -1, 5, 5])])
@pytest.mark.parametrize("similarity", [Dot(), Cosine(scale=5.0), Euclidean(scale=2.0), Distance(scale=2.0)])
class TestTopK:
    """Against full over the K highest scores of each query, the rest taken out of the softmax."""

    @pytest.fixture(autouse=True)
    def read(self, index: Callable[[], Index], k: int, exclude: torch.Tensor | None, similarity: Similarity) -> None:
        if index is not ExactIndex:
            pytest.importorskip("faiss")
        keys = torch.randn(N, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        stored = StoredKeys(keys, torch.arange(N) % C, torch.arange(N), C, similarity)
        self.reading = opened(ReadTopK(k=k, index=index()), stored)
        scores = similarity(queries(), keys)
        if exclude is not None:
            scores = functional.exclude_rows(scores, stored.ids, exclude)
        last = scores.sort(dim=1, descending=True).values[:, min(k, N) - 1 :][:, :1]
        self.scores = scores.masked_fill(scores < last, -torch.inf)

    def test_class_scores_are_those_of_full_over_the_nearest(self, exclude: torch.Tensor | None) -> None:
        expected = functional.class_scores(self.scores, self.reading.stored.labels, C)
        torch.testing.assert_close(self.reading.class_scores(queries(), exclude), expected, rtol=1e-12, atol=1e-12)

    def test_evidence_is_of_what_was_read(self, k: int, exclude: torch.Tensor | None) -> None:
        shown = min(k, 3)
        read, found = self.reading.read_with_evidence(queries(), k=shown, exclude=exclude)
        assert all(torch.equal(*each) for each in zip(read, self.reading.read(queries(), exclude), strict=True))
        expected = self.scores.softmax(dim=1).sort(dim=1, descending=True)
        torch.testing.assert_close(found.weights, expected.values[:, :shown])
        assert torch.equal(found.ids, expected.indices[:, :shown])
        if k <= 3:
            torch.testing.assert_close(found.weights.sum(dim=1), torch.ones(5, dtype=torch.float64))


def test_a_class_that_is_not_read_has_no_mass_and_the_evidence_says_so() -> None:
    stored = StoredKeys(torch.tensor([[9.0], [8.0], [-9.0]]), torch.tensor([0, 1, 2]), torch.arange(3), 3, Dot())
    reading = opened(ReadTopK(k=2, index=ExactIndex()), stored)
    class_scores = reading.class_scores(torch.tensor([[1.0]]))
    assert class_scores.tolist() == [[9.0, 8.0, -torch.inf]]
    _, found = reading.read_with_evidence(torch.tensor([[1.0]]), k=2, exclude=torch.tensor([0]))
    assert found.ids.tolist() == [[1, 2]]


def test_the_next_memory_opened_is_searched_anew() -> None:
    reading = ReadTopK(k=1, index=ExactIndex())
    for key in (1.0, 2.0):
        reading.open(StoredKeys(torch.tensor([[key]]), torch.tensor([0]), torch.arange(1), 1, Dot()))
        assert reading.class_scores(torch.tensor([[1.0]])).item() == key
        reading.close()


@pytest.mark.parametrize(("k", "rule"), [(0, "whole number"), (1.5, "whole number"), (N + 1, f"at most {N}")])
def test_k_must_fit_the_memory(stored: StoredKeys, k: object, rule: str) -> None:
    with pytest.raises(ValueError, match=f"k={k}: must be .*{rule}"):
        opened(ReadAll(), stored).read_with_evidence(queries(), k=k)  # type: ignore[arg-type]


def test_evidence_must_fit_what_is_read(stored: StoredKeys) -> None:
    with pytest.raises(ValueError, match=r"k=4: must be at most 3, the objects that a query reads"):
        opened(ReadTopK(k=3, index=ExactIndex()), stored).read_with_evidence(queries(), k=4)
