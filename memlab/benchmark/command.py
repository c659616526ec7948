"""The command ``memlab bench``: its arguments, and the order of work."""

from __future__ import annotations

import argparse
import math
import os
import platform
import sys
from collections.abc import Callable, Collection
from dataclasses import asdict
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console

from memlab.benchmark import report
from memlab.benchmark.contenders import NEEDS, contenders
from memlab.benchmark.measurement import Measured, Settings, measure
from memlab.benchmark.problems import ENCODERS, TASKS, Problem
from memlab.machine import machine_name
from memlab.results import versions

DESCRIPTION = (
    """\
Measure memlab beside what you would otherwise take, in one run, on the same data:

"""
    + "\n".join(f"  {name:<11} {what}" for name, what in TASKS.items())
    + """

Each contender has a process of its own. Its peak memory is what that process grows by in its first call, on a GPU what
torch allocates at most; times are medians over rounds in which all take turns. Ratios are to memlab full, those of a
search to memlab exact. Rivals of other packages take part where these are installed: pip install -e ".[bench]".
"""
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``memlab bench``."""
    parser.description = DESCRIPTION
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    count = _between(int, 1, math.inf)
    counts = _list_of(count, "whole numbers of at least 1")
    count = _single(count, "a whole number of at least 1")
    add = parser.add_argument
    add(
        "--tasks",
        type=_list_of(_one_of(TASKS), f"of {', '.join(TASKS)}"),
        default=list(TASKS),
        help=f"of {', '.join(TASKS)} (default: all)",
    )
    add("--sizes", type=counts, default=[4096, 16384, 65536], help="M (default: 4096,16384,65536)")
    add("--batch-size", type=count, default=256, help="B, queries (default: %(default)s)")
    add("--embedding-size", type=count, default=64, help="D (default: %(default)s)")
    add("--classes", type=count, default=10, help="C (default: %(default)s)")
    add("--nearest", type=count, default=32, help="K, of a search and of topk (default: %(default)s)")
    add("--encoder", choices=list(ENCODERS), default="mlp", help="of a step (default: %(default)s)")
    add("--chunks", type=counts, default=[1024], help="chunk sizes (default: 1024)")
    add(
        "--budgets",
        type=_list_of(_between(float, 0.01, 1.01), "shares from 0.01 to 1"),
        default=[0.5, 0.9],
        help="shares of the graphs that chunked keeps, besides none (default: 0.5,0.9)",
    )
    add("--contenders", default="", help="only those whose name holds one of these words, as full,chunked,checkpoint")
    add("--rounds", type=count, default=5, help="rounds of times (default: %(default)s)")
    add("--device", choices=["cpu", "cuda"], default="cpu", help="(default: %(default)s)")
    add("--threads", type=count, default=torch.get_num_threads(), help="on a CPU (default: %(default)s)")
    add(
        "--raise-malloc-thresholds",
        action="store_true",
        help="let glibc keep freed memory, as the trainer does on a CPU; without it glibc's defaults hold",
    )
    add(
        "--seed",
        type=_single(_between(int, 0, math.inf), "a whole number of at least 0"),
        default=0,
        help="of data and weights (default: %(default)s)",
    )
    add("--output", type=Path, default=None, help="folder of benchmark.json and .png (default: a new one in outputs/)")


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write; return the exit status."""
    if arguments.device == "cuda" and not torch.cuda.is_available():
        return _refuse("--device cuda: this machine has none; must be cpu here")
    folder = arguments.output or Path("outputs") / f"bench_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        return _refuse(f"--output {folder}: must be a new or an empty folder, so that nothing in it is lost")
    settings = Settings(
        tuple(arguments.chunks), tuple(arguments.budgets), arguments.threads, arguments.raise_malloc_thresholds
    )
    wanted = [word.strip().lower() for word in arguments.contenders.split(",")]
    names = {
        task: [
            name
            for name in contenders(task, chunks=settings.chunks, budgets=settings.budgets)
            if any(word in name.lower() for word in wanted)
        ]
        for task in arguments.tasks
    }
    if not any(names.values()):
        everyone = [name for task in arguments.tasks for name in contenders(task, chunks=[1024], budgets=[])]
        return _refuse(f"--contenders {arguments.contenders}: must name some of {', '.join(dict.fromkeys(everyone))}")
    folder.mkdir(parents=True, exist_ok=True)
    environment = _environment(arguments, settings)
    console = Console()
    console.print(_in_words(environment))
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)  # of the processes to come, and of all their libraries
    found: list[Measured] = []
    with console.status("starting") as status:
        for task, group_names in names.items():
            for size in arguments.sizes if group_names else []:
                group = measure(
                    _problem(arguments, task, size), group_names, settings, rounds=arguments.rounds, said=status.update
                )
                found += group
                console.print(report.table(group))
                for remark in report.remarks(group):
                    console.print(remark)
                report.write_json(found, environment, folder / "benchmark.json")
    report.draw(found, folder / "benchmark.png", note=_in_words(environment))
    if missing := [f"{name} ({package})" for name, package in NEEDS.items() if not find_spec(package)]:
        console.print(f"not installed, so not measured: {', '.join(missing)}")
    console.print(f"written: {folder / 'benchmark.json'} and benchmark.png")
    return 0


def _problem(arguments: argparse.Namespace, task: str, size: int) -> Problem:
    return Problem(
        task=task,
        support=size,
        batch=arguments.batch_size,
        embedding=arguments.embedding_size,
        classes=arguments.classes,
        nearest=arguments.nearest,
        encoder=arguments.encoder,
        device=arguments.device,
        seed=arguments.seed,
    )


def _environment(arguments: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """What the figures depend on besides the code."""
    on_gpu = arguments.device == "cuda"
    return {
        "device": machine_name(torch.device(arguments.device)),
        "load_average": psutil.getloadavg()[0],
        "allocator": "torch's of GPU memory" if on_gpu else _allocator(raised=settings.raised_thresholds),
        "rounds": arguments.rounds,
        **asdict(settings),
        "seed": arguments.seed,
        "time": f"{datetime.now():%Y-%m-%d %H:%M}",
        "versions": versions(),
    }


def _allocator(*, raised: bool) -> str:
    thresholds = "thresholds raised" if raised else "default thresholds"
    return f"{' '.join(platform.libc_ver()) or 'the system'}, {thresholds}"


def _in_words(environment: dict[str, Any]) -> str:
    return (
        f"{environment['device']}, {environment['threads']} threads, load"
        f" {environment['load_average']:.1f} at the start; allocator: {environment['allocator']}; median of"
        f" {environment['rounds']} rounds, seed {environment['seed']}; torch {environment['versions']['torch']}"
    )


def _refuse(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


def _list_of(convert: Callable[[str], Any], rule: str) -> Callable[[str], Any]:
    """An argument type: words with commas between, each converted; one line that tells the rule if one cannot be."""

    def parse(text: str) -> list[Any]:
        try:
            return [convert(word.strip()) for word in text.split(",")]
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text}: must be {rule}, with commas between") from None

    return parse


def _one_of(names: Collection[str]) -> Callable[[str], str]:
    def convert(word: str) -> str:
        if word not in names:
            raise ValueError(word)
        return word

    return convert


def _between(kind: type[int] | type[float], least: float, below: float) -> Callable[[str], Any]:
    def convert(word: str) -> float:
        value = kind(word)
        if not least <= value < below:
            raise ValueError(word)
        return value

    return convert


def _single(convert: Callable[[str], Any], rule: str) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text}: must be {rule}") from None

    return parse
