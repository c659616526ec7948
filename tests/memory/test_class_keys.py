"""One key for each class: a softmax layer, and class means."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from memlab.data.support import Support
from memlab.functional import nll
from memlab.memory import FullMemory, LinearMemory, PrototypeMemory
from memlab.memory.out_of_memory import OutOfMemoryError
from memlab.memory.reading import ReadAll
from memlab.memory.similarity import Cosine, Dot, Euclidean, Similarity
from memlab.memory.stored_keys import StoredKeys
from tests.conftest import Outcome, random_support

M, C, B, D = 23, 4, 5, 3
SIMILARITIES: dict[str, Callable[[], Similarity]] = {
    "dot": Dot,
    "cosine": lambda: Cosine(scale=3.0),
    "euclidean": lambda: Euclidean(scale=0.5),
}


@pytest.fixture(params=SIMILARITIES)
def similarity(request: pytest.FixtureRequest) -> Similarity:
    return SIMILARITIES[request.param]().double()


@pytest.fixture
def encoder() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, D), nn.Tanh()).double()


def queries(size: int = B) -> Tensor:
    return torch.randn(size, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def stored(encoder: nn.Module, similarity: Similarity, support: Support) -> StoredKeys:
    return StoredKeys.encode(encoder=encoder, similarity=similarity, support=support, batch_size=10)


def loop_means(encoder: nn.Module, support: Support, *, without: int | None = None) -> dict[int, Tensor]:
    """The mean of the keys of every class that has some, one object of the support left out."""
    keys: dict[int, list[Tensor]] = {}
    for i, label in enumerate(support.labels.tolist()):
        if i != without:
            keys.setdefault(label, []).append(encoder(support.inputs(slice(i, i + 1)))[0])
    return {label: torch.stack(found).mean(0) for label, found in keys.items()}


def loop_scores(similarity: Similarity, query: Tensor, means: dict[int, Tensor]) -> list[float]:
    return [float(similarity(query[None], means[c][None])) if c in means else -torch.inf for c in range(C)]


class TestPrototypes:
    def test_scores_are_those_of_the_class_means(self, similarity: Similarity, encoder: nn.Module) -> None:
        support = random_support(M, num_classes=C)
        found = PrototypeMemory(similarity=similarity)(encoder, queries(), support)
        means = loop_means(encoder, support)
        expected = torch.tensor([loop_scores(similarity, query, means) for query in queries()], dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)

    def test_own_row_is_not_in_the_mean(self, similarity: Similarity, encoder: nn.Module) -> None:
        support = random_support(M, num_classes=C, labels=torch.tensor([3] + [i % 3 for i in range(M - 1)]))
        exclude = torch.tensor([2, 0, -1, 22, 2])  # the one of class 3 is alone in it
        found = PrototypeMemory(similarity=similarity)(encoder, queries(), support, exclude)
        for query, own, row in zip(queries(), exclude.tolist(), found.tolist(), strict=True):
            means = loop_means(encoder, support, without=own if own >= 0 else None)
            assert row == pytest.approx(loop_scores(similarity, query, means), rel=1e-12, abs=1e-12)
        assert found[1, 3] == -torch.inf

    @pytest.mark.parametrize("exclude", [None, torch.tensor([2, 0, -1, 22, 2])])
    def test_gradients(self, similarity: Similarity, encoder: nn.Module, exclude: Tensor | None) -> None:
        support = random_support(M, num_classes=C)
        memory = PrototypeMemory(similarity=similarity)
        weight = next(encoder.parameters())

        def loss(query: Tensor, weight: Tensor) -> Tensor:
            def encode(x: Tensor) -> Tensor:
                return torch.tanh(x @ weight.T)

            return nll(memory(encode, query, support, exclude), torch.arange(B) % C)

        inputs = queries().requires_grad_(), weight.detach().clone().requires_grad_()
        assert torch.autograd.gradcheck(loss, inputs)

    def test_the_order_of_the_support_does_not_matter(self, similarity: Similarity, encoder: nn.Module) -> None:
        support = random_support(M, num_classes=C)
        memory = PrototypeMemory(similarity=similarity)
        shuffled = support.of(torch.randperm(M))
        torch.testing.assert_close(memory(encoder, queries(), shuffled), memory(encoder, queries(), support))

    def test_with_one_object_of_each_class_is_full(self, similarity: Similarity, encoder: nn.Module) -> None:
        support = random_support(C, num_classes=C)
        full, prototypes = (kind(similarity=similarity) for kind in (FullMemory, PrototypeMemory))
        torch.testing.assert_close(prototypes(encoder, queries(), support), full(encoder, queries(), support))

    def test_evaluation_reads_the_means_of_the_whole_training_set(
        self, similarity: Similarity, encoder: nn.Module
    ) -> None:
        support = random_support(M, num_classes=C, labels=torch.arange(M) % 2 * 2)  # classes 1 and 3 have none
        memory, reading = PrototypeMemory(similarity=similarity), ReadAll()
        reading.open(memory.stored_keys(lambda: stored(encoder, similarity, support)))
        torch.testing.assert_close(reading.class_scores(queries()), memory(encoder, queries(), support))
        assert reading.read_with_evidence(queries(), k=2)[1].ids.tolist() == [[-1, -1]] * B


class TestLinear:
    def make(self, similarity: Similarity) -> LinearMemory:
        memory = LinearMemory(similarity=similarity).double()
        memory.prepare(embedding_size=D, num_classes=C)
        return memory.double()

    def test_is_a_softmax_layer(self, encoder: nn.Module) -> None:
        memory = self.make(Dot())
        layer = nn.Linear(D, C, bias=False).double()
        layer.load_state_dict({"weight": memory.class_keys})
        scores = memory(encoder, queries(), random_support(M, num_classes=C))
        torch.testing.assert_close(scores, layer(queries()))
        labels = torch.arange(B) % C
        torch.testing.assert_close(
            nll(scores, labels), nn.functional.cross_entropy(layer(queries()), labels, reduction="none")
        )

    def test_scores_are_of_the_learned_keys(self, similarity: Similarity, encoder: nn.Module) -> None:
        memory = self.make(similarity)
        scores = memory(encoder, queries(), random_support(M, num_classes=C))
        keys = dict(enumerate(memory.class_keys.detach()))
        expected = torch.tensor([loop_scores(similarity, query, keys) for query in queries()], dtype=torch.float64)
        torch.testing.assert_close(scores, expected)
        scores.sum().backward()
        assert memory.class_keys.grad is not None

    def test_evaluation_encodes_nothing(self, similarity: Similarity, encoder: nn.Module) -> None:
        memory, reading = self.make(similarity), ReadAll()

        def encode() -> StoredKeys:
            raise AssertionError("nothing is to be encoded")

        reading.open(memory.stored_keys(encode))
        torch.testing.assert_close(
            reading.class_scores(queries()), memory(encoder, queries(), random_support(M, num_classes=C))
        )


def test_out_of_memory_is_told_with_what_helps() -> None:
    for memory in (LinearMemory(similarity=Dot()), PrototypeMemory(similarity=Dot())):
        with pytest.raises(OutOfMemoryError, match=r"out of memory in a training step; needs a smaller .*batch"):
            memory.shrink()


@pytest.mark.parametrize("memory", ["linear", "prototypes"])
def test_trains_and_resumes_through_the_command(memory: str, command: Callable[..., Outcome]) -> None:
    words = [f"memory={memory}", "augmentation=none", "trainer.enable_progress_bar=false", "figures=false"]
    words += ["encoder=linear", "support.size=100", "evidence.k=20", "scheduler=constant"]
    outcome = command(*words, "trainer.max_epochs=4", "hydra.run.dir=whole")
    assert outcome.status == 0, outcome.err
    whole = json.loads((outcome.folder / "whole/results.json").read_text())
    assert whole["test/accuracy"] > 0.85
    assert whole["sizes"]["support"] == (0 if memory == "linear" else 100)
    assert ("M = " in outcome.out) == (memory == "prototypes")
    assert command(*words, "trainer.max_epochs=2", "hydra.run.dir=half").status == 0
    assert (
        command(*words, "trainer.max_epochs=4", "hydra.run.dir=rest", "ckpt_path=half/checkpoints/last.ckpt").status
        == 0
    )
    rest = json.loads((outcome.folder / "rest/results.json").read_text())
    assert (rest["test/accuracy"], rest["test/nll"]) == (whole["test/accuracy"], whole["test/nll"])
