"""The Lightning trainer, with the arguments that most often go wrong checked before anything is written."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch

from memlab.allocator import KeptMemory, give_back_freed_memory, raise_malloc_thresholds
from memlab.argument_checks import check_choice, check_number, check_switch, check_whole_number

log = logging.getLogger(__name__)

ACCELERATORS = ["auto", "cpu", "gpu", "cuda", "mps"]


def make_trainer(
    *,
    accelerator: str,
    devices: int,
    precision: str,
    max_epochs: int,
    accumulate_grad_batches: int,
    gradient_clip_val: float | None,
    raise_malloc_thresholds: bool,
    callbacks: Sequence[pl.Callback] = (),
    **others: Any,
) -> pl.Trainer:
    """Make a `pytorch_lightning.Trainer`.

    Args:
        accelerator: ``auto`` (a GPU if there is one), ``cpu``, ``gpu``, ``cuda`` or ``mps``.
        devices: 1; every step draws its own support, and sharing one among processes is not implemented.
        precision: as Lightning names it: ``32-true``, ``bf16-mixed``, ``16-mixed`` (GPU only), ``64-true``, ...
        max_epochs: epochs to train for.
        accumulate_grad_batches: steps whose gradients are added up before the optimizer moves.
        gradient_clip_val: largest gradient norm, or None for no clipping.
        raise_malloc_thresholds: on a CPU, let the C library keep freed memory (`memlab.allocator`).
        callbacks: Lightning's callbacks.
        others: any other argument of Lightning's trainer.

    Raises:
        ValueError: for a value out of range or a device that this machine does not have.
    """
    check_choice("accelerator", accelerator, ACCELERATORS)
    check_whole_number("max_epochs", max_epochs)
    check_whole_number("accumulate_grad_batches", accumulate_grad_batches)
    if gradient_clip_val is not None:
        check_number("gradient_clip_val", gradient_clip_val, above=0)
    if devices != 1:
        raise ValueError(f"devices={devices}: must be 1; training on several devices is not implemented")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(accelerator, accelerator != "gpu" or any(available.values())):
        raise ValueError(f"accelerator={accelerator}: this machine has none; must be auto or cpu here")
    on_cpu = accelerator == "cpu" or not any(available.values())
    if precision == "16-mixed" and on_cpu:
        raise ValueError("precision=16-mixed: needs a GPU; on a CPU it must be bf16-mixed, 32-true or 64-true")
    if check_switch("raise_malloc_thresholds", raise_malloc_thresholds) and on_cpu:
        callbacks = [RaiseMallocThresholds(), *callbacks]
    return pl.Trainer(
        accelerator=accelerator,
        devices=devices,
        precision=precision,  # type: ignore[arg-type]
        max_epochs=max_epochs,
        accumulate_grad_batches=accumulate_grad_batches,
        gradient_clip_val=gradient_clip_val,
        callbacks=list(callbacks),
        **others,
    )


class RaiseMallocThresholds(pl.Callback):
    """Calls `raise_malloc_thresholds` before training, bounds what is kept for it, and says so."""

    def __init__(self) -> None:
        self._kept: KeptMemory | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raise them, and give back what loading the data has left free."""
        if raise_malloc_thresholds():
            give_back_freed_memory()
            self._kept = KeptMemory()
            log.info(
                "glibc's malloc thresholds raised: steps are faster, as freed memory is kept for the next step"
                " (trainer.raise_malloc_thresholds=false leaves them)"
            )

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Keep no more than steps need."""
        if self._kept is not None:
            self._kept.after_step()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what was really kept."""
        if self._kept is not None:
            log.info(
                f"memory: at most {self._kept.most / 2**30:.2f} GiB held after a step; freed memory given back"
                f" {self._kept.given_back} times"
            )
