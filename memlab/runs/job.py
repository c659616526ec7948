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

from memlab.baselines import Baseline
from memlab.device import peak_memory
from memlab.memory.out_of_memory import OutOfMemoryError, is_out_of_memory
from memlab.runs.assembly import SETUP_ERRORS, Run, assemble
from memlab.runs.memory_advice import warn_if_too_large
from memlab.runs.mistakes import UserError, mistakes_in_one_line
from memlab.runs.results import results_table, write_confusion, write_flipped, write_predictions, write_results
from memlab.runs.resume import note
from memlab.runs.trained_memory import keep_trained
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


def train(cfg: DictConfig, folder: Path) -> float:
    """Compose, fit, test and report."""
    start = time.perf_counter()
    with mistakes_in_one_line(*SETUP_ERRORS):
        run = assemble(cfg, alone=False)
        _check_has_all_parts(run)
    if not run.trainer.is_global_zero:
        return _helped(run, cfg)
    note(cfg, folder, HydraConfig.get().overrides.task)
    sizes = run.sizes
    support = f"M = {sizes['support']:,} in each support" if sizes["support"] else "no support"
    log.info(
        f"{run.datamodule.data.name}: {sizes['train']:,} objects to train on, {support};"
        f" {sizes['validation']:,} held out for validation by datamodule.split_seed={cfg.datamodule.split_seed};"
        f" {sizes['test']:,} to test on"
    )
    log.info(f"run folder: {folder}")
    with mistakes_in_one_line(MisconfigurationException), _lack_of_memory_in_one_line(cfg):
        with _in_company(run):
            closing = fit(run)
            tested = test(run)
        results = {
            **tested,
            "baselines": {name: measure(baseline, run) for name, baseline in run.baselines.items()},
            **closing,
            **run.facts,
            **outcome(run),
        }
        tell(run, folder)
        kept = keep_trained(run, cfg, folder, results)
        if cfg.figures:
            illustrate(run, cfg, folder, results)
    results["wall_time_seconds"] = time.perf_counter() - start
    write_results(folder, results)
    Console().print(results_table(results, classifier=title(results)))
    log.info(kept)
    return _best_score(run)


def _helped(run: Run, cfg: DictConfig) -> float:
    """What a process does that is not the first of its run: its share, and no more."""
    with mistakes_in_one_line(MisconfigurationException), _lack_of_memory_in_one_line(cfg), _in_company(run):
        fit(run)
        test(run)
    return _best_score(run)


def _best_score(run: Run) -> float:
    assert run.best_checkpoint.best_model_score is not None
    return float(run.best_checkpoint.best_model_score)


@contextmanager
def _in_company(run: Run) -> Iterator[None]:
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


def _check_has_all_parts(run: Run) -> None:
    """See that there is something to choose the best checkpoint by, to keep it, and to test it.

    Raises:
        ValueError: if there is not.
    """
    if not len(run.datamodule.validation_rows):
        raise ValueError("datamodule.validation_fraction: holds nothing out; must, the best checkpoint is chosen by it")
    if not len(run.datamodule.test_rows):
        raise ValueError("data: has no test objects; must have some, a run ends with a test")
    if missing := {"best_checkpoint", "last_checkpoint"} - run.callbacks.keys():
        raise ValueError(f"callbacks: lack {min(missing)}; must have it, as callbacks=default")


def fit(run: Run) -> dict[str, float]:
    """Train, from the start or from a checkpoint; how long it took, and the training figures of the last epoch."""
    start = time.perf_counter()
    if run.trainer.is_global_zero:
        warn_if_too_large(run)
    with _what_ends_training_in_one_line():
        run.trainer.fit(run.model, datamodule=run.datamodule, ckpt_path=run.start, weights_only=True)
    if not run.best_checkpoint.best_model_path:
        raise UserError(
            "training ended without a validation, as it had been interrupted after its last step, so that there is no"
            f" best checkpoint to test; go on for another epoch with trainer.max_epochs={run.trainer.current_epoch + 1}"
        )
    peak = peak_memory(run.trainer.strategy.root_device)
    return {"fit_seconds": time.perf_counter() - start, "peak_memory_bytes": peak, **run.model.train_figures}


