"""A trained memory that many ask at a time: queries are read together, changes are made one after the other."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from torch import Tensor

from memlab.data.sequences import joined
from memlab.server.metrics import Metrics
from memlab.server.plane import plane
from memlab.server.refusals import told_as_refusals
from memlab.trained import Audit, TrainedMemory
from memlab.trained.answer import View

T = TypeVar("T")
MAX_JOINT = 256
"""Objects that are read together; more wait for the next read."""
QUIET = 1.0
"""Seconds without a change until the calibration objects are read anew, which takes as long as to classify them."""
MAX_DOUBTS = 200
"""Suspicious labels that an audit gives evidence for."""


@dataclass(eq=False)
class Question:
    """Objects of one request, waiting to be read."""

    raw: Tensor
    k: int | None
    coverage: float | None
    answered: asyncio.Future[Reply]


@dataclass(frozen=True)
class Reply:
    """Answers as plain values, and the digest of the memory that gave them."""

    rows: list[dict[str, Any]]
    digest: str


class ServedMemory:
    """Lanes to a memory, each one thread: of reads, of changes, of what takes long.

    Queries that come while a read is under way are read together in the next one; one that comes alone does not wait.
    Views never change, so that reads go on while a change is made. Before each read the manifest is looked at, and what
    another process has changed is taken over in the lane of changes. After a change the calibration objects are read
    anew in a lane of their own: until that is done answers have no credibility, and those with sets of classes wait.

    Args:
        memory: the memory, which nobody else changes in this process.
        metrics: is told how many objects are read together.
    """

    def __init__(self, memory: TrainedMemory, metrics: Metrics) -> None:
        self.memory = memory
        self._metrics = metrics
        self._waiting: list[Question] = []
        self._reading: asyncio.Task[None] | None = None
        self._reads, self._changes, self._long, self._measures = (
            ThreadPoolExecutor(1, thread_name_prefix=name) for name in ("read", "change", "long", "measure")
        )
        self._measuring: asyncio.Task[None] | None = None
        self._audited: tuple[str, asyncio.Future[Audit]] | None = None
        self._mapped: tuple[tuple[str, int], asyncio.Future[dict[str, Any]]] | None = None
        self._stopping = threading.Event()
        self.audited = 0
        """Objects that the audit under way has read."""

    async def view(self) -> View:
        """The memory as it is now, changes of other processes included."""
        with told_as_refusals():
            if not self.memory.is_current:
                await self._in(self._changes, self.memory.refresh)
                self.measure_soon()
        return self.memory.view

    async def predict(self, raw: Tensor, *, k: int | None, coverage: float | None) -> Reply:
        """Classify the objects of a request, together with those of others that wait."""
        if coverage is not None:
            await self.measured()
        question = Question(raw, k, coverage, asyncio.get_running_loop().create_future())
        self._waiting.append(question)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all())
        return await question.answered

    def measure_soon(self) -> None:
        """Have the calibration objects read when no change has been made for a while, as requests are answered."""
        if self._measuring is None or self._measuring.done():
            self._measuring = asyncio.create_task(self._measure_when_quiet())

    async def measured(self) -> None:
        """Have the calibration objects read by the memory as it is now; comes back when they are."""
        view = await self.view()
        if view.calibration is not None and not view.is_measured:
            with told_as_refusals():
                await self._in(self._measures, lambda: view.conformity)

    async def look(self, read: Callable[[], T]) -> T:
        """Read something else in the lane of reads."""
        await self.view()
        with told_as_refusals():
            return await self._in(self._reads, read)

    async def change(self, make: Callable[[], T], *, mistake: int = 422) -> T:
        """Make a change, after those that wait.

        Args:
            make: makes it; it is on the disk, and seen by all requests that come later, when this returns.
            mistake: status if it is refused.
        """
        with told_as_refusals(mistake):
            made = await self._in(self._changes, make)
        self.measure_soon()
        return made

    async def audit(self) -> Audit:
        """The audit of the memory as it is now, made once for all who ask."""
        digest = (await self.view()).digest
        if self._audited is None or self._audited[0] != digest:
            self._audited = digest, asyncio.ensure_future(self._in(self._long, self._audit))
        with told_as_refusals():
            return await asyncio.shield(self._audited[1])

    @property
    def is_auditing(self) -> bool:
        """Whether an audit is under way."""
        return self._audited is not None and not self._audited[1].done()

    async def map(self, limit: int) -> dict[str, Any]:
        """The objects in the plane, made once for all who ask."""
        view = await self.view()
        key = view.digest, limit
        if self._mapped is None or self._mapped[0] != key:
            self._mapped = key, asyncio.ensure_future(self._in(self._long, lambda: plane(view, limit)))
        with told_as_refusals():
            return await asyncio.shield(self._mapped[1])

    def close(self) -> None:
        """Let what is under way come to its end, but for an audit."""
        self._stopping.set()
        if self._measuring is not None:
            self._measuring.cancel()
        for lane in (self._reads, self._changes, self._long, self._measures):
            lane.shutdown(cancel_futures=True)

    async def _read_all(self) -> None:
        """Read what waits until nothing does."""
        try:
            while self._waiting:
                questions = self._next()
                try:
                    await self.view()
                    found = await self._in(self._reads, partial(self._read, questions))
                except Exception as error:
                    found = [error] * len(questions)
                for question, reply in zip(questions, found, strict=True):
                    if question.answered.done():  # its client has gone
                        continue
                    if isinstance(reply, Exception):
                        question.answered.set_exception(reply)
                    else:
                        question.answered.set_result(reply)
        finally:
            self._reading = None

    def _next(self) -> list[Question]:
        """The questions of the next read: those that wait longest, and go together."""
        first = self._waiting[0]
        taken: list[Question] = []
        size = 0
        for question in self._waiting:
            if (question.k, question.coverage) == (first.k, first.coverage):
                size += len(question.raw)
                if taken and size > MAX_JOINT:
                    break
                taken.append(question)
        self._waiting = [question for question in self._waiting if question not in taken]
        return taken

    def _read(self, questions: list[Question]) -> list[Reply | Exception]:
        raw = joined([question.raw for question in questions])
        self._metrics.joint_read(len(raw))
        with told_as_refusals():
            answer = self.memory.predict(raw, k=questions[0].k, coverage=questions[0].coverage)
        readable = answer.class_scores.logsumexp(-1).isfinite().tolist()
        rows = list(answer.rows(wait=answer.coverage is not None))
        found: list[Reply | Exception] = []
        for question in questions:
            mine, rows = rows[: len(question.raw)], rows[len(question.raw) :]
            good, readable = readable[: len(mine)], readable[len(mine) :]
            if all(good):
                found.append(Reply(mine, answer.view.digest))
            else:
                told = f"inputs[{good.index(False)}]: is too far from all that is stored; must be like training data"
                found.append(HTTPException(422, told))
        return found

    async def _measure_when_quiet(self) -> None:
        while (view := self.memory.view).calibration is not None and not view.is_measured:
            await asyncio.sleep(QUIET)
            if view is self.memory.view:
                await self._in(self._measures, lambda: view.conformity)

    def _audit(self) -> Audit:
        self.audited = 0

        def advance(done: int) -> None:
            self.audited += done
            if self._stopping.is_set():
                raise HTTPException(503, "the server is stopping")

        return self.memory.audit(limit=MAX_DOUBTS, progress=advance)

    async def _in(self, lane: ThreadPoolExecutor, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(lane, call)
