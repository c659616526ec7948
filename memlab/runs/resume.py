"""Going on with a run or a sweep in its folder: ``resume=FOLDER``. Nothing heavy is imported before it is needed.

A run's folder has what was typed and what was composed of it. The same is composed again, with what is typed now behind
it, and must be what it was, but for parameters that do not change what is computed.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from memlab.files import ADDRESS, write_whole
from memlab.runs.mistakes import UserError

PARAMETER = "resume"
CONFIG, OVERRIDES, SWEEP = "config.yaml", "overrides.yaml", "multirun.yaml"
MULTIRUN = {"-m", "--multirun"}
MAY_CHANGE = (
    "trainer.max_epochs",
    "trainer.max_steps",
    "trainer.max_time",
    "trainer.accelerator",
    "trainer.devices",
    "trainer.num_nodes",
    "trainer.strategy",
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.on_nonfinite",
    "trainer.max_skipped_in_a_row",
    "trainer.raise_malloc_thresholds",
    "datamodule.location",
    "datamodule.num_workers",
    "callbacks.last_checkpoint.every_minutes",
    "logger.*",
    "baselines.*",
    "evidence.*",
    "figures",
    "keep_objects",
    "sweep.*",
)
"""Parameters that may be others when a run goes on."""
CLASSES = re.compile(
    r"(torch\.optim(\.lr_scheduler)?|torchvision\.transforms(\.v2)?|pytorch_lightning\.(callbacks|loggers))\.[A-Z]\w*"
)
"""Classes besides those of memlab that a run goes on with by itself."""
TARGET = re.compile(r"_target_\s*[=:]\s*['\"]?([\w.]+)")
"""A class as it is named in a word."""
WHERE = (PARAMETER, "callbacks.*.dirpath")
"""Parameters that tell of the folder, which may have been moved."""


class NothingLeftError(Exception):
    """There is nothing to go on with."""


def words_to_go_on(words: Sequence[str], *, conf: str) -> list[str]:
    """The words of a command, and before them, if it is to go on with something, those that this was started with.

    Args:
        words: as given on the command line.
        conf: the folder of groups.

    Raises:
        UserError: if there is no run or sweep in the folder.
        NothingLeftError: if the run has come to its end.
    """
    given = [word.removeprefix(f"{PARAMETER}=") for word in words if word.startswith(f"{PARAMETER}=")]
    if not given or not given[-1]:
        return list(words)
    if ADDRESS.match(given[-1]):
        raise UserError(f"{PARAMETER}={given[-1]}: is an address; must be a folder here, copy it first")
    from memlab.runs.results import FILE as RESULTS  # numpy comes with it

    folder, rest = Path(given[-1]), [word for word in words if not word.startswith(f"{PARAMETER}=")]
    is_sweep = not MULTIRUN.isdisjoint(words)
    if is_sweep and (folder / SWEEP).is_file():
        before = _sweep_overrides(folder)
    elif not is_sweep and (folder / RESULTS).is_file():
        raise NothingLeftError(f"{folder} has come to its end: {folder / RESULTS}; there is nothing to go on with")
    elif not is_sweep and (folder / OVERRIDES).is_file():
        before = _read(folder / OVERRIDES)
    else:
        raise UserError(f"{PARAMETER}={folder}: {_what_is_wrong_with(folder, is_sweep=is_sweep)}")
    typed = {_name(word) for word in rest}
    kept = [word for word in before if _name(word) not in typed]
    for word in kept:
        _check_trusted(word, folder, conf=conf)
    place = "hydra.sweep.dir" if is_sweep else "hydra.run.dir"
    flags = [word for word in rest if word.startswith("-")]  # which must not stand between parameters
    changed = [word for word in rest if not word.startswith("-")]
    return [*flags, *kept, *changed, f"{PARAMETER}={folder}", f"{place}={folder}"]


def command_to_go_on(folder: Path, *, is_sweep: bool) -> str:
    """The command that goes on with a run or a sweep."""
    if folder.is_absolute() and folder.is_relative_to(Path.cwd()):
        folder = folder.relative_to(Path.cwd())
    return f"python train.py {'-m ' if is_sweep else ''}{PARAMETER}={folder}"


def note(cfg: DictConfig, folder: Path, overrides: Sequence[str]) -> None:
    """Leave in the folder of a run what `words_to_go_on` and `check_same` find, the former first."""
    write_whole(folder / OVERRIDES, OmegaConf.to_yaml(OmegaConf.create(without_resume(overrides))))
    write_whole(folder / CONFIG, OmegaConf.to_yaml(cfg, resolve=True))


def was_begun(folder: Path) -> bool:
    """Whether a run has been started in a folder."""
    return (folder / OVERRIDES).is_file()


def check_same(cfg: DictConfig, folder: Path) -> None:
    """See that what was composed is what the run in the folder was started with.

    One that was killed before it could say so has computed nothing.

    Raises:
        ValueError: for a parameter that is another now, and may not be.
    """
    if not (folder / CONFIG).is_file():
        return
    before = dict(_leaves(_read_config(folder / CONFIG)))
    now = dict(_leaves(OmegaConf.to_container(cfg, resolve=True)))
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name) and not _matches(name, (*MAY_CHANGE, *WHERE)):
            raise ValueError(
                f"{name}={now.get(name)}: was {before.get(name)} in {folder}, and must stay so when the run goes on;"
                f" only these may be others: {', '.join(MAY_CHANGE)}"
            )


def check_parts(cfg: DictConfig, words: Sequence[str], *, conf: str) -> None:
    """See that what was composed to go on runs nothing but what memlab is made of, and what a word names openly.

    The words have been looked at, but a value may be put together of others when it is read.

    Args:
        cfg: what was composed.
        words: what it was composed of.
        conf: the folder of groups.

    Raises:
        ValueError: for a class of somebody's own.
    """
    named = {target for word in words for target in TARGET.findall(word)}
    for target in _targets(OmegaConf.to_container(cfg, resolve=True)):
        if target not in named and not _is_trusted(target, conf):
            raise ValueError(f"{PARAMETER}={cfg[PARAMETER]}: was started with {target}, which is not of memlab")


def _targets(tree: Any) -> Iterator[str]:
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from [str(value)] if name == "_target_" else _targets(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _targets(value)


def without_resume(overrides: Sequence[str]) -> list[str]:
    """What was typed, but for that it was to go on."""
    return [word for word in overrides if not word.startswith(f"{PARAMETER}=")]


def _name(word: str) -> str:
    return word.lstrip("+~").split("=")[0]


def _check_trusted(word: str, folder: Path, *, conf: str) -> None:
    """See that a word found in a folder, which may be from anybody, runs nothing but what memlab is made of.

    Raises:
        UserError: for a class of somebody's own, or a word that is none of a training.
    """
    if word.startswith("-") or _name(word).startswith("hydra"):
        raise UserError(f"{PARAMETER}={folder}: was started with {word}, which is of Hydra and not gone on with")
    group, _, options = word.lstrip("+~").partition("=")
    if (Path(conf) / group.partition("@")[0]).is_dir() and re.search(r"\.\./|(^|[\[,'\"\s])/", options):
        raise UserError(f"{PARAMETER}={folder}: was started with {word}, an option that is not of memlab")
    targets = TARGET.findall(word)
    if len(targets) < word.count("_target_") or not all(_is_trusted(target, conf) for target in targets):
        raise UserError(
            f"{PARAMETER}={folder}: was started with {word}, a class that is not of memlab; give {word} again if you"
            " trust it"
        )


def _is_trusted(target: str, conf: str) -> bool:
    """Whether an option names it, or it is a class in a file of memlab, not in what such a file has imported."""
    module, _, name = target.rpartition(".")
    file = Path(__file__).parents[2].joinpath(*module.split("."))
    return (
        any(target in re.findall(r"_target_:\s*(\S+)", option.read_text()) for option in Path(conf).rglob("*.yaml"))
        or CLASSES.fullmatch(target) is not None
        or (
            module.startswith("memlab.") and name[:1].isupper() and (file.is_dir() or file.with_suffix(".py").is_file())
        )
    )


def _what_is_wrong_with(folder: Path, *, is_sweep: bool) -> str:
    if not folder.is_dir():
        return "there is no such folder; must be that of a run, or with -m of a sweep"
    if is_sweep and (folder / OVERRIDES).is_file():
        return "is the folder of a run; go on with it without -m"
    if not is_sweep and (folder / SWEEP).is_file():
        return "is the folder of a sweep; go on with it by python train.py -m resume=..."
    return "holds no run to go on with; must be the folder of a run, or with -m of a sweep"


def _sweep_overrides(folder: Path) -> list[str]:
    config = _read_config(folder / SWEEP)
    try:
        return without_resume([str(word) for word in config["hydra"]["overrides"]["task"]])
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / SWEEP}: is not what Hydra wrote; the sweep cannot be gone on with") from error


def _read_config(file: Path) -> Mapping[str, Any]:
    found = OmegaConf.to_container(_loaded(file), resolve=False)
    if not isinstance(found, dict):
        raise UserError(f"{file}: is no configuration; the run cannot be gone on with")
    return {str(name): value for name, value in found.items()}


def _read(file: Path) -> list[str]:
    found = OmegaConf.to_container(_loaded(file), resolve=False)
    if not isinstance(found, list):
        raise UserError(f"{file}: is not what was typed; the run cannot be gone on with")
    return [str(word) for word in found]


def _loaded(file: Path) -> Any:
    try:
        return OmegaConf.load(file)
    except (OSError, YAMLError, OmegaConfBaseException, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({type(error).__name__}); the run cannot be gone on with") from error


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its dotted name; of lists the whole."""
    if isinstance(tree, Mapping) and tree:
        for name, value in tree.items():
            yield from _leaves(value, f"{prefix}{name}.")
    else:
        yield prefix[:-1], tree


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
