"""Stored keys that are shared out over real processes are read as those of one process are."""

from __future__ import annotations

import copy
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

from memlab.index import ExactIndex
from memlab.memory import Hops, LinearMemory, PrototypeMemory, ReadAll, ReadTopK, StoredKeys, TopKMemory, sharded
from memlab.memory.memory import Memory
from memlab.memory.shared_reading import shared_reading
from memlab.memory.similarity import Cosine, Euclidean
from tests.processes import FORKS, status_of

C, N, B = 5, 31, 7
READINGS = {
    "all": lambda: ReadAll(),
    "topk": lambda: ReadTopK(k=4, index=ExactIndex()),
    "more than a part has": lambda: ReadTopK(k=20, index=ExactIndex()),
}


HOPS: list[dict[str, Any]] = [
    {"values": "object+label", "hop_keys": "tied", "hop_search": "anew", "answer": "read"},
    {"values": "tabr", "hop_keys": "apart", "hop_search": "keep", "answer": "layer"},
    {"values": "tabr", "hop_keys": "apart", "hop_search": "anew", "answer": "read"},
]


def keys(similarity: Any, *, number: int = N, hops: Hops | None = None) -> StoredKeys:
    generator = torch.Generator().manual_seed(3)
    labels = torch.randint(C, (number,), generator=generator).sort().values
    made = torch.randn(number, 3, generator=generator, dtype=torch.float64)
    return StoredKeys(made, labels, torch.randperm(100, generator=generator)[:number], C, similarity, hops)


def hops_of(**words: Any) -> Hops:
    """Prepared, with parameters that are not 0."""
    torch.manual_seed(2)
    made = Hops(hops=2, **words)
    made.prepare(embedding_size=3, num_classes=C)
    for parameter in made.parameters():
        parameter.data = torch.randn_like(parameter) / 2
    return made.double().eval()


def memories() -> list[Memory]:
    similarity = Euclidean(scale=0.7)
    made = [PrototypeMemory(similarity=similarity), LinearMemory(similarity=similarity)]
    torch.manual_seed(0)
    for memory in made:
        memory.prepare(embedding_size=3, num_classes=C)
        memory.double()
    return list(made)


def found(world: int) -> list[list[Tensor]]:
    """What all cases give, and at their end the keys themselves."""
    results: list[list[Tensor]] = []
    queries = torch.randn(B, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    made = [None, *(hops_of(**words) for words in HOPS)]
    reading: Any
    for similarity, make, number, hops in product(
        (Cosine(scale=9.0), Euclidean(scale=0.7)), READINGS.values(), (N, 2), made
    ):
        stored, reading = keys(similarity, number=number, hops=hops), make()
        if world > 1:
            reading = shared_reading(reading)
            rank = distributed.get_rank()
            reading.open(stored.part(slice(rank * number // world, (rank + 1) * number // world)))
        else:
            reading.open(stored)
        k = min(3, number)
        exclude = stored.ids[:B] if number > B else None
        read, evidence = reading.read_with_evidence(queries, k=k)
        again, earlier = reading.read(queries, exclude), reading.evidence_of_hops(queries, k=k, exclude=exclude)
        assert len(earlier) == (0 if hops is None else hops.earlier)
        results.append([*read, *evidence, *again, *(each for found in earlier for each in found)])
        whole = reading.whole()
        assert whole is None or whole.hops is hops
    for memory in memories():
        stored, reading = keys(memory.similarity), ReadAll()
        if world > 1:
            rank, reading = distributed.get_rank(), shared_reading(reading)
            stored, memory = stored.part(slice(rank * N // world, (rank + 1) * N // world)), sharded(memory)
        reading.open(memory.stored_keys(partial(copy.copy, stored)))
        results.append([*reading.read(queries), *reading.read_with_evidence(queries, k=2)[1]])
    if world > 1:
        whole = reading.whole()
        assert (whole is None) == (rank > 0)
        assert reading.alone.__class__ is ReadAll
        results.append([] if whole is None else [whole.keys, whole.labels, whole.ids])
    else:
        results.append([reading.stored.keys, reading.stored.labels, reading.stored.ids])
    return results


def recalls(world: int) -> Tensor | None:
    """Recall of vectors that are older than the keys, which are in another order."""
    torch.manual_seed(1)
    memory: Memory = TopKMemory(
        similarity=Euclidean(), k=5, index=ExactIndex(), chunk_size=9, refresh_every=50, refresh_share=0.1
    )
    ids, vectors = torch.randperm(N), torch.randn(N, 3)
    state = {
        "ids": ids,
        "encoded_at": torch.zeros(N, dtype=torch.int64),
        **{"step": 0, "next": 0, "saved": 0.0, "refreshed_at": 0},
        "index": {"vectors": vectors, "centre": torch.zeros(3), "present": torch.ones(N, dtype=torch.bool)},
    }
    fresh, order, queries = vectors + 0.7 * torch.randn(N, 3), torch.randperm(N), torch.randn(B, 3)
    part = slice(None)
    if world > 1:
        rank, memory = distributed.get_rank(), sharded(memory)
        part = slice(rank * N // world, (rank + 1) * N // world)
    memory.restore(state)
    return memory.recall(queries, fresh[order][part], ids[order][part])


def work(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    torch.save((found(world), recalls(world)), folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("world", [2, 3, 8])
def test_equals_one_process_in_all_of_them(world: int, tmp_path: Path) -> None:
    processes = [FORKS.Process(target=work, args=(rank, world, tmp_path)) for rank in range(world)]
    for process in processes:
        process.start()
    assert [status_of(process) for process in processes] == [0] * world
    expected, recall = found(1), recalls(1)
    assert recall is not None
    assert 0 < recall < 1
    for rank in range(world):
        results, recalled = torch.load(tmp_path / f"{rank}.pt")
        last = expected if rank == 0 else expected[:-1]
        torch.testing.assert_close(results[: len(last)], last, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(recalled, recall)


def test_an_unknown_reading_is_refused() -> None:
    class Own(ReadAll):
        pass

    with pytest.raises(ValueError, match="evaluation=Own: cannot be shared out over processes; must be all or topk"):
        shared_reading(Own())
