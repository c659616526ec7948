"""The launcher that every sweep is begun by. Hydra imports this at every start: what takes long comes with the jobs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class Jobs(Launcher):
    """Runs the jobs of a sweep one after another by Hydra's own launcher, or some at a time in processes of their own.

    Args:
        jobs: how many at a time; 1 is one after another, in this process.

    Raises:
        ValueError: if that is not a whole number of at least 1, or needs packages that are not there.
    """

    def __init__(self, *, jobs: int) -> None:
        from memlab.checks import check_whole_number
        from memlab.runs.mistakes import MISSING_FOR_SWEEPS

        self._jobs = check_whole_number("sweep.jobs", jobs)
        if jobs > 1 and not (find_spec("submitit") and find_spec("hydra_plugins.hydra_submitit_launcher")):
            raise ValueError(f"sweep.jobs={jobs}: {MISSING_FOR_SWEEPS}")
        self._setup: dict[str, Any] = {}

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives to each launcher."""
        self._setup = {"hydra_context": hydra_context, "task_function": task_function, "config": config}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Do all these jobs; what they return, in their order."""
        if self._jobs > 1:
            from memlab.runs.side_by_side import launch

            return launch(job_overrides, initial_job_idx, jobs=self._jobs, **self._setup)
        from hydra._internal.core_plugins.basic_launcher import BasicLauncher

        launcher = BasicLauncher()
        launcher.setup(**self._setup)
        return launcher.launch(job_overrides, initial_job_idx)
