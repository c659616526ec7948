"""A run from its configuration to ``results.json``: assemble, fit, evaluate, illustrate."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig
from rich.console import Console

from memlab.device import peak_memory
from memlab.memory.out_of_memory import OutOfMemoryError, is_out_of_memory
from memlab.runs import classification, questions
from memlab.runs.mistakes import UserError, mistakes_in_one_line
from memlab.runs.parts import SETUP_ERRORS, Parts, Task
from memlab.runs.results import write_results
from memlab.runs.resume import note
from memlab.training.checkpoint_files import read_checkpoint
from memlab.training.nonfinite import DivergenceError, skipped_steps
from memlab.training.processes import DriftError, Launcher, was_lost

log = logging.getLogger("memlab")

# What these say of themselves at every start is not worth a line. Here, as to be imported sets their levels.
for name in ("faiss", "lightning_fabric", "pytorch_lightning"):
    logging.getLogger(name).setLevel(logging.WARNING)
# Lightning's remarks on how a DataLoader is built and on deprecated parts of torch do not concern the user.
warnings.filterwarnings("ignore", message=".*does not have many workers.*")
warnings.filterwarnings("ignore", message=".*LeafSpec.*")
warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")  # `EpisodeOrder` is
warnings.filterwarnings("ignore", message=".*exists and is not empty.*")  # of a run that goes on
warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # what is logged is of all processes already
warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")  # figures of epochs tell it


TASKS: dict[str, Task[Any]] = {"classification": classification.TASK, "questions": questions.TASK}


def train(cfg: DictConfig, folder: Path) -> float:
    """Compose, fit, test and report."""
    start = time.perf_counter()
    task = TASKS[cfg.task]
    with mistakes_in_one_line(*SETUP_ERRORS):
        run = task.assemble(cfg)
        if missing := {"best_checkpoint", "last_checkpoint"} - run.callbacks.keys():
            raise ValueError(f"callbacks: lack {min(missing)}; must have it, as callbacks=default")
    if not run.trainer.is_global_zero:
        return _helped(run, cfg)
    note(cfg, folder, HydraConfig.get().overrides.task)
    log.info(task.begin(run, cfg))
    log.info(f"run folder: {folder}")
    with mistakes_in_one_line(MisconfigurationException), _lack_of_memory_in_one_line(cfg):
        with _in_company(run):
            closing = fit(run)
            tested = test(run)
        results = {
            "task": cfg.task,
            **tested,
            **task.measured(run),
            **closing,
            **run.facts,
            **outcome(run),
        }
        kept = task.leave(run, cfg, folder, results)
    results["wall_time_seconds"] = time.perf_counter() - start
    write_results(folder, results)
    Console().print(task.table(results))
    log.info(kept)
    return _best_score(run)


def _helped(run: Parts[Any, Any], cfg: DictConfig) -> float:
    """What a process does that is not the first of its run: its share, and no more."""
    with mistakes_in_one_line(MisconfigurationException), _lack_of_memory_in_one_line(cfg), _in_company(run):
        fit(run)
        test(run)
    return _best_score(run)


def _best_score(run: Parts[Any, Any]) -> float:
    assert run.best_checkpoint.best_model_score is not None
    return float(run.best_checkpoint.best_model_score)


@contextmanager
def _in_company(run: Parts[Any, Any]) -> Iterator[None]:
    """Within this context processes of a run work together; who has started others leaves none of them behind.

    Raises:
        UserError: if another one is gone.
    """
    launcher = run.trainer.strategy.launcher
    started = launcher if isinstance(launcher, Launcher) else None
    try:
        yield
    except RuntimeError as error:
        if run.trainer.world_size == 1 or not was_lost(error):
            raise
        fate = started.fate() if started else ""
        raise UserError(f"{fate or 'another process'}: is gone, and without it this one cannot go on") from error
    finally:
        if started:
            started.end_others(wait=sys.exception() is None)


def fit(run: Parts[Any, Any]) -> dict[str, float]:
    """Train, from the start or from a checkpoint; how long it took, and the training figures of the last epoch."""
    start = time.perf_counter()
    with _what_ends_training_in_one_line():
        run.trainer.fit(run.model, datamodule=run.datamodule, ckpt_path=run.start, weights_only=True)
    if not run.best_checkpoint.best_model_path:
        raise UserError(
            "training ended without a validation, as it had been interrupted after its last step, so that there is no"
            f" best checkpoint to test; go on for another epoch with trainer.max_epochs={run.trainer.current_epoch + 1}"
        )
    peak = peak_memory(run.trainer.strategy.root_device)
    return {"fit_seconds": time.perf_counter() - start, "peak_memory_bytes": peak, **run.model.train_figures}


def test(run: Parts[Any, Any]) -> dict[str, Any]:
    """Measure the best checkpoint on the test objects."""
    best = run.best_checkpoint.best_model_path
    measured = run.trainer.test(run.model, datamodule=run.datamodule, ckpt_path=best, verbose=False, weights_only=True)
    run.model.to(run.trainer.strategy.root_device)  # Lightning has moved it to the CPU, and there is more to encode
    return dict(measured[0])


def outcome(run: Parts[Any, Any]) -> dict[str, Any]:
    """How far training went, and what validation said of the best checkpoint."""
    best = read_checkpoint(Path(run.best_checkpoint.best_model_path))
    return {
        "epochs": run.trainer.current_epoch,
        "best_epoch": best["memlab"]["epoch"] + 1,
        "skipped_steps": skipped_steps(run.trainer),
        **best["memlab"]["figures"],
    }


@contextmanager
def _what_ends_training_in_one_line() -> Iterator[None]:
    """What stops a run that was set up well: a loss or gradient that is not finite, memory or a disk that is full."""
    with mistakes_in_one_line(DivergenceError, DriftError, OSError):
        try:
            yield
        except OutOfMemoryError as error:
            mode = HydraConfig.get().runtime.choices["memory"]
            raise UserError(f"memory={mode}: {error}") from error


@contextmanager
def _lack_of_memory_in_one_line(cfg: DictConfig) -> Iterator[None]:
    """Training steps make themselves smaller; where else memory can run out, tell the user what to make smaller."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size = cfg.datamodule.eval_batch_size
        raise UserError(
            f"out of memory outside of a training step; lower datamodule.eval_batch_size={size}, keep raw data off"
            " the GPU with datamodule.location=host, or leave out what stands beside the result with 'baselines=[]'"
        ) from error
