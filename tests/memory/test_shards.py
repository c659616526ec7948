"""A support shared out over real processes gives the value and the gradients of one process, to 1e-12."""

from __future__ import annotations

import copy
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
from memlab.index import ExactIndex
from memlab.memory import ChunkedMemory, FullMemory, LinearMemory, Memory, PrototypeMemory, TopKMemory, sharded
from memlab.memory.exchange import Everyone
from memlab.memory.hops import hops_of
from memlab.memory.index_vectors import Share, joined, share_of
from memlab.memory.out_of_memory import OutOfMemoryError
from memlab.memory.similarity import Cosine, Distance, Euclidean, Similarity
from tests.conftest import random_support
from tests.processes import FORKS, status_of

C = 4
MODES: dict[str, Callable[[Similarity], Memory]] = {
    "full": lambda similarity: FullMemory(similarity=similarity),
    "chunked": lambda similarity: ChunkedMemory(similarity=similarity, chunk_size=7),
    "chunked, graphs kept": lambda similarity: ChunkedMemory(
        similarity=similarity, chunk_size=3, activation_budget=2**40
    ),
    "prototypes": lambda similarity: PrototypeMemory(similarity=similarity),
    "topk": lambda similarity: topk(similarity, refresh_every=1),
    "linear": lambda similarity: linear(similarity),
}
SIMILARITIES: dict[str, Callable[[], Similarity]] = {
    "cosine": lambda: Cosine(scale=7.0, learn_scale=True),
    "euclidean": lambda: Euclidean(scale=0.3, learn_scale=True),
    "distance": lambda: Distance(scale=0.7, learn_scale=True),
}


def topk(similarity: Similarity, **rule: Any) -> TopKMemory:
    words: dict[str, Any] = {"refresh_every": None, "refresh_share": 0.3, **rule}
    return TopKMemory(similarity=similarity, k=5, index=ExactIndex(), chunk_size=7, **words)


def linear(similarity: Similarity) -> LinearMemory:
    memory = LinearMemory(similarity=similarity)
    memory.prepare(embedding_size=3, num_classes=C)
    return memory


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

    def results(self, rows: slice, share: Callable[[Memory], Memory], *, factor: float = 1) -> list[Tensor]:
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
        among_all, support = share(memory), self.support()
        scores = among_all.read(encoder, query, support, exclude).class_scores
        own = among_all.read_own(encoder, query, support, targets, exclude)
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
    Case("prototypes", "cosine", 2, 2, True),
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
        scores, *sums = case.results(rows, sharded, factor=factor)
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
        sharded(FullMemory(similarity=Cosine())).shrink()


@pytest.mark.parametrize("mode", MODES)
def test_parameters_have_the_names_of_one_process(mode: str) -> None:
    """By them a checkpoint of several processes is gone on with by one."""
    memory = MODES[mode](Cosine(learn_scale=True))
    names = list(memory.state_dict())
    assert list(sharded(memory).state_dict()) == names
    assert [name for name, _ in sharded(memory).named_parameters()] == names


def test_an_unknown_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="memory=Memory: cannot be shared out over processes; must be one of memlab's"):
        sharded(Memory(similarity=Cosine()))


DROPOUT = (0.0, 0.4)
RULES: dict[str, dict[str, Any]] = {
    "all every 3 steps": {"refresh_every": 3},
    "some at each step": {"refresh_every": "auto"},
    "none older than 4": {"max_age": 4},
}
WITH_HOPS = [("some at each step", 0.0, "anew"), ("all every 3 steps", 0.4, "keep")]
TRAININGS: list[tuple[dict[str, Any], float, str | None]] = [
    *((rule, p, None) for rule, p in product(RULES.values(), DROPOUT)),
    *((RULES[name], p, search) for name, p, search in WITH_HOPS),
]
N, QUERIES, TRAINED = 40, 9, 8


