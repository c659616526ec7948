"""Encoders of sequences against plain loops over one sequence, a step at a time, and whatever they are encoded with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memlab import functional
from memlab.data.objects import ObjectStore
from memlab.data.sequences import Sequences
from memlab.data.support import Support
from memlab.encoders import FCN, GRU, LSTM, Elman, Jordan, PeepholeLSTM, SequenceEncoder, Transformer, lengths
from tests.encoders.chunks import check_that_chunks_change_nothing

M, H = 3, 4
LENGTHS = [5, 1, 9, 3, 4, 2, 7, 9, 1, 6, 2]
RECURRENT: dict[str, Callable[..., SequenceEncoder]] = {
    "elman": lambda **words: Elman(nonlinearity="tanh", **words),
    "jordan": lambda **words: Jordan(nonlinearity="tanh", **words),
    "lstm": LSTM,
    "peephole": PeepholeLSTM,
    "gru": lambda **words: GRU(variant="original", **words),
    "gru of cudnn": lambda **words: GRU(variant="cudnn", **words),
}
KINDS = {
    **RECURRENT,
    "transformer": lambda **words: transformer(**words),
    "fcn": lambda **words: fcn(**words),
}
POOLINGS = ["last", "mean", "max", "attention"]
USUAL: dict[str, Any] = {
    "input_shape": (None, M),
    "hidden_size": H,
    "layers": 2,
    "bidirectional": True,
    "pooling": "attention",
    "window": 1,
    "truncate": None,
    "embedding_size": 3,
    "normalisation": "layer",
}


def transformer(*, bidirectional: bool, truncate: int | None, **words: Any) -> Transformer:
    """It has neither."""
    del bidirectional, truncate
    return Transformer(**{"heads": 2, **words})


def fcn(*, hidden_size: int, layers: int, bidirectional: bool, truncate: int | None, **words: Any) -> FCN:
    """It has filters and widths."""
    del bidirectional, truncate
    return FCN(**{"filters": [hidden_size] * layers, "widths": [5, 3][:layers], **words})


@pytest.fixture(autouse=True)
def lots_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven sequences are encoded in lots by their length."""
    monkeypatch.setattr(lengths, "SMALLEST", 2)


def make(kind: str, **changes: Any) -> SequenceEncoder:
    torch.manual_seed(0)
    encoder = KINDS[kind](**{**USUAL, **changes})
    for name, parameter in encoder.named_parameters():
        if name.endswith(("window", "peepholes")) or "norms" in name:  # which are 0 or 1 at first
            nn.init.normal_(parameter)
    return encoder.double().eval()


def sequences() -> Sequences:
    generator = torch.Generator().manual_seed(1)
    return Sequences.of([torch.randn(length, M, generator=generator, dtype=torch.float64) for length in LENGTHS])


def support() -> Support:
    labels = torch.arange(len(LENGTHS)) % 3
    store = ObjectStore(inputs=sequences(), labels=labels, class_names=("a", "b", "c"))
    return Support(store, torch.arange(len(store)), dtype=torch.float64)


def of_layer(layer: Any) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Any], Any], int]:
    """What the inputs drive, the step and the parts of a state of a layer, by the functions of `memlab.functional`."""
    if isinstance(own := getattr(layer, "layer", None), nn.RNNBase):
        w, u, b, c = own.all_weights[0]
        if isinstance(own, nn.LSTM):
            return lambda x: x @ w.mT + b + c, lambda d, s: functional.lstm(d, s, u), 2
        if isinstance(own, nn.GRU):
            return lambda x: x @ w.mT + b, lambda d, s: (functional.cudnn_gru(d, s[0], u, c),), 1
        return lambda x: x @ w.mT + b + c, lambda d, s: (functional.elman(d, s[0], u),), 1
    return layer.inputs, layer.step, 2 if hasattr(layer, "peepholes") else 1


def by_loop(encoder: SequenceEncoder, sequence: Tensor) -> Tensor:
    """The embedding of one sequence (L, m), layer by layer, direction by direction, step by step."""
    trunk: Any = encoder.trunk
    steps = list(sequence)
    for directions in trunk.layers:
        read = []
        for direction, layer in enumerate(directions):
            driven, step, parts = of_layer(layer)
            state: Any = (torch.zeros(1, H, dtype=torch.float64),) * parts
            outputs = []
            for each in steps[::-1] if direction else steps:
                state = step(driven(each[None]), state)
                outputs.append(state[0][0])
            read.append(outputs[::-1] if direction else outputs)
        steps = [torch.cat(both) for both in zip(*read, strict=True)]
    return pooled(encoder, steps)


