"""How gradients grow: powers of a weight, and Jacobians that autograd makes entry by entry."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from memlab.encoders import GRU, LSTM, Elman, Jordan, Linear, PeepholeLSTM, gradient_growth
from memlab.encoders.gradient_growth import growth_of_encoder, growth_of_weight

USUAL: dict[str, Any] = {
    "input_shape": (None, 2), "hidden_size": 3, "layers": 2, "bidirectional": True, "pooling": "max", "window": 1,
    "truncate": 2, "embedding_size": 4,
}  # fmt: skip
ENCODERS: dict[str, Any] = {
    "elman": lambda **words: Elman(nonlinearity="tanh", **words),
    "jordan": lambda **words: Jordan(nonlinearity="tanh", **words),
    "lstm": LSTM,
    "peephole": PeepholeLSTM,
    "gru": lambda **words: GRU(variant="original", **words),
}


@pytest.mark.parametrize(("weight", "published"), [(0.5, 2.94e-39), (0.9, 1.39e-6), (1.1, 1.99e5), (1.5, 3.47e22)])
def test_of_a_weight_it_is_its_power(weight: float, published: float) -> None:
    growth = growth_of_weight(weight)
    assert growth[128].item() == pytest.approx(published, rel=5e-3)
    torch.testing.assert_close(growth, weight ** torch.arange(129, dtype=torch.float64))


@pytest.mark.parametrize("kind", ENCODERS)
def test_of_a_layer_it_is_the_norm_of_the_jacobian(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By so many vectors that chance moves it by a few hundredths."""
    monkeypatch.setattr(gradient_growth, "VECTORS", 3000)
    torch.manual_seed(0)
    encoder = ENCODERS[kind](**USUAL).eval()
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    sequences = torch.randn(2, 5, 2, generator=torch.Generator().manual_seed(1))
    growth = growth_of_encoder(encoder, sequences)
    assert growth is not None
    layer: Any = encoder.trunk.layers[0][0]

    def last(steps: Tensor) -> Any:
        return layer(steps)[0][:, -1].sum(0)

    whole: Any = torch.autograd.functional.jacobian(last, sequences)  # (3, 2, 5, 2)
    norms = whole.double().square().sum((0, 1, 3)).sqrt().flip(0)
    torch.testing.assert_close(growth, norms / norms[0], rtol=0.05, atol=1e-4)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_of_an_encoder_without_recurrent_layers_there_is_none() -> None:
    assert growth_of_encoder(Linear(input_shape=(3,), embedding_size=2), torch.zeros(1, 2, 3)) is None
