"""Hops over a support that is shared out over real processes: value and gradients of one process, to 1e-12."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, distributed, nn

from memlab import draws, functional
from memlab.encoders import Dropout
from memlab.functional import ValueRead
from memlab.index import ExactIndex
from memlab.memory import ChunkedMemory, FullMemory, Hops, Memory, Similarity, TopKMemory, exchange, sharded, shards
from memlab.memory.exchange import Everyone
from memlab.memory.similarity import Cosine, Distance, Euclidean
from tests.conftest import random_support
from tests.processes import FORKS, status_of

C, D, M, QUERIES = 4, 3, 23, 7
SETTINGS: dict[str, dict[str, Any]] = {
    "label": {"hops": 1, "values": "label"},
    "object+label": {"hops": 2},
    "object+label, values dropped": {"hops": 2, "value_dropout": 0.4},
    "tabr": {"hops": 2, "values": "tabr"},
    "tabr, keys apart, values dropped": {"hops": 2, "values": "tabr", "hop_keys": "apart", "value_dropout": 0.4},
    "layer, keys apart": {"hops": 2, "hop_keys": "apart", "answer": "layer"},
}
USUAL = {"values": "object+label", "hop_keys": "tied", "hop_search": "anew", "answer": "read"}
SIMILARITIES: list[Callable[[], Similarity]] = [
    lambda: Euclidean(scale=0.3, learn_scale=True),
    lambda: Cosine(scale=7.0, learn_scale=True),
    lambda: Distance(scale=0.7, learn_scale=True),
]


def topk(k: int, **words: Any) -> TopKMemory:
    return TopKMemory(k=k, index=ExactIndex(), chunk_size=7, refresh_every=1, refresh_share=0.3, **words)


MODES: dict[str, Callable[..., Memory]] = {
    "full": FullMemory,
    "chunked": lambda **words: ChunkedMemory(chunk_size=7, **words),
    "chunked, graphs kept": lambda **words: ChunkedMemory(chunk_size=3, activation_budget=2**40, **words),
    "topk K = M": lambda **words: topk(M, **words),
    "topk": lambda **words: topk(5, **words),
}


def hops_of(**words: Any) -> Hops:
    """Prepared, with parameters that are not 0."""
    made = Hops(**{**USUAL, **words})
    made.prepare(embedding_size=D, num_classes=C)
    for parameter in made.parameters():
        parameter.data = torch.randn_like(parameter) / 2
    return made


class Case(NamedTuple):
    """What is read by what."""

    mode: str
    setting: str
    similarity: int
    excluded: bool
    search: str = "anew"
    objects: int = M
    queries: int = QUERIES

    def results(self, rows: slice, share: Callable[[Memory], Memory]) -> list[Tensor]:
        """Class scores of some of the queries, their share of the loss, and its gradients."""
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), Dropout(0.3), nn.Linear(8, D)).double()
        hops = hops_of(**SETTINGS[self.setting], hop_search=self.search)
        memory = MODES[self.mode](similarity=SIMILARITIES[self.similarity](), hops=hops).double()
        inputs, ids = torch.randn(self.queries, 6).double()[rows], torch.arange(self.queries)[rows]
        draws.begin_step(5)
        with draws.of_objects(ids, purpose=draws.ENCODED_QUERIES):
            query = encoder(inputs)
        labels = None if self.objects > C else torch.tensor([0, 2])
        support, exclude = random_support(self.objects, num_classes=C, labels=labels), ids if self.excluded else None
        among_all = share(memory)
        scores = among_all.read(encoder, query, support, exclude).class_scores
        own = among_all.read_own(encoder, query, support, ids % C, exclude)
        loss = functional.own_nll(own, num_classes=C).sum() / self.queries
        parameters = [*encoder.parameters(), *memory.parameters()]
        found = torch.autograd.grad(loss, parameters, allow_unused=True)  # of a layer's answer similarity is the hops'
        gradients = [torch.zeros_like(p) if g is None else g for g, p in zip(found, parameters, strict=True)]
        return [scores.detach(), loss.detach(), *gradients]


CASES = [
    *(
        Case(mode, setting, (number + shift) % 3, (number + shift) % 2 == 0)
        for shift, mode in enumerate(MODES)
        for number, setting in enumerate(SETTINGS)
    ),
    Case("topk", "object+label", 0, True, "keep"),
    Case("topk", "tabr, keys apart, values dropped", 1, False, "keep"),
    Case("topk K = M", "layer, keys apart", 2, True, "keep"),
    Case("full", "tabr", 0, False, objects=2, queries=2),  # fewer than processes, and a class that is absent
    Case("chunked", "tabr, keys apart, values dropped", 1, False, objects=2, queries=2),
    Case("full", "layer, keys apart", 2, True, objects=2, queries=2),  # of the excluded there is one other, or none
]
FAULTS: dict[str, tuple[object, str, Callable[..., Any]]] = {
    "the gradient of readers is not summed": (Everyone, "summed", lambda self, tensor: tensor[self.rows]),
    "parts weigh the same": (
        exchange,
        "merged_value_reads",
        lambda parts: ValueRead(parts.shared.mean(0), None, parts.total.logsumexp(0)),
    ),
    "what a part weighs has no gradient": (
        shards,
        "merged_values",
        lambda read, everyone: exchange.merged_values(read._replace(total=read.total.detach()), everyone),
    ),
}
"""Each of these is easily made, and trains on in silence: who, what, and what stands in for it."""
TRIED = [Case("full", "object+label", 0, True), Case("chunked", "object+label", 1, False)]


def found_by(cases: list[Case], rank: int, world: int) -> list[list[Tensor]]:
    """Scores, losses and gradients of the cases, put together and added up."""
    found = []
    for case in cases:
        rows = slice(rank * case.queries // world, (rank + 1) * case.queries // world)
        scores, *sums = case.results(rows, sharded)
        whole = torch.zeros(case.queries, C, dtype=torch.float64)
        whole[rows] = scores.masked_fill(scores.isneginf(), -1e9)
        for tensor in (whole, *sums):
            distributed.all_reduce(tensor)
        found.append([whole.masked_fill(whole == -1e9, -math.inf), *sums])
    return found


def sent_by(case: Case, rank: int, world: int) -> int:
    """Bytes that a process tells the others in two reads and a backward."""
    sent = 0

    def counted(collective: Callable[..., Any], *words: Any, **rest: Any) -> Any:
        nonlocal sent
        sent += next(word.nbytes for word in reversed(words) if isinstance(word, Tensor))
        return collective(*words, **rest)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("all_gather", "all_reduce"):
            patch.setattr(distributed, name, partial(counted, getattr(distributed, name)))
        case.results(slice(rank * case.queries // world, (rank + 1) * case.queries // world), sharded)
    return sent


def work(rank: int, world: int, folder: Path) -> None:
    """One of the processes: all cases, and some with each fault; the first process leaves what all have found.

    And how much it has sent, of each way to find cells and of supports of two sizes.
    """
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=world)
    found = {"none": found_by(CASES, rank, world)}
    for fault, (who, name, faulty) in FAULTS.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(who, name, faulty)
            found[fault] = found_by(TRIED, rank, world)
    of_sizes = [TRIED[1]._replace(mode=mode, objects=objects) for mode in ("full", "topk") for objects in (20, 160)]
    sent = [sent_by(case, rank, world) for case in of_sizes]
    if rank == 0:
        torch.save((found, sent), folder / "found.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_equals_one_process_and_faults_are_seen(world: int, tmp_path: Path) -> None:
    processes = [FORKS.Process(target=work, args=(rank, world, tmp_path)) for rank in range(world)]
    for process in processes:
        process.start()
    assert [status_of(process) for process in processes] == [0] * world
    found, sent = torch.load(tmp_path / "found.pt")
    assert sent[::2] == sent[1::2]  # it does not grow with the support
    assert all(sent)
    for case, mine in zip(CASES, found.pop("none"), strict=True):
        in_one = case._replace(mode="full") if case.mode == "topk K = M" else case
        expected = in_one.results(slice(None), lambda memory: memory)
        torch.testing.assert_close(mine, expected, rtol=1e-11, atol=1e-12)
    for fault, with_fault in found.items():
        for case, mine in zip(TRIED, with_fault, strict=True):
            expected = case.results(slice(None), lambda memory: memory)
            alike = all(torch.allclose(*pair, rtol=1e-6) for pair in zip(mine, expected, strict=True))
            assert alike == (world == 1), fault


@pytest.mark.parametrize("mode", MODES)
def test_parameters_have_the_names_of_one_process(mode: str) -> None:
    memory = MODES[mode](similarity=Cosine(learn_scale=True), hops=hops_of(hops=2, values="tabr"))
    names = list(memory.state_dict())
    assert "hops.outer" in names
    assert [name for name, _ in sharded(memory).named_parameters()] == names
    assert sharded(memory).hops is memory.hops
