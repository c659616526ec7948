"""Top-K memory: full over the cells read, stored keys that are as old as they may be, steps that repeat exactly.

That it is full at K = M is in test_memory.py, with the other modes.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from memlab import functional
from memlab.data.support import Support
from memlab.encoders import MLP
from memlab.encoders.dropout import Dropout
from memlab.index import ExactIndex, HNSWIndex, Index, IVFIndex
from memlab.memory import FullMemory, TopKMemory
from memlab.memory.similarity import Cosine, Distance, Dot, Euclidean, Similarity
from tests.conftest import random_support

C, M, B = 4, 40, 6
SIMILARITIES: dict[str, Callable[[], Similarity]] = {
    "dot": Dot,
    "cosine": lambda: Cosine(scale=7.0, learn_scale=True),
    "euclidean": lambda: Euclidean(scale=0.3, learn_scale=True),
    "distance": lambda: Distance(scale=0.7, learn_scale=True),
}
EXCLUDE = torch.tensor([3, -1, 22, 0, 7, 7])
RANDOM_LAYERS: dict[str, Callable[[], nn.Module]] = {
    "none": nn.Identity,
    "dropout": lambda: nn.Dropout(0.5),
    "dropout of memlab": lambda: Dropout(0.5),
    "alpha dropout": lambda: nn.AlphaDropout(0.2),
    "stochastic depth": lambda: StochasticDepth(0.5, "batch"),
    "batch norm": lambda: nn.BatchNorm1d(8),
}


def topk(similarity: Similarity | None = None, **words: Any) -> TopKMemory:
    settings = {"k": 5, "index": ExactIndex(), "chunk_size": 100, "refresh_every": 1, "refresh_share": 0.2, **words}
    return TopKMemory(similarity=similarity or Dot(), **settings).double()


class Counting(nn.Module):
    """A linear encoder that tells how many objects it was given in each call, and in which mode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(6, 3).double()
        self.seen: list[tuple[int, bool]] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append((len(x), self.training))
        keys: Tensor = self.linear(x)
        return keys

    def in_evaluation(self) -> list[int]:
        """Objects encoded for storing, call by call."""
        return [size for size, training in self.seen if not training]


