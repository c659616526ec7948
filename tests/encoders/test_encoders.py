from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from memlab.encoders import MLP, Conv, LeNet, Linear, ResNet, TorchvisionBackbone
from memlab.functional import nll
from memlab.memory import ChunkedMemory, FullMemory
from memlab.memory.similarity import Dot
from tests.conftest import random_support

SHAPE = (2, 9, 7)


def make(kind: str, **words: Any) -> nn.Module:
    """A small encoder of every kind, for objects of `SHAPE`; the backbone for grey ones."""
    makers: dict[str, Any] = {
        "linear": partial(Linear, input_shape=SHAPE),
        "mlp": partial(MLP, input_shape=SHAPE, hidden_sizes=[11, 8]),
        "conv": partial(Conv, input_shape=SHAPE, channels=3, kernel_size=2, pool_size=2),
        "lenet": partial(LeNet, input_shape=SHAPE, channels=[3, 4], kernel_size=3),
        "resnet": partial(ResNet, input_shape=SHAPE, blocks=[1, 2], width=4, groups=2),
        "torchvision": partial(
            TorchvisionBackbone, input_shape=(1, 9, 7), name="mobilenet_v3_small", pretrained=False, image_size=32
        ),
    }
    encoder: nn.Module = makers[kind](**{"embedding_size": 5, **words})
    return encoder


torch.manual_seed(0)
PROJECTED = ["linear", "mlp", "conv", "lenet", "resnet", "torchvision"]
ENCODERS = {name: make(name) for name in PROJECTED}


def objects(n: int) -> Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ENCODERS)
def test_an_object_is_encoded_the_same_whatever_it_is_encoded_with(name: str) -> None:
    encoder, x = ENCODERS[name].eval(), objects(6)
    if name == "torchvision":
        x = x[:, :1]
    together = encoder(x)
    assert together.shape == (6, 5)
    torch.testing.assert_close(torch.cat([encoder(x[i : i + 1]) for i in range(6)]), together)


@pytest.mark.parametrize("kind", ["linear", "mlp", "conv", "lenet", "resnet"])
def test_read_in_chunks_it_gives_what_it_gives_read_at_once(kind: str) -> None:
    support = random_support(23, num_classes=3, shape=SHAPE)
    encoder, query = make(kind, normalisation="length").double(), objects(5).double()
    found = []
    for memory in (FullMemory(similarity=Dot(scale=3.0)), ChunkedMemory(similarity=Dot(scale=3.0), chunk_size=7)):
        scores = memory(encoder, encoder(query), support)
        loss = nll(scores, torch.arange(5) % 3).sum()
        found.append([loss, *torch.autograd.grad(loss, list(encoder.parameters()))])
    for full, chunked in zip(*found, strict=True):
        torch.testing.assert_close(chunked, full, rtol=1e-10, atol=1e-12)


def test_linear_is_a_matrix_without_bias() -> None:
    encoder, x = ENCODERS["linear"], objects(3)
    (matrix,) = encoder.parameters()
    torch.testing.assert_close(encoder(x), x.flatten(1) @ matrix.T)


def test_conv_is_conv_maxpool_relu_linear() -> None:
    encoder, x = ENCODERS["conv"], objects(3)
    assert isinstance(encoder, Conv)
    conv: Any = encoder.trunk.get_submodule("0")
    features = F.relu(F.max_pool2d(F.conv2d(x, conv.weight, conv.bias), 2)).flatten(1)
    torch.testing.assert_close(encoder(x), features @ encoder.projection.weight.T + encoder.projection.bias)


def test_lenet_is_conv_maxpool_relu_again_and_again_then_linear() -> None:
    encoder, x = ENCODERS["lenet"], objects(3)
    assert isinstance(encoder, LeNet)
    hidden = x
    for conv in [layer for layer in encoder.trunk.children() if isinstance(layer, nn.Conv2d)]:
        hidden = F.relu(F.max_pool2d(F.conv2d(hidden, conv.weight, conv.bias, padding=1), 2))
    torch.testing.assert_close(encoder(x), encoder.projection(hidden.flatten(1)))
    assert encoder.projection.in_features == 4 * 2 * 1


