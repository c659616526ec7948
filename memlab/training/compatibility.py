"""Whether a checkpoint can be gone on from, told before anything is trained or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Timer

from memlab.training.trained_module import TrainedModule

LISTED = {"class_names": "classes"}
"""Marks that are lists of what the data has, and what they are called."""


def check_fits(checkpoint: dict[str, Any], model: TrainedModule, *, name: str) -> None:
    """See that a checkpoint fits the model.

    Args:
        checkpoint: what it holds.
        model: what it is to be loaded into.
        name: what it is called, to be told.

    Raises:
        ValueError: if it has other marks, as another encoder, or weights of other shapes.
    """
    for part, ours in model.marks.items():
        if (theirs := checkpoint["memlab"].get(part)) == ours:
            continue
        if part in LISTED and theirs is not None:
            raise ValueError(
                f"{name}: was trained on the {LISTED[part]} {_listed(theirs)}, and the data has {_listed(ours)};"
                " must be the same, choose the data it was trained on"
            )
        raise ValueError(
            f"{name}: holds the {part} {theirs}, and the model has {ours}; must be the same, choose the {part} it"
            " was trained with"
        )
    _check_shapes(checkpoint, model, name=name)


def _check_shapes(checkpoint: dict[str, Any], model: TrainedModule, *, name: str) -> None:
    theirs = {name: tuple(value.shape) for name, value in checkpoint["state_dict"].items()}
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    if different := sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name)):
        part = different[0]
        raise ValueError(
            f"{name}: has {part} of shape {theirs.get(part)}, and the model {ours.get(part)}; must be the same, choose"
            " the sizes it was trained with"
        )


def check_something_left(checkpoint: dict[str, Any], trainer: pl.Trainer, *, path: Path) -> None:
    """See that a run from a checkpoint has something to train.

    Args:
        checkpoint: what it holds.
        trainer: has the epochs, steps and time that the run is to reach, those of the checkpoint included.
        path: of the checkpoint.

    Raises:
        ValueError: if the run of the checkpoint is already as long as asked.
    """
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
                f"trainer.max_{name}={limit}: must be above {done}, the {unit} that {path} has behind it already"
            )


def _listed(names: Any) -> str:
    shown = ", ".join(list(names)[:5])
    return shown if len(names) <= 5 else f"{shown}, ... ({len(names)})"
