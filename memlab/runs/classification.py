"""A run of the classifier: what it is made of, what it tells and what it leaves."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.table import Table

from memlab.baselines import Baseline
from memlab.data.objects import raw_objects
from memlab.runs.assembly import Run, assemble
from memlab.runs.memory_advice import warn_if_too_large
from memlab.runs.parts import Task
from memlab.runs.results import results_table, write_confusion, write_flipped, write_predictions
from memlab.runs.trained_memory import keep_trained

log = logging.getLogger("memlab")


def _assembled(cfg: DictConfig) -> Run:
    run = assemble(cfg, alone=False)
    _check_has_all_parts(run)
    return run


def _check_has_all_parts(run: Run) -> None:
    """See that there is something to choose the best checkpoint by, to keep it, and to test it.

    Raises:
        ValueError: if there is not.
    """
    if not len(run.datamodule.validation_rows):
        raise ValueError("datamodule.validation_fraction: holds nothing out; must, the best checkpoint is chosen by it")
    if not len(run.datamodule.test_rows):
        raise ValueError("data: has no test objects; must have some, a run ends with a test")


def _begin(run: Run, cfg: DictConfig) -> str:
    warn_if_too_large(run)
    sizes = run.sizes
    support = f"M = {sizes['support']:,} in each support" if sizes["support"] else "no support"
    return (
        f"{run.datamodule.data.name}: {sizes['train']:,} objects to train on, {support};"
        f" {sizes['validation']:,} held out for validation by datamodule.split_seed={cfg.datamodule.split_seed};"
        f" {sizes['test']:,} to test on"
    )


def _measured(run: Run) -> dict[str, Any]:
    return {
        "baselines": {name: measure(baseline, run) for name, baseline in run.baselines.items()},
        "sizes": run.sizes,  # not before: memory.chunk_size=auto is measured in training
    }


def measure(baseline: Baseline, run: Run) -> dict[str, Any]:
    """Test accuracy of a baseline, what it is, and how long it took."""
    start = time.perf_counter()
    datamodule = run.datamodule
    rows = datamodule.train_rows, datamodule.test_rows
    if baseline.of_embeddings:
        keys, queries = map(datamodule.plain_support, rows)
        test, train = (points.cpu() for points in run.model.embedded(queries=queries, keys=keys))
    else:
        train, test = (raw_objects(datamodule.store.inputs, part).cpu() for part in rows)
    labels, truth = (datamodule.store.labels.cpu()[part] for part in rows)
    accuracy = (baseline.predict(train, labels, test) == truth).double().mean()
    return {"title": baseline.title, "accuracy": float(accuracy), "seconds": time.perf_counter() - start}


def _leave(run: Run, cfg: DictConfig, folder: Path, results: dict[str, Any]) -> str:
    tell(run, folder)
    kept = keep_trained(run, cfg, folder, results)
    if cfg.figures:
        illustrate(run, cfg, folder, results)
    return kept


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
    """Draw the learning curve, the confusion matrix and the evidence, and write the page of it.

    Of a recurrent encoder, how far back gradients go, too.
    """
    from memlab.runs.confusion import draw_confusion
    from memlab.runs.evidence_page import write_evidence_page
    from memlab.runs.figures import draw_evidence, draw_learning_curve
    from memlab.runs.gradients import FILE as GRADIENTS
    from memlab.runs.gradients import draw_growth, measured_growth, write_growth

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
    if growth := measured_growth(run):
        write_growth(growth, folder / GRADIENTS)
        draw_growth(growth, figures / "gradients.png", title=heading)
    data, objects = run.datamodule.data, cfg.evidence.page_objects
    log.info(write_evidence_page(tested, data, figures / "evidence.html", title=heading, objects=objects))


def title(results: dict[str, Any]) -> str:
    """What was trained, in a few words."""
    choices = results["choices"]
    sizes = results["sizes"]
    cells = f", K = {sizes['k']}" if "k" in sizes else ""
    support = f", M = {sizes['support']:,}" if sizes["support"] else ""
    return f"{choices['encoder']} encoder, {choices['memory']} memory{support}{cells}"


def _table(results: dict[str, Any]) -> Table:
    return results_table(results, classifier=title(results))


TASK = Task(assemble=_assembled, begin=_begin, measured=_measured, leave=_leave, table=_table)