def test_resnet_adds_two_convolutions_to_a_shortcut() -> None:
    encoder, x = ENCODERS["resnet"], objects(3)
    assert isinstance(encoder, ResNet)
    conv, norm, relu, first, second, third, *_ = (cast(Any, layer) for layer in encoder.trunk.children())
    hidden = relu(norm(conv(x)))
    for block, stride in ((first, 1), (second, 2), (third, 1)):
        assert isinstance(block.bn1, nn.GroupNorm)
        assert (block.downsample is not None) == (stride == 2)
        inner = block.bn1(F.conv2d(hidden, block.conv1.weight, stride=stride, padding=1))
        inner = block.bn2(F.conv2d(F.relu(inner), block.conv2.weight, padding=1))
        hidden = F.relu(inner + (block.downsample(hidden) if stride == 2 else hidden))
    torch.testing.assert_close(encoder(x), encoder.projection(hidden.mean(dim=(2, 3))))


def test_resnet_of_the_default_sizes_is_resnet_18() -> None:
    encoder = ResNet(input_shape=(3, 32, 32), embedding_size=10, blocks=[2, 2, 2, 2], width=64, groups=8)
    published = torchvision.models.resnet18(num_classes=10)
    stem = sum(p.numel() for p in published.conv1.parameters()) - 64 * 3 * 9
    assert sum(p.numel() for p in encoder.parameters()) == sum(p.numel() for p in published.parameters()) - stem


def test_backbone_gives_the_features_before_the_last_layer() -> None:
    torch.manual_seed(1)
    encoder = TorchvisionBackbone(input_shape=(3, 32, 32), embedding_size=7, name="resnet18", pretrained=False).eval()
    torch.manual_seed(1)
    whole = torchvision.models.resnet18().eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(whole.fc(encoder.trunk(x)), whole(x))
    assert encoder(x).shape == (2, 7)


def backbone(name: str, *, pretrained: bool = False) -> TorchvisionBackbone:
    """Without memory, but for the one kind that works out its sizes by tensors."""
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        return TorchvisionBackbone(
            input_shape=(3, 32, 32), embedding_size=7, name=name, pretrained=pretrained, image_size=224
        )


def assert_gives_embeddings(encoder: TorchvisionBackbone) -> None:
    x = torch.empty(2, 3, 32, 32, device=encoder.projection.weight.device)
    with torch.no_grad():
        for training in (False, True):
            assert encoder.train(training)(x).shape == (2, 7)


FAMILIES = {
    "alexnet": 4096,
    "convnext_tiny": 768,
    "densenet121": 1024,
    "efficientnet_b0": 1280,
    "efficientnet_v2_s": 1280,
    "googlenet": 1024,
    "inception_v3": 2048,
    "maxvit_t": 512,
    "mnasnet0_5": 1280,
    "mobilenet_v2": 1280,
    "mobilenet_v3_small": 1024,
    "regnet_x_400mf": 400,
    "regnet_y_400mf": 440,
    "resnet18": 512,
    "resnext50_32x4d": 2048,
    "shufflenet_v2_x0_5": 1024,
    "squeezenet1_0": 512,
    "squeezenet1_1": 512,
    "swin_t": 768,
    "swin_v2_t": 768,
    "vgg11_bn": 4096,
    "vit_b_16": 768,
    "wide_resnet50_2": 2048,
}
"""A network of each family, and the features that it has before its classes."""


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("error::FutureWarning")
def test_backbones_of_all_families_end_in_the_projection(name: str) -> None:
    encoder = backbone(name)
    assert encoder.projection.in_features == FAMILIES[name]
    assert_gives_embeddings(encoder)


