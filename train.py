"""Train and test a classifier: ``python train.py [GROUP=OPTION ...] [PARAMETER=VALUE ...]``; ``--help`` tells more."""

from __future__ import annotations

import logging
import math
import secrets
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
import pytorch_lightning as pl
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import ModelCheckpoint
from rich.console import Console

from memlab import command_line, new_folders, sweep
from memlab.argument_checks import check_choice, check_whole_number
from memlab.baselines import Baseline
from memlab.checkpoints import check_checkpoint
from memlab.confusion import draw_confusion
from memlab.datamodule import EpisodeDataModule
from memlab.figures import draw_evidence, draw_learning_curve
from memlab.machine import machine_name, peak_memory
from memlab.module import BEST_IS, DivergenceError, MemoryClassifier
from memlab.out_of_memory import OutOfMemoryError, is_out_of_memory
from memlab.reading import check_k
from memlab.results import results_table, versions, write_confusion, write_predictions, write_results

CONF = str(Path(__file__).parent / "conf")

log = logging.getLogger("memlab")
# Two commands may start in the same second: what tells their run folders apart must not be the clock.
OmegaConf.register_new_resolver("token", lambda: secrets.token_hex(3), use_cache=True, replace=True)
OmegaConf.register_new_resolver("best_is", BEST_IS.get, replace=True)


@dataclass
class Run:
    """Everything a run needs, made and checked before anything is written."""

    datamodule: EpisodeDataModule
    model: MemoryClassifier
    trainer: pl.Trainer
    best_checkpoint: ModelCheckpoint
    last_checkpoint: ModelCheckpoint
    baselines: dict[str, Baseline]
    facts: dict[str, Any]
    """What is run, without which a figure means nothing."""

    @property
    def sizes(self) -> dict[str, int | None]:
        """Objects of every kind that are used, M among them as ``support``; 0 if no support is read."""
        return self.datamodule.sizes | self.model.memory.sizes


