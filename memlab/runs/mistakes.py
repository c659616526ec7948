"""What a user did wrong, in one line: what was given, what is allowed, what to do."""

from __future__ import annotations

import difflib
import errno
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from hydra.core.hydra_config import HydraConfig
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from memlab.signals import TRY_AGAIN, Interrupted

SHOW_TRACEBACKS = os.environ.get("HYDRA_FULL_ERROR") == "1"
"""Hydra's own switch, as the user set it."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says of a disk, a share of one, and a file that can be no larger."""

OF_SWEEPS = ("optuna", "submitit_local", "submitit_slurm")
"""Options that packages bring along."""
MISSING_FOR_SWEEPS = 'needs packages that are not there; pip install -e ".[sweeps]"'


class UserError(Exception):
    """A user's mistake, told in one line."""


@contextmanager
def exit_on_mistakes(*, known: Callable[[], DictConfig] = lambda: DictConfig({})) -> Iterator[None]:
    """On a user's mistake write one line to standard error and exit with status 1.

    With HYDRA_FULL_ERROR=1 in the environment the traceback is shown in place of the line.

    Args:
        known: composes the configuration without parameters, to suggest a parameter in place of a misspelt one.
    """
    if SHOW_TRACEBACKS:
        yield
        return
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets exceptions through in place of printing several lines
    try:
        yield
    except (UserError, HydraException, OmegaConfBaseException, OSError) as error:
        print(f"error: {one_line(error, known)}", file=sys.stderr)
        sys.exit(1)
    except Interrupted as interruption:
        print(f"error: {interruption}", file=sys.stderr)
        sys.exit(TRY_AGAIN)


@contextmanager
def mistakes_in_one_line(*kinds: type[Exception]) -> Iterator[None]:
    """Turn these kinds of exception into a `UserError`; others are faults of ours and stay whole."""
    try:
        yield
    except kinds as error:
        raise UserError(one_line(error)) from error


def lack_of_room(error: BaseException | None) -> str:
    """Which file does not fit onto the disk and why, if that is what an exception came of; else nothing."""
    said = ""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            said = one_line(error) if error.filename or not said else said
        error = error.__cause__ or error.__context__
    return said


def one_line(
    error: BaseException, known: Callable[[], DictConfig] = lambda: DictConfig({}), words: Sequence[str] | None = None
) -> str:
    """Tell an exception in one line that starts with the parameter and the value given, where they are known.

    Args:
        error: the exception.
        known: composes the configuration without parameters, to suggest a parameter in place of a misspelt one.
        words: what was given; None for the command line.
    """
    words = sys.argv[1:] if words is None else words
    message = _flat(str(error))
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).rpartition("/")
        if option in OF_SWEEPS:
            return f"{group}={option}: {MISSING_FOR_SWEEPS}"
        own = f"; a class of your own is named by {group}._target_={option}" if "." in option else ""
        return f"{group}={option}: must be one of {', '.join(error.options)}{own}"
    if isinstance(error, ConfigCompositionException):
        return _composition(error, known, words)
    if isinstance(error, InstantiationException):
        return _instantiation(error, words)
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: must be given"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return message or type(error).__name__


def _composition(error: ConfigCompositionException, known: Callable[[], DictConfig], words: Sequence[str]) -> str:
    message = _flat(str(error))
    if lacking := re.match(rf"In '([^']+)': Could not load '[^']+/({'|'.join(OF_SWEEPS)})'", message):
        return f"{lacking[1]}: {MISSING_FOR_SWEEPS}"
    found = re.search(r"Could not override '([^']+)'", message)
    if found is None:
        return f"{message}; {_flat(str(error.__cause__))}" if error.__cause__ else message
    name = found[1].split("@")[0]
    given = next((word for word in words if word.lstrip("+~").startswith(f"{name}=")), name)
    own_class = f"{name.rpartition('.')[0]}._target_="
    if own := next((word for word in words if word.lstrip("+").startswith(own_class)), ""):
        return f"{given}: {own} was put into an option without it; +{given} if the class takes it"
    close = difflib.get_close_matches(name, list(_names(known())), n=1)
    hint = f"did you mean {close[0]}?" if close else "`python train.py --help` lists what there is"
    return f"{given}: there is no such parameter or group with the options chosen; {hint}"


def _instantiation(error: InstantiationException, words: Sequence[str]) -> str:
    """``full_key: memory`` and ``chunk_size=0: must be ...`` become ``memory.chunk_size=0: must be ...``.

    A parameter that a group of its own makes, as ``augmentation`` of ``datamodule``, has its full name already.
    """
    cause = error.__cause__
    lines = str(error).splitlines()
    key = next((line.removeprefix("full_key: ") for line in lines if line.startswith("full_key: ")), "")
    if target := re.match(r"Error locating target '([^']+)'", str(error)):
        return f"{key}._target_={target[1]}: {_why_there_is_no(target[1], cause)}"
    if cause is None:
        return _flat(str(error))
    message = _flat(str(cause)) or type(cause).__name__
    if (unwanted := re.search(r"unexpected keyword argument '(\w+)'", message)) and "._target_=" in " ".join(words):
        message = f"{message}, which the option that it was put into has; leave it out with ~{key}.{unwanted[1]}"
    own_parameter = re.match(r"([a-z_]+\.)?([a-z_]+)=", message)
    if not key or (own_parameter and (own_parameter[1] or _is_group(own_parameter[2]))):
        return message
    return f"{key}.{message}" if own_parameter else f"{key}: {message}"


def _why_there_is_no(target: str, cause: BaseException | None) -> str:
    module, _, name = target.rpartition(".")
    if module not in sys.modules:
        _, *reasons = str(cause).splitlines()  # the first says that it could not be loaded
        return f"cannot be imported; {reasons[0] if reasons else cause}"
    close = difflib.get_close_matches(name, dir(sys.modules[module]), n=1)
    return f"there is no {name} in {module}" + (f"; did you mean {close[0]}?" if close else "")


def _is_group(name: str) -> bool:
    return HydraConfig.initialized() and name in HydraConfig.get().runtime.choices


def _names(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in config:
        if key == "_target_":
            continue
        name = f"{prefix}{key!s}"
        yield name
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none():
            yield from _names(node, f"{name}.")


def _flat(message: str) -> str:
    return "; ".join(line.strip() for line in message.splitlines() if line.strip())
