"""What memlab is installed with and on, and what is wrong with it; nothing is imported that may not be there.

A package can be missing, of a version that memlab does not work with, or there and broken. Each is imported by itself,
and one that cannot be is a problem to be told, as are the facts that are not known for that.
"""

from __future__ import annotations

import platform
import re
import shutil
import tempfile
import tomllib
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Any

from memlab import __version__

NAME = "memlab"
MODULES = {"hydra-core": "hydra", "pillow": "PIL", "scikit-learn": "sklearn", "faiss-cpu": "faiss"}
"""What is imported of a package, where that is not its name."""
MALICIOUS = {"pytorch-lightning": ("2.6.2", "2.6.3"), "lightning": ("2.6.2", "2.6.3")}
"""Versions that were uploaded by somebody else, and ran code of theirs when imported."""
GIB = 2**30


@dataclass
class Installation:
    """What there is, section by section, and what is wrong."""

    sections: dict[str, dict[str, str]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """Each in a line: what is wrong and what to do."""

    def __str__(self) -> str:
        lines = []
        for title, facts in self.sections.items():
            width = max(map(len, facts), default=0)
            lines += [title, *(f"  {name:<{width}}  {fact}" for name, fact in facts.items()), ""]
        wrong = [f"  {number}. {problem}" for number, problem in enumerate(self.problems, start=1)]
        return "\n".join([*lines, "problems", *(wrong or ["  none"])])


def inspect(folder: Path) -> Installation:
    """Look at everything.

    Args:
        folder: where runs are to be.
    """
    found = Installation()
    wanted = list(_requirements(found))
    found.sections["versions"] = {"python": platform.python_version(), NAME: __version__} | {
        name: _package(found, name, specifier) for name, extras, specifier in wanted if not extras
    }
    found.sections["extras"] = dict(_extras(wanted))
    found.sections["machine"] = {}
    for title, tell in (("processor", _processor), ("memory", _memory), ("GPU", _gpus)):
        _tell(found, title, tell)
    for title, place in (("working folder", folder), ("temporary folder", Path(tempfile.gettempdir()))):
        _tell(found, title, lambda place=place: _disk(place))  # type: ignore[misc]
    return found


def _requirements(found: Installation) -> Iterator[tuple[str, str, Any]]:
    """Name, extra that asks for it (none if it is always needed), and allowed versions of each package."""
    try:
        from packaging.requirements import Requirement
    except ImportError as error:
        found.problems.append(f"packaging: cannot be imported ({error}); pip install packaging")
        return
    for extra, line in _declared(found):
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            for name in requirement.extras if requirement.name == NAME else {requirement.name}:
                yield (name, extra, None if requirement.name == NAME else requirement.specifier)


def _declared(found: Installation) -> Iterator[tuple[str, str]]:
    """Extra and requirement: of the clone that this is, else as was noted when it was installed."""
    project = Path(__file__).parents[2] / "pyproject.toml"
    if project.is_file() and (declared := tomllib.loads(project.read_text())["project"])["name"] == NAME:
        yield from (("", line) for line in declared["dependencies"])
        yield from ((extra, line) for extra, lines in declared["optional-dependencies"].items() for line in lines)
        return
    try:
        noted = metadata(NAME)
    except PackageNotFoundError:
        found.problems.append(f"{NAME}: is not installed, so that it is not known what it needs; pip install -e .")
        return
    for line in noted.get_all("Requires-Dist") or []:
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        yield (extra[1] if extra else "", line)


def _package(found: Installation, name: str, specifier: Any) -> str:
    """The version of a package that is needed; what is wrong with it is noted."""
    here = _version(name)
    if here is None:
        found.problems.append(f"{name}: is missing; pip install '{name}{specifier}'")
        return "missing"
    if here in MALICIOUS.get(name, ()):
        found.problems.append(
            f"{name} {here}: was uploaded by an attacker and runs their code; take it away, change what this machine"
            f" had access to, and pip install '{name}{specifier}'"
        )
        return f"{here}, malicious, not imported"
    if not specifier.contains(here, prereleases=True):
        found.problems.append(f"{name} {here}: must be {specifier}; pip install '{name}{specifier}'")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_module(MODULES.get(name, name.replace("-", "_")))
    except Exception as error:  # whatever a broken one raises
        found.problems.append(f"{name} {here}: cannot be imported ({_in_line(error)}); {_mend(name, specifier)}")
        return f"{here}, cannot be imported"
    return here


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _mend(name: str, specifier: Any) -> str:
    """What to do about a package that is there and cannot be imported.

    torch and torchvision must be of one source, as PyTorch's for CPUs: one by itself does not import beside another's.
    """
    if name != "torchvision":
        return f"pip install --force-reinstall '{name}{specifier}'"
    torch_version = _version("torch") or "missing"
    build = torch_version.partition("+")[2]
    source = f" --index-url https://download.pytorch.org/whl/{build}" if build else ""
    return (
        f"it must be from where torch {torch_version} is from; pip install --force-reinstall torch torchvision{source}"
    )


def _extras(wanted: list[tuple[str, str, Any]]) -> Iterator[tuple[str, str]]:
    """Each extra, and whether all that it asks for is here."""
    for extra in dict.fromkeys(extra for _, extra, _ in wanted if extra):
        lacking = sorted(set(_lacking(extra, wanted)))
        install = f'lacks {", ".join(lacking)}: pip install -e ".[{extra}]"'
        yield extra, install if lacking else "installed"


def _lacking(extra: str, wanted: list[tuple[str, str, Any]]) -> Iterator[str]:
    for name, asked_by, specifier in wanted:
        if asked_by != extra:
            continue
        if specifier is None:
            yield from _lacking(name, wanted)
        elif (here := _version(name)) is None or not specifier.contains(here, prereleases=True):
            yield name


def _tell(found: Installation, title: str, tell: Callable[[], str]) -> None:
    """Note a fact of the machine, or why it is not known."""
    try:
        found.sections["machine"][title] = tell()
    except Exception as error:  # of a driver, or a package that is broken, which is told of already
        found.sections["machine"][title] = f"not known ({_in_line(error)})"


def _processor() -> str:
    from memlab import device

    return f"{device.processor()}; {device.usable_cores():g} of {device.cores()} cores may be used"


def _memory() -> str:
    import torch

    from memlab import device

    free, (available, total) = device.free_memory(torch.device("cpu")), device.host_memory()
    limit = device.memory_limit()
    least = f"{limit / GIB:.1f} GiB" if limit is not None else "none"
    return (
        f"{free / GIB:.1f} GiB free; host {available / GIB:.1f} of {total / GIB:.1f} GiB; limit of the group: {least}"
    )


def _gpus() -> str:
    import torch

    names = [
        f"{torch.cuda.get_device_name(number)}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"
        for number in range(torch.cuda.device_count())
        for free, total in [torch.cuda.mem_get_info(number)]
    ]
    return "; ".join(names + ["MPS"] * torch.backends.mps.is_available()) or "none that torch can use"


def _disk(place: Path) -> str:
    usage = shutil.disk_usage(place)
    words = f"{place}: {usage.free / GIB:.1f} of {usage.total / GIB:.1f} GiB free"
    try:
        from memlab import device
    except Exception:  # torch or psutil is broken
        return words
    kind = device.file_system(place)
    return f"{words}, {kind}" if kind else words


def _in_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
