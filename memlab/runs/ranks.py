"""Which of the processes of one run this is: the first writes, and speaks for all. Nothing heavy is imported."""

from __future__ import annotations

import logging
import os

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from memlab.runs.log import LogFile

RANKS = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
"""Where Lightning, torchrun and SLURM leave which process this is; 0 in all of them is the first."""


def several(cfg: DictConfig) -> bool:
    """Whether a run is one of several processes."""
    return any(OmegaConf.select(cfg, f"trainer.{name}", default=1) != 1 for name in ("devices", "num_nodes"))


def rank(cfg: DictConfig) -> int:
    """Which process of its run this is: 0 is the first, and of machines that know no better any number the others."""
    if not several(cfg):
        return 0
    return next((number for name in RANKS if (number := int(os.environ.get(name, 0)))), 0)


def check_company(cfg: DictConfig) -> None:
    """See that the processes of a run are as many as it is to have, and have one folder to work in.

    Raises:
        ValueError: in a sweep, for other numbers, or if each of them would name a folder of its own.
    """
    devices, nodes = (OmegaConf.select(cfg, f"trainer.{name}", default=1) for name in ("devices", "num_nodes"))
    if "TORCHELASTIC_RUN_ID" in os.environ and str(devices * nodes) != os.environ["WORLD_SIZE"]:
        raise ValueError(
            f"trainer.devices={devices}: times trainer.num_nodes={nodes} must be {os.environ['WORLD_SIZE']}, as many"
            " processes as torchrun has started"
        )
    if not several(cfg):
        return
    hydra = HydraConfig.get()
    if hydra.mode is RunMode.MULTIRUN:
        raise ValueError(
            f"trainer.devices={cfg.trainer.devices}: must be 1 in a sweep, whose jobs are run beside one another by"
            " sweep.jobs, each on a device"
        )
    by_slurm = int(os.environ.get("SLURM_NTASKS", 1)) > 1
    from_outside = "TORCHELASTIC_RUN_ID" in os.environ or by_slurm or nodes != 1
    if from_outside and not any(word.startswith("hydra.run.dir=") for word in hydra.overrides.hydra):
        raise ValueError(
            "hydra.run.dir: must be given where processes are started from outside, as by torchrun, so that all work"
            " in one folder"
        )


def be_quiet() -> None:
    """Leave the log to the first process; what is wrong is told all the same."""
    root = logging.getLogger()
    for handler in root.handlers[:]:
        if isinstance(handler, LogFile):
            root.removeHandler(handler)
        else:
            handler.setLevel(logging.ERROR)
