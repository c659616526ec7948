"""What Hydra calls around the jobs of a command: folders taken away if nothing came of them, a sweep's claim, its end.

Hydra makes these at every start, for ``--help`` too, so that nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from memlab.files import write_whole
from memlab.runs.claim import FolderInUseError, claimed
from memlab.runs.resume import SWEEP


class NewFolders(Callback):
    """Hydra callback that notes what is about to be made, which is before it is known whether a run can start."""

    noted: ClassVar[list[Path]] = []
    """Innermost first. Of the class, because Hydra makes the object and gives it to nobody."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """Note the run folder and those around it that do not exist yet."""
        HydraConfig.instance().set_config(config)  # as Hydra does next: a folder can be named after what is chosen
        self._note(Path(config.hydra.run.dir).absolute())

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Note the sweep's folder likewise, and the file that Hydra writes into it before the first job is composed."""
        self._note(Path(config.hydra.sweep.dir).absolute() / "multirun.yaml")

    def _note(self, innermost: Path) -> None:
        self.noted[:] = [path for path in (innermost, *innermost.parents) if not path.exists()]


@contextmanager
def discarded_if_empty() -> Iterator[None]:
    """Take away what the command has made and left empty; what was there before stays."""
    NewFolders.noted.clear()
    try:
        yield
    finally:
        for path in NewFolders.noted:
            with suppress(OSError):  # it was not made after all, or is not empty
                if path.is_dir():
                    path.rmdir()
                elif [*path.parent.iterdir()] == [path]:
                    path.unlink()


class OneSweepAtATime(Callback):
    """Hydra callback that claims the folder of a sweep, before Hydra writes into it."""

    until_end: ClassVar[ExitStack] = ExitStack()

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Claim it until `released_at_end`.

        Raises:
            SystemExit: with status 1 if another process works in it; Hydra takes no exception for more than a warning.
        """
        with suppress(OSError):  # Hydra makes the folder next, and tells of it
            try:
                self.until_end.enter_context(claimed(Path(config.hydra.sweep.dir).absolute()))
            except FolderInUseError as error:
                print(f"error: {error}", file=sys.stderr)
                raise SystemExit(1) from error


class SearchNoted(Callback):
    """Hydra callback that leaves in the folder of a search what was typed, as Hydra's own sweeper does of a grid."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Write ``multirun.yaml``, by which the search is gone on with."""
        if is_search(config):
            write_whole(Path(config.hydra.sweep.dir) / SWEEP, OmegaConf.to_yaml(config))


def is_search(config: DictConfig) -> bool:
    """Whether the jobs of a sweep are chosen by what those before have come to."""
    return "direction" in config.hydra.sweeper


@contextmanager
def released_at_end() -> Iterator[None]:
    """Give up what was claimed within this context."""
    with OneSweepAtATime.until_end:
        yield


class Slurm(Callback):
    """Hydra callback that sees to what the jobs of a sweep need on SLURM, if it is there that they are to run."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """Let SLURM send the signal that runs heed some time before it ends a job: submitit's own begins it anew.

        Raises:
            SystemExit: with status 1 if there is no SLURM.
        """
        if not str(config.hydra.launcher._target_).endswith(".SlurmLauncher"):
            return
        if not shutil.which("sbatch"):
            print("error: hydra/launcher=slurm: there is no SLURM here (sbatch is not found)", file=sys.stderr)
            raise SystemExit(1)
        os.environ.setdefault("SUBMITIT_PREEMPT_SIGNAL", "USR1")


class SweepReport(Callback):
    """Hydra callback that reports on the jobs of a multirun at its end."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print the table and write it as ``sweep.csv``, and heat maps as ``heat_map.png``, into the sweep's folder.

        Raises:
            SystemExit: with status 1 if a job failed; the others are reported all the same.
        """
        from memlab.runs.sweep import close

        if not close(Path(config.hydra.sweep.dir), by=config.monitor):
            raise SystemExit(1)
