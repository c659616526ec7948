"""What a composed configuration is made of, and whether all its names are read; nothing heavy is imported for that."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from memlab.checks import check_choice

USUAL_TASK = "classification"
"""Its groups are those of the folder; another task has its own in ``tasks/NAME``, and some of those of the folder."""

TASKS = "tasks"
SHARED = ("callbacks", "hydra", "logger", "optimizer", "scheduler", "trainer")
"""Groups of the folder that are those of every task."""

BEST_IS = {
    "validation/nll": "min",
    "validation/accuracy": "max",
    "validation/balanced_accuracy": "max",
    "validation/f1_macro": "max",
    "validation/brier": "min",
    "validation/ece": "min",
    "validation/top5_accuracy": "max",
    "validation/auroc": "max",
    "validation/error": "min",
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


def task_folder(conf: str, words: Sequence[str]) -> str:
    """The folder of the task that a command names.

    Args:
        conf: the folder of groups.
        words: as given on the command line.

    Raises:
        ValueError: for a task that there is not.
    """
    given = [word.lstrip("+").removeprefix("task=") for word in words if word.lstrip("+").startswith("task=")]
    known = [USUAL_TASK, *sorted(folder.name for folder in _tasks(conf))]
    task = check_choice("task", given[-1] if given else USUAL_TASK, known)
    return conf if task == USUAL_TASK else str(Path(conf) / TASKS / task)


def _tasks(conf: str) -> list[Path]:
    return [path for path in (Path(conf) / TASKS).iterdir() if path.is_dir()]


def groups_of(task: str) -> dict[str, list[str]]:
    """The groups of a task, those within groups among them, with their options.

    Args:
        task: its folder; see `task_folder`.
    """
    own, shared = Path(task), Path(task).parent.parent
    folders = [(own, own)]
    if own.parent.name == TASKS:
        folders += [(shared, shared / group) for group in SHARED]
    found: dict[str, set[str]] = {}
    for root, folder in folders:
        for file in folder.rglob("*.yaml"):
            group = file.parent.relative_to(root)
            if group.parts and group.parts[0] != TASKS:
                found.setdefault(str(group), set()).add(file.stem)
    return {group: sorted(options) for group, options in sorted(found.items())}


def check_options(conf: str, words: Sequence[str]) -> None:
    """See that no option is chosen that another task has in a group of the same name.

    Args:
        conf: the folder of groups.
        words: as given on the command line.

    Raises:
        ValueError: if one is.
    """
    task = task_folder(conf, words)
    groups = groups_of(task)
    others = [folder for folder in (conf, *map(str, _tasks(conf))) if folder != task]
    for group, given in (word.split("=", 1) for word in words if "=" in word):
        for option in map(str.strip, given.strip("[]").split(",")):
            if not option or group.startswith("hydra") or option in groups.get(group, [option]):
                continue
            for other in others:
                if option in groups_of(other).get(group, []):
                    name = USUAL_TASK if other == conf else Path(other).name
                    known = ", ".join(groups[group])
                    raise ValueError(f"{group}={option}: is of task={name}; add that, or take one of {known}")
            if task != conf and option != "null":  # Hydra would tell the options of the other tasks too
                raise ValueError(f"{group}={option}: must be one of {', '.join(groups[group])}")


def chosen_config(conf: str, words: Sequence[str]) -> DictConfig:
    """The configuration with the options chosen, and the parameters that they have.

    Args:
        conf: the folder of groups.
        words: as given on the command line; what does not choose one option of an outer group is passed over.
    """
    options = (word.split("=", 1) for word in words if "=" in word and "/" not in word)
    task = task_folder(conf, words)
    groups = groups_of(task)
    chosen = [f"{group}={option}" for group, option in options if option in groups.get(group, [])]
    if GlobalHydra.instance().is_initialized():
        return hydra.compose("config", chosen)
    with hydra.initialize_config_dir(task, version_base="1.3"):
        return hydra.compose("config", chosen)


def check_names(cfg: DictConfig, *, conf: str) -> None:
    """See that everything given is read by something.

    Args:
        cfg: what was composed.
        conf: the folder of groups.

    Raises:
        ValueError: for a parameter or group that there is not.
    """
    task = task_folder(conf, [f"task={cfg.task}"])
    groups = {group.split("/")[0] for group in groups_of(task)}
    if unread := sorted(map(str, cfg.keys() - {*OmegaConf.load(Path(task) / "config.yaml"), *groups})):
        raise ValueError(f"{unread[0]}: there is no such parameter or group, nothing would read it; leave it out")
    check_choice("monitor", cfg.monitor, BEST_IS)
