"""One contract for all memory modes: the plain loop's value, autograd's gradient, whatever the chunk."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memlab import draws, functional
from memlab.data.augmentation import RandomAffine
from memlab.data.objects import ObjectStore
from memlab.data.support import Support
from memlab.encoders import MLP, Conv
from memlab.encoders.dropout import Dropout
from memlab.functional.definition import class_read
from memlab.index import ExactIndex
from memlab.memory import ChunkedMemory, FullMemory, Memory, TopKMemory
from memlab.memory.chunked import graph_bytes
from memlab.memory.scored_support import ScoredSupport
from memlab.memory.similarity import Cosine, Distance, Dot, Euclidean, Similarity
from tests.conftest import loop_class_scores, random_support

C, M, B = 4, 23, 5
AFFINE = RandomAffine(degrees=10, translate=0.1, scale=0.1)
SIMILARITIES: dict[str, Callable[[], Similarity]] = {
    "dot": Dot,
    "cosine": lambda: Cosine(scale=7.0, learn_scale=True),
    "euclidean": lambda: Euclidean(scale=0.3, learn_scale=True),
    "distance": lambda: Distance(scale=0.7, learn_scale=True),
}
MODES: dict[str, Callable[[Similarity], Memory]] = {
    "full": lambda similarity: FullMemory(similarity=similarity),
    **{
        f"chunked {size}": lambda similarity, size=size: ChunkedMemory(similarity=similarity, chunk_size=size)  # type: ignore[misc]
        for size in (1, 7, M, 100)
    },
    "chunked 7, all graphs kept": lambda similarity: ChunkedMemory(
        similarity=similarity, chunk_size=7, activation_budget=2**40
    ),
    **{
        f"topk K = M, chunk {size}": lambda similarity, size=size: TopKMemory(  # type: ignore[misc]
            similarity=similarity, k=M, index=ExactIndex(), chunk_size=size, refresh_every=1, refresh_share=0.2
        )
        for size in (7, 100)
    },
}


class Case:
    """One query batch and support, an encoder with parameters of its own, and what is to be found."""

    def __init__(self, mode: str, similarity: str, *, scale: float = 1.0) -> None:
        torch.manual_seed(0)
        self.memory = MODES[mode](SIMILARITIES[similarity]()).double()
        self.encoder: nn.Module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
        self.support = random_support(M, num_classes=C)
        self.queries = scale * torch.randn(B, 6, dtype=torch.float64)
        self.targets = torch.arange(B) % C

    def class_scores(self, exclude: Tensor | None = None) -> Tensor:
        scores: Tensor = self.memory(self.encoder, self.encoder(self.queries), self.support, exclude)
        return scores

    def loss_and_gradients(self, exclude: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        loss = functional.nll(self.class_scores(exclude), self.targets).mean()
        parameters = [*self.encoder.parameters(), *self.memory.parameters()]
        return loss, list(torch.autograd.grad(loss, parameters))


def definition(case: Case, exclude: list[int] | None = None) -> list[list[float]]:
    """Scores object by object, class scores by the plain loop."""
    query = case.encoder(case.queries)
    keys = [case.encoder(case.support.inputs(slice(i, i + 1))) for i in range(M)]
    similarity = case.memory.similarity
    scores = [[similarity(u[None], key).item() for key in keys] for u in query]
    for row, own in zip(scores, exclude or [], strict=False):
        if own >= 0:
            row[own] = -float("inf")
    return loop_class_scores(scores, case.support.labels.tolist(), C)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("mode", MODES)
class TestContract:
    def test_value_is_the_definition(self, mode: str, similarity: str) -> None:
        case = Case(mode, similarity)
        expected = torch.tensor(definition(case), dtype=torch.float64)
        torch.testing.assert_close(case.class_scores(), expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("exclude", [None, [3, -1, 22, 0, 7]])
    def test_gradient_is_that_of_one_softmax(self, mode: str, similarity: str, exclude: list[int] | None) -> None:
        case = Case(mode, similarity)
        scores = case.memory.similarity(case.encoder(case.queries), case.encoder(case.support.inputs()))
        own = None if exclude is None else torch.tensor(exclude)
        if own is not None:
            scores = scores.masked_fill(own[:, None] == case.support.ids[None, :], -torch.inf)
        weights = scores.softmax(1)
        mass = weights @ nn.functional.one_hot(case.support.labels, C).double()
        expected_loss = -mass.gather(1, case.targets[:, None]).log().mean()
        parameters = [*case.encoder.parameters(), *case.memory.parameters()]
        expected = torch.autograd.grad(expected_loss, parameters)
        loss, gradients = case.loss_and_gradients(own)
        torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
        for found, wanted in zip(gradients, expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-13)

    def test_gradcheck_of_the_queries(self, mode: str, similarity: str) -> None:
        case = Case(mode, similarity)
        query = case.encoder(case.queries).detach().requires_grad_()
        assert torch.autograd.gradcheck(lambda u: case.memory(case.encoder, u, case.support), query)

    def test_own_row_is_excluded_by_id(self, mode: str, similarity: str) -> None:
        case = Case(mode, similarity)
        exclude = [3, -1, 22, 0, 7]
        expected = torch.tensor(definition(case, exclude), dtype=torch.float64)
        found = case.class_scores(torch.tensor(exclude))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("exclude", [None, [3, -1, 22, 0, 7]])
    def test_the_lowest_score_is_that_of_the_farthest_object_read(
        self, mode: str, similarity: str, exclude: list[int] | None
    ) -> None:
        case = Case(mode, similarity)
        query, own = case.encoder(case.queries), None if exclude is None else torch.tensor(exclude)
        scores = case.memory.similarity(query, case.encoder(case.support.inputs())).detach()
        if own is not None:
            scores[own[:, None] == case.support.ids[None, :]] = torch.inf
        _, lowest = case.memory.read(case.encoder, query, case.support, own)
        torch.testing.assert_close(lowest, scores.min(dim=1).values, rtol=1e-12, atol=1e-12)
        assert not lowest.requires_grad

    @pytest.mark.parametrize("num_classes", [C, 2 * M], ids=["few classes", "more classes than objects"])
    @pytest.mark.parametrize("exclude", [None, [3, -1, 22, 0, 7]])
    def test_what_is_read_for_the_loss_is_what_class_scores_tell(
        self, mode: str, similarity: str, exclude: list[int] | None, num_classes: int
    ) -> None:
        case = Case(mode, similarity)
        labels = torch.arange(M) * 3 % num_classes
        case.support = random_support(M, num_classes=num_classes, labels=labels)
        case.targets = torch.tensor([labels[4], labels[9], 1, labels[0], num_classes - 1])
        encoder, own_rows = case.encoder, None if exclude is None else torch.tensor(exclude)
        own = case.memory.read_own(encoder, encoder(case.queries), case.support, case.targets, own_rows)
        class_scores, lowest = case.memory.read(encoder, encoder(case.queries), case.support, own_rows)
        log_mass = functional.class_log_mass(class_scores).gather(1, case.targets[:, None])[:, 0]
        torch.testing.assert_close(own.log_mass, log_mass, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(own.total, class_scores.logsumexp(1), rtol=1e-12, atol=1e-12)
        assert torch.equal(own.right, functional.answers(class_scores) == case.targets)
        losses = functional.own_nll(own, num_classes=num_classes)
        expected = functional.nll(class_scores, case.targets, case.memory.similarity.rescaled(lowest))
        torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)
        wanted = [*case.encoder.parameters(), *case.memory.parameters()]
        gradients = [torch.autograd.grad(each.sum(), wanted) for each in (losses, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)

    def test_order_of_the_support_does_not_matter(self, mode: str, similarity: str) -> None:
        case = Case(mode, similarity)
        loss, gradients = case.loss_and_gradients()
        case.support = replace(case.support, rows=torch.randperm(M))
        shuffled_loss, shuffled_gradients = case.loss_and_gradients()
        torch.testing.assert_close(loss, shuffled_loss, rtol=1e-12, atol=0)
        torch.testing.assert_close(gradients, shuffled_gradients, rtol=1e-10, atol=1e-13)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_absent_class_gives_a_finite_informative_loss(self, mode: str, similarity: str, dtype: torch.dtype) -> None:
        case = Case(mode, similarity)
        case.support = random_support(M, num_classes=C, labels=torch.arange(M) % 3)
        case.support.dtype, case.queries = torch.float32, case.queries.float()
        case.encoder, case.memory = case.encoder.float(), case.memory.float()
        case.targets = torch.full((B,), 3)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            assert case.class_scores()[:, 3].isneginf().all()
            loss, gradients = case.loss_and_gradients()
        assert loss.isfinite()
        assert all(gradient.isfinite().all() for gradient in gradients)
        assert any(gradient.abs().max() > 1e-4 for gradient in gradients)

    def test_the_scale_has_the_gradient_of_one_more_object_at_the_farthest_place(
        self, mode: str, similarity: str
    ) -> None:
        """So that a class that is absent does not reward a scale that grows."""
        case = Case(mode, similarity)
        case.support = random_support(M, num_classes=C, labels=torch.arange(M) % 3)
        targets, kind = torch.full((B,), 3), case.memory.similarity
        with torch.no_grad():
            case.encoder[2].weight *= 30  # type: ignore[index]
        query, keys = case.encoder(case.queries), case.encoder(case.support.inputs())
        scores = kind(query, keys)
        farthest = scores.detach().amin(1)
        if kind.log_scale is not None:
            farthest = farthest / kind.log_scale.detach().exp() * kind.scale
        floor = scores.detach().logsumexp(1) + math.log(functional.ABSENT_MASS / (1 - functional.ABSENT_MASS))
        one_more = torch.minimum(floor, farthest)
        expected_loss = (torch.cat([scores, one_more[:, None]], 1).logsumexp(1) - one_more).mean()
        parameters = [*case.encoder.parameters(), *case.memory.parameters()]
        expected = torch.autograd.grad(expected_loss, parameters)
        class_scores, lowest = case.memory.read(case.encoder, case.encoder(case.queries), case.support)
        loss = functional.nll(class_scores, targets, kind.rescaled(lowest)).mean()
        torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
        for found, wanted in zip(torch.autograd.grad(loss, parameters), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
        if kind.log_scale is not None:
            assert (farthest < floor).any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("level", [-1e3, 1e3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_huge_scores_stay_finite_and_agree_with_the_definition(mode: str, level: float, dtype: torch.dtype) -> None:
    memory = MODES[mode](Dot())
    keys = torch.cat([torch.full((M, 1), level), torch.randn(M, 1)], dim=1).to(dtype)
    support = random_support(M, num_classes=C)
    support.store.inputs, support.dtype = keys, dtype
    query = torch.tensor([[1.0, 3.0], [-1.0, 2.0]]).to(dtype).requires_grad_()
    found = memory(nn.Identity(), query, support)
    scores = [[sum(a * b for a, b in zip(u, k, strict=True)) for k in keys.tolist()] for u in query.tolist()]
    expected = torch.tensor(loop_class_scores(scores, support.labels.tolist(), C))
    assert found.dtype is (torch.float64 if dtype is torch.float64 else torch.float32)
    torch.testing.assert_close(found.float(), expected, rtol=1e-6, atol=1e-4)
    loss = functional.nll(found, torch.tensor([0, 1])).sum()
    loss.backward()
    assert loss.isfinite()
    assert query.grad is not None
    assert query.grad.isfinite().all()


@pytest.mark.parametrize("chunk_size", [1, 7, M, 100])
class TestChunkedIsFull:
    def pair(
        self,
        chunk_size: int,
        encoder: nn.Module,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        autocast: bool = False,
        similarity: Callable[[], Similarity] = Dot,
    ) -> list[list[Tensor]]:
        """Log-mass, loss and gradient, one vector, of both modes; the backward is outside autocast, as in training.

        One vector, because what cancels has no relative error of its own: Euclidean distance does not feel the last
        layer's bias at all, and the gradient of the scale is a sum of terms a hundred times as large.
        """
        support = random_support(M, num_classes=C, shape=shape)
        support.dtype = dtype
        queries = torch.randn(B, *shape, generator=torch.Generator().manual_seed(3)).to(dtype)
        results = []
        for mode in (FullMemory, partial(ChunkedMemory, chunk_size=chunk_size)):
            memory = mode(similarity=similarity()).to(dtype)
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                class_scores = memory(encoder, encoder(queries), support)
                loss = functional.nll(class_scores, torch.arange(B) % C).mean()
            gradients = torch.autograd.grad(loss, [*encoder.parameters(), *memory.parameters()])
            gradient = torch.cat([part.flatten() for part in gradients])
            results.append([functional.class_log_mass(class_scores).detach(), loss.detach(), gradient])
        return results

    @pytest.mark.parametrize("similarity", SIMILARITIES)
    @pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
    def test_with_a_conv_encoder(self, chunk_size: int, dtype: torch.dtype, tolerance: float, similarity: str) -> None:
        torch.manual_seed(0)
        encoder = Conv(input_shape=(1, 8, 8), embedding_size=5, channels=4, kernel_size=3, pool_size=2).to(dtype)
        results = self.pair(chunk_size, encoder, (1, 8, 8), dtype, similarity=SIMILARITIES[similarity])
        for full, chunked in zip(*results, strict=True):
            assert (full - chunked).norm() <= tolerance * full.norm()

    @pytest.mark.parametrize("learn_scale", [False, True])
    def test_at_a_temperature_of_a_hundredth_float32_is_as_good_as_float64(
        self, chunk_size: int, learn_scale: bool
    ) -> None:
        torch.manual_seed(0)
        encoder = MLP(input_shape=(6,), embedding_size=5, hidden_sizes=[16])
        similarity = partial(Cosine, scale=100.0, learn_scale=learn_scale)
        single = self.pair(chunk_size, encoder, (6,), torch.float32, similarity=similarity)
        double = self.pair(chunk_size, encoder.double(), (6,), torch.float64, similarity=similarity)[0]
        for mode in single:
            for found, exact in zip(mode, double, strict=True):
                assert (found - exact).norm() <= 1e-5 * exact.norm()

    def test_under_bf16_autocast(self, chunk_size: int) -> None:
        torch.manual_seed(0)
        recorder = Recorder()
        encoder = nn.Sequential(MLP(input_shape=(6,), embedding_size=5, hidden_sizes=[16]), recorder)
        for full, chunked in zip(*self.pair(chunk_size, encoder, (6,), torch.float32, autocast=True), strict=True):
            assert (full - chunked).norm() <= 2e-2 * full.norm()
        assert {keys.dtype for keys in recorder.seen} == {torch.bfloat16}


class Recorder(nn.Module):
    """Keeps what it is given: the pixels and masks that each pass saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach().clone())
        return x


