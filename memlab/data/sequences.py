"""Sequences of different lengths: kept one after the other, and padded only beside those that are taken with them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Sequences:
    """N sequences of steps with m numbers each; the rows of `memlab.data.objects.ObjectStore` may be such.

    Args:
        steps: (S, m) steps of all, one sequence after the other.
        lengths: (N,) steps of each, at least 1.

    Raises:
        ValueError: if lengths and steps do not fit.

    >>> both = Sequences.of([torch.ones(1, 1), torch.zeros(2, 1)])
    >>> both.taken(torch.tensor([1, 0]))[..., 0]
    tensor([[0., 0.],
            [1., nan]])
    """

    def __init__(self, steps: Tensor, lengths: Tensor) -> None:
        if steps.dim() != 2 or int(lengths.sum()) != len(steps) or bool((lengths < 1).any()):
            raise ValueError(f"lengths: {int(lengths.sum())} in all for steps {tuple(steps.shape)}; must be as many")
        self.steps = steps
        self.lengths = lengths.to(steps.device)
        self._starts = self.lengths.cumsum(0) - self.lengths

    @classmethod
    def of(cls, each: Sequence[Tensor]) -> Sequences:
        """Of (T_i, m) tensors."""
        return cls(torch.cat(list(each)), torch.tensor([len(steps) for steps in each], dtype=torch.int64))

    @classmethod
    def of_padded(cls, padded: Tensor) -> Sequences:
        """Of (n, T, m) sequences, NaN behind the end of each.

        Raises:
            ValueError: for one without steps, or with NaN before its end.
        """
        present = there(padded)
        lengths = present.sum(1)
        if not (whole := (present[:, 1:] <= present[:, :-1]).all(1)).all():
            row = int(whole.byte().argmin())
            raise ValueError(
                f"inputs: row {row} has NaN in step {int(present[row].byte().argmin()) + 1}; must be finite"
            )
        if len(lengths) and not int(lengths.min()):
            raise ValueError(f"inputs: row {int(lengths.argmin())} has no steps; must have one at least")
        return cls(padded[present], lengths)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def shape(self) -> tuple[int, None, int]:
        """(N, None, m): there is no number of steps that all have."""
        return len(self), None, self.steps.shape[1]

    @property
    def shape_of_all(self) -> tuple[int | None, int]:
        """(T, m) if all have as many steps, (None, m) else."""
        lengths = self.lengths.unique().tolist()
        return lengths[0] if len(lengths) == 1 else None, self.steps.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the numbers."""
        return self.steps.dtype

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.steps.device

    def to(self, device: torch.device) -> Sequences:
        """The same on a device."""
        return self if self.device == device else Sequences(self.steps.to(device), self.lengths)

    def first_not_finite(self) -> tuple[int, int] | None:
        """Row and place of the first step that has NaN or infinity in it; None if there is none."""
        if not self.steps.is_floating_point() or (finite := self.steps.isfinite().all(1)).all():
            return None
        step = int(finite.byte().argmin())
        row = int(torch.searchsorted(self._starts, step, right=True)) - 1
        return row, step - int(self._starts[row])

    def steps_of(self, rows: Tensor) -> Tensor:
        """(s, m) steps of some sequences, one after the other."""
        lengths = self.lengths[rows]
        first = (self._starts[rows] - lengths.cumsum(0) + lengths).repeat_interleave(lengths)
        return self.steps[first + torch.arange(len(first), device=self.device)]

    def taken(self, rows: Tensor) -> Tensor:
        """(n, T, m) some sequences, as long as the longest of them; see `padded`."""
        return padded(self.steps_of(rows), self.lengths[rows])


def padded(steps: Tensor, lengths: Tensor) -> Tensor:
    """(n, T, m) sequences from their steps, as long as the longest, NaN behind the end of each.

    Numbers that are no floats become float32, unless all sequences have the same length.

    Args:
        steps: (s, m) of all, one sequence after the other.
        lengths: (n,) steps of each.
    """
    longest = int(lengths.max()) if len(lengths) else 0
    if len(steps) == len(lengths) * longest:
        return steps.view(len(lengths), longest, steps.shape[1])
    dtype = steps.dtype if steps.is_floating_point() else torch.float32
    made = torch.full((len(lengths), longest, steps.shape[1]), torch.nan, dtype=dtype, device=steps.device)
    made[torch.arange(longest, device=steps.device) < lengths[:, None]] = steps.to(dtype)
    return made


def there(sequences: Tensor) -> Tensor:
    """(n, T) steps that (n, T, m) padded sequences have."""
    if not sequences.is_floating_point():
        return sequences.new_ones(sequences.shape[:2], dtype=torch.bool)
    return ~sequences.isnan().all(-1)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """(n, ...) objects of several parts; sequences as long as the longest, others as they are."""
    if len({part.shape[1:] for part in parts}) <= 1:
        return torch.cat(list(parts))
    whole = [Sequences.of_padded(part) for part in parts]
    return padded(torch.cat([each.steps for each in whole]), torch.cat([each.lengths for each in whole]))


def without_padding_of_all(objects: Tensor) -> Tensor:
    """(n, ...) objects less the last steps that no sequence of them has; others as they are."""
    if objects.dim() != 3 or not len(objects):
        return objects
    return objects[:, : int(there(objects).sum(1).max())]
