"""Whether a run fits into memory, told before its first step, and what to lower to what if it does not."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import replace

from memlab.memory import ChunkedMemory, FullMemory, TopKMemory
from memlab.runs.assembly import Run
from memlab.training.memory_plan import MemoryPlan, Planner

log = logging.getLogger("memlab")

SMALL_CHUNK = 32
"""Where even this does not fit beside the queries it is these that are too many."""


def warn_if_too_large(run: Run) -> None:
    """Compare what a run is estimated to take with what is free, and say so if that is less; it is tried all the same.

    Args:
        run: before it is trained.
    """
    try:
        planner = Planner(run.model, run.datamodule, run.trainer)
        if not (plan := planner.plan()).fits:
            log.warning(f"memory: {lack(plan)}; {advice(planner, support=run.facts['choices']['support'])}")
    except Exception as error:  # of an encoder or a memory of the user's own, perhaps: the first step shows where
        log.info(f"memory: what the run takes was not estimated ({type(error).__name__}: {error})")


def lack(plan: MemoryPlan) -> str:
    """What is missing."""
    what = "training step" if plan.step >= plan.evaluation else "evaluation"
    return (
        f"about {told(plan.needed)} are needed besides what is held now, for the largest {what} above all, and"
        f" {told(plan.free)} are free"
    )


def advice(planner: Planner, *, support: str) -> str:
    """What to lower to what, of a run that does not fit.

    Args:
        planner: of the run.
        support: the option chosen of how a support is drawn.
    """
    plan = planner.plan()
    if not replace(plan, step=0, evaluation=0).fits:
        place = "keep raw data off the GPU with datamodule.location=host, or " if planner.device.type == "cuda" else ""
        return f"weights, gradients and optimizer alone are too much: {place}take a smaller encoder"
    words = []
    if not replace(plan, evaluation=0).fits:
        words.append(_smaller_step(planner, support))
    if not replace(plan, step=0).fits:
        words.append(_smaller_evaluation(planner))
    if "" in words:
        return "nothing can be lowered so far that it fits: take a smaller encoder or smaller objects"
    return f"lower it with {'; and '.join(words)}"


def _smaller_step(planner: Planner, support: str) -> str:
    """A smaller chunk, or support where it is read at once; else a smaller batch as well."""
    ways = [_smaller_chunk(planner), _smaller_support(planner, support)]
    return ", or ".join(way for way in ways if way) or _smaller_batch(planner)


def _smaller_chunk(planner: Planner) -> str:
    if (found := _in_chunks(planner)) is None:
        return ""
    prefix, planner = found
    size = largest(lambda size: _step_fits(planner, at_once=size), up_to=planner.sizes.at_once)
    return f"{prefix}memory.chunk_size={size}" if size else ""


def _smaller_support(planner: Planner, support: str) -> str:
    if isinstance(planner.memory, ChunkedMemory | TopKMemory) or support == "whole":
        return ""
    size = largest(lambda size: _step_fits(planner, support=size, at_once=size), up_to=planner.sizes.support)
    size *= planner.processes
    option = "" if support in ("uniform", "balanced") else "support=uniform "
    return f"{option}support.size={size}" if size else ""


def _smaller_batch(planner: Planner) -> str:
    prefix, planner = _in_chunks(planner) or ("", planner)
    chunk = min(SMALL_CHUNK, planner.sizes.at_once)
    size = largest(lambda size: _step_fits(planner, queries=size, at_once=chunk), up_to=planner.sizes.queries)
    return f"{prefix}memory.chunk_size={chunk} datamodule.batch_size={size}" if size else ""


def _smaller_evaluation(planner: Planner) -> str:
    size = largest(lambda size: replace(planner.plan(evaluated=size), step=0).fits, up_to=planner.sizes.evaluated)
    return f"datamodule.eval_batch_size={size}" if size else ""


def _in_chunks(planner: Planner) -> tuple[str, Planner] | None:
    """The same read in chunks, and what to give for it besides their size; nothing if there is no such thing."""
    memory = planner.memory
    if isinstance(memory, FullMemory):
        return "memory=chunked ", planner.of(chunked(planner, size=planner.sizes.support))
    if isinstance(memory, ChunkedMemory) and memory.activation_budget:
        lean = copy.copy(memory)
        lean.activation_budget = 0
        return "memory.activation_budget=0 ", planner.of(lean)
    return ("", planner) if isinstance(memory, ChunkedMemory | TopKMemory) else None


def chunked(planner: Planner, *, size: int) -> ChunkedMemory:
    """What reads as the memory of a plan, in chunks."""
    return ChunkedMemory(similarity=planner.memory.similarity, chunk_size=size, hops=planner.memory.hops)


def _step_fits(planner: Planner, **sizes: int) -> bool:
    return replace(planner.plan(**sizes), evaluation=0).fits


def largest(fits: Callable[[int], bool], *, up_to: int) -> int:
    """The largest number that fits, rounded down to two digits; 0 if none does.

    Args:
        fits: of no number above one that does not.
        up_to: where to look.

    >>> largest(lambda size: size * size < 2_000_000, up_to=5_000)
    1400
    """
    least, most = 0, up_to
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if fits(middle) else (least, middle - 1)
    return least - least % int(10 ** max(len(str(least)) - 2, 0))


def told(size: float) -> str:
    """Bytes in words.

    >>> told(3 * 2**29), told(2**24)
    ('1.50 GiB', '16 MiB')
    """
    return f"{size / 2**30:.2f} GiB" if size >= 2**30 else f"{size / 2**20:,.0f} MiB"
