"""The labelled objects of one data set, in one store: raw bytes at rest, normalised floats only for the rows in use."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map  # dicts, lists and tuples of tensors; torch's own

from memlab.data.columns import Columns
from memlab.data.sequences import Sequences
from memlab.data.texts import Texts

IQR_OF_NORMAL = 1.349
ENOUGH = 100_000
"""Rows for a median."""


class ObjectStore:
    """All objects of a data set by row. An object's row is its id: it never changes while the store lives.

    Raw inputs may stay in host memory while labels and results are on the device that computes.

    Args:
        inputs: (N, ...) raw inputs; images as (N, channels, height, width). Or a tree (dict, list, tuple) of such
            tensors, where an object has several parts. uint8 and floating inputs are normalised; other types, as of
            token ids, stay as they are. `Sequences` may stand in the place of a tensor.
        labels: (N,) class ids, int64; -1 for an object that is left out and in no class.
        class_names: name of each class, by class id.
        columns: of rows of a table, (N, F), in which NaN is a missing value; None for other objects.
        texts: of texts, `Sequences` of (T, 1) numbers of tokens; None for other objects.

    Raises:
        ValueError: if the sizes do not agree, a label has no class, an input is NaN or infinite, or anything is of
            another type.
    """

    def __init__(
        self,
        *,
        inputs: Any,
        labels: Tensor,
        class_names: tuple[str, ...],
        columns: Columns | None = None,
        texts: Texts | None = None,
    ) -> None:
        check_whole_numbers("labels", labels)
        for leaf in tree_leaves(inputs):
            if not isinstance(leaf, Tensor | Sequences):
                raise ValueError(f"inputs: of type {type(leaf).__name__}; must be tensors")
            if len(leaf) != len(labels):
                raise ValueError(f"labels: {len(labels)} of them for {len(leaf)} objects; must be one for each")
            _check_finite(leaf, may_be_missing=columns is not None)
        if len(labels) and not -1 <= int(labels.min()) <= int(labels.max()) < len(class_names):
            raise ValueError(
                f"labels from {int(labels.min())} to {int(labels.max())}: must lie from 0 to {len(class_names) - 1}, or"
                " be -1 for an object in no class"
            )
        self.inputs = inputs
        self.labels = labels
        self.class_names = class_names
        self.columns = columns
        self.texts = texts
        self.mean = tree_map(lambda _: torch.zeros(()), inputs)
        self.deviation = tree_map(lambda _: torch.ones(()), inputs)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> Any:
        """Shape of one object, or the tree of the shapes of its parts; (None, m) of sequences of steps."""
        return tree_map(lambda leaf: tuple(leaf.shape[1:]), self.inputs)

    @property
    def shape_of_all(self) -> Any:
        """The same, with the steps of sequences if they all have as many."""
        return tree_map(
            lambda leaf: leaf.shape_of_all if isinstance(leaf, Sequences) else tuple(leaf.shape[1:]), self.inputs
        )

    @property
    def inputs_device(self) -> torch.device:
        """Where the raw inputs are."""
        device: torch.device = tree_leaves(self.inputs)[0].device
        return device

    @property
    def device(self) -> torch.device:
        """Where labels are and where `take` puts what it gives."""
        return self.labels.device

    def normalise_by(self, rows: Tensor) -> None:
        """From now on subtract the mean of these rows and divide by their standard deviation.

        Images (N, channels, height, width) channel by channel, vectors (N, F) feature by feature, steps of sequences
        number by number, unless they are uint8, pixels, all else as one. What differs by rounding alone is constant:
        its mean is subtracted, and it is left at that. Rows of a table have the median for the mean and the range of
        half of the rows in the place of the deviation, which no single value can make useless, of what is there; codes
        of words and tokens of texts stay as they are.
        """
        if self.texts is not None:
            return
        if self.columns is not None:
            middle, spread = _middle(self.inputs, rows, torch.tensor(self.columns.words) > 0)
            self.mean, self.deviation = middle.to(self.device), spread.to(self.device)
            return
        moments = tree_map(lambda leaf: _moments(leaf, rows), self.inputs)
        self.mean, self.deviation = (
            tree_map(lambda _, pair, place=place: pair[place].to(self.device), self.inputs, moments) for place in (0, 1)
        )

    def place(self, *, inputs_on: torch.device, compute_on: torch.device) -> None:
        """Move the raw inputs and all else to the devices named; nothing is copied that is there already."""
        self.inputs = tree_map(lambda leaf: leaf.to(inputs_on), self.inputs)
        self.labels = self.labels.to(compute_on)
        self.mean = tree_map(lambda leaf: leaf.to(compute_on), self.mean)
        self.deviation = tree_map(lambda leaf: leaf.to(compute_on), self.deviation)

    def take(self, rows: Tensor, *, dtype: torch.dtype) -> Any:
        """The normalised inputs of some rows, on the computing device; the only place where floats are made.

        Args:
            rows: (m,) rows, on any device.
            dtype: floating type of the result.

        Returns:
            (m, ...) inputs less the mean, over the deviation; a tree of them if the inputs are one. Sequences are
            (m, T, ...), T of the longest of these, and NaN behind the end of each.
        """
        near = to_device(rows, self.inputs_device)

        def take(leaf: Tensor | Sequences, mean: Tensor, deviation: Tensor) -> Tensor:
            raw = _gather(leaf, near, self.device)
            if not is_normalised(leaf.dtype):
                return raw
            wide = torch.promote_types(raw.dtype, dtype)  # rounded before, what is far from 0 would be all rounding
            return raw.to(wide).sub_(mean.to(wide)).div_(deviation.to(wide)).to(dtype)

        return tree_map(take, self.inputs, self.mean, self.deviation)


def check_whole_numbers(name: str, tensor: object) -> None:
    """See that something is a vector of int64.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(tensor, Tensor) or tensor.dtype != torch.int64 or tensor.dim() != 1:
        kind = f"{tensor.dtype} of shape {tuple(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise ValueError(f"{name}: {kind}; must be a vector of torch.int64")