class SumOfTwo(nn.Module):
    """Its two parameters have one and the same gradient, which autograd hands out as one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(3, 6)), nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        return x @ (self.first + self.second).T


def test_parameters_that_share_a_gradient_each_get_it_once() -> None:
    support, encoder = random_support(M, num_classes=C), SumOfTwo().double()
    query = torch.randn(B, 3, dtype=torch.float64)
    gradients = []
    for memory in (FullMemory(similarity=Dot()), ChunkedMemory(similarity=Dot(), chunk_size=4)):
        loss = functional.nll(memory(encoder, query, support), torch.arange(B) % C).sum()
        gradients.append(torch.autograd.grad(loss, list(encoder.parameters())))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


class OfTwoParts(nn.Module):
    """An encoder of objects that are a picture and a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.of_picture, self.of_vector = nn.Linear(64, 3), nn.Linear(2, 3)

    def forward(self, x: dict[str, Tensor]) -> Tensor:
        keys: Tensor = self.of_picture(x["picture"].flatten(1)) + self.of_vector(x["vector"])
        return keys


def test_inputs_may_be_trees_of_tensors() -> None:
    support = random_support(M, num_classes=C)
    inputs = {"picture": torch.randn(M, 1, 8, 8).double(), "vector": torch.randn(M, 2).double()}
    store = ObjectStore(inputs=inputs, labels=support.labels, class_names=tuple("abcd"))
    encoder, query, results = OfTwoParts().double(), torch.randn(B, 3).double(), []
    for memory in (FullMemory(similarity=Dot()), ChunkedMemory(similarity=Dot(), chunk_size=4)):
        loss = functional.nll(memory(encoder, query, Support(store, support.rows, torch.float64)), torch.arange(B) % C)
        results.append([loss, *torch.autograd.grad(loss.sum(), list(encoder.parameters()))])
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-14)


