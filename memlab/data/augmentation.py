"""Random changes of training images, a fresh one for every image, on whatever device the batch is.

The random numbers are those of each image at each step (`memlab.draws`), so that both passes over a chunk see the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlab import draws
from memlab.checks import check_number, check_switch, check_whole_number


class RandomAffine(nn.Module):
    """Turn, shift and scale each image of a batch by amounts of its own; what comes in from outside is background.

    Args:
        degrees: turn about the middle, uniform from -degrees to degrees; from 0 below 180.
        translate: shift along each axis, uniform within this share of the side; from 0 up to 1.
        scale: size, log-uniform between 1 / (1 + scale) and 1 + scale; from 0 up to 1.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(self, *, degrees: float, translate: float, scale: float) -> None:
        super().__init__()
        self.radians = math.radians(check_number("degrees", degrees, at_least=0, below=180))
        self.translate = check_number("translate", translate, at_least=0, below=1)
        self.log_scale = math.log1p(check_number("scale", scale, at_least=0, below=1))

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, height, width) to the same shape and type.

        Raises:
            ValueError: for objects that are not images.
        """
        _check_images(images)
        turn, size, right, down = draws.uniform(len(images), 4, device=images.device).to(images.dtype).mT
        turn, factor = turn * self.radians, (size * self.log_scale).exp()
        cos, sin = turn.cos() / factor, turn.sin() / factor
        # Output is mapped to input in coordinates from -1 to 1: a share of the side is twice that, and what is a length
        # in pixels along both axes differs by the sides.
        shift, (height, width) = 2 * self.translate, images.shape[2:]
        across = [cos, -sin * (height / width), right * shift]
        downwards = [sin * (width / height), cos, down * shift]
        matrix = torch.stack([*across, *downwards], dim=1).view(-1, 3)  # (2 B, 3)
        # One product: torch's affine_grid has one for each image, which takes longer than all else.
        with torch.autocast(images.device.type, enabled=False):  # places in bf16 would be off by a tenth of a pixel
            grid = (matrix @ _middles(images)).view(-1, 2, height, width).permute(0, 2, 3, 1)
        background = images.amin(dim=(1, 2, 3), keepdim=True)
        return F.grid_sample(images - background, grid, align_corners=False) + background


class CropFlip(nn.Module):
    """Shift each image of a batch by whole pixels of its own, and mirror half of them if asked.

    That is a random crop from the image padded with zeros, after normalisation the mean of the data set.

    Args:
        padding: largest shift along each axis, in pixels.
        flip: mirror left and right with probability 1/2.

    Raises:
        ValueError: for a padding that is not a whole number of at least 0.
    """

    def __init__(self, *, padding: int, flip: bool) -> None:
        super().__init__()
        self.padding = check_whole_number("padding", padding, minimum=0)
        self.flip = check_switch("flip", flip)

    def forward(self, images: Tensor) -> Tensor:
        """(B, channels, height, width) to the same shape and type.

        Raises:
            ValueError: for objects that are not images.
        """
        _check_images(images)
        count, channels, height, width = images.shape
        amounts = (draws.uniform(count, 3, device=images.device) + 1) / 2
        down, right = (amounts[:, :2] * (2 * self.padding + 1)).long().mT[..., None]
        rows = down + torch.arange(height, device=images.device)
        columns = right + torch.arange(width, device=images.device)
        if self.flip:
            mirrored = amounts[:, 2:] < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        padded = F.pad(images, [self.padding] * 4)
        places = rows[:, :, None] * padded.shape[-1] + columns[:, None, :]
        shifted = padded.flatten(2).gather(2, places.view(count, 1, -1).expand(-1, channels, -1))
        return shifted.view(count, channels, height, width)


def _middles(images: Tensor) -> Tensor:
    """(3, height * width) the middle of each pixel as (x, y, 1), x to the right and y down, from -1 to 1."""
    down, right = (
        (2 * torch.arange(side, device=images.device, dtype=images.dtype) + 1) / side - 1 for side in images.shape[2:]
    )
    y, x = torch.meshgrid(down, right, indexing="ij")
    return torch.stack([x, y, torch.ones_like(x)]).flatten(1)


def _check_images(images: Tensor) -> None:
    if images.dim() != 4:
        raise ValueError(f"needs images (B, channels, height, width), got {tuple(images.shape)}")
