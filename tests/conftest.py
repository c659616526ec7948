"""What several test files share: stores of random objects, a plain-loop oracle, and the command run in this process."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from torch import Tensor

import train
from memlab.__main__ import main
from memlab.data.objects import ObjectStore
from memlab.data.support import Support
from memlab.runs import mistakes
from memlab.runs.log import LogFile

if TYPE_CHECKING:
    import pytorch_lightning as pl

if "PYTEST_XDIST_WORKER" in os.environ:  # processes side by side that each use all cores slow one another down
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"

REPOSITORY = Path(__file__).parent.parent
SHARED_DATA = REPOSITORY.parent / "shared" / "data"


@pytest.fixture
def mnist_root() -> str:
    if not (SHARED_DATA / "MNIST" / "raw").is_dir():
        pytest.skip(f"no MNIST in {SHARED_DATA}")
    return str(SHARED_DATA)


def random_support(
    size: int, *, num_classes: int, shape: tuple[int, ...] = (6,), labels: Tensor | None = None, seed: int = 0
) -> Support:
    """A support of random float64 objects; every class has one if ``size`` allows."""
    generator = torch.Generator().manual_seed(seed)
    store = ObjectStore(
        inputs=torch.randn(size, *shape, generator=generator, dtype=torch.float64),
        labels=torch.arange(size) % num_classes if labels is None else labels,
        class_names=tuple(map(str, range(num_classes))),
    )
    return Support(store, torch.arange(size), dtype=torch.float64)


def loop_class_scores(scores: list[list[float]], labels: list[int], num_classes: int) -> list[list[float]]:
    """The definition of class scores in plain Python: log of the sum of exp(z_i) over the objects of each class."""
    result = []
    for row in scores:
        by_class: list[list[float]] = [[] for _ in range(num_classes)]
        for score, label in zip(row, labels, strict=True):
            by_class[label].append(score)
        result.append([_log_sum_exp(values) for values in by_class])
    return result


def _log_sum_exp(values: list[float]) -> float:
    values = [value for value in values if value != -math.inf]
    if not values:
        return -math.inf
    top = max(values)
    return top + math.log(math.fsum(math.exp(value - top) for value in values))


def quiet_trainer(epochs: int = 1, **words: Any) -> pl.Trainer:
    """A trainer that writes and prints nothing."""
    import pytorch_lightning as pl  # takes seconds, which processes that tests start are not to pay for

    silent = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return pl.Trainer(**{"max_epochs": epochs, "accelerator": "cpu", "num_sanity_val_steps": 0, **silent, **words})


@dataclass
class Outcome:
    """What a command came to."""

    status: int
    out: str
    err: str
    folder: Path
    """The folder it was run in."""

    @property
    def run_folders(self) -> list[Path]:
        return sorted((self.folder / "outputs").glob("*"))


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Outcome]]:
    """Run ``python train.py WORDS`` in this process, in an empty folder: the real thing less ten seconds of imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")
    monkeypatch.setattr(mistakes, "SHOW_TRACEBACKS", False)

    def run(*words: str) -> Outcome:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        status = 0
        try:
            train.command()
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capfd.readouterr()
        return Outcome(status, captured.out, captured.err, tmp_path)

    yield run
    GlobalHydra.instance().clear()
    root = logging.getLogger()
    for handler in root.handlers[:]:  # a later test may log, and the run's folder may be gone
        if isinstance(handler, LogFile):
            root.removeHandler(handler)
            with suppress(OSError):  # its disk is full
                handler.close()


Command = Callable[..., tuple[int, str, str]]
"""Takes the words after ``memlab``; gives the exit status and what was printed to both streams."""


@pytest.fixture
def memlab(capfd: pytest.CaptureFixture[str]) -> Command:
    """Run ``memlab WORDS`` in this process."""

    def call(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main([str(word) for word in words])
        printed = capfd.readouterr()
        return status, printed.out, printed.err

    return call


SMOKE = ("trainer=smoke", "trainer.enable_progress_bar=false", "figures=false")
"""Two steps of everything, quietly and without pictures."""
