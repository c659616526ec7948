"""What ``python train.py --help`` prints.

In place of Hydra's own help, which reads every file of all groups, and so takes three times as long.
"""

from __future__ import annotations

from collections.abc import Sequence

import hydra
from omegaconf import OmegaConf

from memlab.runs.composition import groups_of, task_folder

HEADER = """\
{purpose}

Usage: python train.py [GROUP=OPTION ...] [PARAMETER=VALUE ...]
"""
PURPOSES = {
    "classification": "Train and test a differentiable nearest-neighbour classifier.",
    "questions": "Train and test a memory network that answers questions over a story.",
}
COMMANDS = {
    "python train.py": "the default: a conv encoder on scikit-learn's digits, under a minute",
    "python train.py encoder=conv memory=chunked data=mnist data.root=FOLDER support.size=10000": (
        "exact reading of 10,000 support objects at the memory of one chunk"
    ),
    "python train.py -m support.size=100,300,1000 optimizer.lr=1e-3,3e-3": (
        "a grid of runs, then a table of them, best first, and heat maps"
    ),
    "python train.py resume=outputs/RUN": "go on with a run that was interrupted",
    "python train.py ckpt_path=outputs/RUN/checkpoints/last.ckpt trainer.max_epochs=60": "go on from a checkpoint",
    "python train.py task=questions --help": "the same for another task: questions over a story",
    "python train.py task=questions data.tasks=[1,2,3]": "an end-to-end memory network for three of the bAbI tasks",
    "python train.py --cfg job --resolve": "print the composed configuration and stop",
}


def help_text(conf: str, overrides: Sequence[str]) -> str:
    """Groups with their options, and the parameters of those chosen.

    Args:
        conf: the folder of groups.
        overrides: as given on the command line.
    """
    task = task_folder(conf, overrides)
    with hydra.initialize_config_dir(task, version_base="1.3"):
        cfg = hydra.compose("config", [*overrides])
    groups = (f"{group}: {', '.join(options)}" for group, options in groups_of(task).items())
    return "\n".join(
        [
            HEADER.format(purpose=PURPOSES[cfg.task]),
            "== Groups: choose with GROUP=OPTION ==",
            *(line for line in groups if not line.startswith("hydra")),
            "",
            "== Parameters and their values: change with PARAMETER=VALUE, as in optimizer.lr=1e-3 ==",
            OmegaConf.to_yaml(cfg),
            "== Useful commands ==",
            *(f"{command}\n    {purpose}" for command, purpose in COMMANDS.items()),
        ]
    )
