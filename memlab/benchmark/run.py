"""The order of work of ``memlab bench``."""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict, replace
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.console import Console

from memlab.benchmark import report, worlds
from memlab.benchmark.auditors import audited
from memlab.benchmark.contenders import NEEDS, SLOW_ON_CPU, contenders
from memlab.benchmark.measurement import Measured, Settings, measure
from memlab.benchmark.problem import TASKS, WHOLE_COMMANDS, Problem
from memlab.benchmark.whole_commands import in_clone
from memlab.benchmark.worlds import WORLD, Shared
from memlab.device import machine_name
from memlab.files import check_new_or_empty, write_whole
from memlab.runs.results import versions


def run(arguments: argparse.Namespace) -> str:
    """Measure, print and write; what was written, in a line.

    Args:
        arguments: see `memlab.commands.bench`.

    Raises:
        ValueError: for a device that this machine does not have, a folder that is not empty, or words that name nobody.
    """
    if arguments.tasks is None:
        arguments.tasks = [WORLD] if arguments.world else list(TASKS)
    if arguments.world and WORLD not in arguments.tasks:
        raise ValueError(f"--world: is of the task {WORLD}; must stand alone, or with it among --tasks")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda: this machine has none; must be cpu here")
    default = Path("outputs") / f"bench_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    folder = check_new_or_empty("--output", arguments.output or default)
    settings = Settings(
        tuple(arguments.chunks),
        tuple(arguments.budgets),
        arguments.threads or torch.get_num_threads(),
        arguments.raise_malloc_thresholds,
    )
    names, left_out = chosen(arguments, settings) if arguments.tasks != [WORLD] else ({}, [])
    folder.mkdir(parents=True, exist_ok=True)
    environment = _environment(arguments, settings)
    console = Console()
    console.print(_in_words(environment))
    os.environ["OMP_NUM_THREADS"] = str(settings.threads)  # of the processes to come, and of all their libraries
    found: list[Measured] = []
    with console.status("starting") as status:
        for task, group_names in names.items():
            for problem in _problems(arguments, task) if group_names else []:
                group = measure(problem, group_names, settings, rounds=arguments.rounds, said=status.update)
                found += group
                console.print(report.table(group))
                for remark in report.remarks(group):
                    console.print(remark)
                report.write_json(found, environment, folder / "benchmark.json")
    if WORLD in arguments.tasks and arguments.world:
        _measure_worlds(arguments, environment, folder, console)
    sized = [each for each in found if each.problem.support]
    if sized:
        report.draw(sized, folder / "benchmark.png", note=_in_words(environment))
    for name in left_out:
        console.print(f"left out: {name}, {SLOW_ON_CPU[name]}; --contenders {name} measures it")
    if missing := [f"{name} ({package})" for name, package in NEEDS.items() if not find_spec(package)]:
        console.print(f"not installed, so not measured: {', '.join(missing)}")
    if WORLD in arguments.tasks and not arguments.world:
        console.print("no --world, so not measured: world")
    if "audit" in names and arguments.run_folder is None:
        console.print("no --run, so not measured: audit")
    if WHOLE_COMMANDS & set(names) and not in_clone():
        console.print("not in a clone, so not measured: train.py")
    return f"written: {', '.join(sorted(str(each) for each in folder.iterdir()))}"


def _measure_worlds(arguments: argparse.Namespace, environment: dict[str, Any], folder: Path, console: Console) -> None:
    shared: list[Shared] = []
    for size in arguments.sizes:
        problem = _problem(arguments, WORLD, size)
        with console.status(f"{problem.name}: {', '.join(map(str, arguments.world))} processes"):
            for group in worlds.measure(problem, arguments.world, chunk=arguments.chunks[0], rounds=arguments.rounds):
                shared += group
                console.print(worlds.table(group))
    content = {"settings": environment, "results": [each.values() for each in shared]}
    write_whole(folder / "worlds.json", json.dumps(content, indent=2) + "\n")


def chosen(arguments: argparse.Namespace, settings: Settings) -> tuple[dict[str, list[str]], list[str]]:
    """The names of the contenders asked for, by task; and of those left out that would take too long.

    Raises:
        ValueError: for words that name nobody.
    """
    wanted = [word.strip().lower() for word in arguments.contenders.split(",")]
    known = {
        task: list(contenders(task, chunks=settings.chunks, budgets=settings.budgets))
        for task in arguments.tasks
        if task != WORLD
    }
    everyone = list(dict.fromkeys(name for names in known.values() for name in names))
    left_out = [
        name
        for name in everyone
        if name in SLOW_ON_CPU and arguments.device == "cpu" and not any(w and w in name.lower() for w in wanted)
    ]
    named = [name for name in everyone if any(word in name.lower() for word in wanted) and name not in left_out]
    if not named:
        raise ValueError(f"--contenders {arguments.contenders}: must name some of {', '.join(everyone)}")
    return {task: [name for name in names if name in named] for task, names in known.items()}, left_out


def _problems(arguments: argparse.Namespace, task: str) -> list[Problem]:
    """One for each size, or one alone where the size is given otherwise."""
    if task != "audit":
        return [_problem(arguments, task, size) for size in ([0] if task in WHOLE_COMMANDS else arguments.sizes)]
    if arguments.run_folder is None:
        return []
    run = str(arguments.run_folder)
    stored = audited(run).stored
    problem = replace(_problem(arguments, task, len(stored)), embedding=stored.keys.shape[1], run=run)
    return [replace(problem, classes=stored.num_classes)]


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
