"""The order of work of ``memlab bench-tables``."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import torch

from memlab.benchmark.problem import OWN
from memlab.benchmark.tables import report
from memlab.benchmark.tables.cells import Cell, measured_apart
from memlab.benchmark.tables.given import find_tables
from memlab.benchmark.tables.methods import INSTALL, METHODS, method_of
from memlab.benchmark.tables.records import FILE, Records
from memlab.benchmark.tables.split import Shares
from memlab.benchmark.whole_commands import in_clone
from memlab.device import machine_name
from memlab.files import check_new_or_empty
from memlab.runs.claim import FILE as CLAIM
from memlab.runs.claim import claimed
from memlab.runs.results import versions

LOG = "log.txt"
"""What the libraries say, and tracebacks."""


def run(arguments: argparse.Namespace) -> str:
    """Measure what is not measured yet, and report; what was written, in a line.

    Args:
        arguments: see `memlab.commands.bench_tables`.

    Raises:
        ValueError: for a folder, table, method, column or split that cannot be, or figures of other settings.
    """
    shares = _shares(arguments.split)
    tables = find_tables(arguments.folder, target=arguments.target, chosen=arguments.tables)
    methods = _methods(arguments)
    folder = arguments.output or Path("outputs") / f"tables_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if not (folder / FILE).is_file():
        check_new_or_empty("--output", folder, but=(CLAIM, LOG))
    settings = {"split": ",".join(f"{share:g}" for share in shares), "threads": arguments.threads}
    about = {
        "device": machine_name(torch.device("cpu")),
        "load_average": psutil.getloadavg()[0],
        "time": f"{datetime.now():%Y-%m-%d %H:%M}",
        "versions": versions(),
    }
    with claimed(folder):
        records = Records(folder, settings, about)
        print(
            f"tables: {len(tables)}, methods: {len(methods)}, seeds: {len(arguments.seeds)}, into {folder}", flush=True
        )
        found: dict[tuple[str, str, int], dict[str, Any]] = {}
        for number, seed in enumerate(arguments.seeds, start=1):
            for table, method in product(tables, methods):
                cell = Cell(table, method, seed, shares, arguments.threads)
                found[table.name, method, seed] = _measured(cell, records, folder)
            names = [table.name for table in tables]
            all_found = report.Found(names, methods, arguments.seeds[:number], found)
            report.write(all_found, records.about | settings, folder)
    print(report.text(all_found, records.about | settings))
    return f"written: {', '.join(sorted(str(each) for each in folder.iterdir()))}"


def _measured(cell: Cell, records: Records, folder: Path) -> dict[str, Any]:
    """What was measured before, or is now."""
    before = records.of(cell)
    if before is not None and "failure" not in before:
        return before
    found = measured_apart(cell, folder / LOG)
    records.add(cell, found)
    told = (
        f"failed, {found['failure']}"
        if "failure" in found
        else f"{found['accuracy']:.2%}, {found['fit_seconds']:.1f} s"
        + (f", {found['chosen']}" if found["chosen"] else "")
    )
    print(f"seed {cell.seed}, {cell.table.name}, {cell.method}: {told}", flush=True)
    return found


def _methods(arguments: argparse.Namespace) -> list[str]:
    """The names of the methods asked for, or of all that are here; what is left out is told.

    Raises:
        ValueError: for one that is asked for and is not here, or words that cannot be told apart.
    """
    methods = []
    for name in arguments.methods or METHODS:
        if not (lacks := _lacks(name)):
            methods.append(name)
        elif arguments.methods:
            raise ValueError(f"--methods {name}: {lacks}")
        else:
            print(f"left out: {name}, {lacks}")
    for words in arguments.memlab:
        try:
            shlex.split(words)
        except ValueError as error:
            raise ValueError(f"--memlab {words}: {error}") from error
        if lacks := _lacks(OWN):
            raise ValueError(f"--memlab {words}: {lacks}")
        methods.append(f"{OWN} {' '.join(words.split())}")
    return list(dict.fromkeys(methods))


def _lacks(name: str) -> str:
    """Why a method cannot be measured here; nothing if it can."""
    method = method_of(name)
    if method.version is None:
        return f"needs {method.needs}: {INSTALL}"
    return "needs train.py, which is in a clone" if name == OWN and not in_clone() else ""


def _shares(given: Sequence[float]) -> Shares:
    if len(given) != 3 or sum(given) != 100:
        text = ",".join(f"{share:g}" for share in given)
        raise ValueError(f"--split {text}: must be three parts of a hundred: to learn from, to choose by, to test on")
    return Shares(*given)
