"""What ``python train.py --help`` prints.

In place of Hydra's own help, which reads every file of all groups, and so takes three times as long.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import hydra
from omegaconf import OmegaConf

HEADER = """\
Train and test a differentiable nearest-neighbour classifier.

Usage: python train.py [GROUP=OPTION ...] [PARAMETER=VALUE ...]
"""
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
    "python train.py --cfg job --resolve": "print the composed configuration and stop",
}


def help_text(conf: str, overrides: Sequence[str]) -> str:
    """Groups with their options, and the parameters of those chosen.

    Args:
        conf: the folder of groups.
        overrides: as given on the command line.
    """
    with hydra.initialize_config_dir(conf, version_base="1.3"):
        parameters = OmegaConf.to_yaml(hydra.compose("config", [*overrides]))
    return "\n".join(
        [
            HEADER,
            "== Groups: choose with GROUP=OPTION ==",
            *_groups(Path(conf)),
            "",
            "== Parameters and their values: change with PARAMETER=VALUE, as in optimizer.lr=1e-3 ==",
            parameters,
            "== Useful commands ==",
            *(f"{command}\n    {purpose}" for command, purpose in COMMANDS.items()),
        ]
    )


def _groups(conf: Path) -> Iterator[str]:
    for folder in sorted(path for path in conf.rglob("*") if path.is_dir()):
        group, options = folder.relative_to(conf), sorted(file.stem for file in folder.glob("*.yaml"))
        if options and group.parts[0] != "hydra":
            yield f"{group}: {', '.join(options)}"
