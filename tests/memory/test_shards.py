"""A support shared out over real processes gives the value and the gradients of one process, to 1e-12."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, distributed, nn

from memlab import draws, functional
from memlab.data.augmentation import RandomAffine
from memlab.data.support import Support
from memlab.encoders import Dropout
from memlab.memory import ChunkedMemory, FullMemory, Memory, ShardedMemory
from memlab.memory.exact_memory import ExactMemory
from memlab.memory.out_of_memory import OutOfMemoryError
from memlab.memory.shards import Everyone
from memlab.memory.similarity import Cosine, Euclidean, Similarity
from tests.conftest import random_support
from tests.processes import FORKS, status_of

C = 4
MODES: dict[str, Callable[[Similarity], ExactMemory]] = {
    "full": lambda similarity: FullMemory(similarity=similarity),
    "chunked": lambda similarity: ChunkedMemory(similarity=similarity, chunk_size=7),
    "chunked, graphs kept": lambda similarity: ChunkedMemory(
        similarity=similarity, chunk_size=3, activation_budget=2**40
    ),
}
SIMILARITIES: dict[str, Callable[[], Similarity]] = {
    "cosine": lambda: Cosine(scale=7.0, learn_scale=True),
    "euclidean": lambda: Euclidean(scale=0.3, learn_scale=True),
}


class Case(NamedTuple):
    """What is read by what."""

    mode: str
    similarity: str
    objects: int
    queries: int
    excluded: bool

    def support(self) -> Support:
        labels = None if self.objects > C else torch.tensor([0, 2])
        plain = random_support(self.objects, num_classes=C, shape=(1, 8, 8), labels=labels)
        return replace(plain, augmentation=RandomAffine(degrees=10, translate=0.1, scale=0.1))

    def results(self, rows: slice, share: Callable[[ExactMemory], Memory], *, factor: float = 1) -> list[Tensor]:
        """Class scores of some of the queries, their share of the loss, and its gradients."""
        torch.manual_seed(0)
        memory = MODES[self.mode](SIMILARITIES[self.similarity]()).double()
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), Dropout(0.5), nn.Linear(8, 3)).double()
        inputs, ids = torch.randn(self.queries, 1, 8, 8).double()[rows], torch.arange(self.queries)[rows]
        targets = ids % C
        draws.begin_step(5)
        with draws.of_objects(ids, purpose=draws.ENCODED_QUERIES):
            query = encoder(inputs)
        exclude = ids if self.excluded else None
        shared = share(memory)
        scores = shared.read(encoder, query, self.support(), exclude).class_scores
        own = shared.read_own(encoder, query, self.support(), targets, exclude)
        loss = factor * functional.own_nll(own, num_classes=C).sum() / self.queries
        parameters = [*encoder.parameters(), *memory.parameters()]
        return [scores.detach(), loss.detach(), *torch.autograd.grad(loss, parameters)]


CASES = [
    *(
        Case(mode, similarity, 23, 7, excluded)
        for mode, similarity, excluded in product(MODES, SIMILARITIES, [False, True])
    ),
    Case("full", "euclidean", 2, 2, False),  # fewer than processes, and a class that is absent
    Case("chunked", "cosine", 2, 2, False),
]
FAULTS: dict[str, dict[str, Any]] = {
    "the gradient of the queries is not summed": {"summed": lambda self, tensor: tensor[self.rows]},
    "the whole support is taken for a part": {"part": lambda _, count: slice(0, count)},
    "a part is read twice": {"part": lambda self, count: slice(0, count // len(self.sizes))},
    "what is excluded stays with its process": {
        "gathered": lambda self, tensor, as_it_is=Everyone.gathered: (
            as_it_is(self, tensor) if tensor.is_floating_point() else torch.full((sum(self.sizes),), -1)
        )
    },
}


def work(rank: int, world: int, folder: Path, fault: str | None) -> None:
    """One of the processes: all cases; the first process leaves what all have found."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    for name, faulty in FAULTS.get(fault or "", {}).items():
        setattr(Everyone, name, faulty)
    if fault == "dropout is of the place in the part":
        of_objects = draws.of_objects
        draws.of_objects = lambda ids, **words: of_objects(torch.arange(len(ids)), **words)
    found = []
    for case in CASES:
        rows = slice(rank * case.queries // world, (rank + 1) * case.queries // world)
        factor = world if fault == "a factor W" else 1
        scores, *sums = case.results(rows, lambda memory: ShardedMemory(memory), factor=factor)
        whole = torch.zeros(case.queries, C, dtype=torch.float64)
        whole[rows] = scores.masked_fill(scores.isneginf(), -1e9)
        for tensor in (whole, *sums):
            distributed.all_reduce(tensor)
        found.append([whole.masked_fill(whole == -1e9, -math.inf), *sums])
    if rank == 0:
        torch.save(found, folder / "found.pt")
    distributed.destroy_process_group()


def shared_by(world: int, folder: Path, fault: str | None = None) -> list[list[Tensor]]:
    processes = [FORKS.Process(target=work, args=(rank, world, folder, fault)) for rank in range(world)]
    for process in processes:
        process.start()
    assert [status_of(process) for process in processes] == [0] * world
    found: list[list[Tensor]] = torch.load(folder / "found.pt")
    return found


def alone() -> list[list[Tensor]]:
    return [case.results(slice(None), lambda memory: memory) for case in CASES]


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_equals_one_process(world: int, tmp_path: Path) -> None:
    for found, expected in zip(shared_by(world, tmp_path), alone(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("fault", [*FAULTS, "a factor W", "dropout is of the place in the part"])
def test_a_fault_is_seen(fault: str, tmp_path: Path) -> None:
    """Each of these is easily made, and trains on in silence."""
    different = 0
    for found, expected in zip(shared_by(2, tmp_path, fault), alone(), strict=True):
        different += not all(torch.allclose(*pair, rtol=1e-6) for pair in zip(found, expected, strict=True))
    assert different > 0


def test_nothing_is_computed_again_when_memory_runs_out() -> None:
    with pytest.raises(OutOfMemoryError, match="in a step of several processes"):
        ShardedMemory(FullMemory(similarity=Cosine())).shrink()