def trained(rule: dict[str, Any], p: float, search: str | None, rank: int = 0, world: int = 1) -> list[Tensor]:
    """The weights that some steps lead to, whose searches are in vectors of different ages.

    Without dropout the cells that a step reads are fresh when it is over.
    """
    torch.manual_seed(0)
    words: dict[str, Any] = {
        "hops": 2,
        "values": "object+label",
        "hop_keys": "tied",
        "hop_search": search,
        "answer": "read",
    }
    hops = None if search is None else hops_of(**words, value_dropout=0.2)
    memory: Memory = topk(SIMILARITIES["euclidean"](), **rule, hops=hops)
    memory.prepare(embedding_size=3, num_classes=C)
    memory.double()
    encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), Dropout(p), nn.Linear(8, 3)).double()
    parameters = [*encoder.parameters(), *memory.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.3)
    support, reader = random_support(N, num_classes=C), memory if world == 1 else sharded(memory)
    for step in range(TRAINED):
        batch = torch.randperm(N, generator=torch.Generator().manual_seed(step))[:QUERIES]
        ids = batch[rank * QUERIES // world : (rank + 1) * QUERIES // world]
        draws.begin_step(step)
        with draws.of_objects(ids, purpose=draws.ENCODED_QUERIES):
            query = encoder(support.store.take(ids, dtype=torch.float64))
        own = reader.read_own(encoder, query, support, support.labels[ids], ids)
        optimizer.zero_grad()
        (functional.own_nll(own, num_classes=C).sum() / QUERIES).backward()
        for parameter in parameters if world > 1 else []:
            assert parameter.grad is not None
            distributed.all_reduce(parameter.grad)
        optimizer.step()
        reader.after_step()
        if step == TRAINED // 2:
            states = [copy.deepcopy(reader.state())]
            if world > 1:
                distributed.broadcast_object_list(states)
            reader.restore(states[0])  # as after an interruption
    return [parameter.detach() for parameter in parameters]


def train(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    torch.save([trained(*each, rank, world) for each in TRAININGS], folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3])
def test_index_vectors_are_refreshed_when_one_process_would(world: int, tmp_path: Path) -> None:
    processes = [FORKS.Process(target=train, args=(rank, world, tmp_path)) for rank in range(world)]
    for process in processes:
        process.start()
    assert [status_of(process) for process in processes] == [0] * world
    expected = [trained(*each) for each in TRAININGS]
    for rank in range(world):
        torch.testing.assert_close(torch.load(tmp_path / f"{rank}.pt"), expected, rtol=1e-11, atol=1e-12)
    assert not torch.allclose(expected[0][0], expected[2][0])  # when they are refreshed makes a difference


def test_the_state_of_index_vectors_is_of_all_objects_and_shared_out_anew() -> None:
    whole: dict[str, Any] = {
        "ids": torch.arange(11),
        "encoded_at": torch.arange(11) % 4,
        "step": 4,
        "index": {"vectors": torch.randn(11, 3), "centre": torch.zeros(3), "present": torch.ones(11, dtype=torch.bool)},
    }
    shares = [share_of(whole, Share(rank, 3)) for rank in range(3)]
    for rank, share in enumerate(shares):  # an index of each compares with a centre of its own
        share["index"]["centre"] = torch.full((3,), float(rank))
        share["index"]["vectors"] = share["index"]["vectors"] - rank
    found = joined(shares)
    torch.testing.assert_close(found["index"]["vectors"], whole["index"]["vectors"])
    assert all(torch.equal(found[name], whole[name]) for name in ("ids", "encoded_at"))
    assert found["step"] == 4
    assert joined([{}, {}]) == share_of({}, Share(0, 2)) == {}  # of processes that have read nothing


def weigh(rank: int, world: int, folder: Path) -> None:
    """Leave how many bytes go to the others in a step, by mode and M."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    sent = 0

    def counting(collective: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*words: Any, **rest: Any) -> Any:
            nonlocal sent
            sent += next(word.nbytes for word in reversed(words) if isinstance(word, Tensor))
            return collective(*words, **rest)

        return counted

    distributed.all_gather = counting(distributed.all_gather)
    distributed.all_reduce = counting(distributed.all_reduce)
    found = []
    for mode, objects in product(MODES.keys() - {"linear"}, (20, 160)):
        sent = 0
        Case(mode, "euclidean", objects, 8, True).results(slice(rank * 4, rank * 4 + 4), sharded)
        found.append(sent)
    if rank == 0:
        torch.save(found, folder / "sent.pt")
    distributed.destroy_process_group()


def test_what_goes_between_processes_does_not_grow_with_the_support(tmp_path: Path) -> None:
    processes = [FORKS.Process(target=weigh, args=(rank, 2, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    assert [status_of(process) for process in processes] == [0, 0]
    sent = torch.load(tmp_path / "sent.pt")
    assert sent[::2] == sent[1::2]
    assert all(sent)
