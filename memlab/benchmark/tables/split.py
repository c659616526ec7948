"""A table in three parts, the same for every method: those of ``python train.py data=table`` with the same seeds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from memlab.benchmark.tables.given import GivenTable
from memlab.data.datasets import stratified_split, table

RARE_BELOW = 3
"""Words in fewer rows are one, as in a run."""


class Shares(NamedTuple):
    """Parts of a hundred."""

    train: float
    validation: float
    test: float

    @property
    def test_fraction(self) -> float:
        """Share of all rows that is tested on."""
        return self.test / 100

    @property
    def validation_fraction(self) -> float:
        """Share of the other rows that is held out for validation."""
        return self.validation / (self.train + self.validation)


class Part(NamedTuple):
    """Some rows of a table."""

    rows: Tensor
    """(n,) their places in the file, ascending."""
    x: NDArray[np.float64]
    """(n, F) numbers, and codes of words from 1, 0 for a word that is rare or not seen in training; NaN is missing."""
    y: NDArray[np.int64]
    """(n,) classes."""


@dataclass(frozen=True)
class Split:
    """A table as the methods get it."""

    given: GivenTable
    shares: Shares
    seed: int
    """Of the split, and of what a method draws."""
    train: Part
    validation: Part
    test: Part
    words: tuple[int, ...]
    """(F,) words with a code of each column; 0 for numbers."""
    class_names: tuple[str, ...]

    @classmethod
    def of(cls, given: GivenTable, shares: Shares, seed: int) -> Split:
        """Read a table and split it, class by class.

        Raises:
            ValueError: for a table that cannot be learned from, or too few rows of a class to be in all parts.
        """
        data = table(
            path=str(given.file),
            target=given.target,
            test_path=None,
            columns=None,
            rare_below=RARE_BELOW,
            test_fraction=shares.test_fraction,
            split_seed=seed,
        )
        store = data.store
        train, validation = stratified_split(
            data.train_rows, store.labels, held_out=shares.validation_fraction, seed=seed
        )

        def part(rows: Tensor) -> Part:
            return Part(rows, store.inputs[rows].numpy(), store.labels[rows].numpy())

        parts = {"train": part(train), "validation": part(validation), "test": part(data.test_rows)}
        assert store.columns is not None
        return cls(given, shares, seed, **parts, words=store.columns.words, class_names=store.class_names)

    @property
    def is_word(self) -> NDArray[np.bool_]:
        """(F,) whether a column is one of words."""
        return np.array(self.words) > 0
