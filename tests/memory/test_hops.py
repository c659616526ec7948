"""Hops: the plain loop's value and the gradient of one graph in every mode, with dropout on; none change nothing."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memlab import draws, functional
from memlab.encoders.dropout import Dropout
from memlab.functional.definition import class_read
from memlab.index import ExactIndex
from memlab.memory import (
    ChunkedMemory,
    Cosine,
    Distance,
    Dot,
    Euclidean,
    FullMemory,
    Hops,
    LinearMemory,
    Memory,
    PrototypeMemory,
    ReadAll,
    ReadTopK,
    Similarity,
    StoredKeys,
    TopKMemory,
)
from tests.conftest import random_support

C, M, B, D = 4, 23, 5, 3
EXCLUDE = torch.tensor([3, -1, 22, 0, 7])
SIMILARITIES: dict[str, Callable[[], Similarity]] = {
    "dot": Dot,
    "cosine": lambda: Cosine(scale=7.0, learn_scale=True),
    "euclidean": lambda: Euclidean(scale=0.3, learn_scale=True),
    "distance": lambda: Distance(scale=0.7, learn_scale=True),
}
USUAL: dict[str, Any] = {"values": "object+label", "hop_keys": "tied", "hop_search": "anew", "answer": "read"}
SETTINGS: dict[str, dict[str, Any]] = {
    "label": {"hops": 1, "values": "label"},
    "object+label": {"hops": 2},
    "tabr": {"hops": 2, "values": "tabr"},
    "keys apart": {"hops": 3, "hop_keys": "apart"},
    "tabr, keys apart": {"hops": 2, "values": "tabr", "hop_keys": "apart"},
    "layer": {"hops": 2, "answer": "layer"},
    "layer, keys apart": {"hops": 1, "answer": "layer", "hop_keys": "apart"},
}
DROPPED: dict[str, dict[str, Any]] = {
    "object+label, values dropped": {"hops": 2, "value_dropout": 0.4},
    "tabr, values dropped": {"hops": 2, "values": "tabr", "value_dropout": 0.4},
}


def topk(similarity: Similarity, hops: Hops | None, *, k: int = M, chunk_size: int = 7) -> TopKMemory:
    index = ExactIndex()
    words: dict[str, Any] = {"refresh_every": 1, "refresh_share": 0.2}
    return TopKMemory(similarity=similarity, k=k, index=index, chunk_size=chunk_size, hops=hops, **words)


def chunked(similarity: Similarity, hops: Hops | None, **words: Any) -> ChunkedMemory:
    return ChunkedMemory(similarity=similarity, hops=hops, **{"chunk_size": 7, **words})


MODES: dict[str, Callable[[Similarity, Hops | None], Memory]] = {
    "full": lambda similarity, hops: FullMemory(similarity=similarity, hops=hops),
    "chunked 1": lambda similarity, hops: chunked(similarity, hops, chunk_size=1),
    "chunked 7": chunked,
    "chunked 100": lambda similarity, hops: chunked(similarity, hops, chunk_size=100),
    "chunked 7, two graphs kept": lambda similarity, hops: _keeping(chunked(similarity, hops, activation_budget=1)),
    "topk K = M, chunk 7": topk,
    "topk K = M, chunk 100": lambda similarity, hops: topk(similarity, hops, chunk_size=100),
}


def _keeping(memory: ChunkedMemory) -> ChunkedMemory:
    memory._kept_at_most = 2
    return memory


def hops_of(**words: Any) -> Hops:
    """Prepared, with parameters that are not 0."""
    made = Hops(**{**USUAL, **words})
    made.prepare(embedding_size=D, num_classes=C)
    generator = torch.Generator().manual_seed(4)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) / 2
    return made


class Case:
    """A batch, a support and an encoder with dropout."""

    def __init__(self, mode: str, similarity: str, **hops: Any) -> None:
        torch.manual_seed(0)
        draws.begin_step(5)
        self.hops = hops_of(**hops)
        self.memory = MODES[mode](SIMILARITIES[similarity](), self.hops).double()
        self.encoder: nn.Module = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), Dropout(0.3), nn.Linear(8, D)).double()
        self.support = random_support(M, num_classes=C)
        self.queries = torch.randn(B, 6, dtype=torch.float64)
        self.targets = torch.arange(B) % C

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [*self.encoder.parameters(), *self.memory.parameters()]

    def query(self) -> Tensor:
        with draws.of_objects(torch.arange(100, 100 + B), purpose=draws.ENCODED_QUERIES):
            made: Tensor = self.encoder(self.queries)
            return made

    def keys(self) -> Tensor:
        with draws.of_objects(self.support.ids, purpose=draws.ENCODED_SUPPORT):
            made: Tensor = self.encoder(self.support.inputs())
            return made

    def read(self, exclude: Tensor | None) -> functional.ClassRead:
        return self.memory.read(self.encoder, self.query(), self.support, exclude)


def in_one_graph(
    case: Case, exclude: Tensor | None, *, k: int = M, keep: bool = False, dropped: float = 0.0
) -> functional.ClassRead:
    """The definition of the answer, written with (B, M, D) values and autograd alone."""
    hops, similarity, labels = case.hops, case.memory.similarity, case.support.labels
    reader, keys = case.query(), case.keys()
    read: Tensor | None = None

    def scored(hop_keys: Tensor) -> Tensor:
        nonlocal read
        scores = similarity(reader, hop_keys)
        near = similarity(reader, keys)
        own = None if exclude is None else exclude[:, None] == case.support.ids
        if own is not None:
            scores, near = scores.masked_fill(own, -torch.inf), near.masked_fill(own, -torch.inf)
        if read is None or not keep:
            read = near >= near.sort(descending=True).values[:, k - 1 : k]
        chosen: Tensor = scores.masked_fill(~read, -torch.inf)
        return chosen

    for hop in range(hops.number):
        hop_keys = keys + keys @ hops.key_changes[hop].T / D if hops.has_own_keys else keys
        weights = scored(hop_keys).softmax(1)
        values = hops.class_values[labels].expand(B, M, D)
        if hasattr(hops, "object_values"):
            values = values + keys @ hops.object_values.T / D
        if hasattr(hops, "outer"):
            inner = torch.relu(hops.inner(reader[:, None] - keys))
            values = values + inner @ hops.outer.T / D
        with draws.of_objects(case.support.ids, purpose=draws.READ_VALUES):
            kept = ~draws.dropped(M, 1, p=dropped, device=values.device)
        values = values * kept / (1 - dropped)
        reader = reader + (weights[:, :, None] * values).sum(1)
    if hops.answers_by_layer:
        scores = reader @ hops.answer_keys.T
        return functional.ClassRead(scores, functional.lowest_scores(scores))
    return class_read(scored(keys), labels, C)


def by_plain_loop(case: Case, exclude: list[int]) -> list[list[float]]:
    """Class log-masses of object+label, tied, in plain Python."""
    keys, labels = case.keys().tolist(), case.support.labels.tolist()
    of_object, of_class = case.hops.object_values.tolist(), case.hops.class_values.tolist()
    answers = []
    for u, own in zip(case.query().tolist(), exclude, strict=True):
        others = [i for i in range(M) if i != own]
        for _ in range(case.hops.number):
            weights = _softmax([sum(a * b for a, b in zip(u, keys[i], strict=True)) for i in others])
            moved = list(u)
            for p, i in zip(weights, others, strict=True):
                for d in range(D):
                    value = sum(of_object[d][e] * keys[i][e] for e in range(D)) / D + of_class[labels[i]][d]
                    moved[d] += p * value
            u = moved
        weights = _softmax([sum(a * b for a, b in zip(u, keys[i], strict=True)) for i in others])
        masses = [0.0] * C
        for p, i in zip(weights, others, strict=True):
            masses[labels[i]] += p
        answers.append([math.log(mass) for mass in masses])
    return answers


def _softmax(scores: list[float]) -> list[float]:
    shares = [math.exp(score - max(scores)) for score in scores]
    return [share / math.fsum(shares) for share in shares]


def gradients(case: Case, read: functional.ClassRead) -> list[Tensor]:
    loss = functional.nll(read.class_scores, case.targets, case.memory.similarity.rescaled(read.lowest)).mean()
    found = torch.autograd.grad(loss, case.parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, case.parameters, strict=True)]


@pytest.mark.parametrize("exclude", [None, EXCLUDE], ids=["all", "own row excluded"])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("mode", MODES)
def test_value_and_gradient_are_those_of_one_graph(
    mode: str, similarity: str, setting: str, exclude: Tensor | None
) -> None:
    case = Case(mode, similarity, **SETTINGS[setting])
    expected, found = in_one_graph(case, exclude), case.read(exclude)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.rand(3)  # of no consequence
    torch.testing.assert_close(gradients(case, found), gradients(case, expected), rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("exclude", [None, EXCLUDE], ids=["all", "own row excluded"])
@pytest.mark.parametrize("setting", DROPPED)
@pytest.mark.parametrize("mode", MODES)
def test_values_of_the_same_objects_are_dropped_in_every_mode(mode: str, setting: str, exclude: Tensor | None) -> None:
    case = Case(mode, "distance", **DROPPED[setting])
    expected, found = in_one_graph(case, exclude, dropped=0.4), case.read(exclude)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(case, found), gradients(case, expected), rtol=1e-11, atol=1e-12)
    draws.begin_step(6)
    others = case.read(exclude).class_scores
    assert not torch.allclose(others, found.class_scores)
    case.memory.eval()
    torch.testing.assert_close(case.read(exclude), in_one_graph(case, exclude), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("mode", MODES)
def test_value_is_that_of_the_plain_loop(mode: str, number: int) -> None:
    case = Case(mode, "dot", hops=number)
    expected = torch.tensor(by_plain_loop(case, EXCLUDE.tolist()), dtype=torch.float64)
    found = functional.class_log_mass(case.read(EXCLUDE).class_scores)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_a_query_never_meets_its_own_row(mode: str) -> None:
    """Whatever its object and label are changed to, in any hop, nothing of the answer changes."""
    case = Case(mode, "dot", **SETTINGS["tabr, keys apart"])
    before = case.read(EXCLUDE).class_scores
    case.memory = MODES[mode](Dot(), case.hops).double()  # index vectors are of the objects as they were
    case.support.store.inputs[3] += 5
    case.support.labels[3] = (case.support.labels[3] + 1) % C
    after = case.read(EXCLUDE).class_scores
    torch.testing.assert_close(after[0], before[0], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(after[1], before[1])


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("mode", MODES)
def test_what_is_read_for_the_loss_is_what_class_scores_tell(mode: str, setting: str) -> None:
    case = Case(mode, "euclidean", **SETTINGS[setting])
    labels = torch.arange(M) % 3
    case.support = random_support(M, num_classes=C, labels=labels)
    read = case.read(EXCLUDE)
    own = case.memory.read_own(case.encoder, case.query(), case.support, case.targets, EXCLUDE)
    expected = functional.nll(read.class_scores, case.targets, case.memory.similarity.rescaled(read.lowest))
    torch.testing.assert_close(functional.own_nll(own, num_classes=C), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_more_classes_than_objects(mode: str) -> None:
    losses = []
    for each in (mode, "full"):
        case = Case(each, "dot", hops=2)
        case.support = random_support(M, num_classes=2 * M, labels=torch.arange(M) * 2)
        case.hops.class_values = nn.Parameter(torch.linspace(-1, 1, 2 * M * D).view(2 * M, D).double())
        own = case.memory.read_own(case.encoder, case.query(), case.support, case.support.labels[:B], EXCLUDE)
        losses.append(functional.own_nll(own, num_classes=2 * M))
    torch.testing.assert_close(*losses, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mode", MODES)
def test_order_of_the_support_does_not_matter(mode: str) -> None:
    case = Case(mode, "euclidean", **SETTINGS["tabr, keys apart"])
    before = gradients(case, case.read(EXCLUDE))
    case.support = replace(case.support, rows=torch.randperm(M))
    torch.testing.assert_close(gradients(case, case.read(EXCLUDE)), before, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("mode", ["full", "chunked 7", "topk K = M, chunk 7"])
def test_gradcheck_of_the_queries(mode: str, setting: str) -> None:
    case = Case(mode, "euclidean", **SETTINGS[setting])
    query = case.query().detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda u: case.memory(case.encoder, u, case.support, EXCLUDE), query)


@pytest.mark.parametrize("search", ["anew", "keep"])
@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("chunk_size", [3, 100])
def test_topk_is_one_graph_of_the_nearest(setting: str, search: str, chunk_size: int) -> None:
    case = Case("full", "euclidean", **SETTINGS[setting], hop_search=search)
    case.encoder = nn.Sequential(*(layer for layer in case.encoder.children() if not isinstance(layer, Dropout)))
    case.memory = topk(case.memory.similarity, case.hops, k=4, chunk_size=chunk_size)
    expected = in_one_graph(case, EXCLUDE, k=4, keep=search == "keep")
    found = case.read(EXCLUDE)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients(case, found), gradients(case, expected), rtol=1e-11, atol=1e-12)


def test_searching_anew_reads_other_cells_and_stores_the_keys_of_all() -> None:
    read = []
    for search in ("anew", "keep"):
        case = Case(
            "full", "dot", hops=2, hop_search=search, value_dropout=0.2
        )  # of values, of which keys know nothing
        case.encoder = nn.Linear(6, D).double()
        case.memory = memory = topk(Dot(), case.hops, k=4)
        memory.read(case.encoder, case.query(), case.support)
        with torch.no_grad():
            case.encoder.weight.add_(1)
        case.memory = memory
        memory._refresh.due = lambda **_: 0  # type: ignore[method-assign]
        before = memory.index.vectors.clone()
        memory.read(case.encoder, case.query(), case.support)
        told = memory.after_step()
        changed = (memory.index.vectors != before).any(1)
        keys = case.encoder(case.support.inputs()).detach()
        assert int(changed.sum()) == told["unique_cells"]
        torch.testing.assert_close(memory.index.vectors[changed], keys[changed])
        read.append(int(told["unique_cells"]))
    assert read[0] > read[1]


class TestStored:
    """Reads of stored keys are those of training."""

    def case(self, setting: str, search: str = "anew") -> tuple[Case, StoredKeys]:
        case = Case("full", "euclidean", **SETTINGS[setting], hop_search=search)
        case.encoder.eval()
        words: dict[str, Any] = {"similarity": case.memory.similarity, "support": case.support, "hops": case.hops}
        return case, StoredKeys.encode(encoder=case.encoder, batch_size=10, **words)

    @pytest.mark.parametrize("exclude", [None, EXCLUDE])
    @pytest.mark.parametrize("size", [1, 8, 100])
    @pytest.mark.parametrize("setting", SETTINGS)
    def test_read_all(self, setting: str, exclude: Tensor | None, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        case, stored = self.case(setting)
        tiles = [slice(start, min(start + size, M)) for start in range(0, M, size)]
        monkeypatch.setattr(StoredKeys, "tiles", lambda *_: tiles)
        reading = ReadAll()
        reading.open(stored)
        expected = in_one_graph(case, exclude)
        with torch.no_grad():
            for query in (case.query(), case.query()):  # what is made once serves again
                torch.testing.assert_close(reading.read(query, exclude), expected, rtol=1e-12, atol=1e-12)
        found = reading.read(case.query(), exclude)  # with gradient, of the same keys
        wanted = [*case.hops.parameters()]
        scores = [found.class_scores, in_one_graph(case, exclude).class_scores]
        for_each = [torch.autograd.grad(each.exp().sum(), wanted, allow_unused=True) for each in scores]
        torch.testing.assert_close(*map(list, for_each), rtol=1e-10, atol=1e-12)

    @pytest.mark.parametrize("search", ["anew", "keep"])
    @pytest.mark.parametrize("setting", SETTINGS)
    def test_read_topk(self, setting: str, search: str) -> None:
        case, stored = self.case(setting, search)
        for k in (4, M):
            reading = ReadTopK(k=k, index=ExactIndex())
            reading.open(stored)
            expected = in_one_graph(case, EXCLUDE, k=k, keep=search == "keep")
            torch.testing.assert_close(reading.read(case.query(), EXCLUDE), expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("setting", ["object+label", "layer", "layer, keys apart"])
    def test_evidence_is_of_the_read_that_answers(self, setting: str) -> None:
        case, stored = self.case(setting)
        weights = []

        def noting(scores: Tensor, *words: Any) -> Any:
            weights.append(scores.softmax(1))
            return value_read(scores, *words)

        value_read = functional.value_read
        readings: list[ReadAll] = [ReadAll(), ReadTopK(k=M, index=ExactIndex())]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(functional, "value_read", noting)
            case.memory.read(case.encoder, case.query(), case.support, EXCLUDE)
        if case.hops.answers_by_layer:
            expected = weights[-1]
        else:
            scores = case.memory.similarity(self.reader(case), case.keys())
            expected = functional.exclude_rows(scores, case.support.ids, EXCLUDE).softmax(1)
        for reading in readings:
            reading.open(stored)
            read, evidence = reading.read_with_evidence(case.query(), k=6, exclude=EXCLUDE)
            torch.testing.assert_close(read, in_one_graph(case, EXCLUDE), rtol=1e-12, atol=1e-12)
            best = expected.sort(descending=True)
            torch.testing.assert_close(evidence.weights, best.values[:, :6], rtol=1e-11, atol=1e-12)
            assert torch.equal(evidence.ids, best.indices[:, :6])

    @pytest.mark.parametrize("exclude", [None, EXCLUDE])
    @pytest.mark.parametrize("setting", SETTINGS)
    def test_evidence_of_hops_are_the_weights_of_each(self, setting: str, exclude: Tensor | None) -> None:
        case, stored = self.case(setting)
        weights: list[Tensor] = []

        def noting(scores: Tensor, *words: Any) -> Any:
            weights.append(scores.softmax(1))
            return value_read(scores, *words)

        value_read = functional.value_read
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(functional, "value_read", noting)
            case.memory.read(case.encoder, case.query(), case.support, exclude)
        expected = weights[:-1] if case.hops.answers_by_layer else weights
        readings: list[ReadAll] = [ReadAll(), ReadTopK(k=M, index=ExactIndex())]
        for reading in readings:
            reading.open(stored)
            found = reading.evidence_of_hops(case.query(), k=6, exclude=exclude)
            assert len(found) == len(expected)
            for evidence, of_all in zip(found, expected, strict=True):
                best = of_all.sort(descending=True)
                torch.testing.assert_close(evidence.weights, best.values[:, :6], rtol=1e-11, atol=1e-12)
                assert torch.equal(evidence.ids, best.indices[:, :6])
                assert torch.equal(evidence.labels, case.support.labels[evidence.ids])

    def test_without_hops_there_is_no_evidence_of_any(self) -> None:
        _, stored = self.case("label")
        readings: list[ReadAll] = [ReadAll(), ReadTopK(k=4, index=ExactIndex())]
        for reading in readings:
            reading.open(replace(stored, hops=None))
            assert reading.evidence_of_hops(torch.randn(B, D).double(), k=2) == ()

    def reader(self, case: Case) -> Tensor:
        keys = case.keys()
        values = case.hops.values(keys, case.support.labels, case.support.ids)

        def read(_: int, u: Tensor) -> functional.ValueRead:
            scores = functional.exclude_rows(case.memory.similarity(u, keys), case.support.ids, EXCLUDE)
            return functional.value_read(scores, values, case.hops.origins(u))

        return case.hops.path(case.query(), read)[-1]


class TestWithoutHops:
    @pytest.mark.parametrize("mode", MODES)
    def test_no_parameter_is_made(self, mode: str) -> None:
        memory = MODES[mode](Dot(), None)
        memory.prepare(embedding_size=D, num_classes=C)
        assert not list(memory.parameters())
        assert not memory.state_dict()

    @pytest.mark.parametrize("setting", [name for name in SETTINGS if "layer" not in name])
    @pytest.mark.parametrize("mode", MODES)
    def test_training_starts_from_what_is_read_without(self, mode: str, setting: str) -> None:
        case = Case(mode, "euclidean", **SETTINGS[setting])
        hops = Hops(**{**USUAL, **SETTINGS[setting]})
        hops.prepare(embedding_size=D, num_classes=C)
        case.memory = MODES[mode](Euclidean(scale=0.3), hops).double()
        none = MODES[mode](Euclidean(scale=0.3), None).double()
        expected = none.read(case.encoder, case.query(), case.support, EXCLUDE)
        torch.testing.assert_close(case.read(EXCLUDE), expected, rtol=1e-12, atol=1e-12)
        loss = case.read(EXCLUDE).class_scores.exp().sum()
        found = torch.autograd.grad(loss, list(hops.parameters()), allow_unused=True)
        assert any(each is not None and bool(each.abs().max() > 0) for each in found)


def test_autocast_reaches_the_encoder_and_no_hop() -> None:
    results = []
    for mode in ("full", "chunked 7", "topk K = M, chunk 7"):
        case = Case(mode, "euclidean", **SETTINGS["tabr, keys apart"])
        case.encoder, case.memory, case.support.dtype = case.encoder.float(), case.memory.float(), torch.float32
        case.queries = case.queries.float()
        with torch.autocast("cpu", torch.bfloat16):
            assert case.keys().dtype is torch.bfloat16
            read = case.read(EXCLUDE)
        assert read.class_scores.dtype is torch.float32
        results.append([read.class_scores, torch.cat([each.flatten() for each in gradients(case, read)])])
    for found in results[1:]:
        for one, other in zip(found, results[0], strict=True):
            assert (one - other).norm() <= 0.01 * other.norm()  # sums of chunks are rounded to bfloat16 apart


def test_what_is_learned_is_in_the_state_dict() -> None:
    case, other = (Case("chunked 7", "cosine", **SETTINGS["tabr, keys apart"]) for _ in range(2))
    with torch.no_grad():
        for parameter in other.memory.parameters():
            parameter.add_(1)
    assert not torch.equal(case.read(None).class_scores, other.read(None).class_scores)
    other.memory.load_state_dict(copy.deepcopy(case.memory.state_dict()))
    assert torch.equal(case.read(None).class_scores, other.read(None).class_scores)


@pytest.mark.filterwarnings("ignore:chunked memory. the encoder has BatchNorm")
@pytest.mark.parametrize("kept", [0, 1, 9])
def test_layers_that_draw_and_count_by_themselves_see_each_chunk_once(kept: int) -> None:
    """Dropout that knows no objects meets the same numbers again; running statistics change the first time alone."""
    support, query = random_support(M, num_classes=C), torch.randn(B, D, dtype=torch.float64)
    encoder = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, D)).double()
    other, hops = copy.deepcopy(encoder), hops_of(hops=2)
    memory = chunked(Dot(), hops, activation_budget=1)
    memory._kept_at_most = kept
    torch.manual_seed(3)
    found = memory(encoder, query, support)
    torch.rand(7)
    state = torch.get_rng_state()
    gradients = torch.autograd.grad(found.log_softmax(1).sum(), list(encoder.parameters()))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(3)
    keys = torch.cat([other(support.inputs(slice(at, at + 7))) for at in range(0, M, 7)])
    values = hops.values(keys, support.labels, support.ids)
    reader = hops.path(query, lambda _, u: functional.value_read(u @ keys.T, values))[-1]
    expected = functional.class_scores(reader @ keys.T, support.labels, C)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    wanted = torch.autograd.grad(expected.log_softmax(1).sum(), list(other.parameters()))
    torch.testing.assert_close(gradients, wanted, rtol=1e-10, atol=1e-11)
    for mine, theirs in zip(encoder.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs)


class Noting(nn.Module):
    """How many objects are encoded at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, D).double()
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        made: Tensor = self.linear(x)
        return made


