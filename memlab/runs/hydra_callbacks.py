"""What Hydra calls around the jobs of a command: folders taken away if nothing came of them, a sweep's claim, its end.

Hydra makes these at every start, for ``--help`` too, so that nothing heavy is imported before it is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from memlab.runs.claim import FolderInUseError, claimed


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


@contextmanager
def released_at_end() -> Iterator[None]:
    """Give up what was claimed within this context."""
    with OneSweepAtATime.until_end:
        yield


class SweepReport(Callback):
    """Hydra callback that reports on the jobs of a multirun at its end."""

    def on_multirun_end(self, config: DictConfig, **_: Any) -> None:
        """Print the table and write it as ``sweep.csv``, and heat maps as ``heat_map.png``, into the sweep's folder.

        Raises:
            SystemExit: with status 1 if a job failed; the others are reported all the same.
        """
        from memlab.runs.sweep import close

        if not close(Path(config.hydra.sweep.dir)):
            raise SystemExit(1)
