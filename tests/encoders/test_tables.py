"""The encoder of table rows against plain loops in float64."""

from __future__ import annotations

import bisect
import math
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memlab import draws
from memlab.encoders import TableEncoder
from memlab.encoders.tables import LEVELS, MappedNumbers, Rows
from memlab.functional import nll
from memlab.memory import ChunkedMemory, Euclidean, FullMemory
from tests.conftest import random_support

WORDS = [0, 3, 0, 1, 0]
NAN = math.nan
SIZES: dict[str, Any] = {"bins": 4, "number_size": 3, "word_size": 2, "width": 6, "blocks": 1, "embedding_size": 4}


def make(words: list[int] | None = WORDS, **changes: Any) -> TableEncoder:
    torch.manual_seed(0)
    given = {"numbers": "quantile", "embedding": "piecewise_linear", "normalisation": "layer", **SIZES, **changes}
    return TableEncoder(input_shape=(5,), words=words, **given).double().eval()


def training_rows(n: int = 300) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(n, 5, generator=generator, dtype=torch.float64)
    rows[:, 1] = torch.randint(0, 4, (n,), generator=generator)
    rows[:, 3] = torch.randint(0, 2, (n,), generator=generator)
    rows[:, 4] = (rows[:, 4] * 2).round().clamp(min=0)  # many are equal
    rows[::7, 0] = NAN
    rows[::5, 1] = NAN
    return rows


def loop_quantiles(values: list[float]) -> list[float]:
    values = sorted(value for value in values if not math.isnan(value))
    found = []
    for level in range(LEVELS + 1):
        place = level * (len(values) - 1) / LEVELS
        low = math.floor(place)
        high = min(low + 1, len(values) - 1)
        found.append(values[low] + (place - low) * (values[high] - values[low]))
    return found


def loop_mapped(value: float, values: list[float], to: str) -> float:
    if math.isnan(value):
        return 0.0
    there = [each for each in values if not math.isnan(each)]
    if to == "standard":
        mean = math.fsum(there) / len(there)
        return (value - mean) / math.sqrt(math.fsum((each - mean) ** 2 for each in there) / len(there))
    quantiles = loop_quantiles(values)
    first, last = bisect.bisect_left(quantiles, value), bisect.bisect_right(quantiles, value)
    if last > first:
        place = (first + last - 1) / 2
    elif first in (0, LEVELS + 1):
        place = min(first, LEVELS)
    else:
        place = first - 1 + (value - quantiles[first - 1]) / (quantiles[first] - quantiles[first - 1])
    return NormalDist().inv_cdf(min(max(place / LEVELS, 0.5 / LEVELS), 1 - 0.5 / LEVELS))


def loop_number(rows: Rows, value: float, column: int, values: list[float], to: str, embedding: str) -> list[float]:
    mapped, parts = loop_mapped(value, values, to), dict(rows.numbers.named_parameters())
    if embedding == "none":
        return [mapped, float(math.isnan(value))]
    if math.isnan(value):
        return [0.0, *parts["missing"][column].tolist()]
    if embedding == "periodic":
        phases = [2 * math.pi * each * mapped for each in parts["frequencies"][column].tolist()]
        features = [math.sin(each) for each in phases] + [math.cos(each) for each in phases]
    else:
        quantiles, bins = loop_quantiles(values), SIZES["bins"]
        edges = [quantiles[round(place * LEVELS / bins)] for place in range(bins + 1)]
        features = []
        for low, high in pairwise(edges):
            share = (value - low) / (high - low) if high > low else float(value > low)
            features.append(min(max(share, 0.0), 1.0))
    own = 0 if embedding == "periodic" else column
    weight, bias = parts["weight"][own].tolist(), parts["bias"][own].tolist()
    made = [bias[j] + math.fsum(features[i] * weight[i][j] for i in range(len(features))) for j in range(len(bias))]
    return [mapped, *(max(each, 0.0) for each in made)]


@pytest.mark.parametrize("to", ["quantile", "standard"])
@pytest.mark.parametrize("embedding", ["none", "piecewise_linear", "periodic"])
def test_rows_are_numbers_and_words_as_a_plain_loop_makes_them(to: str, embedding: str) -> None:
    encoder, train = make(numbers=to, embedding=embedding), training_rows()
    encoder.fit_inputs(train)
    rows: Any = encoder.trunk.get_submodule("0")
    given = torch.cat([train[:20], torch.tensor([[9.0, 3, -9, NAN, 0], [NAN, NAN, NAN, 0, NAN]]).double()])
    vectors = rows.words.vectors.tolist()
    starts = [0, WORDS[1] + 2]
    for made, row in zip(rows(given).tolist(), given.tolist(), strict=True):
        expected: list[float] = []
        for column, place in enumerate([0, 2, 4]):
            expected += loop_number(rows, row[place], column, train[:, place].tolist(), to, embedding)
        for column, place in enumerate([1, 3]):
            code = WORDS[place] + 1 if math.isnan(row[place]) else int(row[place])
            expected += vectors[starts[column] + code]
        assert made == pytest.approx(expected, abs=1e-9)


