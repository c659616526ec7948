"""Encoders of texts against plain loops over one text, and whatever they are encoded with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from torch import Tensor, nn

from memlab.data.objects import ObjectStore
from memlab.data.sequences import Sequences
from memlab.data.support import Support
from memlab.data.vocabulary import UNKNOWN
from memlab.encoders import FCN, LSTM, Bag, TextConv, Transformer, lengths
from memlab.encoders.texts import TokenVectors
from tests.encoders.chunks import check_that_chunks_change_nothing

V, D = 12, 4
LENGTHS = [5, 1, 9, 3, 4, 2, 7, 9, 1, 6, 2]
USUAL: dict[str, Any] = {
    "input_shape": (None, 1),
    "words": V,
    "word_size": D,
    "word_dropout": 0.0,
    "embedding_size": 3,
    "normalisation": "layer",
}
RECURRENT: dict[str, Any] = {
    "hidden_size": 4,
    "layers": 1,
    "bidirectional": True,
    "pooling": "max",
    "window": 0,
    "truncate": None,
}
KINDS: dict[str, Callable[..., nn.Module]] = {
    **{f"bag, {pooling}": partial(Bag, pooling=pooling) for pooling in ("mean", "max", "sum", "tfidf")},
    "text_conv": lambda **words: TextConv(**{"widths": [1, 3, 4], "filters": 5, **words}),
    "lstm": lambda **words: LSTM(**RECURRENT, **words),
    "fcn": lambda **words: FCN(filters=[4, 5], widths=[3, 1], pooling="mean", window=0, **words),
    "transformer": lambda **words: Transformer(hidden_size=4, layers=2, heads=2, pooling="mean", window=0, **words),
}


@pytest.fixture(autouse=True)
def lots_of_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven texts are encoded in lots by their length."""
    monkeypatch.setattr(lengths, "SMALLEST", 2)


