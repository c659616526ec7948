"""k nearest neighbours of sequences by dynamic time warping, exact."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from memlab.baselines.nearest_neighbours import PixelKNN
from memlab.checks import check_whole_number
from memlab.data.parts import parts
from memlab.data.sequences import there

NUMBERS_AT_A_TIME = 2**22
"""Of the differences of pairs of steps."""


class SequenceKNN(PixelKNN):
    """k nearest neighbours by the least sum of squared distances of steps that are set side by side.

    ``D(i, j) = |x_i - y_j|^2 + min(D(i - 1, j), D(i, j - 1), D(i - 1, j - 1))`` up to the last steps of both (Sakoe and
    Chiba 1978), of raw inputs. With a window of 0 steps of sequences of one length are set side by side one by one:
    that is the squared Euclidean distance.

    Args:
        k: neighbours that vote.
        window: steps that ``i`` and ``j`` may be apart, besides the difference of the lengths; None for any number.

    Raises:
        ValueError: if a number is not whole or too small.
    """

    def __init__(self, *, k: int, window: int | None) -> None:
        super().__init__(k=k)
        self.window = None if window is None else check_whole_number("window", window, minimum=0, or_else="null")

    @property
    def title(self) -> str:
        """See `Baseline.title`."""
        if self.window == 0:
            return f"kNN step by step, k = {self.k}"
        within = "" if self.window is None else f" within {self.window} steps"
        return f"kNN by dynamic time warping{within}, k = {self.k}"

    def check_fit(self, *, train_size: int, shape: Any) -> None:
        """See `Baseline.check_fit`."""
        if not (isinstance(shape, tuple) and len(shape) == 2):
            raise ValueError(f"objects of shape {shape}: must be sequences, as of data=sequences")
        super().check_fit(train_size=train_size, shape=shape[1:])

    def predict(self, train: Tensor, labels: Tensor, test: Tensor) -> Tensor:
        """See `Baseline.predict`."""
        classifier = KNeighborsClassifier(n_neighbors=self.k, algorithm="brute", metric="precomputed")
        classifier.fit(torch.zeros(len(train), len(train)).numpy(), labels.numpy())
        return torch.from_numpy(classifier.predict(warped_distances(test, train, window=self.window).numpy()))


def warped_distances(x: Tensor, y: Tensor, *, window: int | None) -> Tensor:
    """(X, Y) distances of `SequenceKNN` between (X, T, m) and (Y, S, m) sequences, NaN behind the end of each.

    Args:
        x: sequences.
        y: others.
        window: see `SequenceKNN`.
    """
    size = max(NUMBERS_AT_A_TIME // max(len(y) * x.shape[1] * x.shape[2], 1), 1)
    x_lengths, y_lengths = there(x).sum(1), there(y).sum(1)
    x, y = x.double().nan_to_num(0.0), y.double().nan_to_num(0.0)
    return torch.cat([_warped(x[part], y, x_lengths[part], y_lengths, window) for part in parts(len(x), size)])


def _warped(x: Tensor, y: Tensor, x_lengths: Tensor, y_lengths: Tensor, window: int | None) -> Tensor:
    """Diagonal by diagonal, ``i + j = d``: what stands on one follows from the two before."""
    steps, others = x.shape[1], y.shape[1]
    reach = (x_lengths[:, None] - y_lengths).abs() + (steps + others if window is None else window)
    farthest = int(reach.max())
    last = x_lengths[:, None] + y_lengths - 2
    found = x.new_full((len(x), len(y)), torch.inf)
    before = now = x.new_full((len(x), len(y), steps + 1), torch.inf)  # D(i, d - i) at i + 1
    for diagonal in range(steps + others - 1):
        low = max(0, diagonal - others + 1, (diagonal - farthest + 1) // 2)
        high = min(diagonal, steps - 1, (diagonal + farthest) // 2) + 1
        i = torch.arange(low, high)
        difference = (x[:, None, low:high] - y[None, :, diagonal - i]).square_().sum(-1)
        least = torch.minimum(torch.minimum(now[..., low:high], now[..., low + 1 : high + 1]), before[..., low:high])
        if diagonal == 0:
            least = torch.zeros_like(least)
        reached = least + difference
        reached.masked_fill_((2 * i - diagonal).abs() > reach[..., None], torch.inf)
        before, now = now, torch.full_like(now, torch.inf)
        now[..., low + 1 : high + 1] = reached
        ends = last == diagonal
        if ends.any():
            at_end = now.gather(2, x_lengths[:, None, None].expand(-1, len(y), 1)).squeeze(2)
            found = torch.where(ends, at_end, found)
    return found
