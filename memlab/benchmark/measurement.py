"""How it is measured: a process of its own for each contender, rounds in turn, medians.

A process of its own, because memory that one contender has used would be found warm, or kept, by the next, and because
the thread pools of several libraries in one process get in each other's way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean, median

import torch
from torch import Tensor

from memlab.benchmark.auditors import auroc
from memlab.benchmark.contenders import contenders, period, recall
from memlab.benchmark.material import Call, Material
from memlab.benchmark.problem import WHOLE_COMMANDS, Problem
from memlab.device import give_back_freed_memory, peak_memory, raise_malloc_thresholds, resident_memory, seconds
from memlab.memory.out_of_memory import is_out_of_memory

TURN_SECONDS = 0.3
"""A turn of short calls is as many of them as fit."""
SMALL = 64
"""Support objects of the call that loads libraries and starts threads before anything is measured."""


@dataclass(frozen=True)
class Settings:
    """What all processes share.

    Args:
        chunks: chunk sizes.
        budgets: shares of the graphs to be kept.
        threads: threads of torch and of others, on a CPU.
        raised_thresholds: whether glibc keeps freed memory (`memlab.device`).
    """

    chunks: tuple[int, ...]
    budgets: tuple[float, ...]
    threads: int
    raised_thresholds: bool


@dataclass
class Measured:
    """One contender's figures for one problem."""

    contender: str
    problem: Problem
    seconds: list[float] = field(default_factory=list)
    """Of a call, one for each round."""
    peak_bytes: int = 0
    """Above what data and libraries take; not of whole commands."""
    loss: float | None = None
    """Of a read or a step."""
    recall: float | None = None
    """Share of the nearest found, of a search."""
    auroc: float | None = None
    """How surely a wrong label has a lower score than a right one, of an audit."""
    failure: str | None = None

    @property
    def median_seconds(self) -> float:
        """Time of a call."""
        return median(self.seconds)


def measure(
    problem: Problem,
    names: Sequence[str],
    settings: Settings,
    *,
    rounds: int,
    said: Callable[[str], None] = lambda _: None,
) -> list[Measured]:
    """Measure contenders on one problem, in turn: first the memory of each, then ``rounds`` rounds of times.

    Args:
        problem: the problem.
        names: names of contenders.
        settings: what all share.
        rounds: rounds.
        said: is told what is going on.
    """
    found = [Measured(name, problem) for name in names]
    workers: list[_Worker | _Command] = []
    try:
        for each in found:
            said(f"{problem.name}: first call of {each.contender}")
            of_commands = problem.task in WHOLE_COMMANDS
            worker = (_Command if of_commands else _Worker)(problem, each.contender, settings)
            workers.append(worker)
            answer = worker.ask()
            if isinstance(answer, str):
                each.failure = answer
            elif not of_commands:
                each.peak_bytes = int(answer[0])
                setattr(each, {"search": "recall", "audit": "auroc"}.get(problem.task, "loss"), answer[1])
        for number in range(rounds):
            said(f"{problem.name}: round {number + 1} of {rounds}")
            for each, worker in zip(found, workers, strict=True):
                if each.failure is None:
                    answer = worker.ask()
                    if isinstance(answer, str):
                        each.failure = answer
                    else:
                        each.seconds.append(answer[0])
    finally:
        for worker in workers:
            worker.stop()
    return found


class _Worker:
    def __init__(self, problem: Problem, contender: str, settings: Settings) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, problem, contender, settings), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self) -> tuple[float, float | None] | str:
        """The next figures: peak memory and loss, recall or AUROC at first, then seconds; or why there are none."""
        try:
            self._connection.send(True)
            answer: tuple[float, float | None] | str = self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            return f"its process died (exit status {self._process.exitcode})"
        return answer

    def stop(self) -> None:
        self._connection.close()
        self._process.terminate()
        self._process.join()


class _Command:
    """As `_Worker`, for a contender whose every call is a process already."""

    def __init__(self, problem: Problem, contender: str, settings: Settings) -> None:
        make = contenders(problem.task, chunks=settings.chunks, budgets=settings.budgets)[contender]
        self._call = make(Material(problem))

    def ask(self) -> tuple[float, None] | str:
        """Seconds of a call, or those that it tells itself; or why it fails."""
        start = time.perf_counter()
        try:
            told = self._call()
        except RuntimeError as error:
            return str(error)
        return time.perf_counter() - start if told is None else told.item(), None

    def stop(self) -> None:
        """Nothing is left running."""


def _serve(connection: Connection, problem: Problem, contender: str, settings: Settings) -> None:
    """Answer each word on the connection with figures, until it closes."""
    torch.set_num_threads(settings.threads)
    if settings.raised_thresholds:
        raise_malloc_thresholds()
    try:
        connection.recv()
        make = contenders(problem.task, chunks=settings.chunks, budgets=settings.budgets)[contender]
        make(Material(problem.of_size(min(SMALL, problem.support))))()
        material = Material(problem)
        material.prepare()
        _make_room(material.device)  # what making the data has left free would be used and not be counted
        before = in_use(material.device)
        call = make(material)
        outcome = call()
        peak = peak_memory(material.device)
        _make_room(material.device)
        connection.send((peak - before, _quality(material, outcome)))
        while True:
            connection.recv()
            connection.send((_turn(call, material.device, period(contender)), None))
    except EOFError:
        return
    except (RuntimeError, MemoryError) as error:
        connection.send("out of memory" if is_out_of_memory(error) else str(error).splitlines()[0])


def _quality(material: Material, outcome: Tensor | None) -> float | None:
    """The recall of a search and the AUROC of an audit; of anything else the loss, if it has one."""
    if outcome is None:
        return None
    measures = {"search": recall, "audit": auroc}
    measure = measures.get(material.problem.task)
    return outcome.item() if measure is None else measure(material, outcome)


def _turn(call: Call, device: torch.device, period: int) -> float:
    """Seconds of a call, the mean over whole periods, after one call that is not counted."""
    call()
    times: list[float] = []
    while sum(times) < TURN_SECONDS or len(times) % period:
        times.append(seconds(call, device))
    _make_room(device)
    return mean(times)


def _make_room(device: torch.device) -> None:
    """Give back what is kept between calls: the others need it. The first call of a turn takes it anew, uncounted."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        give_back_freed_memory()


def in_use(device: torch.device) -> int:
    """Bytes in use now; what `peak_memory` gives afterwards is the most since then."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError):  # where it is not allowed, the peak is that of the whole life of the process
        Path("/proc/self/clear_refs").write_text("5")
    return resident_memory()