def is_normalised(dtype: torch.dtype) -> bool:
    """Whether raw inputs of a type are normalised: numbers that measure, and not those that name, as token ids."""
    return dtype is torch.uint8 or dtype.is_floating_point


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; to a GPU from pinned memory, so that the host does not wait for the copy."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)  # to host memory without waiting would be read before it is there


def raw_objects(inputs: Tensor | Sequences, rows: Tensor) -> Tensor:
    """(n, ...) raw inputs of some rows, on any device, as they are kept; sequences as long as the longest of them."""
    near = rows.to(inputs.device)
    return inputs.taken(near) if isinstance(inputs, Sequences) else inputs[near]


def _gather(inputs: Tensor | Sequences, rows: Tensor, device: torch.device) -> Tensor:
    """Rows of the inputs on a device. To a GPU from host memory they go through a pinned buffer, without waiting.

    Torch's allocator of pinned memory hands a buffer out again only when the copy from it is done.
    """
    if isinstance(inputs, Sequences):
        return to_device(inputs.taken(rows), device)
    if device.type != "cuda" or inputs.device.type == "cuda":
        return inputs.index_select(0, rows).to(device)  # on a CPU three times as fast as inputs[rows]
    buffer = torch.empty((len(rows), *inputs.shape[1:]), dtype=inputs.dtype, pin_memory=True)
    return torch.index_select(inputs, 0, rows, out=buffer).to(device, non_blocking=True)


def _moments(inputs: Tensor | Sequences, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of some rows by channel or feature, in a shape to be subtracted from an object.

    Parts have a mean and a centred sum of squares each, which are merged (Chan et al. 1979): unlike the mean
    of the squares less the square of the mean, they are exact however far from 0 the values are.
    """
    if not is_normalised(inputs.dtype):
        return torch.zeros(()), torch.ones(())
    if isinstance(inputs, Sequences):
        steps = inputs.steps_of(rows.to(inputs.device))
        steps = steps.flatten()[:, None] if steps.dtype is torch.uint8 else steps
        mean, deviation = _moments(steps, torch.arange(len(steps)))
        return mean.expand(inputs.shape[2]).clone(), deviation.expand(inputs.shape[2]).clone()
    shape = {2: inputs.shape[1:2], 4: (inputs.shape[1], 1, 1)}.get(inputs.dim(), ())
    mean, squares = torch.zeros(2, math.prod(shape), dtype=torch.float64)
    count = 0
    for part in rows.split(4096):
        values = inputs[part.to(inputs.device)].cpu().double().view(len(part), len(mean), -1)
        variance, part_mean = torch.var_mean(values, dim=(0, 2), correction=0)
        size = values[:, 0].numel()
        count += size
        share, step = size / count, part_mean - mean
        mean += share * step
        squares += size * (variance + (1 - share) * step.square())
    deviation = (squares / count).sqrt()
    rounding = torch.finfo(inputs.dtype).eps if inputs.is_floating_point() else 0.0
    deviation = torch.where(deviation > rounding * mean.abs(), deviation, 1.0)
    return mean.view(shape), deviation.view(shape)


def _middle(inputs: Tensor, rows: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """(F,) median, and interquartile range over that of the normal distribution, of what some rows of a table have.

    Where half of the values are equal the standard deviation is in the place of the range. Of many rows every so many
    are enough.
    """
    rows = rows[:: -(-len(rows) // ENOUGH)]
    middle, spread = torch.zeros(2, len(words), dtype=torch.float64)
    for column in (~words).nonzero().flatten().tolist():
        values = inputs[rows.to(inputs.device), column].cpu().double()
        values = values[~values.isnan()].sort().values
        if len(values):
            low, middle[column], high = values[[len(values) // 4, len(values) // 2, 3 * len(values) // 4]]
            spread[column] = (high - low) / IQR_OF_NORMAL if high > low else values.std(correction=0)
    return middle, torch.where(spread > 0, spread, 1.0)


def _check_finite(inputs: Tensor | Sequences, *, may_be_missing: bool) -> None:
    if isinstance(inputs, Sequences):
        if (place := inputs.first_not_finite()) is not None:
            row, step = place
            raise ValueError(f"inputs: row {row} has NaN or infinity in step {step + 1}; every value must be finite")
        return
    if not inputs.is_floating_point():
        return
    good = inputs.isinf().logical_not_() if may_be_missing else inputs.isfinite()
    if not (finite := good.flatten(1).all(dim=1)).all():
        bad = (~finite).nonzero().flatten()
        raise ValueError(
            f"inputs: {len(bad)} of {len(inputs)} objects hold NaN or infinity (the first is row {int(bad[0])});"
            " every value must be finite"
        )
