"""The Lightning trainer, with the arguments that most often go wrong checked before anything is written."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Timer

from memlab.checks import check_choice, check_number, check_switch, check_whole_number
from memlab.device import KeptMemory, give_back_freed_memory, raise_malloc_thresholds
from memlab.training.checkpoint_files import CheckpointFiles
from memlab.training.forecast import Forecast
from memlab.training.nonfinite import NonFinite
from memlab.training.processes import SharedSupport

log = logging.getLogger(__name__)

VALIDATIONS = 20
"""In a run whose epochs are many and short: each encodes the whole training set."""
STRATEGIES = ["auto", "ddp"]
ACCELERATORS = ["auto", "cpu", "gpu", "cuda", "mps"]


def make_trainer(
    *,
    accelerator: str,
    devices: int,
    num_nodes: int,
    strategy: str,
    precision: str,
    max_epochs: int | None,
    max_steps: int | None,
    max_time: str | None,
    default_steps: int,
    default_epochs: int | None,
    limit_train_batches: int | float,
    limit_val_batches: int | float,
    limit_test_batches: int | float,
    val_check_interval: int | float,
    check_val_every_n_epoch: int | str | None,
    accumulate_grad_batches: int,
    gradient_clip_val: float | None,
    log_every_n_steps: int,
    num_sanity_val_steps: int,
    on_nonfinite: str,
    max_skipped_in_a_row: int,
    raise_malloc_thresholds: bool,
    batches: Mapping[str, int],
    callbacks: Sequence[pl.Callback] = (),
    **others: Any,
) -> pl.Trainer:
    """Make a `pytorch_lightning.Trainer` whose runs end with a validation.

    What comes first of ``max_epochs``, ``max_steps`` and ``max_time`` ends training; all three count from the very
    start, before the checkpoint that a run goes on from. Where neither of the former is given, a run has about
    ``default_steps`` steps, in whole epochs: an epoch is 20 steps on one data set and 1,000 on another, and to learn
    takes steps; but no more than ``default_epochs``. A limit is a number of batches or a share of them above 0 up to 1:
    ``1`` is one batch, ``1.0`` are all.

    Args:
        accelerator: ``auto`` (a GPU if there is one), ``cpu``, ``gpu``, ``cuda`` or ``mps``.
        devices: processes on each machine, with a GPU each where there are any: the support of a step is shared out
            over all of them (`memlab.memory.shards`).
        num_nodes: machines; processes of several are started from outside, as by torchrun or SLURM.
        strategy: of several processes, ``auto`` or ``ddp``, which are the same (`memlab.training.processes`).
        precision: as Lightning names it: ``32-true``, ``bf16-mixed``, ``16-mixed`` (GPU only), ``64-true``, ...
        max_epochs: epochs to train for, or None for no limit.
        max_steps: moves of the optimizer to train for, or None for no limit.
        max_time: how long to train, as days:hours:minutes:seconds, or None for no limit.
        default_steps: moves of the optimizer to train for, rounded to epochs, without ``max_epochs`` and ``max_steps``.
        default_epochs: the most epochs that makes, or None for no limit.
        limit_train_batches: limit of an epoch.
        limit_val_batches: limit of a validation.
        limit_test_batches: limit of the test.
        val_check_interval: batches from one validation to the next, or the share of an epoch.
        check_val_every_n_epoch: epochs from one that is validated to the next; ``auto`` for as few as make twenty
            validations or more; None for validations every ``val_check_interval`` batches, counted through the epochs.
        accumulate_grad_batches: batches whose gradients are added up before the optimizer moves.
        gradient_clip_val: largest gradient norm, or None for no clipping.
        log_every_n_steps: steps from one that is logged to the next; 0 to log epochs alone.
        num_sanity_val_steps: batches to validate before training; -1 for all.
        on_nonfinite: ``stop`` before a step whose loss or gradient is NaN or infinite, or ``skip`` it
            (`memlab.training.nonfinite`).
        max_skipped_in_a_row: steps skipped before training stops after all.
        raise_malloc_thresholds: on a CPU, let the C library keep freed memory (`memlab.device`).
        batches: how many there are to train, val and test; of what is left out there is nothing.
        callbacks: Lightning's callbacks.
        others: any other argument of Lightning's trainer.

    Raises:
        ValueError: for a value out of range, a limit that leaves nothing or a device that this machine does not have.
    """
    on_cpu = _check_device(accelerator, devices=devices, precision=precision)
    several = _check_processes(devices=devices, num_nodes=num_nodes, strategy=strategy)
    for name, most in {"max_epochs": max_epochs, "max_steps": max_steps}.items():
        if most is not None:
            check_whole_number(name, most, or_else="null")
    check_whole_number("default_steps", default_steps)
    if default_epochs is not None:
        check_whole_number("default_epochs", default_epochs, or_else="null")
    check_whole_number("accumulate_grad_batches", accumulate_grad_batches)
    limits = {
        "train": limit_train_batches,
        "val": limit_val_batches,
        "test": limit_test_batches,
    }
    for stage in batches:
        _check_limit(f"limit_{stage}_batches", limits[stage], of=batches[stage])
    epoch = _limited(batches["train"], limit_train_batches)
    steps = -(-epoch // accumulate_grad_batches)
    if max_epochs is None and max_steps is None:
        max_epochs = max(round(default_steps / steps), 1)
        max_epochs = min(max_epochs, default_epochs or max_epochs)
    if check_val_every_n_epoch == "auto":
        epochs = max_epochs or -(-(max_steps or 0) // steps)
        check_val_every_n_epoch = max(epochs // VALIDATIONS, 1)
    _check_validations(val_check_interval, check_val_every_n_epoch, epoch=epoch)
    if gradient_clip_val is not None:
        check_number("gradient_clip_val", gradient_clip_val, above=0)
    check_whole_number("log_every_n_steps", log_every_n_steps, minimum=0)
    check_whole_number("num_sanity_val_steps", num_sanity_val_steps, minimum=-1)
    if others.get("fast_dev_run"):
        raise ValueError(
            f"fast_dev_run={others['fast_dev_run']}: writes no checkpoint, and the test needs one; leave it out,"
            " max_steps=1 is the shortest run"
        )
    own = [
        GoOnAfterAnEpoch(),
        Timer(_duration(max_time), verbose=False),
        FinalValidation(),
        NonFinite(action=on_nonfinite, most=max_skipped_in_a_row),
        Forecast(),
    ]
    if check_switch("raise_malloc_thresholds", raise_malloc_thresholds) and on_cpu:
        own.append(RaiseMallocThresholds())
    return pl.Trainer(
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        strategy=SharedSupport() if several else "auto",
        use_distributed_sampler=False,  # of a batch each process takes its part
        precision=precision,  # type: ignore[arg-type]
        max_epochs=-1 if max_epochs is None else max_epochs,
        max_steps=-1 if max_steps is None else max_steps,
        limit_train_batches=limit_train_batches,
        limit_val_batches=limit_val_batches,
        limit_test_batches=limit_test_batches,
        val_check_interval=val_check_interval,
        check_val_every_n_epoch=check_val_every_n_epoch,  # type: ignore[arg-type]  # checked
        accumulate_grad_batches=accumulate_grad_batches,
        gradient_clip_val=gradient_clip_val,
        log_every_n_steps=log_every_n_steps,
        num_sanity_val_steps=num_sanity_val_steps,
        callbacks=[*callbacks, *own],
        plugins=[CheckpointFiles(), *others.pop("plugins", [])],
        **others,
    )


def _check_device(accelerator: str, *, devices: int, precision: str) -> bool:
    """Whether it is a CPU."""
    check_choice("accelerator", accelerator, ACCELERATORS)
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(accelerator, accelerator != "gpu" or any(available.values())):
        raise ValueError(f"accelerator={accelerator}: this machine has none; must be auto or cpu here")
    on_cpu = accelerator == "cpu" or not any(available.values())
    there = None if on_cpu else torch.cuda.device_count() if available["cuda"] else 1
    if there is not None and check_whole_number("devices", devices) > there:
        raise ValueError(f"devices={devices}: must be at most {there}, as many as this machine has")
    if precision == "16-mixed" and on_cpu:
        raise ValueError("precision=16-mixed: needs a GPU; on a CPU it must be bf16-mixed, 32-true or 64-true")
    return on_cpu


def _check_processes(*, devices: int, num_nodes: int, strategy: str) -> bool:
    """Whether there are several."""
    world = check_whole_number("devices", devices) * check_whole_number("num_nodes", num_nodes)
    if "fsdp" in str(strategy):
        raise ValueError(
            f"strategy={strategy}: must be auto or ddp; FSDP has all processes call the encoder in step, and here each"
            " calls it as often as its share of a support asks"
        )
    check_choice("strategy", strategy, STRATEGIES)
    return world > 1


def _check_limit(name: str, value: int | float, *, of: int) -> None:
    _check_count_or_share(name, value, reason="a run needs a step, a validation and a test")
    if _limited(of, value) == 0:
        raise ValueError(
            f"{name}={value}: is less than one batch of {of}; must be a larger share, or a number of batches"
        )


def _check_count_or_share(name: str, value: int | float, *, reason: str) -> None:
    share = isinstance(value, float) and 0 < value <= 1
    if not share and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ValueError(f"{name}={value}: must be a whole number of at least 1 or a share above 0 up to 1; {reason}")


def _limited(batches: int, limit: int | float) -> int:
    """How many batches Lightning takes."""
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def _check_validations(interval: int | float, every_n_epoch: int | str | None, *, epoch: int) -> None:
    _check_count_or_share("val_check_interval", interval, reason="1 is after every batch, 1.0 at the end of an epoch")
    if every_n_epoch is not None:
        check_whole_number("check_val_every_n_epoch", every_n_epoch, or_else="auto or null")
        if isinstance(interval, int) and interval > epoch:
            raise ValueError(
                f"val_check_interval={interval}: must be at most {epoch}, the batches of an epoch; to count through the"
                " epochs take check_val_every_n_epoch=null"
            )
    elif isinstance(interval, float):
        raise ValueError(
            "check_val_every_n_epoch=None: needs a whole number of batches as val_check_interval, to count"
            " through the epochs"
        )


def _duration(max_time: str | None) -> timedelta | None:
    if max_time is None:
        return None
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d):(\d\d)", str(max_time))
    days, hours, minutes, seconds = map(int, found.groups() if found else "0000")
    duration = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if not duration:
        raise ValueError(
            f"max_time={max_time}: must be days:hours:minutes:seconds above 0, as 00:01:30:00 for an hour and a half"
        )
    return duration


class FinalValidation(pl.Callback):
    """Has a run validate after its last step, wherever in an epoch that is and however seldom it validates before.

    Lightning does not, and what was learned since the last validation would be in no checkpoint.
    """

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell Lightning to stop, before which it validates; the `Timer`, a callback before this one, may have."""
        last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
        last_batch = batch_idx + 1 == trainer.num_training_batches
        if trainer.global_step == trainer.max_steps or (last_epoch and last_batch):
            trainer.should_stop = True
        if trainer.should_stop:
            trainer.check_val_every_n_epoch = 1  # whichever epoch this is


class GoOnAfterAnEpoch(pl.Callback):
    """Lets a run with ``max_steps`` go on from the checkpoint of a whole epoch.

    Where there is a ``max_steps``, Lightning goes back into the epoch of any checkpoint and closes it a second time.
    So it must not see ``max_steps`` until it is back where the checkpoint was.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put ``max_steps`` away."""
        loop = trainer.fit_loop.epoch_loop
        self._max_steps, loop.max_steps = loop.max_steps, -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put it back."""
        trainer.fit_loop.epoch_loop.max_steps = self._max_steps


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
                " (raise_malloc_thresholds=false leaves them)"
            )

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        """Keep no more than steps need."""
        if self._kept is not None:
            self._kept.after_step()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give back what steps have freed: what is evaluated is of other sizes, and would lie beside it."""
        if self._kept is not None:
            give_back_freed_memory()

    on_validation_end = on_validation_start

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say what was really kept."""
        if self._kept is not None:
            log.info(
                f"memory: at most {self._kept.most / 2**30:.2f} GiB held after a step; freed memory given back"
                f" {self._kept.given_back} times"
            )
