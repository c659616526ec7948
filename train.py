"""Train and test a classifier: ``python train.py [GROUP=OPTION ...] [PARAMETER=VALUE ...]``; ``--help`` tells more."""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from memlab.runs import command_line

CONF = str(Path(__file__).parent / "conf")


@hydra.main(version_base="1.3", config_path=CONF, config_name="config")
def main(cfg: DictConfig) -> float | None:
    """Do one job; return the validation score of the best checkpoint, for sweepers that search."""
    return command_line.do(cfg, conf=CONF)


def command() -> None:
    """The command ``python train.py``."""
    command_line.run(main, conf=CONF)


if __name__ == "__main__":
    command()