def test_both_passes_see_the_same_dropout_and_the_same_augmentation() -> None:
    torch.manual_seed(0)
    recorder = Recorder()
    encoder = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), recorder, nn.Linear(64, 3))
    support = replace(
        random_support(M, num_classes=C, shape=(1, 8, 8)),
        dtype=torch.float32,
        augmentation=AFFINE,
    )
    memory = ChunkedMemory(similarity=Dot(), chunk_size=5)
    query = torch.randn(B, 3, requires_grad=True)
    class_scores = memory(encoder, query, support)
    torch.rand(10)  # what happens between the passes must not matter
    state = torch.get_rng_state()
    functional.nll(class_scores, torch.arange(B) % C).sum().backward()
    first, second = recorder.seen[:5], recorder.seen[5:]
    assert len(second) == 5
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("augmentation", [None, AFFINE], ids=["as they are", "augmented"])
@pytest.mark.parametrize("chunk_size", [1, 7, M])
def test_all_modes_are_the_definition_with_dropout_on(chunk_size: int, augmentation: nn.Module | None) -> None:
    """Whatever the chunks; all keys in one graph are the definition."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), Dropout(0.5), nn.Linear(8, 3)).double()
    support = replace(random_support(M, num_classes=C, shape=(1, 8, 8)), augmentation=augmentation)
    query, exclude = torch.randn(B, 3, dtype=torch.float64), torch.tensor([3, -1, 22, 0, 7])
    chunks: dict[str, Any] = {"chunk_size": chunk_size}
    modes: list[Memory] = [
        FullMemory(similarity=Dot()),
        ChunkedMemory(similarity=Dot(), **chunks),
        ChunkedMemory(similarity=Dot(), activation_budget=2**40, **chunks),
        TopKMemory(similarity=Dot(), k=M, index=ExactIndex(), refresh_every=1, refresh_share=0.2, **chunks),
    ]
    draws.begin_step(5)
    with draws.of_objects(support.ids, purpose=draws.ENCODED_SUPPORT):
        keys = encoder(support.inputs())
    scores = functional.exclude_rows(query @ keys.T, support.ids, exclude)
    results = []
    for read in (lambda *_: class_read(scores, support.labels, C), *(mode.read for mode in modes)):
        torch.rand(3)  # of no consequence
        class_scores, lowest = read(encoder, query, support, exclude)
        loss = functional.nll(class_scores, torch.arange(B) % C, lowest).sum()
        results.append([class_scores, lowest, *torch.autograd.grad(loss, list(encoder.parameters()))])
    for found in results[1:]:
        torch.testing.assert_close(found, results[0], rtol=1e-12, atol=1e-13)
    draws.begin_step(6)
    assert not torch.allclose(modes[1](encoder, query, support, exclude), results[0][0])


@pytest.mark.parametrize("chunk_size", [7, M])
def test_all_modes_are_the_definition_with_dropout_that_knows_no_objects(chunk_size: int) -> None:
    """At the same random numbers, drawn chunk by chunk; all keys in one graph are the definition."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
    support = random_support(M, num_classes=C, shape=(1, 8, 8))
    query, exclude = torch.randn(B, 3, dtype=torch.float64), torch.tensor([3, -1, 22, 0, 7])
    modes: list[Memory] = [
        ChunkedMemory(similarity=Dot(), chunk_size=chunk_size),
        ChunkedMemory(similarity=Dot(), chunk_size=chunk_size, activation_budget=2**40),
        TopKMemory(
            similarity=Dot(), k=M, index=ExactIndex(), chunk_size=chunk_size, refresh_every=1, refresh_share=0.2
        ),
    ]
    if chunk_size == M:
        modes.append(FullMemory(similarity=Dot()))
    results = []
    for read in (_definition_in_chunks(encoder, support, query, exclude, chunk_size), *(m.read for m in modes)):
        torch.manual_seed(5)
        class_scores, lowest = read(encoder, query, support, exclude)
        loss = functional.nll(class_scores, torch.arange(B) % C, lowest).sum()
        results.append([class_scores, lowest, *torch.autograd.grad(loss, list(encoder.parameters()))])
    for found in results[1:]:
        torch.testing.assert_close(found, results[0], rtol=1e-12, atol=1e-13)