@hydra.main(version_base="1.3", config_path=CONF, config_name="config")
def main(cfg: DictConfig) -> float:
    """Do one job; return the validation score of the best checkpoint, for sweepers that search."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    if HydraConfig.get().mode is not RunMode.MULTIRUN:
        with command_line.exit_on_mistakes():
            return train(cfg, folder)
    try:
        return train(cfg, folder)
    except Exception as error:  # one job that fails must not cost the others: the sweep's report tells of it
        if not isinstance(error, command_line.UserError):
            log.exception("job %s", folder.name)
        overrides = list(HydraConfig.get().overrides.task)
        sweep.note_failure(folder, overrides=overrides, reason=str(error) or type(error).__name__)
        return math.nan


def train(cfg: DictConfig, folder: Path) -> float:
    """Compose, fit, test and report."""
    start = time.perf_counter()
    with command_line.mistakes_in_one_line():
        run = prepare(cfg, folder)
    sizes = run.sizes
    support = f"M = {sizes['support']:,} in each support" if sizes["support"] else "no support"
    log.info(
        f"{run.datamodule.data.name}: {sizes['train']:,} objects to train on, {support};"
        f" {sizes['validation']:,} held out for validation by datamodule.split_seed={cfg.datamodule.split_seed};"
        f" {sizes['test']:,} to test on"
    )
    log.info(f"run folder: {folder}")
    OmegaConf.save(cfg, folder / "config.yaml", resolve=True)
    with command_line.mistakes_in_one_line((MisconfigurationException,)), lack_of_memory_in_one_line(cfg):
        closing = fit(run, cfg)
        results = {**evaluate(run), **closing, **run.facts, **outcome(run)}
        illustrate(run, cfg, folder, results)
    results["wall_time_seconds"] = time.perf_counter() - start
    write_results(folder, results)
    Console().print(results_table(results, classifier=title(results)))
    assert run.best_checkpoint.best_model_score is not None
    return float(run.best_checkpoint.best_model_score)


def prepare(cfg: DictConfig, folder: Path) -> Run:
    """Make all parts from their configuration."""
    if unread := sorted(map(str, cfg.keys() - default_config().keys())):
        raise ValueError(f"{unread[0]}: there is no such parameter or group, nothing would read it; leave it out")
    if any(folder.iterdir()):
        raise ValueError(f"hydra.run.dir={folder}: must be a new or an empty folder, so that nothing in it is lost")
    check_choice("monitor", cfg.monitor, BEST_IS)
    pl.seed_everything(check_whole_number("seed", cfg.seed, minimum=0), workers=True)
    datamodule = instantiate(
        cfg.datamodule,
        data=instantiate(cfg.data),
        support=instantiate(cfg.support),
        augmentation=instantiate(cfg.augmentation),
    )
    baselines = instantiate(cfg.get("baselines", {}))
    for name, baseline in baselines.items():
        try:
            baseline.check_fit(train_size=datamodule.sizes["train"], shape=datamodule.store.input_shape)
        except ValueError as error:
            raise ValueError(f"baselines.{name}.{error}") from error
    check_whole_number("evidence.objects", cfg.evidence.objects)
    store = datamodule.store
    memory = instantiate(cfg.memory, similarity=instantiate(cfg.similarity))
    if memory.needs_whole_support and not datamodule.reads_whole_training_set:
        support = HydraConfig.get().runtime.choices["support"]
        raise ValueError(f"support={support}: must be whole, the training set that this memory finds its cells in")
    reading = instantiate(cfg.evaluation)
    check_k(cfg.evidence.k, available=reading.cells(datamodule.sizes["train"]))
    model = MemoryClassifier(
        encoder=instantiate(cfg.encoder, input_shape=store.input_shape),
        memory=memory,
        reading=reading,
        class_names=store.class_names,
        optimizer=instantiate(cfg.optimizer),
        scheduler=instantiate(cfg.scheduler),
        evidence_k=cfg.evidence.k,
        compile=cfg.compile,
    )
    check_choice("monitor", cfg.monitor, list(map(str, model.validation_metrics)))
    callbacks = instantiate(cfg.callbacks)
    trainer = instantiate(
        cfg.trainer,
        batches=datamodule.batches,
        callbacks=list(callbacks.values()),
        logger=list(instantiate(cfg.logger).values()),
    )
    if "monitor" in cfg.scheduler and trainer.check_val_every_n_epoch is None:
        raise ValueError(
            "trainer.check_val_every_n_epoch=None: must be a number of epochs, so that the learning rate can follow"
            f" {cfg.scheduler.monitor} from one validation to the next"
        )
    if cfg.ckpt_path is not None:
        check_checkpoint(cfg.ckpt_path, model, trainer)
    facts = describe(cfg, datamodule, model, trainer)
    return Run(datamodule, model, trainer, callbacks.best_checkpoint, callbacks.last_checkpoint, baselines, facts)


def fit(run: Run, cfg: DictConfig) -> dict[str, float]:
    """Train, from the start or from a checkpoint; how long it took, and the training figures of the last epoch."""
    start = time.perf_counter()
    with command_line.mistakes_in_one_line((DivergenceError, OutOfMemoryError, OSError)):
        try:
            run.trainer.fit(run.model, datamodule=run.datamodule, ckpt_path=cfg.ckpt_path, weights_only=True)
        except SystemExit:  # how Lightning ends after Ctrl-C, without a word
            last = run.last_checkpoint.best_model_path
            hint = f"go on with ckpt_path={last}" if last else "before anything was learned"
            raise KeyboardInterrupt(f"interrupted in epoch {run.trainer.current_epoch + 1}; {hint}") from None
    if not run.best_checkpoint.best_model_path:
        raise command_line.UserError(
            "training ended without a validation, as it had been interrupted after its last step, so that there is no"
            f" best checkpoint to test; go on for another epoch with trainer.max_epochs={run.trainer.current_epoch + 1}"
        )
    logged = run.trainer.callback_metrics
    found = {name: float(logged[name]) for name in logged if name.startswith("train/")}
    peak = peak_memory(run.trainer.strategy.root_device)
    return {"fit_seconds": time.perf_counter() - start, "peak_memory_bytes": peak, **found}


def evaluate(run: Run) -> dict[str, Any]:
    """Measure the best checkpoint on the test objects, and the baselines beside it."""
    best = run.best_checkpoint.best_model_path
    measured = run.trainer.test(run.model, datamodule=run.datamodule, ckpt_path=best, verbose=False, weights_only=True)
    return {**measured[0], "baselines": {name: measure(baseline, run) for name, baseline in run.baselines.items()}}


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


def describe(
    cfg: DictConfig, datamodule: EpisodeDataModule, model: MemoryClassifier, trainer: pl.Trainer
) -> dict[str, Any]:
    """What is run, as far as it is known before training, so that nothing of it can fail when training is over."""
    choices = HydraConfig.get().runtime.choices
    return {
        "seed": cfg.seed,
        "data": datamodule.data.name,
        "overrides": list(HydraConfig.get().overrides.task),
        "choices": {group: option for group, option in choices.items() if not group.startswith("hydra/")},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "device": str(trainer.strategy.root_device),
        "machine": machine_name(trainer.strategy.root_device),
        "precision": trainer.precision,
        "versions": versions(),
    }


def outcome(run: Run) -> dict[str, Any]:
    """How far training went, and what validation said of the best checkpoint."""
    best = torch.load(run.best_checkpoint.best_model_path, map_location="cpu", weights_only=True)
    return {
        "sizes": run.sizes,  # not before: memory.chunk_size=auto is measured in training
        "epochs": run.trainer.current_epoch,
        "best_epoch": best["epoch"] + 1,
        **best["memlab"].get("figures", {}),  # a best checkpoint of an earlier version, taken along, has none
    }


def illustrate(run: Run, cfg: DictConfig, folder: Path, results: dict[str, Any]) -> None:
    """Draw the learning curve, the confusion matrix and the evidence, and write the predictions."""
    figures = folder / "figures"
    figures.mkdir()
    heading = f"{results['data']}, {title(results)}"
    sizes = results["sizes"]
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
    tested = run.model.tested
    class_names = run.datamodule.store.class_names
    write_predictions(
        folder,
        class_names,
        ids=tested.ids.tolist(),
        sources=map(run.datamodule.data.source, tested.ids.tolist()),
        truth=tested.labels.tolist(),
        answers=tested.log_probs.argmax(dim=1).tolist(),
        mass=tested.log_probs.float().exp().numpy(),
    )
    counts = tested.confusion().numpy()
    write_confusion(folder, class_names, counts)
    draw_confusion(class_names, counts, figures / "confusion.png", title=heading)
    draw_evidence(
        tested,
        run.datamodule.store,
        figures / "evidence.png",
        title=heading,
        objects=cfg.evidence.objects,
    )


def title(results: dict[str, Any]) -> str:
    """What was trained, in a few words."""
    choices = results["choices"]
    sizes = results["sizes"]
    cells = f", K = {sizes['k']}" if "k" in sizes else ""
    support = f", M = {sizes['support']:,}" if sizes["support"] else ""
    return f"{choices['encoder']} encoder, {choices['memory']} memory{support}{cells}"


@contextmanager
def lack_of_memory_in_one_line(cfg: DictConfig) -> Iterator[None]:
    """Training steps make themselves smaller; where else memory can run out, tell the user what to make smaller."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size = cfg.datamodule.eval_batch_size
        raise command_line.UserError(
            f"out of memory outside of a training step; lower datamodule.eval_batch_size={size}, keep raw data off"
            " the GPU with datamodule.location=host, or leave out what stands beside the result with 'baselines=[]'"
        ) from error


def default_config() -> DictConfig:
    """The configuration without any override."""
    if GlobalHydra.instance().is_initialized():
        return hydra.compose("config")
    with hydra.initialize_config_dir(CONF, version_base="1.3"):
        return hydra.compose("config")


def command() -> None:
    """The command ``python train.py``."""
    # Lightning's remarks on how a DataLoader is built and on deprecated parts of torch do not concern the user.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*dataloader is not resumable.*")  # `EpisodeOrder` is
    warnings.filterwarnings("ignore", message=".*Experiment logs directory.*")  # `prepare` saw that it was empty
    with command_line.exit_on_mistakes(known=default_config), new_folders.discarded_if_empty():
        main()


if __name__ == "__main__":
    command()