def queries() -> Tensor:
    return torch.randn(B, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def step(memory: TopKMemory, encoder: nn.Module, support: Support) -> dict[str, Tensor | float]:
    """A training step that moves the encoder a little."""
    loss = functional.nll(memory(encoder, encoder(queries()), support), torch.arange(B) % C).mean()
    parameters = list(encoder.parameters())
    with torch.no_grad():
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.sub_(0.1 * gradient)
    return memory.after_step()


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("k", [1, 5, M - 1])
@pytest.mark.parametrize("chunk_size", [3, 100])
@pytest.mark.parametrize("exclude", [None, EXCLUDE])
def test_is_full_restricted_to_the_nearest(similarity: str, k: int, chunk_size: int, exclude: Tensor | None) -> None:
    support, encoder = random_support(M, num_classes=C), nn.Linear(6, 3).double()
    memory = topk(SIMILARITIES[similarity](), k=k, chunk_size=chunk_size)
    wanted = [*encoder.parameters(), *memory.parameters()]
    query, keys = encoder(queries()), encoder(support.inputs())
    scores = memory.similarity(query, keys)
    if exclude is not None:
        scores = functional.exclude_rows(scores, support.ids, exclude)
    last = scores.sort(dim=1, descending=True).values[:, k - 1 : k]
    scores = scores.masked_fill(scores < last, -torch.inf)
    expected = functional.class_scores(scores, support.labels, C)
    found = memory(encoder, encoder(queries()), support, exclude)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    targets = torch.arange(B) % C
    gradients = [
        torch.cat([part.flatten() for part in torch.autograd.grad(functional.nll(each, targets).mean(), wanted)])
        for each in (found, expected)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("make", [ExactIndex, lambda: IVFIndex(lists=4, probes=4)])
def test_drifting_keys_change_what_is_found_and_not_how_it_is_read(make: Callable[[], Index]) -> None:
    """The search is on keys of an encoder that has gone; the values and gradients are of the encoder as it is."""
    if make is not ExactIndex:
        pytest.importorskip("faiss")
    support, encoder = random_support(M, num_classes=C), Counting()
    memory = topk(index=make(), refresh_every=100)
    step(memory, encoder, support)
    stale = memory.index.vectors.clone()
    with torch.no_grad():
        encoder.linear.weight += torch.randn(3, 6, generator=torch.Generator().manual_seed(3)).double()
        query, keys = encoder(queries()), encoder(support.inputs())
        nearest = (query @ stale.T).topk(5, dim=1).indices
        read = torch.zeros(B, M, dtype=torch.bool).scatter_(1, nearest, True)
        scores = (query @ keys.T).masked_fill(~read, -torch.inf)
        assert not torch.equal(nearest, (query @ keys.T).topk(5, dim=1).indices)
    found = memory(encoder, encoder(queries()), support)
    torch.testing.assert_close(found, functional.class_scores(scores, support.labels, C))


class TestStoredKeys:
    def test_all_are_encoded_anew_every_so_many_steps_as_in_evaluation(self) -> None:
        support, encoder = random_support(M, num_classes=C), Counting()
        memory = topk(refresh_every=3, chunk_size=25)
        when = []
        for number in range(8):
            before = len(encoder.in_evaluation())
            step(memory, encoder, support)
            if encoder.in_evaluation()[before:]:
                assert encoder.in_evaluation()[before:] == [25, 15]
                when.append(number)
        assert when == [0, 3, 6]
        assert encoder.training

    @pytest.mark.parametrize("max_age", [1, 2, 7, 39, 40, 100])
    def test_none_is_older_than_allowed_and_no_more_are_encoded_than_that_takes(self, max_age: int) -> None:
        support, encoder = random_support(M, num_classes=C), Counting()
        memory = topk(refresh_every=None, max_age=max_age)
        oldest = [float(step(memory, encoder, support)["key_age_max"]) for _ in range(3 * max_age)]
        assert max(oldest) <= max_age
        first, *slices = encoder.in_evaluation()
        assert first == M
        assert max(slices, default=0) <= -(-M // max_age)

    def test_keys_encoded_in_a_step_are_stored_when_it_is_over(self) -> None:
        support, encoder = random_support(M, num_classes=C), Counting()
        memory = topk(refresh_every=100)
        memory(encoder, encoder(queries()), support)
        before = memory.index.vectors.clone()
        with torch.no_grad():
            encoder.linear.weight += 1
            keys = encoder(support.inputs())
            nearest = (encoder(queries()) @ before.T).topk(5, dim=1).indices.unique()
        memory(encoder, encoder(queries()), support)
        assert torch.equal(memory.index.vectors, before)  # a step that is computed again searches the same
        told = memory.after_step()
        read = torch.zeros(M, dtype=torch.bool).index_fill_(0, nearest, True)
        torch.testing.assert_close(memory.index.vectors[read], keys[read])
        assert torch.equal(memory.index.vectors[~read], before[~read])
        assert told["unique_cells"] == len(nearest)

    @pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.9])
    def test_a_share_of_what_steps_encode_goes_into_refreshing_in_turn(self, share: float) -> None:
        support, encoder = random_support(M, num_classes=C), Counting()
        memory = topk(refresh_every="auto", refresh_share=share)
        trained = 0.0
        for _ in range(30):
            trained += 3 * (float(step(memory, encoder, support)["unique_cells"]) + B)
        first, *again = encoder.in_evaluation()
        last = 3 * (M + B) * share / (1 - share)  # at most: what the last step has paid for is still due
        assert first == M
        assert sum(again) <= share / (1 - share) * trained + 1e-9
        assert sum(again) >= min(share / (1 - share) * trained - last - 1, 29 * M)
        turns = sum(again) // M
        if turns:
            assert memory._vectors is not None
            assert (memory._vectors.step - memory._vectors.encoded_at).max() <= -(-30 // turns) + 1

    def test_ages_are_steps_since_a_key_was_encoded(self) -> None:
        support, encoder = random_support(M, num_classes=C), Counting()
        memory = topk(refresh_every=4)
        told = [step(memory, encoder, support) for _ in range(5)]
        assert [float(each["key_age_max"]) for each in told] == [0, 1, 2, 3, 0]
        unread = M - float(told[0]["unique_cells"])
        assert float(told[1]["key_age_mean"]) == 1  # those stored after step 0 are of step 0 too
        assert float(told[2]["key_age_mean"]) == pytest.approx(2 - float(told[1]["unique_cells"]) / M)
        assert unread > 0
        assert all(0 < float(each["refresh_share"]) < 1 for each in told)

    @pytest.mark.filterwarnings("ignore:.*BatchNorm.*")
    @pytest.mark.parametrize("layer", RANDOM_LAYERS)
    @pytest.mark.parametrize("chunk_size", [7, 100])
    def test_are_those_of_evaluation_whatever_layers_do_in_training(self, layer: str, chunk_size: int) -> None:
        """With a frozen encoder no key is ever stale, so that the search finds what it would among fresh keys."""
        support = random_support(M, num_classes=C)
        encoder = nn.Sequential(nn.Linear(6, 8), RANDOM_LAYERS[layer](), nn.Linear(8, 3)).double()
        memory = topk(refresh_every=100, chunk_size=chunk_size)
        for number in range(5):
            torch.manual_seed(number)
            memory(encoder, encoder(queries()), support, EXCLUDE)
            memory.after_step()
        encoder.eval()
        with torch.no_grad():
            keys, query = encoder(support.inputs()), encoder(queries())
        # BatchNorm's statistics move with what is encoded in training: its keys are of the time of the last refresh
        if layer != "batch norm":
            torch.testing.assert_close(memory.index.vectors, keys, rtol=1e-12, atol=1e-12)
            assert memory.recall(query, keys, support.ids) == 1
        assert memory._vectors is not None
        assert memory._vectors.encoded_at.eq(0).all() != (layer == "none")

    def test_keys_of_augmented_objects_are_not_stored(self) -> None:
        support = replace(random_support(M, num_classes=C), augmentation=lambda x: x + 100)
        encoder = Counting()
        memory = topk(refresh_every=100)
        memory(encoder, encoder(queries()), support)
        memory.after_step()
        with torch.no_grad():
            torch.testing.assert_close(memory.index.vectors, encoder(support.inputs_as_they_are()))

    def test_storing_leaves_layers_and_random_numbers_as_they_were(self) -> None:
        support = random_support(M, num_classes=C)
        encoder = MLP(input_shape=(6,), embedding_size=3, hidden_sizes=[8], dropout=0.5).double()
        encoder.trunk.get_submodule("1").eval()  # frozen by its owner
        memory = topk(refresh_every=1)
        query = encoder(queries())
        state = torch.get_rng_state()
        memory._bring_up_to_date(encoder, support)
        assert torch.equal(torch.get_rng_state(), state)
        assert [layer.training for layer in encoder.trunk.children()] == [True, False, True, True]
        encoder.eval()
        torch.testing.assert_close(memory.index.vectors, encoder(support.inputs()).detach())
        assert query.requires_grad

    def test_a_step_computed_again_counts_once(self) -> None:
        support, encoder = random_support(M, num_classes=C), Counting()
        memory = topk(refresh_every=2)
        for _ in range(3):
            for _ in range(2):
                memory(encoder, encoder(queries()), support)
            memory.after_step()
        assert encoder.in_evaluation() == [M, M]

    def test_another_support_is_stored_anew(self) -> None:
        encoder, memory = Counting(), topk(refresh_every=100)
        for size in (M, M, 30):
            step(memory, encoder, random_support(size, num_classes=C))
        assert encoder.in_evaluation() == [M, 30]

    def test_recall_is_the_share_of_the_nearest_fresh_keys_that_is_found(self) -> None:
        support, encoder, memory = random_support(M, num_classes=C), Counting(), topk(refresh_every=100)
        fresh = torch.randn(M, 3, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
        query = encoder(queries()).detach()
        assert memory.recall(query, fresh, support.ids) is None
        step(memory, encoder, support)
        stale = memory.index.vectors
        found, nearest = ((query @ keys.T).topk(5, dim=1).indices.tolist() for keys in (stale, fresh))
        shared = [len(set(a) & set(b)) / 5 for a, b in zip(found, nearest, strict=True)]
        order = torch.randperm(M, generator=torch.Generator().manual_seed(9))
        for by in (torch.arange(M), order):  # keys may lie in another order than the index vectors
            recall = memory.recall(query, fresh[by], support.ids[by])
            assert recall is not None
            assert float(recall) == pytest.approx(sum(shared) / B)
        assert float(memory.recall(query, stale.clone(), support.ids)) == 1  # type: ignore[arg-type]
        assert memory.recall(query, fresh[:-1], support.ids[:-1]) is None


@pytest.mark.parametrize("make", [ExactIndex, lambda: IVFIndex(lists="auto", probes=2)])
@pytest.mark.parametrize(
    "policy",
    [{"refresh_every": 4}, {"refresh_every": None, "max_age": 3}, {"refresh_every": "auto", "refresh_share": 0.1}],
    ids=str,
)
@pytest.mark.parametrize("at", [1, 4, 5])
def test_goes_on_from_its_state_as_if_never_interrupted(
    make: Callable[[], Index], policy: dict[str, Any], at: int
) -> None:
    if make is not ExactIndex:
        pytest.importorskip("faiss")
    support, encoder, memory = random_support(M, num_classes=C), Counting(), topk(index=make(), **policy)
    results, ages = [], []
    for number in range(9):
        if number == at:
            state = copy.deepcopy(memory.state())
            weights = {name: value.clone() for name, value in encoder.state_dict().items()}
        told = step(memory, encoder, support)
        if number >= at:
            ages.append(torch.as_tensor(told["key_age_mean"]))
    results.append([*encoder.parameters(), memory.index.vectors, *ages])
    encoder, memory = Counting(), topk(index=make(), **policy)
    encoder.load_state_dict(weights)
    memory.restore(state)
    assert memory.state() is state  # saved again before anything was read, nothing is lost
    ages = []
    for _ in range(at, 9):
        told = step(memory, encoder, random_support(M, num_classes=C))
        ages.append(torch.as_tensor(told["key_age_mean"]))
    results.append([*encoder.parameters(), memory.index.vectors, *ages])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("make", [ExactIndex, lambda: IVFIndex(lists="auto", probes=2)])
@pytest.mark.parametrize("chunk_size", [7, 100])
def test_two_runs_are_equal_to_the_bit(make: Callable[[], Index], chunk_size: int) -> None:
    if make is not ExactIndex:
        pytest.importorskip("faiss")
    runs = []
    for _ in range(2):
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.5), nn.Linear(8, 3)).double()
        memory = topk(Cosine(scale=7.0), index=make(), chunk_size=chunk_size, refresh_every=3)
        for _ in range(7):
            step(memory, encoder, random_support(M, num_classes=C))
        runs.append([*encoder.parameters(), memory.index.vectors])
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("similarity", [Dot, Euclidean])
def test_goes_on_with_another_index(similarity: Callable[[], Similarity]) -> None:
    pytest.importorskip("faiss")
    kinds: list[Callable[[], Index]] = [ExactIndex, lambda: IVFIndex(lists=4, probes=4)]
    for before, after in (kinds, kinds[::-1]):
        support, encoder = random_support(M, num_classes=C), Counting()
        memory = topk(similarity(), index=before(), refresh_every=100)
        for _ in range(3):
            step(memory, encoder, support)
        other = topk(similarity(), index=after(), refresh_every=100)
        other.restore(copy.deepcopy(memory.state()))
        results = [each(encoder, encoder(queries()), support) for each in (memory, other)]
        assert torch.equal(*results)
        assert encoder.in_evaluation() == [M]
        told = [each.after_step() for each in (memory, other)]
        assert told[0]["key_age_mean"] == told[1]["key_age_mean"]


def test_a_state_of_other_objects_is_not_used() -> None:
    encoder, memory = Counting(), topk(refresh_every=100)
    step(memory, encoder, random_support(M, num_classes=C))
    state = memory.state()
    other = topk(refresh_every=100)
    other.restore(state)
    step(other, encoder, random_support(M, num_classes=C, seed=1).of(torch.arange(30)))
    assert len(other.index) == 30
    FullMemory(similarity=Dot()).restore(state)  # of no use to it, and no harm


def test_a_query_none_of_whose_cells_has_its_class_pushes_them_away() -> None:
    support, encoder = random_support(M, num_classes=C, labels=torch.zeros(M, dtype=torch.int64)), Counting()
    memory = topk()
    query = encoder(queries())
    query.retain_grad()
    class_scores = memory(encoder, query, support)
    targets = torch.ones(B, dtype=torch.int64)
    assert class_scores[:, 1].isneginf().all()
    functional.nll(class_scores, targets).sum().backward()
    with torch.no_grad():
        moved = query - 1e-3 * query.grad
        read = (query @ memory.index.vectors.T).topk(5, dim=1).indices
        keys = memory.index.vectors[read]
        before, after = ((keys @ each[:, :, None]).squeeze(-1).logsumexp(1) for each in (query, moved))
        assert (after < before).all()


def test_nothing_but_its_own_row_to_read_is_told_as_nothing_read() -> None:
    support, encoder = random_support(1, num_classes=1), Counting()
    class_scores = topk()(encoder, encoder(queries()[:1]), support, torch.tensor([0]))
    assert class_scores.tolist() == [[-torch.inf]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"k": 0}, "k=0: must be a whole number of at least 1"),
        ({"k": 1.5}, "k=1.5: must be a whole number"),
        ({"chunk_size": "auto"}, "chunk_size=auto: must be a whole number"),
        ({"refresh_every": 0}, "refresh_every=0: must be a whole number"),
        ({"refresh_every": None, "max_age": 0}, "max_age=0: must be a whole number"),
        ({"refresh_every": "auto", "refresh_share": 1}, "refresh_share=1: must be a number above 0 and below 1"),
        ({"refresh_every": None}, r"refresh_every=None: must be given, or max_age \(it is None\), one of the two"),
        ({"max_age": 3}, r"refresh_every=1: must be given, or max_age \(it is 3\), one of the two"),
    ],
)
def test_refuses_bad_settings(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topk(**words)


def test_refuses_a_graph_in_training_and_says_why() -> None:
    pytest.importorskip("faiss")
    with pytest.raises(ValueError, match=r"index=HNSWIndex: must be exact or ivf in training.* several insertions"):
        topk(index=HNSWIndex(links=8, candidates=8))


def test_warns_of_batch_norm_once() -> None:
    encoder = nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3)).double()
    memory, support = topk(), random_support(M, num_classes=C)
    with pytest.warns(UserWarning, match=r"topk memory: the encoder has BatchNorm \(1\)"):
        step(memory, encoder, support)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(memory, encoder, support)