def _definition_in_chunks(
    encoder: nn.Module, support: Support, query: Tensor, exclude: Tensor, chunk_size: int
) -> Callable[..., functional.ClassRead]:
    def read(*_: object) -> functional.ClassRead:
        keys = [encoder(support.inputs(slice(at, at + chunk_size))) for at in range(0, M, chunk_size)]
        scores = functional.exclude_rows(query @ torch.cat(keys).T, support.ids, exclude)
        own = functional.class_scores(scores, support.labels, C)
        return functional.ClassRead(own, scores.detach().masked_fill(scores.isneginf(), torch.inf).min(dim=1).values)

    return read


def test_chunked_holds_neither_all_keys_nor_their_inputs() -> None:
    support: Support = random_support(M, num_classes=C)
    recorder = Recorder()
    encoder = nn.Sequential(recorder, nn.Linear(6, 3).double())
    memory = ChunkedMemory(similarity=Dot(), chunk_size=4)
    memory(encoder, torch.randn(B, 3, dtype=torch.float64, requires_grad=True), support).sum().backward()
    assert [len(x) for x in recorder.seen] == 2 * [4, 4, 4, 4, 4, 3]


def test_frozen_encoder_and_detached_query_need_no_gradient() -> None:
    support = random_support(M, num_classes=C)
    encoder = nn.Linear(6, 3).double().requires_grad_(False)
    query = torch.randn(B, 3, dtype=torch.float64)
    assert not ChunkedMemory(similarity=Dot(), chunk_size=4)(encoder, query, support).requires_grad


