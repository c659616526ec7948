"""Checkpoints: which are kept, and whether one can be gone on from, told before anything is trained or written."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, Timer
from torch import Tensor

from memlab.checks import check_choice
from memlab.files import DAMAGES
from memlab.training.module import CHECKPOINT_FORMAT, DivergenceError, MemoryClassifier


class CheckpointAfterValidation(ModelCheckpoint):
    """Saves after every validation: within an epoch at once, and at its end when the epoch is closed.

    Lightning does the one or the other in all of a run. Only so does a run that goes on find an epoch that is over
    closed, and one that is not open at its next step.

    Args:
        words: as Lightning's.
    """

    def __init__(self, **words: Any) -> None:
        super().__init__(enable_version_counter=False, save_on_train_epoch_end=False, **words)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save, or leave it to the end of the epoch."""
        self._save_on_train_epoch_end = trainer.fit_loop.batch_idx + 1 == trainer.num_training_batches
        super().on_validation_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save what was left."""
        super().on_train_epoch_end(trainer, pl_module)
        self._save_on_train_epoch_end = False


class LastCheckpoint(CheckpointAfterValidation):
    """Keeps ``last.ckpt``, the state after the last validation or at an interruption.

    A callback of its own, because Lightning's ``save_last`` leaves the file as it is when the epoch was not the best.

    Args:
        dirpath: folder of the checkpoints.
    """

    def __init__(self, *, dirpath: str) -> None:
        super().__init__(dirpath=dirpath, filename="last", save_on_exception=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Keep the state at an interruption; what has diverged must not replace the last good state."""
        if not isinstance(exception, DivergenceError):
            super().on_exception(trainer, pl_module, exception)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take nothing over: the file of the run gone on from stays where it is."""


class BestCheckpoint(CheckpointAfterValidation):
    """Keeps ``best.ckpt``; a run that goes on from a checkpoint takes the best so far along.

    Lightning's callback forgets it when the folder is another one.

    Args:
        dirpath: folder of the checkpoints.
        monitor: logged figure that tells which is best.
        mode: ``min`` or ``max``, the end of it that is best.
    """

    def __init__(self, *, dirpath: str, monitor: str, mode: str) -> None:
        super().__init__(dirpath=dirpath, filename="best", monitor=monitor, mode=mode)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best checkpoint of the run gone on from, if it still exists."""
        assert self.dirpath is not None
        before, best = Path(state_dict["best_model_path"]), Path(self.dirpath) / "best.ckpt"
        if before.absolute() == best.absolute():
            super().load_state_dict(state_dict)
        elif before.is_file():
            self._take_along(before, best, state_dict)

    def _take_along(self, before: Path, best: Path, state_dict: dict[str, Any]) -> None:
        best.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(before, best)
        here = {
            "dirpath": self.dirpath,
            "best_model_path": str(best),
            "kth_best_model_path": str(best),
            "best_k_models": {str(best): state_dict["best_model_score"]},
            "last_model_path": "",
        }
        super().load_state_dict({**state_dict, **here})


class BestWeights(pl.Callback):
    """Keeps the weights of the best validation in memory, and gives them back to the model when training is over.

    Without a validation those of the last step stay. For runs that write nothing.

    Args:
        monitor: logged figure that tells which is best.
        mode: ``min`` or ``max``, the end of it that is best.
    """

    def __init__(self, *, monitor: str, mode: str) -> None:
        self._monitor = monitor
        self._sign = 1 if check_choice("mode", mode, ["min", "max"]) == "min" else -1
        self._best = math.inf
        self._weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights if they are the best so far."""
        if trainer.sanity_checking:
            return
        figure = self._sign * float(trainer.callback_metrics[self._monitor])
        if figure < self._best:
            self._best = figure
            self._weights = {name: each.detach().clone() for name, each in pl_module.state_dict().items()}

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give them back."""
        if self._weights:
            pl_module.load_state_dict(self._weights)


