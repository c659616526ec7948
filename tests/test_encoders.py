from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlab.encoders import MLP, Conv, Identity, Linear

SHAPE = (2, 9, 7)
ENCODERS: dict[str, nn.Module] = {
    "identity": Identity(input_shape=SHAPE),
    "linear": Linear(input_shape=SHAPE, embedding_size=5),
    "mlp": MLP(input_shape=SHAPE, embedding_size=5, hidden_sizes=[11, 8], dropout=0.5),
    "conv": Conv(input_shape=SHAPE, embedding_size=5, channels=3, kernel_size=2, pool_size=2),
}


def objects(n: int) -> Tensor:
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ENCODERS)
def test_an_object_is_encoded_the_same_whatever_it_is_encoded_with(name: str) -> None:
    encoder, x = ENCODERS[name].eval(), objects(6)
    together = encoder(x)
    assert together.shape == (6, encoder.embedding_size)
    torch.testing.assert_close(torch.cat([encoder(x[i : i + 1]) for i in range(6)]), together)


def test_linear_is_a_matrix_without_bias() -> None:
    encoder, x = ENCODERS["linear"], objects(3)
    (matrix,) = encoder.parameters()
    torch.testing.assert_close(encoder(x), x.flatten(1) @ matrix.T)


def test_conv_is_conv_maxpool_relu_linear() -> None:
    encoder, x = ENCODERS["conv"], objects(3)
    assert isinstance(encoder, Conv)
    features = F.relu(F.max_pool2d(F.conv2d(x, encoder.conv.weight, encoder.conv.bias), 2)).flatten(1)
    torch.testing.assert_close(encoder(x), features @ encoder.projection.weight.T + encoder.projection.bias)


def test_mlp_drops_in_training_only() -> None:
    encoder, x = ENCODERS["mlp"], objects(3)
    assert not torch.equal(encoder.train()(x), encoder(x))
    assert torch.equal(encoder.eval()(x), encoder(x))


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
