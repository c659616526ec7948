"""Convolutional encoders of images. Their layers normalise each image by itself, so that chunked equals full."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Unpack

import torch
from torch import Tensor, nn

from memlab.checks import check_whole_number
from memlab.encoders.projection import Projected, Projection, check_image_shape


class _Layers(nn.Sequential):
    """Layers that keep images channels last: that halves the time of a step on a CPU and suits tensor cores.

    Values differ by rounding alone.
    """

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = super().forward(x.contiguous(memory_format=torch.channels_last))
        return features


class Conv(Projected):
    """Conv -> MaxPool -> ReLU -> Linear (eq. 14).

    Args:
        input_shape: (channels, height, width) of one image.
        channels: filters of the convolution.
        kernel_size: side of a filter in pixels; no padding.
        pool_size: side and stride of the pooling window in pixels.
        projection: ``embedding_size``, ``normalisation``, ``dropout`` (of the pooled features); see `Projected`.

    Raises:
        ValueError: for objects that are not images, a value out of range, or a filter or window larger than the image.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        channels: int,
        kernel_size: int,
        pool_size: int,
        **projection: Unpack[Projection],
    ) -> None:
        image_channels, height, width = check_image_shape(input_shape)
        check_whole_number("channels", channels)
        side = min(height, width)
        if check_whole_number("kernel_size", kernel_size) > side:
            raise ValueError(f"kernel_size={kernel_size}: must be at most {side}, the side of the image")
        filtered = side - kernel_size + 1
        if check_whole_number("pool_size", pool_size) > filtered:
            raise ValueError(f"pool_size={pool_size}: must be at most {filtered}, the side after the convolution")
        height, width = ((size - kernel_size + 1) // pool_size for size in (height, width))
        super().__init__(
            _Layers(nn.Conv2d(image_channels, channels, kernel_size), nn.MaxPool2d(pool_size), nn.ReLU(), nn.Flatten()),
            width=channels * height * width,
            **projection,
        )


class LeNet(Projected):
    """Three times Conv -> MaxPool -> ReLU, then Linear: three layers as in LeNet-5 (section 4.1; LeCun et al. 1998).

    Args:
        input_shape: (channels, height, width) of one image.
        channels: filters of each convolution, first to last; each halves the side of the image.
        kernel_size: side of a filter in pixels, odd; images are padded, so that a convolution keeps their size.
        projection: ``embedding_size``, ``normalisation``, ``dropout`` (of the last features); see `Projected`.

    Raises:
        ValueError: for objects that are not images, a value out of range, or more layers than the image has halves.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        channels: Sequence[int],
        kernel_size: int,
        **projection: Unpack[Projection],
    ) -> None:
        image_channels, height, width = check_image_shape(input_shape)
        widths = [image_channels, *(check_whole_number("channels", size) for size in channels)]
        if check_whole_number("kernel_size", kernel_size) % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: must be odd, so that padding keeps the size of the image")
        height, width = height >> len(channels), width >> len(channels)
        if not min(height, width):
            raise ValueError(
                f"channels=[{', '.join(map(str, channels))}]: each halves the image, whose side is"
                f" {min(input_shape[1:])}; must be fewer"
            )
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, kernel_size, padding=kernel_size // 2), nn.MaxPool2d(2), nn.ReLU()]
        super().__init__(
            _Layers(*layers, nn.Flatten()),
            width=widths[-1] * height * width,
            **projection,
        )


class ResNet(Projected):
    """A residual network for small images (He et al. 2016, section 4.2), with GroupNorm in the place of BatchNorm.

    A 3 x 3 convolution, then stages of basic blocks; every stage but the first halves the side and doubles the width;
    then the mean over the image. ``blocks=[2,2,2,2]`` with ``width=64`` is ResNet-18 without its first pooling.

    Args:
        input_shape: (channels, height, width) of one image.
        blocks: basic blocks of every stage, first to last.
        width: channels of the first stage.
        groups: groups of channels that GroupNorm normalises, in every layer.
        projection: ``embedding_size``, ``normalisation``, ``dropout`` (of the last features); see `Projected`.

    Raises:
        ValueError: for objects that are not images, a value out of range, or a width that is no multiple of groups.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        blocks: Sequence[int],
        width: int,
        groups: int,
        **projection: Unpack[Projection],
    ) -> None:
        image_channels, _, _ = check_image_shape(input_shape)
        for count in blocks:
            check_whole_number("blocks", count)
        if not blocks:
            raise ValueError("blocks=[]: must hold the number of blocks of one stage or more")
        if check_whole_number("width", width) % check_whole_number("groups", groups):
            raise ValueError(f"width={width}: must be a multiple of groups={groups}")
        norm = partial(nn.GroupNorm, groups)
        layers: list[nn.Module] = [
            nn.Conv2d(image_channels, width, 3, padding=1, bias=False),
            norm(width),
            nn.ReLU(),
        ]
        for stage, count in enumerate(blocks):
            for block in range(count):
                before = width << (stage if block or not stage else stage - 1)
                layers.append(_residual_block(before, width << stage, norm))
        super().__init__(
            _Layers(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            width=width << (len(blocks) - 1),
            **projection,
        )


def _residual_block(before: int, after: int, norm: partial[nn.GroupNorm]) -> nn.Module:
    """Two convolutions beside a shortcut; a block that changes the width halves the side."""
    from torchvision.models.resnet import BasicBlock  # takes seconds, which no other encoder is to pay for

    shortcut = None
    if before != after:
        shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride=2, bias=False), norm(after))
    stride = 1 if shortcut is None else 2
    block: nn.Module = BasicBlock(before, after, stride=stride, downsample=shortcut, norm_layer=norm)
    return block
