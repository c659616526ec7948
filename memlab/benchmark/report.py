"""What a benchmark found: a table for each problem, where a peer is ahead, ``benchmark.json`` and one picture."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from rich.table import Table

from memlab.benchmark.auditors import OWN_AUDIT
from memlab.benchmark.contenders import ARITHMETIC
from memlab.benchmark.measurement import Measured
from memlab.benchmark.problem import OWN, TASKS, WHOLE_COMMANDS, Problem
from memlab.benchmark.whole_commands import BARE, PLAIN_LOOP
from memlab.files import write_whole

AGREE = 1e-3
"""Relative difference of a loss to that of full up to which a contender computes the same in float32."""
AHEAD = 0.97
"""A peer is ahead when it takes less than this share of what memlab takes; less is noise."""


def table(group: list[Measured]) -> Table:
    """The figures of one problem, with ratios to full and to the arithmetic alone."""
    problem = group[0].problem
    result = Table(title=_title(problem))
    over = f"over {_reference(problem).removeprefix(OWN).strip()}"
    memory = ["peak memory", over] if problem.task not in WHOLE_COMMANDS else []
    quality = {"search": ["recall"], "audit": ["AUROC"]}.get(problem.task, [])
    full, limit = _full(group), _measured(group, ARITHMETIC)
    over_limit = ["over arithmetic"] if limit else []
    for name in ("contender", "time", over, *over_limit, "slowest", *memory, *quality):
        result.add_column(name, justify="left" if name == "contender" else "right")
    for each in group:
        if each.failure:
            result.add_row(each.contender, each.failure, *(len(result.columns) - 2) * ["-"])
            continue
        result.add_row(
            each.contender,
            _time(each.median_seconds),
            _ratio(each.median_seconds, full.median_seconds if full else 0),
            *([_ratio(each.median_seconds, limit.median_seconds)] if limit else []),
            _time(max(each.seconds)),
            *(_memory(each.peak_bytes, full.peak_bytes if full else 0) if memory else []),
            *([_quality(each)] if quality else []),
        )
    return result


def _title(problem: Problem) -> str:
    if problem.task in WHOLE_COMMANDS:
        return f"{problem.task}: {TASKS[problem.task]}"
    if problem.task == "audit":
        return f"audit of {problem.run}: M = {problem.support:,}, D = {problem.embedding}, C = {problem.classes:,}"
    where = f", {problem.encoder} encoder" if problem.task == "step" else ""
    nearest = f", K = {problem.nearest}" if problem.task == "search" else ""
    return (
        f"{problem.task}{where}: M = {problem.support:,}, B = {problem.batch:,}, D = {problem.embedding},"
        f" C = {problem.classes:,}, {problem.device}{nearest}"
    )


def remarks(group: list[Measured]) -> Iterator[str]:
    """Where a peer is ahead of memlab's best, and where a contender does not compute what full does."""
    done = [each for each in group if not each.failure]
    ours = [each for each in done if each.contender.startswith(OWN)]
    peers = [each for each in done if not each.contender.startswith((OWN, ARITHMETIC))]
    problem = group[0].problem
    place = problem.name
    if not ours or problem.task == "start":  # a start has no peers, only something to compare with
        return
    fastest = min(ours, key=lambda each: each.median_seconds)
    leanest = min(ours, key=lambda each: each.peak_bytes)
    for peer in peers:
        if peer.median_seconds < AHEAD * fastest.median_seconds:
            share = peer.median_seconds / fastest.median_seconds
            yield f"{place}: {peer.contender} is faster, {share:.2f} of the time of {fastest.contender}"
        if peer.peak_bytes < AHEAD * leanest.peak_bytes:
            share = peer.peak_bytes / leanest.peak_bytes
            yield f"{place}: {peer.contender} is leaner, {share:.2f} of the memory of {leanest.contender}"
        best = max((each.auroc for each in ours if each.auroc is not None), default=1.0)
        if peer.auroc is not None and peer.auroc > best:
            yield f"{place}: {peer.contender} tells wrong labels better, an AUROC of {peer.auroc:.4f} for {best:.4f}"
    full = _full(group)
    for each in done:
        if full and full.loss and each.loss is not None and not math.isclose(each.loss, full.loss, rel_tol=AGREE):
            yield f"{place}: {each.contender} computes something else, a loss of {each.loss:.6g} for {full.loss:.6g}"


def write_json(found: Iterable[Measured], settings: Mapping[str, Any], target: Path) -> None:
    """Everything measured, with what it was measured on."""
    results = [asdict(each) | {"median_seconds": each.median_seconds if each.seconds else None} for each in found]
    write_whole(target, json.dumps({"settings": dict(settings), "results": results}, indent=2) + "\n")


def draw(found: list[Measured], target: Path, *, note: str) -> None:
    """Time and peak memory against M on logarithmic axes, a row for each task.

    Args:
        found: what was measured for some M.
        target: picture to write.
        note: the settings, set small below.
    """
    tasks = list(dict.fromkeys(each.problem.task for each in found))
    names = list(dict.fromkeys(each.contender for each in found))
    figure = Figure(figsize=(12, 4.2 * len(tasks)), layout="constrained")
    rows = figure.subplots(len(tasks), 2, squeeze=False)
    for row, task in zip(rows, tasks, strict=True):
        handles = []
        for number, name in enumerate(names):
            points = [e for e in found if e.problem.task == task and e.contender == name and not e.failure]
            if not points:
                continue
            style: dict[str, Any] = {"color": f"C{number % 10}", "marker": "osD^v"[number // 10 % 5], "markersize": 4}
            style["linestyle"] = "-" if name.startswith(OWN) else ":" if name == ARITHMETIC else "--"
            sizes = [each.problem.support for each in points]
            row[0].plot(sizes, [each.median_seconds for each in points], **style)
            row[1].plot(sizes, [max(each.peak_bytes, 2**20) / 2**20 for each in points], **style)
            handles.append(Line2D([], [], label=name, **style))
        for axes, label in zip(row, ("seconds", "peak memory beyond data, MiB"), strict=True):
            axes.set(title=task, xlabel="M, support objects", ylabel=label, xscale="log", yscale="log")
            axes.grid(alpha=0.3, which="both")
        row[1].legend(handles=handles, loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=8)
    figure.text(0.01, -0.01, note, fontsize=8, color="dimgrey", va="top", wrap=True)
    figure.savefig(target, dpi=130, bbox_inches="tight")


def _full(group: list[Measured]) -> Measured | None:
    """What ratios are to, if it was measured."""
    return _measured(group, _reference(group[0].problem))


def _measured(group: list[Measured], name: str) -> Measured | None:
    return next((each for each in group if each.contender == name and not each.failure), None)


def _reference(problem: Problem) -> str:
    return {"search": f"{OWN} exact", "audit": OWN_AUDIT, "fit": PLAIN_LOOP, "start": BARE}.get(
        problem.task, f"{OWN} full"
    )


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:,.1f} ms"


def _quality(each: Measured) -> str:
    if each.recall is not None:
        return f"{each.recall:.3f}"
    return "-" if each.auroc is None else f"{each.auroc:.4f}"


def _memory(peak: int, of: int) -> list[str]:
    return [f"{peak / 2**20:,.0f} MiB", _ratio(peak, of)]


def _ratio(value: float, of: float) -> str:
    return f"{value / of:.2f}" if of else "-"
