"""One method on one table with one seed, in a process of its own.

A process of its own, because thread pools of several libraries get in each other's way, and because what one method
leaves behind, or takes down, is no other's.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from memlab.benchmark.tables.given import GivenTable
from memlab.benchmark.tables.methods import method_of
from memlab.benchmark.tables.split import Shares, Split

POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Cell(NamedTuple):
    """What is to be measured."""

    table: GivenTable
    method: str
    seed: int
    shares: Shares
    threads: int


def measure(cell: Cell) -> dict[str, Any]:
    """Fit, answer and measure, in this process; figures by name, ``failure`` alone if there are none."""
    from memlab.benchmark.tables.figures import figures
    from memlab.benchmark.tables.fits import fit_of

    try:
        split = Split.of(cell.table, cell.shares, cell.seed)
        fit = fit_of(cell.method)
        start = time.perf_counter()
        fitted = fit(split, cell.threads)
        fit_seconds = time.perf_counter() - start
        start = time.perf_counter()
        mass = fitted.answer()
        predict_seconds = time.perf_counter() - start
        found = figures(mass, split.test.y)
    except Exception as error:  # of a library that is not ours: the others go on
        traceback.print_exc()
        line = " ".join(str(error).split()).removeprefix("error: ")
        return {"failure": line or type(error).__name__}
    return {
        **found,
        "fit_seconds": fit_seconds if fitted.seconds is None else fitted.seconds,
        "predict_seconds": predict_seconds,
        "chosen": fitted.chosen,
        "rows": [len(split.train.y), len(split.validation.y), len(split.test.y)],
        "version": method_of(cell.method).version,
    }


def measured_apart(cell: Cell, log: Path) -> dict[str, Any]:
    """The same in a process of its own, on so many threads.

    Args:
        cell: what to measure.
        log: a file that takes what the process says.
    """
    before = dict(os.environ)
    os.environ |= dict.fromkeys(POOLS, str(cell.threads))  # read when libraries are imported
    context = get_context("spawn")
    connection, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(theirs, cell, log), daemon=True)
    try:
        process.start()
        theirs.close()
        found: dict[str, Any] = connection.recv()
    except EOFError:
        process.join()
        found = {"failure": f"its process died (exit status {process.exitcode})"}
    finally:
        os.environ.clear()
        os.environ.update(before)
        connection.close()
        process.terminate()
        process.join()
    return found


def _serve(connection: Connection, cell: Cell, log: Path) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with log.open("a") as said:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(said.fileno(), stream.fileno())
    print(f"{cell.table.name}, {cell.method}, seed {cell.seed}", flush=True)
    import torch

    torch.set_num_threads(cell.threads)
    connection.send(measure(cell))


def _end_with_parent() -> None:
    """End, with the run that may be under way, if the process that has started this one is killed."""
    import psutil

    parent = parent_process()
    assert parent is not None
    parent.join()
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)