def test_no_family_is_left_out() -> None:
    names = torchvision.models.list_models(module=torchvision.models)
    assert {re.match("[a-z]+", name)[0] for name in names} == {re.match("[a-z]+", name)[0] for name in FAMILIES}  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "network", "weights"),
    [
        ("googlenet", torchvision.models.GoogLeNet, torchvision.models.GoogLeNet_Weights),
        ("inception_v3", torchvision.models.Inception3, torchvision.models.Inception_V3_Weights),
    ],
)
def test_auxiliary_classifiers_are_left_out_of_published_weights_too(
    name: str, network: Any, weights: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with torch.device("meta"):
        published = network(init_weights=False).state_dict()
    monkeypatch.setattr(weights, "get_state_dict", lambda *_, **__: published)
    encoder = backbone(name, pretrained=True)
    assert_gives_embeddings(encoder)
    assert encoder.state_dict().keys() == backbone(name).state_dict().keys()
    assert not [place for place in encoder.state_dict() if "aux" in place.lower()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"name": "resnet5"}, r"name=resnet5: must be one of torchvision's \d+ classification networks"),
        ({"input_shape": (16,)}, r"input_shape=\(16,\): must be \(channels, height, width\)"),
        ({"image_size": 0}, "image_size=0"),
        ({"pretrained": "yes"}, "pretrained=yes: must be true or false"),
    ],
)
def test_backbone_refuses_what_it_cannot_be(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make("torchvision", **words)


def test_weights_that_cannot_be_downloaded_are_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(ValueError, match=r"the weights of resnet18 cannot be downloaded .*no network"):
        make("torchvision", name="resnet18", pretrained=True)


@pytest.mark.parametrize("name", PROJECTED)
def test_dropout_is_an_option_of_all_and_in_training_only(name: str) -> None:
    encoder, x = make(name, dropout=0.5), objects(40)
    if name == "torchvision":
        x = x[:, :1]
    features = encoder.eval().trunk(x)  # type: ignore[operator]
    assert torch.equal(encoder(x), encoder(x))
    assert not torch.equal(encoder.train().dropout(features), encoder.dropout(features))  # type: ignore[operator]
    torch.manual_seed(0)
    assert not torch.equal(encoder(x), encoder(x))


@pytest.mark.parametrize("name", PROJECTED)
def test_normalisation_is_an_option_of_all(name: str) -> None:
    x = objects(4)[:, : 1 if name == "torchvision" else 2]
    plain, layer, length = (make(name, normalisation=kind).eval() for kind in ("none", "layer", "length"))
    for encoder in (layer, length):
        encoder.load_state_dict(plain.state_dict(), strict=False)
    embedded = plain(x)
    torch.testing.assert_close(length(x), embedded / embedded.norm(dim=1, keepdim=True))
    centred = embedded - embedded.mean(1, keepdim=True)
    torch.testing.assert_close(layer(x), centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt())


def test_sizes_of_lenet_and_resnet_are_checked() -> None:
    lenet: list[tuple[dict[str, Any], str]] = [
        ({"channels": [2, 2, 2]}, r"channels=\[2, 2, 2\]: each halves the image, whose side is 7; must be fewer"),
        ({"channels": [2, 0]}, "channels=0"),
        ({"kernel_size": 4}, "kernel_size=4: must be odd"),
        ({"input_shape": (16,)}, "use linear or mlp"),
    ]
    for words, message in lenet:
        with pytest.raises(ValueError, match=message):
            make("lenet", **words)
    resnet: list[tuple[dict[str, Any], str]] = [
        ({"blocks": []}, "blocks="),
        ({"blocks": [1, 0]}, "blocks=0"),
        ({"width": 5}, "width=5: must be a multiple of groups=2"),
        ({"groups": 0}, "groups=0"),
    ]
    for words, message in resnet:
        with pytest.raises(ValueError, match=message):
            make("resnet", **words)


def test_values_of_all_are_checked() -> None:
    wrong: list[dict[str, Any]] = [{"embedding_size": 0}, {"normalisation": "batch"}, {"dropout": 1.0}]
    for words in wrong:
        for name in PROJECTED:
            with pytest.raises(ValueError, match=f"{next(iter(words))}="):
                make(name, **words)


@pytest.mark.parametrize("value", [0, -1, 2.5, "abc"])
def test_sizes_are_whole_numbers_above_zero(value: object) -> None:
    sizes: dict[str, object] = {"embedding_size": 5, "channels": 3, "kernel_size": 2, "pool_size": 2}
    for name in sizes:
        with pytest.raises(ValueError, match=f"{name}={value}: must be a whole number of at least 1"):
            Conv(input_shape=SHAPE, **{**sizes, name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"hidden_sizes={value}"):
        MLP(input_shape=SHAPE, embedding_size=5, hidden_sizes=[4, value])  # type: ignore[list-item]


def test_conv_refuses_what_does_not_fit_the_image() -> None:
    with pytest.raises(ValueError, match="kernel_size=8: must be at most 7"):
        Conv(input_shape=SHAPE, embedding_size=5, channels=3, kernel_size=8, pool_size=1)
    with pytest.raises(ValueError, match="pool_size=7: must be at most 6"):
        Conv(input_shape=SHAPE, embedding_size=5, channels=3, kernel_size=2, pool_size=7)
    with pytest.raises(ValueError, match=r"input_shape=\(16,\): must be \(channels, height, width\)"):
        Conv(input_shape=(16,), embedding_size=5, channels=3, kernel_size=2, pool_size=2)
