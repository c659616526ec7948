"""Signals that end a run: noted while a training step is under way, raised as `Interrupted` at any other time."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1") if hasattr(signal, name))
"""The last of these is what SLURM sends some time before the end of a job, if it is asked to."""
TRY_AGAIN = 75
"""Exit status of a run that was interrupted and can be gone on with: EX_TEMPFAIL of sysexits.h."""


class Interrupted(BaseException):
    """A signal has asked the run to end. No `Exception`, so that nothing takes it for a failure of its own.

    Args:
        number: of the signal.
        hint: what can be done.
    """

    def __init__(self, number: int, hint: str = "") -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}{hint and '; '}{hint}")
        self.number = number


class _State:
    noted: int | None = None
    put_off = False
    raised = False


def heed() -> None:
    """Take the signals over, also from who has taken them over since."""
    if threading.current_thread() is threading.main_thread():
        for number in ENDING:
            signal.signal(number, _take)


@contextmanager
def heeded() -> Iterator[None]:
    """Within this context the signals end the run by an `Interrupted`; afterwards they are whose they were.

    Processes that were started within, and would be left, are ended.
    """
    before: dict[int, Any] = {number: signal.getsignal(number) for number in ENDING}
    _State.noted, _State.put_off, _State.raised = None, False, False
    heed()
    try:
        yield
    finally:
        for worker in multiprocessing.active_children():  # Python asks them to end by a signal, and waits for ever
            worker.kill()
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)


def leave_to_parent(*_: object) -> None:
    """Ignore the signals in a process that works for another: they are sent to both, and the other ends this one."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def blocked() -> Iterator[None]:
    """Within this context the signals wait in the system; those to processes started in it, until these `unblock`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def unblock() -> None:
    """Take the signals that have waited in the system, and those to come."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)


def put_off(value: bool) -> None:
    """From now on only note a signal, to be asked for by `noted`; or raise it when it comes, as is usual."""
    _State.put_off = value


@contextmanager
def unmistaken() -> Iterator[None]:
    """Within this context what is made of an `Interrupted` that nobody expected is one again.

    OmegaConf, for one, tidies up after exceptions of its own alone, and fails at others.
    """
    try:
        yield
    except Exception as error:
        if _State.raised and _State.noted is not None:
            raise Interrupted(_State.noted) from error
        raise


def noted() -> int | None:
    """The signal that has come, if one has."""
    return _State.noted


def _take(number: int, _: FrameType | None) -> None:
    again, _State.noted = _State.noted is not None, number
    if again or not _State.put_off:  # whoever asks twice does not want to wait
        _State.raised = True
        raise Interrupted(number)
