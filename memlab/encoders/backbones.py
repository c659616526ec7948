"""Any classification network of torchvision as an encoder, with or without its published weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack
from urllib.error import URLError

from torch import Tensor, nn
from torch.nn import functional as F

from memlab.checks import check_switch, check_whole_number
from memlab.encoders.projection import Projected, Projection, check_image_shape

AUXILIARY = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}
"""The auxiliary classifiers of the networks that have some."""


class TorchvisionBackbone(Projected):
    """A classification network of torchvision whose last layer, linear or a 1 x 1 convolution, is the projection to D.

    Auxiliary classifiers, as of GoogLeNet and Inception v3, are left out.

    Grey images are shown to it as colour images. Inputs are normalised by the data set's own statistics, which is near
    to what pretrained weights saw. Networks with BatchNorm give chunks and whole supports different keys; a memory that
    encodes in chunks warns of it.

    Args:
        input_shape: (channels, height, width) of one image.
        name: as in ``torchvision.models.list_models``.
        pretrained: start from torchvision's default weights, downloaded once to torch's cache.
        image_size: side to which images are resized first, as vision transformers ask for; None leaves them.
        projection: ``embedding_size``, ``normalisation``, ``dropout`` (of the last features); see `Projected`.

    Raises:
        ValueError: for objects that are not images, a network that there is not, weights that cannot be downloaded, or
            a value out of range.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        name: str,
        pretrained: bool,
        image_size: int | None = None,
        **projection: Unpack[Projection],
    ) -> None:
        check_image_shape(input_shape)
        if image_size is not None:
            check_whole_number("image_size", image_size)
        network = _network(name, pretrained=check_switch("pretrained", pretrained))
        width = _without_classifiers(network, name)
        super().__init__(
            _ColourImages(network, image_size),
            width=width,
            **projection,
        )


class _ColourImages(nn.Module):
    """A network with its images made colour, and of one size."""

    def __init__(self, network: nn.Module, image_size: int | None) -> None:
        super().__init__()
        self.network = network
        self.image_size = image_size

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if self.image_size is not None:
            x = F.interpolate(x, size=(self.image_size,) * 2, mode="bilinear", antialias=True)
        features: Tensor = self.network(x)
        return features


def _network(name: str, *, pretrained: bool) -> nn.Module:
    from torchvision import models  # takes seconds, which no other encoder is to pay for

    known = models.list_models(module=models)
    if name not in known:
        listed = ", ".join(known[:6])
        raise ValueError(f"name={name}: must be one of torchvision's {len(known)} classification networks, as {listed}")
    # without weights these two warn unless they are told how to begin; with weights they must not be told
    words = {"init_weights": True} if name in AUXILIARY and not pretrained else {}
    try:
        network: nn.Module = models.get_model(name, weights="DEFAULT" if pretrained else None, **words)
    except (URLError, OSError) as error:
        raise ValueError(
            f"pretrained=true: the weights of {name} cannot be downloaded ({error}); is there a network? Or set"
            " pretrained=false"
        ) from error
    return network


def _without_classifiers(network: nn.Module, name: str) -> int:
    """Take away the layer that gives the classes, and auxiliary classifiers; return the features that the layer took.

    SqueezeNet averages over the image after that layer, a convolution, and the features are averaged in its place.
    """
    if name in AUXILIARY:
        network.aux_logits = False  # type: ignore[assignment]
        for auxiliary in AUXILIARY[name]:
            setattr(network, auxiliary, None)
    *_, (place, last) = ((place, module) for place, module in network.named_modules() if _is_matrix(module))
    parent, _, child = place.rpartition(".")
    setattr(network.get_submodule(parent), child, nn.Identity())
    width: Any = last.in_features if isinstance(last, nn.Linear) else last.in_channels
    return int(width)


def _is_matrix(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))