def test(run: Run) -> dict[str, Any]:
    """Measure the best checkpoint on the test objects."""
    best = run.best_checkpoint.best_model_path
    measured = run.trainer.test(run.model, datamodule=run.datamodule, ckpt_path=best, verbose=False, weights_only=True)
    run.model.to(run.datamodule.store.device)  # Lightning has moved it to the CPU, and there is more to encode
    return dict(measured[0])


def measure(baseline: Baseline, run: Run) -> dict[str, Any]:
    """Test accuracy of a baseline, what it is, and how long it took."""
    start = time.perf_counter()
    datamodule = run.datamodule
    rows = datamodule.train_rows, datamodule.test_rows
    if baseline.of_embeddings:
        keys, queries = map(datamodule.plain_support, rows)
        test, train = (points.cpu() for points in run.model.embedded(queries=queries, keys=keys))
    else:
        train, test = (datamodule.store.inputs[part.to(datamodule.store.inputs_device)].cpu() for part in rows)
    labels, truth = (datamodule.store.labels.cpu()[part] for part in rows)
    accuracy = (baseline.predict(train, labels, test) == truth).double().mean()
    return {"title": baseline.title, "accuracy": float(accuracy), "seconds": time.perf_counter() - start}


def outcome(run: Run) -> dict[str, Any]:
    """How far training went, and what validation said of the best checkpoint."""
    best = read_checkpoint(Path(run.best_checkpoint.best_model_path))
    return {
        "sizes": run.sizes,  # not before: memory.chunk_size=auto is measured in training
        "epochs": run.trainer.current_epoch,
        "best_epoch": best["memlab"]["epoch"] + 1,
        "skipped_steps": skipped_steps(run.trainer),
        **best["memlab"]["figures"],
    }


def tell(run: Run, folder: Path) -> None:
    """Write what was answered to each test object, how often each class for each other, and which labels are wrong."""
    data, tested, class_names = run.datamodule.data, run.model.tested, run.datamodule.store.class_names
    write_predictions(
        folder,
        class_names,
        ids=tested.ids.tolist(),
        sources=map(data.source, tested.ids.tolist()),
        truth=tested.labels.tolist(),
        answers=tested.log_probs.argmax(dim=1).tolist(),
        mass=tested.log_probs.float().exp().numpy(),
    )
    write_confusion(folder, class_names, tested.confusion().numpy())
    if data.true_labels is not None:
        rows = data.train_rows
        labels, truth = (each[rows.to(each.device)].tolist() for each in (data.store.labels, data.true_labels))
        write_flipped(folder, class_names, ids=rows.tolist(), labels=labels, truth=truth)


def illustrate(run: Run, cfg: DictConfig, folder: Path, results: dict[str, Any]) -> None:
    """Draw the learning curve, the confusion matrix and the evidence, and write the page of it."""
    from memlab.runs.confusion import draw_confusion
    from memlab.runs.evidence_page import write_evidence_page
    from memlab.runs.figures import draw_evidence, draw_learning_curve

    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    heading = f"{results['data']}, {title(results)}"
    sizes, tested, store = results["sizes"], run.model.tested, run.datamodule.store
    draw_learning_curve(
        folder / "metrics.csv",
        figures / "learning_curve.png",
        title=heading,
        best_epoch=results["best_epoch"],
        note=f"train: while learning, from supports of {sizes['support']:,} objects; validation and test: after the"
        f" epoch, with all {sizes['train']:,} training objects as memory"
        if sizes["support"]
        else "train: while learning; validation and test: after the epoch",
    )
    draw_confusion(store.class_names, tested.confusion().numpy(), figures / "confusion.png", title=heading)
    draw_evidence(tested, store, figures / "evidence.png", title=heading, objects=cfg.evidence.objects)
    data, objects = run.datamodule.data, cfg.evidence.page_objects
    log.info(write_evidence_page(tested, data, figures / "evidence.html", title=heading, objects=objects))


def title(results: dict[str, Any]) -> str:
    """What was trained, in a few words."""
    choices = results["choices"]
    sizes = results["sizes"]
    cells = f", K = {sizes['k']}" if "k" in sizes else ""
    support = f", M = {sizes['support']:,}" if sizes["support"] else ""
    return f"{choices['encoder']} encoder, {choices['memory']} memory{support}{cells}"


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
