"""The labelled objects of one data set, in one store: raw bytes at rest, normalised floats only for the rows in use."""

from __future__ import annotations

import torch
from torch import Tensor


class ObjectStore:
    """All objects of a data set by row. An object's row is its id: it never changes while the store lives.

    Raw inputs may stay in host memory while labels and results are on the device that computes.

    Args:
        inputs: (N, ...) raw inputs, uint8 or floating; images as (N, channels, height, width).
        labels: (N,) class ids, int64.
        class_names: name of each class, by class id.

    Raises:
        ValueError: if the sizes do not agree, a label has no class, or an input is NaN or infinite.
    """

    def __init__(self, *, inputs: Tensor, labels: Tensor, class_names: tuple[str, ...]) -> None:
        if len(inputs) != len(labels):
            raise ValueError(f"labels: {len(labels)} of them for {len(inputs)} objects; must be one for each")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(class_names):
            raise ValueError(
                f"labels from {int(labels.min())} to {int(labels.max())}: must lie from 0 to {len(class_names) - 1}"
            )
        if inputs.is_floating_point() and not (finite := inputs.isfinite().flatten(1).all(dim=1)).all():
            bad = (~finite).nonzero().flatten()
            raise ValueError(
                f"inputs: {len(bad)} of {len(inputs)} objects hold NaN or infinity (the first is row {int(bad[0])});"
                " every value must be finite"
            )
        self.inputs = inputs
        self.labels = labels
        self.class_names = class_names
        self.mean = torch.zeros(())
        self.deviation = torch.ones(())

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one object."""
        return tuple(self.inputs.shape[1:])

    @property
    def device(self) -> torch.device:
        """Where labels are and where `take` puts what it gives."""
        return self.labels.device

    def normalise_by(self, rows: Tensor) -> None:
        """From now on subtract the mean of these rows and divide by their standard deviation, channel by channel.

        Objects of one dimension count as one channel; so a feature that is always 0 is left at a finite value.
        """
        channels = self.input_shape[0] if len(self.input_shape) == 3 else 1
        total = torch.zeros(channels, dtype=torch.float64)
        squares = torch.zeros(channels, dtype=torch.float64)
        count = 0
        for part in rows.split(4096):
            values = self.inputs[part.to(self.inputs.device)].cpu().double().view(len(part), channels, -1)
            total += values.sum(dim=(0, 2))
            squares += values.square().sum(dim=(0, 2))
            count += values.shape[0] * values.shape[2]
        mean = total / count
        deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
        shape = (channels, *[1] * (len(self.input_shape) - 1)) if len(self.input_shape) == 3 else ()
        self.mean = mean.view(shape).to(self.device)
        self.deviation = torch.where(deviation > 0, deviation, 1.0).view(shape).to(self.device)

    def place(self, *, inputs_on: torch.device, compute_on: torch.device) -> None:
        """Move the raw inputs and all else to the devices named; nothing is copied that is there already."""
        self.inputs = self.inputs.to(inputs_on)
        self.labels = self.labels.to(compute_on)
        self.mean = self.mean.to(compute_on)
        self.deviation = self.deviation.to(compute_on)

    def take(self, rows: Tensor, *, dtype: torch.dtype) -> Tensor:
        """The normalised inputs of some rows, on the computing device; the only place where floats are made.

        Args:
            rows: (m,) rows, on any device.
            dtype: floating type of the result.

        Returns:
            (m, ...) inputs less the mean, over the deviation.
        """
        raw = self.inputs[rows.to(self.inputs.device, non_blocking=True)].to(self.device, non_blocking=True)
        return raw.to(dtype).sub_(self.mean.to(dtype)).div_(self.deviation.to(dtype))
