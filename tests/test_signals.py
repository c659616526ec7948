from __future__ import annotations

import subprocess
import sys

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
