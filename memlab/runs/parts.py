"""What the runs of all tasks are made of, and how a run goes on from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from lightning_fabric.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.callbacks import ModelCheckpoint
from rich.table import Table

from memlab.device import machine_name
from memlab.files import ADDRESS
from memlab.runs.results import versions
from memlab.runs.resume import without_resume
from memlab.trained.recipes import Recipe, recipe_of
from memlab.training.checkpoint_files import DamagedCheckpointError, read_checkpoint
from memlab.training.checkpoints import LAST, newest_checkpoint
from memlab.training.compatibility import check_fits, check_something_left
from memlab.training.trained_module import TrainedModule

T = TypeVar("T")
D = TypeVar("D", bound=pl.LightningDataModule)
M = TypeVar("M", bound=TrainedModule)
R = TypeVar("R", bound="Parts[Any, Any]")

SETUP_ERRORS = (HydraException, OmegaConfBaseException, MisconfigurationException, ValueError, OSError, ImportError)
"""What a user's mistake shows as while a run is set up."""


@dataclass
class Parts(Generic[D, M]):
    """What a run of any task needs."""

    datamodule: D
    model: M
    trainer: pl.Trainer
    callbacks: dict[str, pl.Callback]
    """Those of the configuration, by name."""
    start: Path | None
    """The checkpoint to go on from."""
    baselines: dict[str, Any]
    """What is measured beside it, by name."""
    facts: dict[str, Any]
    """What is run, without which a figure means nothing."""

    @property
    def best_checkpoint(self) -> ModelCheckpoint:
        """Of a run with a folder."""
        callback = self.callbacks["best_checkpoint"]
        assert isinstance(callback, ModelCheckpoint)
        return callback


@dataclass(frozen=True)
class Task(Generic[R]):
    """What is particular to a task in a run from its configuration to ``results.json``."""

    assemble: Callable[[DictConfig], R]
    """Makes all parts, checked before anything is written."""
    begin: Callable[[R, DictConfig], str]
    """What is about to be trained, in a line, when the run has a folder."""
    measured: Callable[[R], dict[str, Any]]
    """What is told of the test besides Lightning's figures, that of baselines included."""
    leave: Callable[[R, DictConfig, Path, dict[str, Any]], str]
    """Writes what else the run leaves in its folder; what to do with it, in a line."""
    table: Callable[[dict[str, Any]], Table]
    """The main figures, of the results."""


def made(cfg: DictConfig, group: str, kind: type[T], **words: Any) -> T:
    """What the target of a group gives, which may be of the user's own.

    Raises:
        ValueError: if it is something else.
    """
    part = instantiate(cfg[group], **words)
    if not isinstance(part, kind):
        given, wanted = type(part).__name__, f"{kind.__module__.rpartition('.')[0]}.{kind.__name__}"
        raise ValueError(f"{group}={cfg[group]._target_}: gives a {given}; must give a {wanted}")
    return part


def recipe_in(cfg: DictConfig, **more: Any) -> Recipe:
    """The recipe of what a part of a configuration makes.

    Args:
        cfg: that part.
        more: what it is made with besides.
    """
    arguments = {str(name): recipe_in(value) if isinstance(value, DictConfig) else value for name, value in cfg.items()}
    target = str(arguments.pop("_target_"))
    plain = OmegaConf.to_container(OmegaConf.create(arguments), resolve=True)
    assert isinstance(plain, dict)
    return recipe_of(target, {str(name): value for name, value in plain.items()} | more)


def callbacks_of(cfg: DictConfig) -> dict[str, pl.Callback]:
    """The callbacks of a configuration, by name."""
    return dict(instantiate(cfg.callbacks))


def trainer_of(cfg: DictConfig, callbacks: dict[str, pl.Callback], batches: dict[str, int]) -> pl.Trainer:
    """The trainer of a configuration; see `memlab.training.trainer.make_trainer`."""
    trainer: pl.Trainer = instantiate(
        cfg.trainer,
        batches=batches,
        callbacks=list(callbacks.values()),
        logger=list(instantiate(cfg.get("logger", {})).values()),
    )
    return trainer


def start_of(cfg: DictConfig, model: TrainedModule, trainer: pl.Trainer) -> Path | None:
    """The checkpoint to go on from: with ``resume`` the newest in the folder, if there is one."""
    if cfg.resume and (newest := _newest(Path(cfg.callbacks.last_checkpoint.dirpath), trainer)):
        check_fits(read_checkpoint(newest), model, name=str(newest))
        return newest
    if cfg.ckpt_path is None:
        return None
    if ADDRESS.match(str(cfg.ckpt_path)):
        raise ValueError(f"ckpt_path={cfg.ckpt_path}: is an address; must be a file here, copy it first")
    path = Path(cfg.ckpt_path)
    try:
        checkpoint = read_checkpoint(path)
    except DamagedCheckpointError as error:
        raise ValueError(f"ckpt_path={error}") from error
    check_fits(checkpoint, model, name=f"ckpt_path={path}")
    check_something_left(checkpoint, trainer, path=path)
    return path


def _newest(folder: Path, trainer: pl.Trainer) -> Path | None:
    """The checkpoint to go on from; of several processes the first sees to the files, before the others read any."""
    if trainer.is_global_zero:
        return newest_checkpoint(folder)
    return folder / LAST if (folder / LAST).is_file() else None


def facts_of(cfg: DictConfig, model: TrainedModule, trainer: pl.Trainer, *, data: str) -> dict[str, Any]:
    """What is run, as far as it is known before training, so that nothing of it can fail when training is over."""
    hydra = HydraConfig.get()
    choices = {group: option for group, option in hydra.runtime.choices.items() if not group.startswith("hydra/")}
    for name, value in (word.lstrip("+").split("=", 1) for word in hydra.overrides.task if "=" in word):
        if name.endswith("._target_"):  # a class of the user's own, whatever option it was put into
            choices[name.removesuffix("._target_").replace(".", "/")] = value
    return {
        "seed": cfg.seed,
        "data": data,
        "overrides": without_resume(hydra.overrides.task),
        "choices": choices,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "device": str(trainer.strategy.root_device),
        "processes": trainer.world_size,
        "machine": machine_name(trainer.strategy.root_device),
        "precision": trainer.precision,
        "versions": versions(),
    }
