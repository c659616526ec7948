"""Callbacks that keep checkpoints: when, and what in them lets a run go on as if it had not been interrupted.

Lightning restores the state of its loops, but not at any moment exactly. Checkpoints are therefore taken where a batch
is about to begin, when all that belongs to the batch before is over: its validation, the end of its epoch, what is
logged of them and the learning rate that follows from them. A run that has ended has no such moment, and takes its last
one where Lightning expects it, after the validation within an epoch, or at the end of the epoch.
"""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint, Timer
from torch import Tensor

from memlab import signals
from memlab.checks import check_number
from memlab.training.checkpoint_files import (
    BEFORE,
    CheckpointFiles,
    DamagedCheckpointError,
    digest_of,
    put_aside,
    read_checkpoint,
    take_place,
)
from memlab.training.metrics_file import MetricsFile
from memlab.training.processes import greatest
from memlab.training.trained_module import TrainedModule

log = logging.getLogger(__name__)

LAST, BEST = "last.ckpt", "best.ckpt"


class LastCheckpoint(Checkpoint):
    """Keeps ``last.ckpt``, the state after the last validation, at most some minutes ago, or at an interruption.

    A signal that ends the run (`memlab.signals`) is waited for until the training step is over; in a validation it is
    heeded at once, and the run begins with that validation when it goes on.

    Args:
        dirpath: folder of the checkpoints.
        every_minutes: how long a run may be without one.

    Raises:
        ValueError: if that is not above 0.
    """

    def __init__(self, *, dirpath: str, every_minutes: float) -> None:
        check_number("every_minutes", every_minutes, above=0)
        self.path = Path(dirpath) / LAST
        self._seconds = 60 * every_minutes
        self._saved_at = 0.0
        self._validated = False
        self._validating = False
        self._ended_within_epoch = False
        """Whether a run gone on with had ended so, its validation included."""
        self._last_validation = False
        """Whether the validation at the end of the run is all that was left."""
        self._max_steps = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From now on a step is brought to its end, whatever Lightning does with signals."""
        signals.heed()
        signals.put_off(True)
        self._saved_at = time.monotonic()
        trainer.should_stop = self._ended_within_epoch
        batches = trainer.fit_loop.epoch_loop.batch_progress.total
        batches.ready = batches.completed  # the batch that was about to begin is not counted twice
        if self._last_validation:
            loop = trainer.fit_loop.epoch_loop
            self._max_steps, loop.max_steps = loop.max_steps, -1  # or Lightning would end at once
            trainer.check_val_every_n_epoch = trainer.val_check_batch = 1

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save what is due, and end the run if a signal has come.

        Raises:
            Interrupted: if one has.
        """
        trainer.fit_loop._restarting = False  # Lightning waits for the end of the epoch, whose learning rate it forgets
        if within_step(trainer):
            return
        noted, due = greatest(trainer, signals.noted() or 0, time.monotonic() - self._saved_at > self._seconds)
        if self._validated or noted or due:
            self._save(trainer)
        if noted:
            raise signals.Interrupted(noted)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A signal need not wait for the end of a validation, unless other processes are in it too."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._validating = True
            signals.put_off(trainer.world_size > 1)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What follows is to be brought to its end."""
        if self._validating:
            signals.put_off(True)
            self._validating = False
            self._validated = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the end of a run that is within an epoch."""
        trainer.fit_loop._restarting = False
        if self._last_validation:
            self._last_validation = False
            trainer.fit_loop.epoch_loop.max_steps = self._max_steps
            trainer.should_stop = True
        if self._validated and ends_within_epoch(trainer):
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the end of a run that is at the end of an epoch."""
        if self._validated and ends(trainer):
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """What is not training need not be brought to its end.

        Raises:
            Interrupted: if a signal has come in the last step.
        """
        signals.put_off(False)
        if self._ended_within_epoch:
            assert isinstance(pl_module, TrainedModule)
            _close_epoch(trainer, pl_module)
        (noted,) = greatest(trainer, signals.noted() or 0)
        if noted:
            raise signals.Interrupted(noted)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals over from Lightning."""
        signals.heed()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save the state in which a validation was interrupted; after other exceptions none is to be relied on."""
        signals.put_off(False)
        alone = trainer.world_size == 1  # to save takes all processes, and the others have gone on
        if self._validating and isinstance(exception, signals.Interrupted) and not within_step(trainer) and alone:
            signals.put_off(True)
            self._save(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what Lightning does not keep, and where it would not go on exactly, say where it is."""
        best = self.path.with_name(BEST)
        checkpoint["resume"] = {
            "lines": {number: logger.state() for number, logger in _metrics_files(trainer)},
            "best": digest_of(best) if trainer.is_global_zero and best.is_file() else None,
            "exact": not within_step(trainer),
            "ended": trainer.should_stop,
            "within_epoch": ends_within_epoch(trainer),
            "validating": self._validating,
            "limits": _limits(trainer),
        }
        loop = checkpoint["loops"]["fit_loop"]
        batches = loop["epoch_loop.batch_progress"]["current"]
        if self._validating:
            _begin_with_validation(loop)
        elif batches["ready"] > batches["started"] and not trainer.fit_loop._should_accumulate():
            # Where a batch is about to begin. Lightning takes it that the step before was not counted yet.
            loop["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Go on with the lines of ``metrics.csv``; a training that had ended goes on only if it is to be longer."""
        if trainer.state.fn != "fit":  # the best is to be tested
            return
        resume = checkpoint["resume"]
        for number, logger in _metrics_files(trainer):
            logger.restore(resume["lines"].get(number, 0))
        if resume["ended"] and resume["limits"] == _limits(trainer):
            self._last_validation = resume["validating"]
            self._ended_within_epoch = resume["within_epoch"] and not resume["validating"]
            trainer.should_stop = not (resume["within_epoch"] or resume["validating"])

    def _save(self, trainer: pl.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._validated = False
        self._saved_at = time.monotonic()


class BestCheckpoint(ModelCheckpoint):
    """Keeps ``best.ckpt``, the last of those equally good; a run that goes on from a checkpoint takes it along.

    Lightning's callback saves at once, keeps the first of those equally good, and forgets the best when the folder is
    another one. Of few validation objects many checkpoints are equally good, and the later ones have learned more.

    Args:
        dirpath: folder of the checkpoints.
        monitor: logged figure that tells which is best.
        mode: ``min`` or ``max``, the end of it that is best.
    """

    def __init__(self, *, dirpath: str, monitor: str, mode: str) -> None:
        super().__init__(
            dirpath=dirpath, filename="best", monitor=monitor, mode=mode, enable_version_counter=False, save_top_k=1
        )
        self._validated = False
        self._writes = True

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Note whether this is the process that writes."""
        super().setup(trainer, pl_module, stage)
        self._writes = trainer.is_global_zero

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that there is something to be judged; judge the end of a run that is within an epoch."""
        self._validated = trainer.state.fn == "fit" and not trainer.sanity_checking
        if ends_within_epoch(trainer):
            self._judge(trainer)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Save what was validated last, if it is the best."""
        self._judge(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Judge the end of a run that is at the end of an epoch."""
        if ends(trainer):
            self._judge(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save nothing."""

    def _judge(self, trainer: pl.Trainer) -> None:
        if self._validated:
            self._validated = False
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def check_monitor_top_k(self, trainer: pl.Trainer, current: Tensor | None = None) -> bool:
        """Whether a figure is as good as the best or better; processes have the same."""
        better: bool = super().check_monitor_top_k(trainer, current)
        return better or (current is not None and current.equal(self.best_k_models[self.kth_best_model_path]))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best checkpoint of the run gone on from, if it still exists."""
        assert self.dirpath is not None
        if not state_dict["best_model_path"]:
            return
        before, best = Path(state_dict["best_model_path"]), Path(self.dirpath) / BEST
        if self._writes and before.is_file() and before.absolute() != best.absolute():
            best.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(before, best)
        if best.is_file():
            here = {
                "dirpath": self.dirpath,
                "best_model_path": str(best),
                "kth_best_model_path": str(best),
                "best_k_models": {str(best): state_dict["best_model_score"]},
                "last_model_path": "",
            }
            super().load_state_dict({**state_dict, **here})


def newest_checkpoint(folder: Path) -> Path | None:
    """The checkpoint of a run's folder that is furthest on and whole, as is the best one that it tells of.

    They are ``last.ckpt`` and ``best.ckpt`` afterwards. Files that are damaged are named in the log.

    Args:
        folder: of the checkpoints.
    """
    found = {}
    for path in (folder / f"{before}{name}" for name in (LAST, BEST) for before in ("", BEFORE)):
        if path.is_file():
            try:
                found[path] = read_checkpoint(path)
            except DamagedCheckpointError as error:
                log.warning(f"{error}; it is not used, and is {put_aside(path).name} now")
    digests = {path: digest_of(path) for path in found}
    places = {digest: path for path, digest in digests.items() if path.name.endswith(BEST)}
    for path in sorted(found, key=lambda path: -found[path]["global_step"]):
        if not found[path]["resume"]["exact"]:
            continue
        best = path if path.name.endswith(BEST) else places.get(found[path]["resume"]["best"])
        if best is not None or found[path]["resume"]["best"] is None:
            log.info(f"goes on from {path.name}, after {found[path]['global_step']:,} steps")
            if best is not None and best.name != BEST:
                take_place(best, folder / BEST)
            if path.name != LAST:  # of a run that had ended no other would be written
                resume = found[path]["resume"] | {"best": best and digests[best]}
                CheckpointFiles().save_checkpoint(found[path] | {"resume": resume}, folder / LAST)
            return folder / LAST
    return None


def within_step(trainer: pl.Trainer) -> bool:
    """Whether gradients have been added up for a step that is not made yet; they are in no checkpoint."""
    done = trainer.fit_loop.epoch_loop.batch_progress.current.completed
    return bool(done % trainer.accumulate_grad_batches) and done < trainer.num_training_batches


def ends(trainer: pl.Trainer) -> bool:
    """Whether the epoch that is over is the last one."""
    return trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs


def ends_within_epoch(trainer: pl.Trainer) -> bool:
    """Whether training has come to its end before that of an epoch."""
    return trainer.should_stop and trainer.fit_loop.batch_idx + 1 < trainer.num_training_batches


def _begin_with_validation(loop: dict[str, Any]) -> None:
    """Say that the validation under way is to be run again, from its first batch."""
    progress = loop["epoch_loop.val_loop.batch_progress"]
    progress["total"].update(ready=1, started=1, processed=0, completed=0)
    progress["current"].update(ready=0, started=0, processed=0, completed=0)
    progress["is_last_batch"] = False


def _close_epoch(trainer: pl.Trainer, pl_module: TrainedModule) -> None:
    """End the epoch within which training had ended: Lightning does not go back into it if it has nothing to train."""
    pl_module.close_epoch()
    trainer.fit_loop.epoch_loop._batches_that_stepped += 1
    trainer.fit_loop.epoch_progress.increment_processed()
    trainer.fit_loop.epoch_progress.increment_completed()


def _limits(trainer: pl.Trainer) -> list[Any]:
    """How long the run is to be."""
    (timer,) = (callback for callback in trainer.callbacks if isinstance(callback, Timer))  # type: ignore[attr-defined]
    return [trainer.max_epochs, trainer.max_steps, timer._duration]


def _metrics_files(trainer: pl.Trainer) -> list[tuple[int, MetricsFile]]:
    return [(number, each) for number, each in enumerate(trainer.loggers) if isinstance(each, MetricsFile)]
