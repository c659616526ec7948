from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from memlab import signals
from tests.conftest import REPOSITORY

INTERRUPTED_WHILE_WORKERS_START = """
import multiprocessing, os, signal, time
from memlab import signals

processes = multiprocessing.get_context("fork")
ready = processes.Event()

def work():
    signals.leave_to_parent()
    ready.set()
    time.sleep(100)

with signals.heeded():
    processes.Process(target=work, daemon=True).start()
    ready.wait()
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_run_interrupted_while_its_workers_start_ends() -> None:
    """Nobody has told them to end yet, and to signals they do not listen."""
    words = [sys.executable, "-c", INTERRUPTED_WHILE_WORKERS_START]
    ended = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert ended.stderr.splitlines()[-1] == "memlab.signals.Interrupted: interrupted by SIGTERM"


def mistaken() -> None:
    with signals.heeded(), signals.unmistaken():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            raise KeyError("tidied up what was not there yet")


def test_an_error_that_comes_of_an_interruption_is_told_as_one() -> None:
    with pytest.raises(signals.Interrupted, match="interrupted by SIGTERM"):
        mistaken()


def another(put_off: bool) -> None:
    with signals.heeded(), signals.unmistaken():
        signals.put_off(put_off)
        if put_off:
            os.kill(os.getpid(), signal.SIGTERM)
        raise KeyError


@pytest.mark.parametrize("put_off", [True, False])
def test_another_error_is_itself(put_off: bool) -> None:
    with pytest.raises(KeyError):
        another(put_off)
    with signals.heeded():
        assert signals.noted() is None
