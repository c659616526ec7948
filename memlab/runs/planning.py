"""What a run would take of memory, from the words of its command; nothing is trained or written."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from memlab.memory import ChunkedMemory
from memlab.runs.assembly import Run, assemble, memory_of
from memlab.runs.composition import USUAL_TASK, check_names, chosen_config, conf_folder, task_folder, with_open_places
from memlab.runs.memory_advice import advice, chunked, lack, told
from memlab.runs.mistakes import one_line
from memlab.runs.parts import SETUP_ERRORS
from memlab.training.memory_plan import MemoryPlan, Planner

CHUNKS = (1000, 250, 64)
"""Of the alternatives shown."""
NOT_NEEDED = ("callbacks", "logger", "baselines")
"""Groups whose parts are left out: they take little, but for baselines, which are measured when training is over."""


class Planned(NamedTuple):
    """What a run would take."""

    title: str
    plan: MemoryPlan
    advice: str
    """What to lower to what; empty if it fits."""
    alternatives: dict[str, MemoryPlan]
    """The same support read otherwise, by the words that choose it."""
    remarks: list[str]


def planned(words: Sequence[str]) -> Planned:
    """Plan the run that ``python train.py`` with the same words would be.

    Args:
        words: ``GROUP=OPTION`` and ``PARAMETER=VALUE``.

    Raises:
        ValueError: for a mistake, in one line that begins with its place in the configuration.
    """
    run, planner = prepared(words)
    plan = planner.plan()
    hint = "" if plan.fits else advice(planner, support=run.facts["choices"]["support"])
    return Planned(_title(run), plan, hint, dict(_alternatives(planner, words)), list(_remarks(planner)))


def prepared(words: Sequence[str]) -> tuple[Run, Planner]:
    """The run, and what plans it; see `planned`."""
    sys.path.append(str(Path.cwd()))  # last: where `_target_` finds classes of the user's own
    for name in ("faiss", "lightning_fabric", "pytorch_lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            whole, cfg = _composed(words)
            HydraConfig.instance().set_config(whole)
            run = assemble(cfg, alone=False)
            return run, Planner(run.model, run.datamodule, run.trainer)
    except SETUP_ERRORS as error:
        raise ValueError(one_line(error, lambda: chosen_config(str(conf_folder()), words), words)) from error


def _composed(words: Sequence[str]) -> tuple[DictConfig, DictConfig]:
    """The configuration with Hydra's own, and without what is not needed."""
    conf = str(conf_folder())
    if (task := task_folder(conf, words)) != conf:
        raise ValueError(f"task={Path(task).name}: is not planned; must be {USUAL_TASK}")
    with hydra.initialize_config_dir(conf, version_base="1.3"):
        whole = hydra.compose("config", with_open_places(words), return_hydra_config=True)
    cfg = OmegaConf.masked_copy(whole, [str(name) for name in whole if name != "hydra"])
    check_names(cfg, conf=conf)
    if cfg.resume is not None:
        raise ValueError(f"resume={cfg.resume}: a plan is of a run from its start; must be left out")
    for name in NOT_NEEDED:
        cfg[name] = {}
    return whole, cfg


def _alternatives(planner: Planner, words: Sequence[str]) -> Iterator[tuple[str, MemoryPlan]]:
    support = planner.sizes.support
    for size in CHUNKS:
        if size < support:
            yield f"memory=chunked memory.chunk_size={size}", planner.of(chunked(planner, size=size)).plan()
    others = [word for word in words if not word.lstrip("+~").startswith(("memory", "support", "evaluation"))]
    with suppress(*SETUP_ERRORS):  # of words that go with this memory alone
        _, cfg = _composed([*others, "memory=topk"])
        memory = memory_of(cfg)
        memory.hops = planner.memory.hops
        yield "memory=topk", planner.of(memory, support=planner.train_size).plan()


def _title(run: Run) -> str:
    choices, sizes = run.facts["choices"], run.sizes
    company = f", each of {run.trainer.world_size} processes" if run.trainer.world_size > 1 else ""
    return (
        f"{run.facts['data']}, {choices['encoder']} encoder, {choices['memory']} memory, {run.facts['precision']}, on"
        f" {run.facts['machine']}{company}: B = {sizes['batch']:,}, M = {sizes['support']:,}"
    )


def _remarks(planner: Planner) -> Iterator[str]:
    memory = planner.memory
    if isinstance(memory, ChunkedMemory) and memory.chunk_size is None:
        yield (
            f"memory.chunk_size=auto is measured at the first step, here taken to try chunks of up to"
            f" {planner.sizes.at_once:,}"
        )
    if isinstance(memory, ChunkedMemory) and memory.activation_budget:
        yield f"memory.activation_budget={memory.activation_budget} is part of a step, of what is free now if a share"


def table(found: Planned) -> str:
    """A plan in words."""
    plan = found.plan
    rows = [
        ("held before training", plan.loaded, "data and weights" if not plan.process else "libraries, data, weights"),
        ("gradients, optimizer", plan.learned, ""),
        *([("index vectors", plan.held, "of the whole training set")] if plan.held else []),
        ("training step", plan.step, _step_of(plan)),
        ("or evaluation", plan.evaluation, f"stored keys, {plan.sizes.evaluated:,} objects at once"),
        *([("the process besides", plan.process, "")] if plan.process else []),
        ("estimated peak", plan.peak, f"{told(plan.needed)} more than now"),
        ("free", plan.free, "it fits" if plan.fits else "IT DOES NOT FIT"),
    ]
    lines = [found.title, ""]
    lines += [f"{name:<22}{told(size):>12}  {what}".rstrip() for name, size, what in rows]
    if not plan.fits:
        lines += ["", f"{lack(plan)}; {found.advice}"]
    lines += ["", *found.remarks] if found.remarks else []
    if found.alternatives:
        lines += ["", "instead"]
        lines += [
            f"{words:<44}{told(each.peak):>12}{'' if each.fits else '  does not fit'}"
            for words, each in found.alternatives.items()
        ]
    return "\n".join(lines)


def _step_of(plan: MemoryPlan) -> str:
    read = f", {plan.sizes.at_once:,} support objects at once" if plan.sizes.at_once else ""
    return f"{plan.sizes.queries:,} queries{read}"


def values(found: Planned) -> dict[str, Any]:
    """A plan as plain values, sizes in bytes."""
    return {
        "title": found.title,
        **_values(found.plan),
        "advice": found.advice,
        "alternatives": {words: _values(plan) for words, plan in found.alternatives.items()},
    }


def _values(plan: MemoryPlan) -> dict[str, Any]:
    return {
        **asdict(plan),
        "sizes": plan.sizes._asdict(),
        "needed": plan.needed,
        "peak": plan.peak,
        "fits": plan.fits,
    }
