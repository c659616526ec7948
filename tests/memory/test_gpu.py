"""The same reads on a GPU: values and gradients of a CPU, equal bits every time, and no step that waits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from memlab import draws, functional
from memlab.data.augmentation import RandomAffine
from memlab.data.support import Support
from memlab.encoders.dropout import Dropout
from memlab.index import ExactIndex, HNSWIndex, Index, IVFIndex
from memlab.memory import ChunkedMemory, FullMemory, Memory, PrototypeMemory, TopKMemory
from memlab.memory.similarity import Cosine, Distance, Dot, Euclidean, Similarity
from memlab.memory.stored_keys import StoredKeys
from tests.conftest import SMOKE, Outcome, random_support

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

M, B = 600, 40
SIMILARITIES: dict[str, Callable[[], Similarity]] = {
    "dot": Dot,
    "cosine": lambda: Cosine(scale=7.0, learn_scale=True),
    "euclidean": lambda: Euclidean(scale=0.3, learn_scale=True),
    "distance": lambda: Distance(scale=0.7, learn_scale=True),
}


def memories(similarity: Similarity) -> dict[str, Memory]:
    def topk(k: int, chunk_size: int) -> TopKMemory:
        return TopKMemory(
            similarity=similarity, k=k, index=ExactIndex(), chunk_size=chunk_size, refresh_every=1, refresh_share=0.2
        )

    return {
        "full": FullMemory(similarity=similarity),
        "chunked": ChunkedMemory(similarity=similarity, chunk_size=70),
        "chunked, graphs kept": ChunkedMemory(similarity=similarity, chunk_size=70, activation_budget=2**40),
        "topk": topk(12, 1000),
        "topk in chunks": topk(12, 100),
        "topk K = M": topk(M, 1000),
        "prototypes": PrototypeMemory(similarity=similarity),
    }


MODES = list(memories(Dot()))


class Step:
    """A step on a device, with dropout and augmentation: its loss and the gradients of all parameters."""

    def __init__(self, mode: str, similarity: str, *, device: str, dtype: torch.dtype, classes: int = 7) -> None:
        torch.manual_seed(0)
        layers = (nn.Flatten(), nn.Linear(64, 32), nn.Tanh(), Dropout(0.3), nn.Linear(32, 16))
        self.encoder: nn.Module = nn.Sequential(*layers).to(device, dtype)
        self.memory = memories(SIMILARITIES[similarity]())[mode]
        self.memory.prepare(embedding_size=16, num_classes=classes)
        self.memory.to(device, dtype)
        support = random_support(M, num_classes=classes, shape=(1, 8, 8))
        support.store.place(inputs_on=torch.device(device), compute_on=torch.device(device))
        augmentation = RandomAffine(degrees=10, translate=0.1, scale=0.1)
        self.support = Support(support.store, support.rows.to(device), dtype, augmentation)
        self.queries = torch.randn(B, 1, 8, 8, generator=torch.Generator().manual_seed(1)).to(device, dtype)
        self.targets = (torch.arange(B) % classes).to(device)
        self.exclude = torch.arange(B).sub(3).clamp(min=-1).to(device)

    def loss(self) -> Tensor:
        draws.begin_step(5)
        with draws.of_objects(self.exclude, purpose=draws.ENCODED_QUERIES):
            query = self.encoder(self.queries)
        own = self.memory.read_own(self.encoder, query, self.support, self.targets, self.exclude)
        return functional.own_nll(own, num_classes=self.support.num_classes).mean()

    def results(self) -> list[Tensor]:
        loss = self.loss()
        gradients = torch.autograd.grad(loss, [*self.encoder.parameters(), *self.memory.parameters()])
        return [each.detach().cpu() for each in (loss, *gradients)]


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("classes", [2, 7, 150])
def test_loss_and_gradients_are_those_of_a_cpu(mode: str, similarity: str, classes: int) -> None:
    on_cpu, on_gpu = (
        Step(mode, similarity, device=device, dtype=torch.float64, classes=classes).results()
        for device in ("cpu", "cuda")
    )
    for found, wanted in zip(on_gpu, on_cpu, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("classes", [7, 150])
def test_a_step_gives_the_same_bits_every_time(mode: str, similarity: str, classes: int) -> None:
    first, *others = (
        Step(mode, similarity, device="cuda", dtype=torch.float32, classes=classes).results() for _ in range(5)
    )
    for other in others:
        assert all(map(torch.equal, first, other))


@contextmanager
def nothing_waits() -> Iterator[None]:
    """Within this context an operation that waits for the GPU is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("mode", ["full", "chunked", "prototypes"])
