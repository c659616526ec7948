"""The twenty bAbI tasks (Weston et al. 2015), version 1.2: stories with questions, made by a simulation."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from memlab.checks import check_choice, check_number, check_switch, check_whole_number
from memlab.data.datasets.story_file import StoryData, held_out
from memlab.data.stories import Story, read_stories

ADDRESS = "http://www.thespermwhale.com/jaseweston/babi/tasks_1-20_v1-2.tar.gz"
SHA256 = "0364ebde659f14d11bc21744516c5ec49d3d06cb692733f66680771244998898"
"""Of the archive, as Hugging Face's data set babi_qa has it too."""
TOP = "tasks_1-20_v1-2"
FOLDERS = {"1k": "en", "10k": "en-10k"}
TASKS = range(1, 21)
PATIENCE = 60
"""Seconds that a server may be silent."""


def babi(
    *,
    path: str,
    tasks: Sequence[int],
    size: str,
    missing: str,
    download: bool,
    validation_fraction: float,
    split_seed: int,
) -> StoryData:
    """Some of the tasks, with the official test set; validation stories are held out of each task's training stories.

    Args:
        path: the folder that holds ``tasks_1-20_v1-2``, or is to hold it.
        tasks: numbers from 1 to 20.
        size: ``1k`` or ``10k`` training questions of each task.
        missing: what to do where a task's file of 10k is not there: ``refuse``, or take that of ``1k``.
        download: fetch the archive if the folder is not there.
        validation_fraction: share of the training stories of each task.
        split_seed: draws them.

    Raises:
        ValueError: for a value out of range, or files that are not there, not to be had, or broken.
    """
    check_choice("size", size, FOLDERS)
    check_choice("missing", missing, ("refuse", "1k"))
    check_number("validation_fraction", validation_fraction, at_least=0, below=1)
    check_whole_number("split_seed", split_seed, minimum=0)
    if not tasks or any(type(task) is not int or task not in TASKS for task in tasks) or len(set(tasks)) < len(tasks):
        raise ValueError(f"tasks={list(tasks)}: must be numbers from {TASKS.start} to {TASKS.stop - 1}, each once")
    folder = _folder(Path(path), download=check_switch("download", download))
    parts: list[list[Story]] = [[], [], []]
    for task in tasks:
        stories = read_stories(_file(folder, task, "train", size, missing), task=f"qa{task}")
        kept, apart = held_out(stories, fraction=validation_fraction, seed=(split_seed, task))
        parts[0] += kept
        parts[1] += apart
        parts[2] += read_stories(_file(folder, task, "test", size, missing), task=f"qa{task}")
    name = f"bAbI {size}, {_listed(tasks)}"
    if taken := [task for task in tasks if not _matching(folder, task, "train", size)]:
        name += f" with 1k of {_listed(taken)}"
    return StoryData(name, *map(tuple, parts))


def _folder(path: Path, *, download: bool) -> Path:
    for folder in (path / TOP, path):
        if any((folder / each).is_dir() for each in FOLDERS.values()):
            return folder
    if not download:
        raise ValueError(f"path={path}: has no {TOP}; name the folder that holds it, or set download=true")
    _download(path)
    return path / TOP


def _download(path: Path) -> None:
    """Fetch the archive, see that it is the right one, and unpack it in one move."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path, prefix=".download-") as staging:
            archive = Path(staging) / "archive.tar.gz"
            with urllib.request.urlopen(ADDRESS, timeout=PATIENCE) as answer, archive.open("wb") as file:
                while piece := answer.read(2**20):
                    file.write(piece)
            if (found := hashlib.sha256(archive.read_bytes()).hexdigest()) != SHA256:
                raise ValueError(f"path={path}: {ADDRESS} gave another file (SHA-256 {found}); get {TOP} elsewhere")
            with tarfile.open(archive) as opened:
                opened.extractall(staging, filter="data")
            (Path(staging) / TOP).rename(path / TOP)
    except (OSError, urllib.error.URLError, tarfile.TarError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"path={path}: has no {TOP}, and the download failed ({reason}); is there a network? Or name a folder that"
            " has it"
        ) from error


def _file(folder: Path, task: int, part: str, size: str, missing: str) -> Path:
    for each in [size, *(["1k"] if missing == "1k" and part == "train" else [])]:
        if found := _matching(folder, task, part, each):
            return found[0]
    advice = "; missing=1k takes that of 1k" if size == "10k" and part == "train" else ""
    raise ValueError(f"path={folder}: lacks {FOLDERS[size]}/qa{task}_..._{part}.txt{advice}")


def _matching(folder: Path, task: int, part: str, size: str) -> list[Path]:
    return sorted((folder / FOLDERS[size]).glob(f"qa{task}_*_{part}.txt"))


def _listed(tasks: Sequence[int]) -> str:
    """Tasks in words.

    >>> _listed([3]), _listed([1, 2, 3]), _listed([1, 3])
    ('task 3', 'tasks 1-3', 'tasks 1, 3')
    """
    if len(tasks) == 1:
        return f"task {tasks[0]}"
    if list(tasks) == list(range(tasks[0], tasks[-1] + 1)):
        return f"tasks {tasks[0]}-{tasks[-1]}"
    return f"tasks {', '.join(map(str, tasks))}"