@pytest.mark.parametrize(("kept", "again"), [(0, [7, 7, 7, 2]), (1, [7, 7, 7]), (9, [])])
def test_chunked_encodes_each_object_twice_however_many_hops_there_are(kept: int, again: list[int]) -> None:
    encoder, memory = Noting(), chunked(Dot(), hops_of(hops=4), activation_budget=1)
    memory._kept_at_most = kept
    query = torch.randn(B, D, dtype=torch.float64)
    memory(encoder, query, random_support(M, num_classes=C)).sum().backward()
    assert encoder.seen == [7, 7, 7, 2, *again]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"hops": 0}, "hops=0: must be a whole number of at least 1"),
        ({"hops": 1.5}, "hops=1.5: must be a whole number"),
        ({"hops": 1, "values": "both"}, "values=both: must be one of label, object.label, tabr"),
        ({"hops": 1, "value_dropout": 1}, "value_dropout=1: must be a number of at least 0 and below 1"),
        ({"hops": 1, "hop_keys": "own"}, "hop_keys=own: must be one of tied, apart"),
        ({"hops": 1, "hop_search": "once"}, "hop_search=once: must be one of anew, keep"),
        ({"hops": 1, "answer": "vote"}, "answer=vote: must be one of read, layer"),
    ],
)
def test_refuses_bad_settings(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        hops_of(**words)


@pytest.mark.parametrize("kind", [LinearMemory, PrototypeMemory])
def test_keys_of_classes_have_no_hops(kind: Callable[..., Memory]) -> None:
    with pytest.raises(ValueError, match=r"hops=2: must be 0 with \w+Memory; full, chunked and topk have hops"):
        kind(similarity=Dot(), hops=hops_of(hops=2))