def test_behind_the_rows_are_a_layer_residual_blocks_and_the_projection() -> None:
    encoder, given = make(), training_rows(20)
    encoder.fit_inputs(training_rows())
    rows, first, block, norm, _ = (layer for layer in encoder.trunk.children())
    x = first(rows(given))
    inner: Any = list(block.children())
    x = x + inner[4](inner[1](inner[0](x)).relu())
    torch.testing.assert_close(encoder(given), encoder.normalise(encoder.projection(norm(x).relu())))


@pytest.mark.parametrize("embedding", ["none", "piecewise_linear", "periodic"])
def test_gradient_is_that_of_finite_differences(embedding: str) -> None:
    encoder, given = make(embedding=embedding), training_rows(6)
    encoder.fit_inputs(training_rows())
    names = [name for name, _ in encoder.named_parameters()]

    def loss(*values: Tensor) -> Tensor:
        made = torch.func.functional_call(encoder, dict(zip(names, values, strict=True)), given)
        total: Tensor = made.sin().sum()
        return total

    assert torch.autograd.gradcheck(loss, [each.detach().requires_grad_() for each in encoder.parameters()])


def test_read_in_chunks_with_dropout_it_gives_what_it_gives_read_at_once() -> None:
    support = random_support(23, num_classes=3, shape=(5,))
    encoder = make(None, dropout=0.4, blocks=2).train()
    encoder.fit_inputs(support.inputs())
    query, found = support.inputs()[:5] + 0.1, []
    for memory in (
        FullMemory(similarity=Euclidean(scale=0.5)),
        ChunkedMemory(similarity=Euclidean(scale=0.5), chunk_size=7),
    ):
        draws.begin_step(3)
        with draws.of_objects(torch.arange(100, 105), purpose=draws.ENCODED_QUERIES):
            encoded = encoder(query)
        loss = nll(memory(encoder, encoded, support), torch.arange(5) % 3).sum()
        found.append([loss, *torch.autograd.grad(loss, list(encoder.parameters()), allow_unused=True)])
    for full, chunked in zip(*found, strict=True):
        torch.testing.assert_close(chunked, full, rtol=1e-9, atol=1e-11)


def test_what_numbers_were_is_kept_with_the_weights() -> None:
    encoder, other, given = make(), make(), training_rows(20)
    encoder.fit_inputs(training_rows())
    assert not torch.allclose(encoder(given), other(given))
    other.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(encoder(given), other(given), rtol=0, atol=0)


def test_a_change_of_units_that_keeps_the_order_of_numbers_changes_nothing() -> None:
    encoder, other, train = make(embedding="none"), make(embedding="none"), training_rows()
    encoder.fit_inputs(train)
    numbers = [0, 2, 4]
    stretched = train.clone()
    stretched[:, numbers] = 1e3 * train[:, numbers] + 5
    other.fit_inputs(stretched)
    torch.testing.assert_close(encoder(train), other(stretched))


@pytest.mark.parametrize("values", [[2.0] * 50, [], [0.0] * 49 + [1e30], [NAN] * 5])
def test_numbers_of_any_kind_are_mapped_to_finite_ones(values: list[float]) -> None:
    for to in ("quantile", "standard"):
        mapped = MappedNumbers(1, to=to).double()
        mapped.fit(torch.tensor(values, dtype=torch.float64)[:, None])
        given = torch.tensor([[-1e30], [0.0], [2.0], [1e30], [NAN]], dtype=torch.float64)
        found = mapped(given)
        assert found.isfinite().all()
        assert (found[:4].diff(dim=0) >= 0).all()
        assert found[4] == 0


def test_a_word_that_was_not_seen_is_at_0_before_training() -> None:
    rows: Any = make().trunk.get_submodule("0")
    assert (rows.words(torch.tensor([[0.0, 0.0]]).double()) == 0).all()
    assert (rows.words(torch.tensor([[4.0, -1.0]]).double()) == 0).all()


def test_what_cannot_be_is_told() -> None:
    for changes, told in (
        ({"numbers": "log"}, "numbers=log: must be one of quantile, standard"),
        ({"embedding": "tree"}, "embedding=tree: must be one of none, piecewise_linear, periodic"),
        ({"bins": 0}, "bins=0: must be a whole number of at least 1"),
        ({"bins": LEVELS + 1}, f"bins={LEVELS + 1}: must be at most {LEVELS}"),
        ({"number_size": 0}, "number_size=0"),
        ({"word_size": 0}, "word_size=0"),
        ({"width": 0}, "width=0"),
        ({"blocks": -1}, "blocks=-1"),
        ({"dropout": 1}, "dropout=1"),
        ({"words": [0, 1]}, r"words=\[0, 1\]: must be 5, one for each column"),
    ):
        with pytest.raises(ValueError, match=told):
            make(**changes)
    with pytest.raises(ValueError, match=r"must be \(columns,\)"):
        TableEncoder(input_shape=(3, 8, 8), numbers="quantile", embedding="none", **SIZES)


def test_it_can_be_sketched_without_memory() -> None:
    with torch.device("meta"):
        sketch: nn.Module = make()
    ours = make().state_dict()
    assert {name: tensor.shape for name, tensor in sketch.state_dict().items()} == {
        name: tensor.shape for name, tensor in ours.items()
    }
