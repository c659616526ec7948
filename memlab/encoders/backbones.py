"""Any classification network of torchvision as an encoder, with or without its published weights."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.error import URLError

from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from memlab.argument_checks import check_switch, check_whole_number
from memlab.encoders.projection import Projected, check_image_shape


class TorchvisionBackbone(Projected):
    """A classification network of torchvision whose last linear layer is replaced by the projection to D.

    Grey images are shown to it as colour images. Inputs are normalised by the data set's own statistics, which is near
    to what pretrained weights saw. Networks with BatchNorm give chunks and whole supports different keys; a memory that
    encodes in chunks warns of it.

    Args:
        input_shape: (channels, height, width) of one image.
        embedding_size: D.
        name: as in ``torchvision.models.list_models``.
        pretrained: start from torchvision's default weights, downloaded once to torch's cache.
        image_size: side to which images are resized first, as vision transformers ask for; None leaves them.
        normalisation: of the embedding; see `Projected`.
        dropout: share of the last features dropped in training, besides what the network drops itself.

    Raises:
        ValueError: for objects that are not images, a network that there is not or that has no linear layer at its end,
            weights that cannot be downloaded, or a value out of range.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        embedding_size: int,
        name: str,
        pretrained: bool,
        image_size: int | None = None,
        normalisation: str = "none",
        dropout: float = 0.0,
    ) -> None:
        check_image_shape(input_shape)
        if image_size is not None:
            check_whole_number("image_size", image_size)
        network = _network(name, pretrained=check_switch("pretrained", pretrained))
        width = _without_last_layer(network, name)
        super().__init__(
            _ColourImages(network, image_size),
            width=width,
            embedding_size=embedding_size,
            normalisation=normalisation,
            dropout=dropout,
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
    known = models.list_models(module=models)
    if name not in known:
        listed = ", ".join(known[:6])
        raise ValueError(f"name={name}: must be one of torchvision's {len(known)} classification networks, as {listed}")
    try:
        network: nn.Module = models.get_model(name, weights="DEFAULT" if pretrained else None)
    except (URLError, OSError) as error:
        raise ValueError(
            f"pretrained=true: the weights of {name} cannot be downloaded ({error}); is there a network? Or set"
            " encoder.pretrained=false"
        ) from error
    return network


def _without_last_layer(network: nn.Module, name: str) -> int:
    """Take away the last linear layer, and auxiliary classifiers; return the features that it took."""
    linear = [place for place, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear or hasattr(network, "aux_logits"):
        raise ValueError(f"name={name}: must be a network that ends in one linear layer, and this one does not")
    parent, _, child = linear[-1].rpartition(".")
    width: int = network.get_submodule(linear[-1]).in_features  # type: ignore[assignment]
    setattr(network.get_submodule(parent), child, nn.Identity())
    return width