def check_checkpoint(ckpt_path: str, model: MemoryClassifier, trainer: pl.Trainer) -> None:
    """See that a checkpoint is whole, fits the model and leaves something to train.

    Args:
        ckpt_path: the file.
        model: what it is to be loaded into.
        trainer: has the epochs, steps and time that the run is to reach, those of the checkpoint included.

    Raises:
        ValueError: if the file is missing, damaged, not a checkpoint of this version of memlab, of another encoder,
            similarity or set of classes, or of a run that is already as long as asked.
    """
    checkpoint = _read(ckpt_path)
    classes = checkpoint["memlab"]["class_names"]
    if classes != list(model.class_names):
        raise ValueError(
            f"ckpt_path={ckpt_path}: was trained on the classes {_listed(classes)}, and the data has"
            f" {_listed(model.class_names)}; must be the same, choose the data it was trained on"
        )
    for part, module in [("encoder", model.encoder), ("similarity", model.memory.similarity)]:
        theirs, name = checkpoint["memlab"][part], type(module).__name__
        if theirs != name:
            raise ValueError(
                f"ckpt_path={ckpt_path}: holds the {part} {theirs}, and the model has {name}; must be the same, choose"
                f" the {part} it was trained with"
            )
    _check_shapes(ckpt_path, checkpoint, model)
    _check_something_left(ckpt_path, checkpoint, trainer)


def _check_shapes(ckpt_path: str, checkpoint: dict[str, Any], model: MemoryClassifier) -> None:
    theirs = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if different := sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)):
        name = different[0]
        raise ValueError(
            f"ckpt_path={ckpt_path}: has {name} of shape {theirs.get(name)}, and the model {ours.get(name)};"
            " must be the same, choose the sizes it was trained with"
        )


def _check_something_left(ckpt_path: str, checkpoint: dict[str, Any], trainer: pl.Trainer) -> None:
    epochs = checkpoint["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
    (timer,) = (callback for callback in trainer.callbacks if isinstance(callback, Timer))  # type: ignore[attr-defined]
    seconds = int(checkpoint["callbacks"]["Timer"]["time_elapsed"]["train"])
    remaining = timer.time_remaining()
    for name, limit, done in [
        ("epochs", trainer.max_epochs, epochs),
        ("steps", trainer.max_steps, checkpoint["global_step"]),
        ("time", -1 if remaining is None else int(remaining), seconds),
    ]:
        if limit != -1 and done >= limit:  # -1 is Lightning's word for no limit
            unit = "seconds" if name == "time" else name
            raise ValueError(
                f"trainer.max_{name}={limit}: must be above {done}, the {unit} that {ckpt_path} has behind it already"
            )


def _read(ckpt_path: str) -> dict[str, Any]:
    if not Path(ckpt_path).is_file():
        raise ValueError(f"ckpt_path={ckpt_path}: no such file; must be a checkpoint that train.py wrote")
    try:
        checkpoint = torch.load(ckpt_path, map_location="cpu", weights_only=True)
    except DAMAGES as error:
        raise ValueError(
            f"ckpt_path={ckpt_path}: truncated, damaged or not a checkpoint ({type(error).__name__}); must be one that"
            " train.py wrote"
        ) from error
    if not isinstance(checkpoint, dict) or "memlab" not in checkpoint:
        raise ValueError(f"ckpt_path={ckpt_path}: not a checkpoint of memlab; must be one that train.py wrote")
    if checkpoint["memlab"].get("format") != CHECKPOINT_FORMAT:
        raise ValueError(
            f"ckpt_path={ckpt_path}: written by another version of memlab; must be of this one, go on with the version"
            " that wrote it or train anew"
        )
    return checkpoint


def _listed(names: Any) -> str:
    shown = ", ".join(list(names)[:5])
    return shown if len(names) <= 5 else f"{shown}, ... ({len(names)})"