class TestActivationBudget:
    """Chunks of 5 of the 23 objects; the graph of one weighs what `graph_bytes` says."""

    def read(self, kept: float, encoder: nn.Module, support: Support) -> list[Tensor]:
        """Gradients with a budget of so many graphs."""
        query = torch.randn(B, 3, dtype=support.dtype, generator=torch.Generator().manual_seed(2))
        graph = graph_bytes(query, ScoredSupport(encoder, Dot(), support, None), slice(0, 5))
        memory = ChunkedMemory(similarity=Dot(), chunk_size=5, activation_budget=kept * graph)
        torch.manual_seed(4)
        loss = functional.nll(memory(encoder, query, support), torch.arange(B) % C).sum()
        torch.rand(7)
        return list(torch.autograd.grad(loss, list(encoder.parameters())))

    @pytest.mark.parametrize(("kept", "again"), [(0, 5), (0.9, 5), (1, 4), (2.5, 3), (5, 0), (50, 0)])
    def test_chunks_that_fit_are_encoded_once_and_results_do_not_change(self, kept: float, again: int) -> None:
        support = replace(
            random_support(M, num_classes=C, shape=(1, 8, 8)),
            augmentation=AFFINE,
        )
        recorder = Recorder()
        encoder = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), recorder, nn.Linear(64, 3)).double()
        expected = self.read(0, encoder, support)
        recorder.seen.clear()
        found = self.read(kept, encoder, support)
        weighed = 1 if kept == 0 else 2  # by this test, and by the memory itself if it has a budget
        first, second = recorder.seen[weighed : weighed + 5], recorder.seen[weighed + 5 :]
        assert len(second) == again
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=False))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)

    def test_graph_bytes_are_what_autograd_holds(self) -> None:
        support = random_support(M, num_classes=C)
        encoder = nn.Sequential(nn.Linear(6, 100), nn.Tanh(), nn.Linear(100, 3)).double()
        scored = ScoredSupport(encoder, Dot(), support, None)
        found = graph_bytes(torch.randn(B, 3).double(), scored, slice(0, 5))
        inputs, hidden, keys, query, scores = 5 * 6, 5 * 100, 5 * 3, B * 3, 5 * B
        assert found == 8 * (inputs + hidden + keys + query + scores)

    def test_a_share_is_of_what_is_free(self, monkeypatch: pytest.MonkeyPatch) -> None:
        support, encoder = random_support(M, num_classes=C), nn.Linear(6, 3).double()
        query = torch.randn(B, 3, dtype=torch.float64)
        memory = ChunkedMemory(similarity=Dot(), chunk_size=5, activation_budget=0.5)
        scored = ScoredSupport(encoder, memory.similarity, support, None)
        free = 6.5 * graph_bytes(query, scored, slice(0, 5))
        monkeypatch.setattr("memlab.memory.chunked.free_memory", lambda _: free)
        assert memory._kept_chunks(query, scored) == 3

    def test_nothing_is_kept_without_gradient(self) -> None:
        support, encoder = random_support(M, num_classes=C), nn.Linear(6, 3).double()
        memory = ChunkedMemory(similarity=Dot(), chunk_size=5, activation_budget=2**40)
        scored = ScoredSupport(encoder, memory.similarity, support, None)
        with torch.no_grad():
            assert memory._kept_chunks(torch.randn(B, 3).double(), scored) == 0

    @pytest.mark.parametrize("value", [-1, "abc", float("inf"), True])
    def test_must_be_a_number_of_at_least_zero(self, value: object) -> None:
        with pytest.raises(ValueError, match=f"activation_budget={value}: must be a number of at least 0"):
            ChunkedMemory(similarity=Dot(), chunk_size=5, activation_budget=value)  # type: ignore[arg-type]


