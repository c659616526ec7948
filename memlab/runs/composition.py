"""What a composed configuration is made of, and whether all its names are read; nothing heavy is imported for that."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from memlab.checks import check_choice

BEST_IS = {
    "validation/nll": "min",
    "validation/accuracy": "max",
    "validation/balanced_accuracy": "max",
    "validation/f1_macro": "max",
    "validation/brier": "min",
    "validation/ece": "min",
    "validation/top5_accuracy": "max",
    "validation/auroc": "max",
}
"""What a checkpoint can be chosen by, and which end of it is best. Nothing measured on test objects is among them."""

OPEN = "data.columns."
"""Where the parameters are that are named after the columns of a table."""

# Two commands may start in the same second: what tells their run folders apart must not be the clock.
OmegaConf.register_new_resolver("token", lambda: secrets.token_hex(4), use_cache=True, replace=True)
OmegaConf.register_new_resolver("best_is", BEST_IS.get, replace=True)


def with_open_places(words: Sequence[str]) -> list[str]:
    """Words of a command, and what they give to places whose names are the user's own as Hydra takes it.

    >>> with_open_places(["data=table", "data.columns.age=number"])
    ['data=table', '++data.columns.age=number']
    """
    return [f"++{word}" if word.startswith(OPEN) else word for word in words]


def conf_folder() -> Path:
    """Where the groups are: inside of an installed memlab, beside one in a clone.

    Raises:
        FileNotFoundError: if they are neither here nor there.
    """
    package = Path(__file__).parent.parent
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise FileNotFoundError(f"{package / 'conf'}: is missing; install memlab anew")


def chosen_config(conf: str, words: Sequence[str]) -> DictConfig:
    """The configuration with the options chosen, and the parameters that they have.

    Args:
        conf: the folder of groups.
        words: as given on the command line; what does not choose one option of an outer group is passed over.
    """
    options = (word.split("=", 1) for word in words if "=" in word and "/" not in word)
    chosen = [f"{group}={option}" for group, option in options if (Path(conf) / group / f"{option}.yaml").is_file()]
    if GlobalHydra.instance().is_initialized():
        return hydra.compose("config", chosen)
    with hydra.initialize_config_dir(conf, version_base="1.3"):
        return hydra.compose("config", chosen)


def check_names(cfg: DictConfig, *, conf: str) -> None:
    """See that everything given is read by something.

    Args:
        cfg: what was composed.
        conf: the folder of groups.

    Raises:
        ValueError: for a parameter or group that there is not.
    """
    known = {*OmegaConf.load(Path(conf) / "config.yaml"), *(path.name for path in Path(conf).iterdir())}
    if unread := sorted(map(str, cfg.keys() - known)):
        raise ValueError(f"{unread[0]}: there is no such parameter or group, nothing would read it; leave it out")
    check_choice("monitor", cfg.monitor, BEST_IS)