def make(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return KINDS[kind](**{**USUAL, **changes}).double().eval()


def tokens() -> Sequences:
    generator = torch.Generator().manual_seed(1)
    return Sequences.of([torch.randint(1, V, (length, 1), generator=generator).double() for length in LENGTHS])


def support() -> Support:
    labels = torch.arange(len(LENGTHS)) % 3
    store = ObjectStore(inputs=tokens(), labels=labels, class_names=("a", "b", "c"))
    return Support(store, torch.arange(len(labels)), torch.float64)


def numbers_of(row: int) -> list[int]:
    return [int(number) for number in tokens().taken(torch.tensor([row])).flatten().tolist()]


@pytest.mark.parametrize("pooling", ["mean", "max", "sum"])
def test_a_bag_is_what_is_made_of_its_vectors(pooling: str) -> None:
    encoder = make(f"bag, {pooling}", normalisation="none")
    embedded = encoder(tokens().taken(torch.arange(len(LENGTHS))))
    for row in range(len(LENGTHS)):
        vectors = [encoder.trunk.vectors.vectors.weight[number] for number in numbers_of(row)]
        made = torch.stack(vectors)
        pooled = {"mean": made.mean(0), "max": made.amax(0), "sum": made.sum(0)}[pooling]
        torch.testing.assert_close(embedded[row], encoder.projection(pooled), rtol=1e-12, atol=1e-13)


def test_tfidf_is_that_of_scikit_learn() -> None:
    rows = torch.arange(len(LENGTHS))
    texts = [" ".join(map(str, numbers_of(row))) for row in rows]
    known = [str(number) for number in range(2, V)]
    vectorizer = TfidfVectorizer(vocabulary=known, token_pattern=r"\d+")
    weights = torch.from_numpy(vectorizer.fit_transform(texts).toarray())
    for separator in (None, V):
        encoder = make("bag, tfidf", normalisation="none", separator=separator)
        given = tokens().taken(rows)
        if separator is not None:  # the first texts of pairs are those, and so are the second ones
            each = [tokens().taken(row[None])[0] for row in rows]
            between = torch.tensor([[float(V)]]).double()
            given = Sequences.of([torch.cat([text, between, text]) for text in each]).taken(rows)
        encoder.fit_inputs(given)
        if separator is not None:
            weights = torch.from_numpy(vectorizer.fit(texts * 2).transform(texts).toarray())
        own = encoder.trunk if separator is None else encoder.trunk.trunk
        expected = weights @ own.vectors.vectors.weight[2:]
        torch.testing.assert_close(own(tokens().taken(rows)), expected, rtol=1e-6, atol=1e-7)
    kept = make("bag, tfidf", normalisation="none", separator=V)
    kept.load_state_dict(encoder.state_dict())
    assert torch.equal(kept.double()(given), encoder.double()(given))


def test_text_conv_is_the_largest_of_each_filter_over_time() -> None:
    encoder = make("text_conv", normalisation="none")
    embedded = encoder(tokens().taken(torch.arange(len(LENGTHS))))
    for row, length in enumerate(LENGTHS):
        vectors = [encoder.trunk.vectors.vectors.weight[number] for number in numbers_of(row)]
        features = []
        for convolution in encoder.trunk.convolutions:
            for weight, bias in zip(convolution.weight, convolution.bias, strict=True):
                found = []
                for start in range(length):
                    total = bias
                    for place, column in enumerate(weight.unbind(1)):
                        if start + place < length:
                            total = total + column @ vectors[start + place]
                    found.append(total.relu())
                features.append(torch.stack(found).max())
        torch.testing.assert_close(embedded[row], encoder.projection(torch.stack(features)), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_of_a_pair_both_texts_are_encoded_alike(kind: str) -> None:
    """Pairs of unlike lengths, one of which is beside a longer one, chunked as well."""
    encoder, given = make(kind, separator=V, normalisation="none"), tokens()
    rows = [(0, 1), (2, 3), (5, 4), (1, 7)]
    each = [given.taken(torch.tensor([row]))[0] for row in range(len(LENGTHS))]
    between = torch.tensor([[float(V)]]).double()
    pairs = Sequences.of([torch.cat([each[first], between, each[second]]) for first, second in rows])
    embedded = encoder(pairs.taken(torch.arange(len(rows))))
    for found, (first, second) in zip(embedded, rows, strict=True):
        u, v = (encoder.trunk.trunk(each[row][None])[0] for row in (first, second))
        features = torch.cat([u, v, (u - v).abs(), u * v])
        torch.testing.assert_close(found, encoder.projection(features), rtol=1e-12, atol=1e-13)
    found = []
    for parts in ([4], [1, 3]):
        total = torch.cat([encoder(pairs.taken(rows)) for rows in torch.arange(4).split(parts)])
        found.append(torch.autograd.grad(total.square().sum(), list(encoder.parameters())))
    for together, apart in zip(*found, strict=True):
        torch.testing.assert_close(apart, together, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_alone_and_beside_longer_ones_a_text_has_one_embedding_and_one_gradient(kind: str) -> None:
    encoder, given = make(kind), tokens()
    weights = torch.linspace(-1, 1, 3).double()
    together = encoder(given.taken(torch.arange(len(LENGTHS)))) @ weights
    for row in range(len(LENGTHS)):
        alone = encoder(given.taken(torch.tensor([row]))) @ weights
        torch.testing.assert_close(alone[0], together[row], rtol=1e-12, atol=1e-13)
        gradients = [
            torch.autograd.grad(each, list(encoder.parameters()), retain_graph=True)
            for each in (alone[0], together[row])
        ]
        for own, beside in zip(*gradients, strict=True):
            torch.testing.assert_close(own, beside, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_read_in_chunks_with_dropout_it_gives_what_it_gives_read_at_once(kind: str) -> None:
    check_that_chunks_change_nothing(make(kind, dropout=0.3, word_dropout=0.3).train(), support())


def test_a_share_of_the_tokens_is_not_known_in_training() -> None:
    vectors = TokenVectors(V, size=D, dropout=0.4).train()
    texts = torch.full((500, 20, 1), 5.0)
    texts[:, 15:] = torch.nan
    read = vectors(texts)
    unknown = (read == vectors.vectors.weight[UNKNOWN]).all(-1)
    assert unknown[:, :15].double().mean() == pytest.approx(0.4, abs=0.02)
    assert torch.equal(read[:, 15:], torch.zeros(500, 5, D))
    known: Tensor = (vectors.eval()(texts)[:, :15] == vectors.vectors.weight[5]).all()
    assert known


@pytest.mark.parametrize("kind", KINDS)
def test_a_number_that_no_token_has_is_that_of_one_that_is_not_known(kind: str) -> None:
    encoder = make(kind)
    for wrong in (-1.0, V, 1e9):
        given = torch.tensor([[[3.0], [wrong], [4.0]]]).double()
        torch.testing.assert_close(encoder(given), encoder(torch.tensor([[[3.0], [UNKNOWN], [4.0]]]).double()))


def test_what_cannot_be_is_told() -> None:
    conv = {"widths": [1], "filters": 5}
    for encoder, changes, told in (
        (Bag, {"pooling": "last"}, "pooling=last: must be one of mean, max, sum"),
        (Bag, {"pooling": "sum", "word_size": 0}, "word_size=0: must be a whole number of at least 1"),
        (Bag, {"pooling": "sum", "words": None}, r"input_shape=\(None, 1\): must be texts, as of data=text"),
        (TextConv, {**conv, "words": None, "input_shape": (1, 8, 8)}, r"input_shape=\(1, 8, 8\): must be texts"),
        (TextConv, {**conv, "widths": []}, r"widths=\[\]: must be one whole number or more"),
        (TextConv, {**conv, "widths": [0]}, "widths=0: must be a whole number of at least 1"),
        (TextConv, {**conv, "filters": 0}, "filters=0: must be a whole number of at least 1"),
        (TextConv, {**conv, "word_dropout": 1}, "word_dropout=1"),
    ):
        made: Any = encoder
        with pytest.raises(ValueError, match=told):
            made(**{**USUAL, **changes})


@pytest.mark.parametrize("kind", KINDS)
def test_it_can_be_sketched_without_memory(kind: str) -> None:
    with torch.device("meta"):
        sketch = KINDS[kind](**USUAL)
    shapes = {name: tensor.shape for name, tensor in sketch.state_dict().items()}
    assert shapes == {name: tensor.shape for name, tensor in make(kind).state_dict().items()}
