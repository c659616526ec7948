"""Jobs of a sweep side by side on this machine, each in a process of its own, by submitit's executor for one machine.

A process that is killed takes nothing along: joblib, whose workers are a pool, ends all of them if one is.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import submitit
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, configure_log
from hydra.errors import HydraException
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import LocalLauncher
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from memlab import signals
from memlab.files import write_whole
from memlab.runs.failure import FILE as FAILURE
from memlab.runs.failure import note_failure
from memlab.runs.mistakes import UserError, one_line
from memlab.runs.results import read_results
from memlab.runs.resume import command_to_go_on
from memlab.signals import TRY_AGAIN, Interrupted

log = logging.getLogger("memlab")

SECONDS = 0.2
"""From one look at the jobs to the next."""
FOR_EVER = 60 * 24 * 365
"""Minutes after which submitit would end a job."""
OVER = "\r\033[K"
"""Takes away the line that a terminal is in."""
KILLED = "ended without a word, as when it is killed: by somebody, or by the system for want of memory"


@dataclass
class Begun:
    """A job that has been begun."""

    number: int
    overrides: Sequence[str]
    process_file: Path
    """Where it leaves the number of its process."""
    job: submitit.Job[Any]
    asked: int = 0
    """How often it has been asked to end."""


@dataclass
class Jobs:
    """The jobs of a launch: those that wait, those that run, what the others returned."""

    launcher: LocalLauncher
    executor: submitit.Executor
    sweep: Path
    """The folder of the sweep."""
    place: Path
    """A folder for what is told between the processes."""
    devices: Sequence[str]
    """Names of GPUs, to be dealt."""
    first: int
    """The number of the first."""
    waiting: deque[tuple[int, Sequence[str]]]
    running: dict[int, Begun] = field(default_factory=dict)
    """By the place that each has among those that run at a time."""
    returned: dict[int, JobReturn] = field(default_factory=dict)
    failed: int = 0
    said: str = ""

    def begin(self, place: int) -> None:
        """Begin the next job."""
        number, overrides = self.waiting.popleft()
        device = self.devices[place % len(self.devices)] if self.devices else None
        file = self.place / f"{number}.process"
        words = (overrides, number, file, device, os.getpid(), Singleton.get_state())
        with signals.blocked():  # which a process that is started takes over: it heeds them when it can
            job = self.executor.submit(do, self.launcher, *words)
        self.running[place] = Begun(number, overrides, file, job)

    def look(self) -> None:
        """Take in what jobs have returned that are done."""
        for place, begun in list(self.running.items()):
            if begun.job.done():
                del self.running[place]
                self._take_in(begun)

    def ask_to_end(self, times: int) -> None:
        """Ask each running job to end at its next step, or a second time, at once."""
        for begun in self.running.values():
            if begun.asked < times and begun.process_file.is_file():
                begun.asked += 1
                with suppress(ProcessLookupError):
                    os.kill(int(begun.process_file.read_text()), signal.SIGTERM)

    def tell(self) -> None:
        """Say in one line how far the sweep is, over the one before if that is a terminal."""
        done, running = len(self.returned) - self.failed, sorted(begun.number for begun in self.running.values())
        parts = [f"{done} of {done + self.failed + len(running) + len(self.waiting)} done"]
        parts[0] += f", after {self.first} before" if self.first else ""
        parts += [f"{self.failed} failed"] if self.failed else []
        parts += [f"running: {', '.join(map(str, running))}"] if running else []
        if (text := f"sweep: {'; '.join(parts)}") != self.said:
            over = sys.stdout.isatty()
            print(f"{OVER}{text}" if over else text, end="" if over else "\n", flush=True)
            self.said = text

    def _take_in(self, begun: Begun) -> None:
        folder = self.sweep / str(begun.number)
        for line in _lines(begun.job.paths.stderr):
            if line.startswith("error: "):
                print(f"{OVER}{line}" if sys.stdout.isatty() else line, file=sys.stderr)
        returned = begun.job.result() if begun.job.paths.result_pickle.is_file() else None
        if isinstance(returned, JobReturn):
            self.returned[begun.number] = returned
        elif begun.asked and returned is None:
            return
        else:
            self.returned[begun.number] = JobReturn(begun.overrides, status=JobStatus.COMPLETED)
            self.returned[begun.number].return_value = None
            if not (folder / FAILURE).is_file() or returned:
                note_failure(folder, overrides=begun.overrides, reason=returned or _last_words(begun))
        self.failed += read_results(folder) is None


def launch(
    job_overrides: Sequence[Sequence[str]],
    first: int,
    *,
    jobs: int,
    hydra_context: HydraContext,
    task_function: TaskFunction,
    config: DictConfig,
) -> list[JobReturn]:
    """Do some jobs of a sweep.

    Args:
        job_overrides: of each.
        first: the number of the first.
        jobs: how many run at a time.
        hydra_context: of Hydra.
        task_function: does a job.
        config: of the sweep.

    Returns:
        what they returned, in their order; None for one that ended otherwise.

    Raises:
        Interrupted: if a signal has come, when the jobs that ran then have ended.
    """
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    launcher = LocalLauncher()
    launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)
    jobs, sweep = min(jobs, len(job_overrides)), Path(config.hydra.sweep.dir)
    numbered = deque(enumerate(job_overrides, first))
    with TemporaryDirectory(prefix="memlab_sweep_") as place, _environment(jobs), _signals_noted():
        executor = submitit.LocalExecutor(place)
        executor.update_parameters(timeout_min=FOR_EVER)
        all_jobs = Jobs(launcher, executor, sweep, Path(place), _devices(), first, numbered)
        times = _run(all_jobs, jobs)
    if times:
        raise Interrupted(signals.noted() or signal.SIGTERM, f"go on with {command_to_go_on(sweep, is_sweep=True)}")
    return [all_jobs.returned[number] for number in sorted(all_jobs.returned)]


def _run(jobs: Jobs, at_a_time: int) -> int:
    """Run all; how often a signal has asked for the end."""
    times = 0
    while jobs.running or (jobs.waiting and not times):
        try:
            for place in range(at_a_time):
                if jobs.waiting and not signals.noted() and place not in jobs.running:
                    jobs.begin(place)
            jobs.tell()
            time.sleep(SECONDS)
            jobs.look()
        except Interrupted:  # asked a second time
            times = 2
        if signals.noted():
            times = max(times, 1)
            jobs.ask_to_end(times)
    if not times:
        jobs.tell()
    if sys.stdout.isatty():
        print()
    return times


def do(
    launcher: LocalLauncher,
    overrides: Sequence[str],
    number: int,
    process_file: Path,
    device: str | None,
    sweep_process: int,
    singletons: dict[Any, Any],
) -> JobReturn | str:
    """Do one job in its process; what Hydra makes of it, or why nothing could be done.

    Args:
        launcher: composes the job and calls its function.
        overrides: of the job.
        number: of the job.
        process_file: takes the number of this process.
        device: the GPU that it can see; None for all.
        sweep_process: which process began it.
        singletons: of Hydra.
    """
    os.setsid()  # Ctrl-C is for the sweep, which asks its jobs to end
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    try:
        with signals.heeded():
            write_whole(process_file, str(os.getpid()))
            threading.Thread(target=_end_with, args=(sweep_process,), daemon=True).start()
            signals.unblock()
            returned: JobReturn = launcher(list(overrides), "hydra.sweep.dir", number, str(number), singletons)
            return returned
    except Interrupted:
        sys.exit(TRY_AGAIN)
    except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
        return one_line(error, words=overrides)


def _end_with(number: int) -> None:
    """End at the next step if another process has ended, which could not say so."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(number)
        while process.is_running():
            time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _signals_noted() -> Iterator[None]:
    signals.put_off(True)
    try:
        yield
    finally:
        signals.put_off(False)


@contextmanager
def _environment(jobs: int) -> Iterator[None]:
    """What the processes of jobs find: modules where this one does, and a share of the cores unless the user set it."""
    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    os.environ["PYTHONSAFEPATH"] = "1"  # or the folder they are started in came first, whatever it holds
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // jobs)))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _devices() -> list[str]:
    """The GPUs that this process may use, as ``CUDA_VISIBLE_DEVICES`` names them."""
    import torch  # takes a second

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] or [str(number) for number in range(count)]


def _last_words(begun: Begun) -> str:
    lines = [line for line in _lines(begun.job.paths.stderr) if line.strip() and not line.startswith("submitit ")]
    return f"{KILLED}; its last words: {lines[-1].strip()}" if lines else KILLED


def _lines(file: Path) -> list[str]:
    return file.read_text(errors="replace").splitlines() if file.is_file() else []
