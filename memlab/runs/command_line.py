"""The command ``python train.py``: names are checked first, and only then is anything imported that takes seconds."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from memlab.files import check_new_or_empty
from memlab.runs.claim import FILE as CLAIM
from memlab.runs.claim import FolderInUseError, claimed
from memlab.runs.composition import check_names, check_options, chosen_config, task_folder, with_open_places
from memlab.runs.failure import FILE as FAILURE
from memlab.runs.failure import note_failure
from memlab.runs.help import help_text
from memlab.runs.hydra_callbacks import discarded_if_empty, released_at_end
from memlab.runs.launcher import make_known
from memlab.runs.log import FILE as LOG
from memlab.runs.mistakes import UserError, exit_on_mistakes, lack_of_room, mistakes_in_one_line
from memlab.runs.ranks import be_quiet, check_company, rank
from memlab.runs.resume import (
    NothingLeftError,
    check_parts,
    check_same,
    command_to_go_on,
    was_begun,
    words_to_go_on,
)
from memlab.signals import TRY_AGAIN, Interrupted, heeded, unmistaken

log = logging.getLogger("memlab")

HELP = {"-h", "--help"}
NO_TRIAL = "No trials are completed yet."
LEFT = (CLAIM, LOG, FAILURE)
"""What a command may have left that could not begin: nothing in these is lost when another does."""


def run(main: Callable[[], object], *, conf: str) -> None:
    """Compose and do all jobs of the command; a mistake is one line and exit status 1.

    Args:
        main: decorated by ``hydra.main``, calls `do` for each job.
        conf: the folder of groups.
    """
    sys.path.append(str(Path.cwd()))  # last: where `_target_` finds classes of the user's own
    with (
        exit_on_mistakes(known=lambda: chosen_config(conf, sys.argv[1:])),
        discarded_if_empty(),
        released_at_end(),
        heeded(),
    ):
        make_known()
        if not HELP.isdisjoint(sys.argv):
            with mistakes_in_one_line(ValueError):
                print(help_text(conf, [word for word in sys.argv[1:] if not word.startswith("-")]))
            return
        try:
            words = with_open_places(words_to_go_on(sys.argv[1:], conf=conf))
        except NothingLeftError as finished:
            print(finished)
            return
        with mistakes_in_one_line(ValueError):
            task = task_folder(conf, words)
            check_options(conf, words)
        sys.argv[1:] = [*([] if task == conf else ["--config-path", task]), *words]
        with unmistaken(), _search_in_one_line():
            main()


@contextmanager
def _search_in_one_line() -> Iterator[None]:
    """What Optuna says when there is no best trial, in words of ours."""
    try:
        yield
    except ValueError as error:
        if str(error) != NO_TRIAL:
            raise
        raise UserError("no trial came to its end; failed.json in the folder of each tells why") from error


def do(cfg: DictConfig, *, conf: str) -> float | None:
    """Do one job, of a sweep or by itself; return the validation score of its best checkpoint.

    For a job of a sweep that fails it is None: a sweeper that searches takes it for a failure, and may refuse NaN.

    Args:
        cfg: its configuration.
        conf: the folder of groups.
    """
    folder = Path(HydraConfig.get().runtime.output_dir)
    with exit_on_mistakes(), mistakes_in_one_line(ValueError):
        check_company(cfg)
    if number := rank(cfg):
        with exit_on_mistakes(), _speaking_as_one_of_many(number):
            return _do(cfg, folder, conf)
    if HydraConfig.get().mode is not RunMode.MULTIRUN:
        with exit_on_mistakes(), mistakes_in_one_line(FolderInUseError), claimed(folder):
            return _do(cfg, folder, conf)
    try:
        with claimed(folder):
            return _do(cfg, folder, conf)
    except FolderInUseError as error:  # not logged, which would be in the folder
        print(f"error: job {folder.name}: {error}", file=sys.stderr)
        return None
    except Exception as error:  # one job that fails must not cost the others: the sweep's report tells of it
        if not isinstance(error, UserError):
            log.exception("job %s", folder.name)
        note_failure(
            folder, overrides=list(HydraConfig.get().overrides.task), reason=str(error) or type(error).__name__
        )
        return None


@contextmanager
def _speaking_as_one_of_many(number: int) -> Iterator[None]:
    """What happens to all processes of a run, the first one tells; what happens to this one, this one."""
    be_quiet()
    try:
        yield
    except Interrupted:
        sys.exit(TRY_AGAIN)
    except UserError as error:
        if isinstance(error.__cause__, ArithmeticError):  # of what all have computed
            sys.exit(1)
        raise UserError(f"rank {number}: {error}") from error


def _do(cfg: DictConfig, folder: Path, conf: str) -> float:
    with mistakes_in_one_line(ValueError):
        check_names(cfg, conf=conf)
        if cfg.sweep.jobs != 1 and HydraConfig.get().mode is not RunMode.MULTIRUN:
            raise ValueError(f"sweep.jobs={cfg.sweep.jobs}: is for sweeps, which are begun by python train.py -m")
        if cfg.resume:
            check_parts(cfg, HydraConfig.get().overrides.task, conf=conf)
        if cfg.resume and was_begun(folder):
            from memlab.runs.results import read_results  # numpy comes with it

            check_same(cfg, folder)
            if results := read_results(folder):  # a job of a sweep; a run would not have come so far
                return float(results[cfg.monitor])
        elif not rank(cfg):
            check_new_or_empty("hydra.run.dir", folder, but=LEFT)
    from memlab.runs.job import train

    try:
        with unmistaken():
            return train(cfg, folder)
    except Interrupted as interruption:
        if not was_begun(folder):
            raise
        raise Interrupted(interruption.number, f"go on with {_going_on(folder)}") from None
    except Exception as error:
        if not (full := lack_of_room(error)):
            raise
        going_on = f"go on with {_going_on(folder)}" if was_begun(folder) else "start it again"
        raise UserError(f"{full}; make room, then {going_on}") from error


def _going_on(folder: Path) -> str:
    """The command that goes on with a run, or with the sweep that it is a job of."""
    is_sweep = HydraConfig.get().mode is RunMode.MULTIRUN
    return command_to_go_on(Path(HydraConfig.get().sweep.dir) if is_sweep else folder, is_sweep=is_sweep)
