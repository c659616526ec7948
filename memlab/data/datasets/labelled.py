"""A data set: its objects, and which of them are for the test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from memlab.checks import check_whole_number
from memlab.data.objects import ObjectStore, check_whole_numbers


@dataclass
class LabelledData:
    """A data set and its official split.

    Raises:
        ValueError: for rows that are not numbers, a row that is in no class, or one in both parts.
    """

    name: str
    store: ObjectStore
    train_rows: Tensor
    """(N,) rows for training and validation."""
    test_rows: Tensor
    """(T,) rows for the test."""
    source: Callable[[int], str] = "row {}".format
    """Tells of a row where its object is from."""
    levels: int = 255
    """The lightest grey of uint8 images, 255 in picture files."""
    true_labels: Tensor | None = None
    """(N,) class ids before ``flip_labels`` made some wrong; None if none are."""

    def __post_init__(self) -> None:
        for name, rows in (("train_rows", self.train_rows), ("test_rows", self.test_rows)):
            check_whole_numbers(name, rows)
            if len(bad := rows[self.store.labels[rows] < 0]):
                raise ValueError(
                    f"{name}: {len(bad)} of {len(rows)} are in no class (the first is row {int(bad[0])}); must be left"
                    " out"
                )
        if shared := len(both := self.test_rows[torch.isin(self.test_rows, self.train_rows)]):
            raise ValueError(f"test_rows: {shared} of them are training rows too (the first is row {int(both[0])})")


def in_two_parts(first: str, second: str, *, size: int) -> Callable[[int], str]:
    """Tells of rows that are two parts one after the other which part a row is from, and its place there.

    Args:
        first: name of the first part.
        second: name of the second part.
        size: rows of the first part.

    >>> source = in_two_parts("X", "X_test", size=20)
    >>> source(17), source(23)
    ('X[17]', 'X_test[3]')
    """
    return lambda row: f"{first}[{row}]" if row < size else f"{second}[{row - size}]"


def stratified_split(rows: Tensor, labels: Tensor, *, held_out: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split rows in two, class by class, the same way for the same seed.

    Args:
        rows: (n,) rows of a store.
        labels: (N,) class ids of all rows of the store.
        held_out: share that goes to the second part, between 0 and 1.
        seed: seed of the split.

    Returns:
        the rows kept and the rows held out, each in ascending order.

    Raises:
        ValueError: for a seed below 0, or too few objects of a class to have some in both parts.
    """
    from sklearn.model_selection import train_test_split  # takes a second, which only a split is to pay for

    check_whole_number("split_seed", seed, minimum=0)
    try:
        kept, held = train_test_split(
            rows.numpy(), test_size=held_out, random_state=seed, stratify=labels[rows].numpy()
        )
    except ValueError as error:
        raise ValueError(f"held-out share {held_out}: {error}") from error
    return torch.from_numpy(np.sort(kept)), torch.from_numpy(np.sort(held))