def pooled(encoder: SequenceEncoder, steps: list[Tensor]) -> Tensor:
    """The embedding of the outputs of all steps: a window of three, attention, the last layer."""
    trunk: Any = encoder.trunk
    a, scores = trunk.window.softmax(0), []
    smooth = []
    for k in range(len(steps)):
        near = [(a[i], steps[k + i - 1]) for i in range(3) if 0 <= k + i - 1 < len(steps)]
        smooth.append(sum(weight * step for weight, step in near) / sum(weight for weight, _ in near))
        scores.append(trunk.score(smooth[-1]))
    weights = torch.cat(scores).softmax(0)
    features = sum(weight * step for weight, step in zip(weights, smooth, strict=True))
    embedded: Tensor = encoder.normalise(encoder.projection(features))
    return embedded


def by_attention(encoder: SequenceEncoder, sequence: Tensor) -> Tensor:
    """The embedding of one sequence (L, m) by a transformer, query by query, head by head."""
    trunk: Any = encoder.trunk
    steps = []
    for t, each in enumerate(sequence):
        turned = [t, t * 1e-4]
        place = torch.tensor([*map(math.sin, turned), *map(math.cos, turned)], dtype=torch.float64)
        steps.append(trunk.inputs.weight @ each + trunk.inputs.bias + place)
    for layer in trunk.layers:
        normed = [layer.norm1(step) for step in steps]
        own = layer.self_attn
        q, k, v = (
            [weight @ step + bias for step in normed]
            for weight, bias in zip(own.in_proj_weight.chunk(3), own.in_proj_bias.chunk(3), strict=True)
        )
        added = []
        for query in q:
            read = []
            for head in (slice(0, 2), slice(2, 4)):
                weights = torch.stack([query[head] @ key[head] / 2**0.5 for key in k]).softmax(0)
                read.append(sum(weight * value[head] for weight, value in zip(weights, v, strict=True)))
            added.append(own.out_proj(torch.cat(read)))
        steps = [step + more for step, more in zip(steps, added, strict=True)]
        steps = [step + layer.linear2(gelu(layer.linear1(layer.norm2(step)))) for step in steps]
    return pooled(encoder, [trunk.norm(step) for step in steps])


def by_convolution(encoder: SequenceEncoder, sequence: Tensor) -> Tensor:
    """The embedding of one sequence (L, m) by convolutions, step by step, neighbour by neighbour."""
    trunk: Any = encoder.trunk
    steps = list(sequence)
    for layer, norm in zip(trunk.convolutions, trunk.norms, strict=True):
        reach, made = layer.weight.shape[2] // 2, []
        for t in range(len(steps)):
            near = [i for i in range(-reach, reach + 1) if 0 <= t + i < len(steps)]
            made.append(layer.bias + sum(layer.weight[:, :, i + reach] @ steps[t + i] for i in near))
        numbers = torch.cat(made)
        mean, deviation = numbers.mean(), (numbers.var(correction=0) + 1e-5).sqrt()
        steps = [(norm.weight * (each - mean) / deviation + norm.bias).relu() for each in made]
    return pooled(encoder, steps)


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_what_a_loop_over_the_steps_of_one_sequence_makes(kind: str) -> None:
    encoder, given = make(kind), sequences()
    loop = {"transformer": by_attention, "fcn": by_convolution}.get(kind, by_loop)
    expected = torch.stack([loop(encoder, each) for each in given.steps.split(LENGTHS)])
    found = encoder(given.taken(torch.arange(len(given))))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("kind", KINDS)