class TestBatchNorm:
    def encoder(self) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)).double()

    @pytest.mark.parametrize("budget", [0, 1e3, 2**40])
    def test_running_statistics_are_updated_once_for_each_chunk(self, budget: float) -> None:
        support, query = random_support(M, num_classes=C), torch.randn(B, 3, dtype=torch.float64)
        encoder, expected = self.encoder(), self.encoder()
        memory = ChunkedMemory(similarity=Dot(), chunk_size=5, activation_budget=budget)
        with pytest.warns(UserWarning, match=r"has BatchNorm \(1\), which normalises each chunk"):
            class_scores = memory(encoder, query, support)
        class_scores.exp().sum().backward()
        for part in memory.parts(support):
            expected(support.inputs(part))
        for found, wanted in zip(encoder.buffers(), expected.buffers(), strict=True):
            torch.testing.assert_close(found, wanted)

    @pytest.mark.filterwarnings("ignore:chunked memory. the encoder has BatchNorm")
    @pytest.mark.parametrize("budget", [0, 2**40])
    def test_queries_and_keys_may_come_from_the_same_layer(self, budget: float) -> None:
        support, encoder = random_support(M, num_classes=C), self.encoder()
        memory = ChunkedMemory(similarity=Dot(), chunk_size=M, activation_budget=budget)
        losses = []
        for each in (memory, FullMemory(similarity=Dot())):
            query = encoder(torch.ones(B, 6, dtype=torch.float64) * torch.arange(B)[:, None])
            loss = functional.nll(each(encoder, query, support), torch.arange(B) % C).mean()
            losses.append(torch.autograd.grad(loss, list(encoder.parameters())))
        torch.testing.assert_close(*losses, rtol=1e-10, atol=1e-12)

    def test_is_warned_of_once_and_never_without_it(self, recwarn: pytest.WarningsRecorder) -> None:
        support, query = random_support(M, num_classes=C), torch.randn(B, 3, dtype=torch.float64)
        memory = ChunkedMemory(similarity=Dot(), chunk_size=5)
        for _ in range(2):
            memory(self.encoder(), query, support)
        ChunkedMemory(similarity=Dot(), chunk_size=5)(nn.Linear(6, 3).double(), query, support)
        assert len(recwarn) == 1


