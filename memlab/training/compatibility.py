"""Whether a checkpoint can be gone on from, told before anything is trained or written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Timer

from memlab.training.module import MemoryClassifier


def check_fits(checkpoint: dict[str, Any], model: MemoryClassifier, *, name: str) -> None:
    """See that a checkpoint fits the model.

    Args:
        checkpoint: what it holds.
        model: what it is to be loaded into.
        name: what it is called, to be told.

    Raises:
        ValueError: if it is of another encoder, similarity or set of classes.
    """
    classes = checkpoint["memlab"]["class_names"]
    if classes != list(model.class_names):
        raise ValueError(
            f"{name}: was trained on the classes {_listed(classes)}, and the data has {_listed(model.class_names)};"
            " must be the same, choose the data it was trained on"
        )
    for part, module in [("encoder", model.encoder), ("similarity", model.memory.similarity)]:
        theirs, ours = checkpoint["memlab"][part], type(module).__name__
        if theirs != ours:
            raise ValueError(
                f"{name}: holds the {part} {theirs}, and the model has {ours}; must be the same, choose the {part} it"
                " was trained with"
            )
    _check_shapes(checkpoint, model, name=name)


def _check_shapes(checkpoint: dict[str, Any], model: MemoryClassifier, *, name: str) -> None:
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