def test_alone_and_beside_longer_ones_an_object_has_one_embedding_and_one_gradient(kind: str, pooling: str) -> None:
    encoder, given = make(kind, pooling=pooling, truncate=3).float(), sequences()
    given = Sequences(given.steps.float(), given.lengths)
    together = encoder(given.taken(torch.arange(len(given))))
    for row in range(4):
        alone = encoder(given.taken(torch.tensor([row])))[0]
        torch.testing.assert_close(alone, together[row], rtol=0, atol=1e-6)
        parameters, weights = list(encoder.parameters()), torch.linspace(-1, 1, len(alone))
        found, expected = (
            torch.autograd.grad(embedding @ weights, parameters, retain_graph=True)
            for embedding in (alone, together[row])
        )
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", RECURRENT)
def test_truncated_no_gradient_goes_farther_back(kind: str) -> None:
    given = sequences().taken(torch.tensor([2]))  # of 9 steps
    weights = torch.linspace(-1, 1, 3).double()

    def reached(truncate: int | None) -> Tensor:
        encoder = make(kind, layers=1, bidirectional=False, pooling="last", window=0, truncate=truncate)
        steps = given.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((encoder(steps)[0] * weights).sum(), steps)
        return gradient

    assert (reached(4)[0].abs().sum(1) > 0).tolist() == 8 * [False] + [True]
    assert (reached(5)[0].abs().sum(1) > 0).tolist() == 5 * [False] + 4 * [True]
    for enough in (9, 100):
        torch.testing.assert_close(reached(enough), reached(None), rtol=0, atol=0)
    encoder, whole = make(kind, truncate=2), make(kind)
    torch.testing.assert_close(encoder(given), whole(given), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_read_in_chunks_with_dropout_it_gives_what_it_gives_read_at_once(kind: str) -> None:
    """Chunks of 4 have longest sequences of 9, 9 and 6 steps: dropout is that of the object, whatever the padding."""
    check_that_chunks_change_nothing(make(kind, dropout=0.4).train(), support())


@pytest.mark.parametrize("kind", KINDS)
def test_embeddings_start_around_0_with_a_deviation_of_1(kind: str) -> None:
    encoder, given = (
        make(kind, normalisation="none", dropout=0.4).train(),
        sequences().taken(torch.arange(len(LENGTHS))),
    )
    rest = {name: tensor.clone() for name, tensor in encoder.trunk.state_dict().items()}
    encoder.fit_inputs(given)
    assert encoder.trunk.training
    embedded = encoder.eval()(given)
    torch.testing.assert_close(embedded.mean(0), torch.zeros(3).double(), rtol=0, atol=1e-10)
    torch.testing.assert_close(embedded.std(0), torch.ones(3).double(), rtol=1e-10, atol=0)
    assert all(torch.equal(tensor, rest[name]) for name, tensor in encoder.trunk.state_dict().items())
    before = [parameter.clone() for parameter in encoder.parameters()]
    encoder.fit_inputs(given[:1])
    assert all(torch.equal(*pair) for pair in zip(encoder.parameters(), before, strict=True))
    encoder.fit_inputs(given[:1].expand(3, -1, -1))  # which differ in nothing
    assert encoder(given).isfinite().all()


def test_gradcheck() -> None:
    given = sequences().taken(torch.tensor([0, 1]))
    present = ~given.isnan()
    for kind in KINDS:
        encoder = make(kind, layers=1, normalisation="none")

        def embed(numbers: Tensor, encoder: SequenceEncoder = encoder) -> Any:
            return encoder(torch.full_like(given, torch.nan).masked_scatter(present, numbers))

        assert torch.autograd.gradcheck(embed, given[present].requires_grad_())


def test_a_gru_of_cudnn_is_another() -> None:
    own, other = make("gru", layers=1), make("gru of cudnn", layers=1)
    assert {type(layer).__name__ for layer in own.modules()} != {type(layer).__name__ for layer in other.modules()}


def test_forget_gates_are_open_at_first() -> None:
    for kind in ("lstm", "peephole"):
        encoder = KINDS[kind](**USUAL)
        biases: list[Tensor] = [
            each for name, each in encoder.trunk.named_parameters() if "bias" in name and len(each) == 4 * H
        ]
        total = torch.stack(biases).view(4, -1, 4, H)[:, :, 1].sum(1)  # of two layers and two directions
        torch.testing.assert_close(total, torch.ones(4, H))


def test_what_cannot_be_is_told() -> None:
    for changes, told in (
        ({"hidden_size": 0}, "hidden_size=0: must be a whole number of at least 1"),
        ({"layers": 0}, "layers=0: must be a whole number of at least 1"),
        ({"bidirectional": "both"}, "bidirectional=both: must be true or false"),
        ({"pooling": "sum"}, "pooling=sum: must be one of last, mean, max, attention"),
        ({"window": -1}, "window=-1: must be a whole number of at least 0"),
        ({"truncate": 0}, "truncate=0: must be a whole number of at least 1, or null"),
        ({"dropout": 1}, "dropout=1"),
        ({"input_shape": (1, 28, 28)}, r"input_shape=\(1, 28, 28\): must be \(steps, numbers of a step\)"),
    ):
        with pytest.raises(ValueError, match=told):
            make("lstm", **changes)
    with pytest.raises(ValueError, match="nonlinearity=sin: must be one of tanh, relu"):
        Elman(nonlinearity="sin", **USUAL)
    with pytest.raises(ValueError, match="heads=3: must divide hidden_size=4, of which each has its part"):
        make("transformer", heads=3)
    for words, told in (
        ({"widths": [3, 4]}, r"widths=\[3, 4\]: must be odd"),
        ({"widths": [3]}, r"widths=\[3\]: must be as many as filters=\[4, 4\]"),
        ({"filters": [], "widths": []}, r"widths=\[\]: must be as many as filters=\[\], one or more"),
        ({"filters": [2, 0]}, "filters=0: must be a whole number of at least 1"),
    ):
        with pytest.raises(ValueError, match=told):
            make("fcn", **words)
    with pytest.raises(ValueError, match="variant=new: must be one of original, cudnn"):
        GRU(variant="new", **USUAL)


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_sketched_without_memory(kind: str) -> None:
    with torch.device("meta"):
        sketch: nn.Module = KINDS[kind](**USUAL)
    shapes = {name: tensor.shape for name, tensor in sketch.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in make(kind).state_dict().items()}