class TestAutoChunk:
    """The clock is replaced by a cost that is known; what the clock says is no business of tests."""

    @pytest.fixture
    def cost(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
        """Seconds of a call and of an object beyond the first so many; the encoder moves the clock by it."""
        clock = {"now": 0.0, "call": 1.0, "object": 0.01, "slow_above": float("inf"), "room_for": float("inf")}
        monkeypatch.setattr("memlab.device.time.perf_counter", lambda: clock["now"])
        return clock

    def encoder(self, cost: dict[str, float]) -> nn.Module:
        def tick(_: nn.Module, inputs: tuple[Tensor]) -> None:
            size = len(inputs[0])
            if size > cost["room_for"]:
                raise torch.OutOfMemoryError("no room")
            cost["now"] += cost["call"] + cost["object"] * size * (1 if size <= cost["slow_above"] else 9)

        encoder = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5), nn.Linear(4, 3)).double()
        encoder.register_forward_pre_hook(tick)
        return encoder

    @pytest.mark.parametrize(
        ("size", "change", "chunk"),
        [
            (1000, {}, 1000),
            (1000, {"call": 0.0}, 32),
            (1000, {"slow_above": 128}, 128),
            (1000, {"room_for": 300}, 256),
            (20, {}, 20),
        ],
    )
    def test_is_the_smallest_whose_doubling_is_not_worth_it(
        self, cost: dict[str, float], size: int, change: dict[str, float], chunk: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        cost.update(change)
        memory = ChunkedMemory(similarity=Dot(), chunk_size="auto")
        support = random_support(size, num_classes=C)
        with caplog.at_level(logging.INFO):
            memory(self.encoder(cost), torch.randn(B, 3, dtype=torch.float64), support)
        assert memory.chunk_size == chunk
        assert f"chunk_size=auto: {chunk:,}, measured" in caplog.text

    @pytest.mark.filterwarnings("ignore:chunked memory. the encoder has BatchNorm")
    def test_measuring_leaves_no_trace_in_the_results(self) -> None:
        support, query = random_support(M, num_classes=C), torch.randn(B, 3, dtype=torch.float64)
        encoder = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
        before = {name: value.clone() for name, value in encoder.state_dict().items()}
        results = []
        for chunk_size in ("auto", M):
            encoder.load_state_dict(before)
            torch.manual_seed(3)
            loss = ChunkedMemory(similarity=Dot(), chunk_size=chunk_size)(encoder, query, support).exp().sum()
            results.append([loss, *torch.autograd.grad(loss, list(encoder.parameters())), *encoder.buffers()])
            assert all(parameter.grad is None for parameter in encoder.parameters())
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))

    def test_without_gradient_only_the_reading_is_measured(self) -> None:
        memory = ChunkedMemory(similarity=Dot(), chunk_size="auto")
        with torch.no_grad():
            memory(nn.Linear(6, 3).double(), torch.randn(B, 3).double(), random_support(M, num_classes=C))
        assert memory.chunk_size == M


@pytest.mark.parametrize("value", [0, -5, 1.5, "abc", True, None])
def test_chunk_size_must_be_a_whole_number_above_zero_or_auto(value: object) -> None:
    with pytest.raises(ValueError, match=f"chunk_size={value}: must be a whole number of at least 1, or auto"):
        ChunkedMemory(similarity=Dot(), chunk_size=value)  # type: ignore[arg-type]
