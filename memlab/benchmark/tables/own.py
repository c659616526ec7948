"""``python train.py data=table``, as it is typed, on the split that all methods get."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from memlab.benchmark.tables.split import Split
from memlab.benchmark.whole_commands import TRAIN, output
from memlab.data.frames import read_frame
from memlab.runs.results import read_results
from memlab.runs.words import word_of
from memlab.trained import load
from memlab.trained.memory import FOLDER

QUIET = ("baselines=[]", "figures=false", "trainer.enable_progress_bar=false")
"""Nothing besides the training."""


def trained(split: Split, words: str = "") -> tuple[Callable[[], NDArray[np.float64]], str, float]:
    """Train by a run in a process of its own; its memory answers.

    Args:
        split: of a table.
        words: more of the command line, with spaces between.

    Returns:
        what gives (T, C) class mass of the test rows, the best epoch, and the seconds of training.

    Raises:
        RuntimeError: with the line that the run tells if it fails.
        ValueError: if it has kept no memory that answers.
    """
    place = TemporaryDirectory(prefix="memlab_bench_")
    folder = Path(place.name) / "run"
    output(str(TRAIN), *words_of(split), *QUIET, *shlex.split(words), f"hydra.run.dir={folder}")
    results = read_results(folder)
    assert results is not None
    if not (folder / FOLDER).is_dir():
        raise ValueError(f"{words}: keeps no trained memory, which is to answer")
    memory = load(folder)
    frame = read_frame(split.given.file)[split.test.rows.numpy()]

    def answer() -> NDArray[np.float64]:
        assert place.name  # is there until nobody asks any more
        found = memory.predict(frame)
        return found.probabilities[:, [found.classes.index(name) for name in split.class_names]]

    return answer, f"epoch {results['best_epoch']} of {results['epochs']}", float(results["fit_seconds"])


def words_of(split: Split) -> list[str]:
    """What makes a run of this table, split in this way."""
    given = {
        "data": "table",
        "data.path": str(split.given.file.absolute()),
        "data.target": split.given.target,
        "data.test_fraction": split.shares.test_fraction,
        "data.split_seed": split.seed,
        "datamodule.validation_fraction": split.shares.validation_fraction,
        "datamodule.split_seed": split.seed,
        "seed": split.seed,
    }
    return [f"{name}={word_of(value)}" for name, value in given.items()]
