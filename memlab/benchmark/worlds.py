"""A training step whose support is shared out over processes: what each of them computes, holds, sends and takes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch import Tensor, distributed, nn

from memlab import functional
from memlab.benchmark.material import Material
from memlab.benchmark.measurement import SMALL, in_use
from memlab.benchmark.problem import Problem
from memlab.data.parts import part_of
from memlab.device import peak_memory, seconds
from memlab.index import ExactIndex
from memlab.memory import ChunkedMemory, FullMemory, Memory, TopKMemory, sharded
from memlab.memory.exchange import Processes
from memlab.memory.similarity import Dot

WORLD = "world"


class Company(NamedTuple):
    """How many work together, and on how many threads each."""

    world: int
    threads: int


class Told(NamedTuple):
    """What a process tells of its first step."""

    encoded: int
    """Objects, queries included."""
    peak_bytes: int
    """Above what data and libraries take."""
    sent_bytes: int
    """Given to collectives, in forward and backward; gradients of parameters not among them."""
    loss: float
    """The part of this process."""


@dataclass
class Shared:
    """The figures of one memory in one company; of processes the largest."""

    memory: str
    company: Company
    problem: Problem
    seconds: list[float] = field(default_factory=list)
    """Of a step, one for each round."""
    encoded: int = 0
    peak_bytes: int = 0
    sent_bytes: int = 0
    loss: float = 0.0
    failure: str | None = None

    def values(self) -> dict[str, Any]:
        """Plain values, for a file."""
        return asdict(self) | {"company": self.company._asdict()}


def memories(problem: Problem, *, chunk: int) -> dict[str, Callable[[], Memory]]:
    """The memories that are measured, by name."""
    return {
        "full": lambda: FullMemory(similarity=Dot()),
        f"chunked {chunk}": lambda: ChunkedMemory(similarity=Dot(), chunk_size=chunk),
        "topk": lambda: TopKMemory(
            similarity=Dot(),
            k=problem.nearest,
            index=ExactIndex(),
            chunk_size=4000,
            refresh_every="auto",
            refresh_share=0.2,
        ),
    }


def companies(worlds: list[int]) -> list[Company]:
    """Each number of processes on a thread each, and one process on as many threads, to compare it with."""
    found = [Company(world, 1) for world in worlds]
    return found + [Company(1, world) for world in worlds if world > 1]


def measure(problem: Problem, worlds: list[int], *, chunk: int, rounds: int) -> Iterator[list[Shared]]:
    """Measure each memory in all companies, in turn.

    Args:
        problem: of the task ``world``.
        worlds: numbers of processes.
        chunk: chunk size of chunked.
        rounds: rounds of times.
    """
    for name in memories(problem, chunk=chunk):
        found = [Shared(name, company, problem) for company in companies(worlds)]
        at_work = [_Company(each, chunk) for each in found]
        try:
            for each, company in zip(found, at_work, strict=True):
                company.first_step(each)
            for _ in range(rounds):
                for each, company in zip(found, at_work, strict=True):
                    if each.failure is None:
                        each.seconds.append(company.turn())
        finally:
            for company in at_work:
                company.stop()
        yield found


def table(found: list[Shared]) -> Table:
    """The figures of one memory, with the ratio of time to one process on as many threads."""
    problem = found[0].problem
    result = Table(
        title=f"{found[0].memory}, {problem.encoder} encoder: M = {problem.support:,}, B = {problem.batch:,},"
        f" D = {problem.embedding}, C = {problem.classes:,}, {problem.device}; figures of each process"
    )
    for column in ("W", "threads", "encoded", "peak memory", "sent", "time", "over W = 1"):
        result.add_column(column, justify="right")
    alone = {each.company.threads: each for each in found if each.company.world == 1}
    for each in found:
        if each.failure:
            result.add_row(str(each.company.world), str(each.company.threads), each.failure)
            continue
        one = alone.get(each.company.world * each.company.threads)
        taken = median(each.seconds)
        result.add_row(
            str(each.company.world),
            str(each.company.threads),
            f"{each.encoded:,}",
            f"{each.peak_bytes / 2**20:,.0f} MiB",
            f"{each.sent_bytes / 2**10:,.0f} KiB",
            f"{1000 * taken:,.1f} ms",
            f"{taken / median(one.seconds):.2f}" if one and one.seconds else "-",
        )
    return result


class _Company:
    """The processes of a company, waiting to be asked."""

    def __init__(self, shared: Shared, chunk: int) -> None:
        context, company = get_context("forkserver"), shared.company
        context.set_forkserver_preload([__name__])  # each would else import for seconds what all of them do
        self._folder = tempfile.TemporaryDirectory()
        self._connections, self._processes = [], []
        for rank in range(company.world):
            mine, theirs = context.Pipe()
            place = Path(self._folder.name) / "meeting"
            arguments = (theirs, shared.problem, shared.memory, chunk, rank, company, place)
            self._processes.append(context.Process(target=_serve, args=arguments, daemon=True))
            self._processes[-1].start()
            theirs.close()
            self._connections.append(mine)

    def first_step(self, shared: Shared) -> None:
        """Take what each process tells of it; why there is nothing, if one fails."""
        told = self._ask()
        if failures := [each for each in told if isinstance(each, str)]:
            shared.failure = failures[0]
            return
        shared.encoded, shared.peak_bytes, shared.sent_bytes = (max(each[i] for each in told) for i in range(3))
        shared.loss = sum(each.loss for each in told)

    def turn(self) -> float:
        """Seconds of a step, of the slowest."""
        return float(max(self._ask()))

    def stop(self) -> None:
        for connection, process in zip(self._connections, self._processes, strict=True):
            connection.close()
            process.terminate()
            process.join()
        self._folder.cleanup()

    def _ask(self) -> list[Any]:
        for connection in self._connections:
            connection.send(True)
        return [_answer(connection) for connection in self._connections]


def _answer(connection: Connection) -> Any:
    try:
        return connection.recv()
    except (EOFError, OSError):
        return "its process died"


def _serve(
    connection: Connection, problem: Problem, memory: str, chunk: int, rank: int, company: Company, place: Path
) -> None:
    """Answer each word on the connection: with what the first step was like, then with seconds of steps."""
    torch.set_num_threads(company.threads)
    device = torch.device(problem.device)
    if company.world > 1:
        backend = "nccl" if device.type == "cuda" else "gloo"
        if device.type == "cuda":
            torch.cuda.set_device(rank)
        distributed.init_process_group(backend, init_method=f"file://{place}", rank=rank, world_size=company.world)
    try:
        connection.recv()
        make = memories(problem, chunk=chunk)[memory]
        _step(Material(problem.of_size(min(SMALL, problem.support))), make(), rank, company.world, _Counts())()
        material, counts = Material(problem), _Counts()
        material.prepare()
        step = _step(material, make(), rank, company.world, counts)
        before = in_use(device)
        loss = step()
        connection.send(Told(counts.encoded, peak_memory(device) - before, counts.sent, loss.item()))
        while True:
            connection.recv()
            connection.send(mean([seconds(step, device) for _ in range(STEPS + 1)][1:]))
    except EOFError:
        return
    except (RuntimeError, MemoryError) as error:
        connection.send(str(error).splitlines()[0])


STEPS = 5
"""In a turn of each process, after one that is not counted."""


class _Counts:
    """Of what a step does."""

    encoded = 0
    sent = 0


def _step(material: Material, memory: Memory, rank: int, world: int, counts: _Counts) -> Callable[[], Tensor]:
    """A training step of a process, the sum of gradients included."""
    encoder, mine = material.encoder, part_of(material.problem.batch, rank=rank, world=world)
    reader = memory if world == 1 else sharded(memory)
    parameters: list[nn.Parameter] = [*encoder.parameters()]

    def count(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        counts.encoded += len(arguments[0])

    encoder.register_forward_pre_hook(count)

    def call() -> Tensor:
        with _counted(counts):
            query = encoder(material.query_inputs[mine])
            own = reader.read_own(encoder, query, material.support, material.targets[mine])
            loss = functional.own_nll(own, num_classes=material.problem.classes).sum() / material.problem.batch
            loss.backward()
        if world > 1:
            Processes.of().add_up(parameters)
        for parameter in parameters:
            parameter.grad = None
        reader.after_step()
        return loss.detach()

    return call


@contextmanager
def _counted(counts: _Counts) -> Iterator[None]:
    """Within this context it is counted what is given to collectives."""

    def counting(collective: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **words: Any) -> Any:
            counts.sent += next(each.nbytes for each in reversed(arguments) if isinstance(each, Tensor))
            return collective(*arguments, **words)

        return counted

    before = {name: getattr(distributed, name) for name in ("all_gather", "all_reduce")}
    for name, collective in before.items():
        setattr(distributed, name, counting(collective))
    try:
        yield
    finally:
        for name, collective in before.items():
            setattr(distributed, name, collective)
