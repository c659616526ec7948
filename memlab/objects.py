"""The labelled objects of one data set, in one store: raw bytes at rest, normalised floats only for the rows in use."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map  # dicts, lists and tuples of tensors; torch's own


class ObjectStore:
    """All objects of a data set by row. An object's row is its id: it never changes while the store lives.

    Raw inputs may stay in host memory while labels and results are on the device that computes.

    Args:
        inputs: (N, ...) raw inputs; images as (N, channels, height, width). Or a tree (dict, list, tuple) of such
            tensors, where an object has several parts. uint8 and floating inputs are normalised; other types, as of
            token ids, stay as they are.
        labels: (N,) class ids, int64.
        class_names: name of each class, by class id.

    Raises:
        ValueError: if the sizes do not agree, a label has no class, or an input is NaN or infinite.
    """

    def __init__(self, *, inputs: Any, labels: Tensor, class_names: tuple[str, ...]) -> None:
        for leaf in tree_leaves(inputs):
            if len(leaf) != len(labels):
                raise ValueError(f"labels: {len(labels)} of them for {len(leaf)} objects; must be one for each")
            _check_finite(leaf)
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(class_names):
            raise ValueError(
                f"labels from {int(labels.min())} to {int(labels.max())}: must lie from 0 to {len(class_names) - 1}"
            )
        self.inputs = inputs
        self.labels = labels
        self.class_names = class_names
        self.mean = tree_map(lambda _: torch.zeros(()), inputs)
        self.deviation = tree_map(lambda _: torch.ones(()), inputs)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def input_shape(self) -> Any:
        """Shape of one object, or the tree of the shapes of its parts."""
        return tree_map(lambda leaf: tuple(leaf.shape[1:]), self.inputs)

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
        """From now on subtract the mean of these rows and divide by their standard deviation, channel by channel.

        Objects of one dimension count as one channel; so a feature that is always 0 is left at a finite value.
        """
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
            (m, ...) inputs less the mean, over the deviation; a tree of them if the inputs are one.
        """
        near = to_device(rows, self.inputs_device)

        def take(leaf: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
            raw = _gather(leaf, near, self.device)
            return raw.to(dtype).sub_(mean.to(dtype)).div_(deviation.to(dtype)) if _is_normalised(leaf) else raw

        return tree_map(take, self.inputs, self.mean, self.deviation)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to a device; to a GPU from pinned memory, so that the host does not wait for the copy."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)  # to host memory without waiting would be read before it is there


def _gather(inputs: Tensor, rows: Tensor, device: torch.device) -> Tensor:
    """Rows of the inputs on a device. To a GPU from host memory they go through a pinned buffer, without waiting.

    Torch's allocator of pinned memory hands a buffer out again only when the copy from it is done.
    """
    if device.type != "cuda" or inputs.device.type == "cuda":
        return inputs[rows].to(device)
    buffer = torch.empty((len(rows), *inputs.shape[1:]), dtype=inputs.dtype, pin_memory=True)
    return torch.index_select(inputs, 0, rows, out=buffer).to(device, non_blocking=True)


def _is_normalised(inputs: Tensor) -> bool:
    return inputs.dtype is torch.uint8 or inputs.is_floating_point()


def _moments(inputs: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of some rows by channel, in a shape to be subtracted from an object."""
    if not _is_normalised(inputs):
        return torch.zeros(()), torch.ones(())
    image = inputs.dim() == 4
    channels = inputs.shape[1] if image else 1
    total = torch.zeros(channels, dtype=torch.float64)
    squares = torch.zeros(channels, dtype=torch.float64)
    count = 0
    for part in rows.split(4096):
        values = inputs[part.to(inputs.device)].cpu().double().view(len(part), channels, -1)
        total += values.sum(dim=(0, 2))
        squares += values.square().sum(dim=(0, 2))
        count += values.shape[0] * values.shape[2]
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    shape = (channels, 1, 1) if image else ()
    return mean.view(shape), torch.where(deviation > 0, deviation, 1.0).view(shape)


def _check_finite(inputs: Tensor) -> None:
    if inputs.is_floating_point() and not (finite := inputs.isfinite().flatten(1).all(dim=1)).all():
        bad = (~finite).nonzero().flatten()
        raise ValueError(
            f"inputs: {len(bad)} of {len(inputs)} objects hold NaN or infinity (the first is row {int(bad[0])});"
            " every value must be finite"
        )