def test_a_step_does_not_wait_for_the_gpu(mode: str, similarity: str) -> None:
    """A topk does: it must know how many cells to encode."""
    step = Step(mode, similarity, device="cuda", dtype=torch.float32)
    step.loss().backward()  # what is done once is done
    with nothing_waits():
        step.loss().backward()


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("classes", [2, 10, 3000])
@pytest.mark.parametrize("is_sorted", [True, False])
class TestStoredKeys:
    def stored(self, similarity: str, classes: int, is_sorted: bool, *, device: str, dtype: torch.dtype) -> StoredKeys:
        generator = torch.Generator().manual_seed(0)
        keys, labels = torch.randn(5000, 24, generator=generator), torch.randint(classes, (5000,), generator=generator)
        labels = labels.sort().values if is_sorted else labels
        kind = SIMILARITIES[similarity]().to(device, dtype)
        return StoredKeys(keys.to(device, dtype), labels.to(device), torch.arange(5000).to(device), classes, kind)

    def queries(self, *, device: str, dtype: torch.dtype) -> Tensor:
        return torch.randn(30, 24, generator=torch.Generator().manual_seed(1)).to(device, dtype)

    def test_reads_are_those_of_a_cpu(self, similarity: str, classes: int, is_sorted: bool) -> None:
        results = []
        for device in ("cpu", "cuda"):
            stored = self.stored(similarity, classes, is_sorted, device=device, dtype=torch.float64)
            query = self.queries(device=device, dtype=torch.float64).requires_grad_()
            keys = stored.keys.requires_grad_()
            read = replace(stored, keys=keys).read(query, torch.arange(30, device=device))
            present = read.class_scores.masked_fill(read.class_scores.isneginf(), 0)
            gradients = torch.autograd.grad(present.square().sum(), [query, keys])
            with torch.no_grad():
                strongest = stored.read_with_strongest(query, 9)[1]
            results.append([each.cpu() for each in (*read, *gradients, strongest.places)])
        for found, wanted in zip(*results, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-10)

    def test_reads_give_the_same_bits_every_time(self, similarity: str, classes: int, is_sorted: bool) -> None:
        stored = self.stored(similarity, classes, is_sorted, device="cuda", dtype=torch.float32)
        query = self.queries(device="cuda", dtype=torch.float32)
        first, *others = (stored.read(query).class_scores for _ in range(5))
        assert all(torch.equal(first, other) for other in others)

    def test_far_classes_are_as_exact_as_in_float64(self, similarity: str, classes: int, is_sorted: bool) -> None:
        single, double = (
            self.stored(similarity, classes, is_sorted, device="cuda", dtype=dtype).read(
                self.queries(device="cuda", dtype=dtype)
            )
            for dtype in (torch.float32, torch.float64)
        )
        torch.testing.assert_close(single.class_scores.double(), double.class_scores, rtol=1e-5, atol=2e-5)


INDEXES: dict[str, Callable[[], Index]] = {
    "exact": ExactIndex,
    "ivf": lambda: IVFIndex(lists=4, probes=4),
    "hnsw": lambda: HNSWIndex(links=32, candidates=500),
}


@pytest.mark.parametrize("metric", ["L2", "inner product"])
@pytest.mark.parametrize("kind", INDEXES)
def test_an_index_finds_on_a_gpu_what_it_finds_on_a_cpu(kind: str, metric: str) -> None:
    """Also when vectors have changed and some are gone."""
    pytest.importorskip("faiss")
    generator = torch.Generator().manual_seed(0)
    vectors, changed, queries = (torch.randn(n, 8, generator=generator) for n in (500, 40, 20))
    results = []
    for device in ("cpu", "cuda"):
        index = INDEXES[kind]()
        index.build(vectors.to(device), metric=metric)
        index.update(torch.arange(40, device=device), changed.to(device))
        index.remove(torch.arange(30, 60, device=device))
        results.append(index.search(queries.to(device), 7).cpu())
    assert torch.equal(*results)


def test_a_run_on_a_gpu_leaves_all_that_a_run_leaves(command: Callable[..., Outcome]) -> None:
    """Lightning moves the model to the CPU after a test, and what follows encodes more."""
    words = ("memory=topk", "memory/index=ivf", "encoder.dropout=0.2", "encoder=mlp", "figures=true")
    outcome = command(*SMOKE, *words, "hydra.run.dir=run", "trainer.accelerator=gpu")
    assert outcome.status == 0, outcome.err
    assert {"results.json", "memory", "figures"} <= {path.name for path in (outcome.folder / "run").iterdir()}
