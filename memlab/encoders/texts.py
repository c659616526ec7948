"""Encoders of texts: tokens as learned vectors, a bag of them or convolutions over them, then one embedding.

Of a pair both texts are encoded alike, and what is made of both becomes one embedding.

A text is (T, 1) numbers of tokens, and those encoded together are as long as the longest of them, NaN behind the end of
each. What is behind its end changes nothing of the embedding of a text, nor of its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Required, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlab import draws, functional
from memlab.checks import check_choice, check_number, check_whole_number
from memlab.data.sequences import there, without_padding_of_all
from memlab.data.vocabulary import FIRST, PADDING, UNKNOWN
from memlab.encoders.lengths import by_length
from memlab.encoders.projection import Projected, Projection

BAGS = ("mean", "max", "sum", "tfidf")


class TokenVectors(nn.Module):
    """A learned vector of each token, ``E[token]``; in training some are read as one that is not known.

    Args:
        words: V, numbers that tokens have; any other number is that of a token which is not known.
        size: of a vector.
        dropout: share of the tokens that are not known at a training step, by step and text (`memlab.draws`).
    """

    def __init__(self, words: int, *, size: int, dropout: float) -> None:
        super().__init__()
        check_whole_number("word_size", size)
        self.dropout = check_number("word_dropout", dropout, at_least=0, below=1)
        self.words = check_whole_number("words", words)
        self.vectors = nn.Embedding(words, size, padding_idx=PADDING)

    def start_with(self, rows: Tensor, *, tuned: bool) -> None:
        """Take over vectors that were learned elsewhere.

        Args:
            rows: (V, size).
            tuned: whether they are learned further.
        """
        with torch.no_grad():
            self.vectors.weight.copy_(rows)
        self.vectors.weight.requires_grad_(tuned)

    def numbers(self, texts: Tensor) -> Tensor:
        """(B, T) of the tokens of texts (B, T, 1), with `PADDING` behind the end of each."""
        numbers = texts.squeeze(-1).nan_to_num(PADDING).long()
        return torch.where((numbers < 0) | (numbers >= self.words), UNKNOWN, numbers)

    def forward(self, texts: Tensor) -> Tensor:
        """(B, T, 1), NaN behind the end of each, to (B, T, size), 0 there."""
        tokens = self.numbers(texts)
        if self.training and self.dropout:
            dropped = draws.dropped(*tokens.shape, p=self.dropout, device=tokens.device)
            tokens = torch.where(dropped & (tokens != PADDING), UNKNOWN, tokens)
        vectors: Tensor = self.vectors(tokens)
        return vectors


class OfPairs(nn.Module):
    """``[u, v, |u - v|, u * v]`` of the features u and v of the two texts of a pair (Conneau et al. 2017).

    Args:
        trunk: of texts (B, T, 1) to features (B, width).
        separator: number of what is between the two.
    """

    def __init__(self, trunk: nn.Module, separator: int) -> None:
        super().__init__()
        self.trunk, self._separator = trunk, separator

    def forward(self, pairs: Tensor) -> Tensor:
        """(B, T, 1), NaN behind the end of each, to (B, 4 width)."""
        u, v = map(self.trunk, self.texts(pairs))
        return torch.cat([u, v, (u - v).abs(), u * v], dim=-1)

    def texts(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T', 1) the first texts of pairs and (B, T'', 1) the second ones."""
        tokens = pairs.squeeze(-1)
        between = (tokens == self._separator).int().argmax(1, keepdim=True)
        place = torch.arange(tokens.shape[1], device=tokens.device)
        first = torch.where(place < between, tokens, torch.nan)
        behind = place + between + 1
        second = tokens.gather(1, behind.clamp(max=tokens.shape[1] - 1))
        second = torch.where(behind < tokens.shape[1], second, torch.nan)
        return without_padding_of_all(first[..., None]), without_padding_of_all(second[..., None])


def of_objects(trunk: nn.Module, width: int, separator: int | None) -> tuple[nn.Module, int]:
    """A trunk of texts as one of the objects, pairs if there is a separator; and its width."""
    return (trunk, width) if separator is None else (OfPairs(trunk, separator), 4 * width)


class TextOptions(Projection, total=False):
    """What encoders of texts alone take besides their own; see `TextEncoder`."""

    input_shape: Required[Sequence[int | None]]
    words: int | None
    separator: int | None
    word_size: Required[int]
    word_dropout: Required[float]


class TextEncoder(Projected):
    """Vectors of tokens, features of them, then Linear to D.

    Args:
        features: makes features (B, width) of texts.
        input_shape: (T, 1), T being None where texts have different lengths.
        words: V, numbers that tokens have; None for objects that are no texts, which are refused.
        separator: number of what is between the texts of a pair; None for single texts.
        word_size: of the vector of a token.
        word_dropout: see `TokenVectors`.
        projection: ``embedding_size``, ``normalisation``, ``dropout``; see `Projected`.

    Raises:
        ValueError: for a value out of range, or objects that are no texts.
    """

    reads_sequences = True
    """See `memlab.encoders.sequences.SequenceEncoder`."""

    def __init__(
        self,
        features: Callable[[TokenVectors], TextFeatures],
        *,
        input_shape: Sequence[int | None],
        words: int | None = None,
        separator: int | None = None,
        word_size: int,
        word_dropout: float,
        **projection: Unpack[Projection],
    ) -> None:
        if words is None or len(input_shape) != 2:
            raise ValueError(f"input_shape={tuple(input_shape)}: must be texts, as of data=text")
        own = features(TokenVectors(words, size=word_size, dropout=word_dropout))
        trunk, width = of_objects(own, own.width, separator)
        super().__init__(trunk, width=width, **projection)

    def fit_inputs(self, objects: Tensor) -> None:
        """Take over what the features need to know of (n, T, 1) training objects."""
        if isinstance(self.trunk, OfPairs):
            self.trunk.trunk.fit(*self.trunk.texts(objects))  # type: ignore[operator]
        else:
            self.trunk.fit(objects)  # type: ignore[operator]


class TextFeatures(nn.Module):
    """Features of texts; a subclass says which.

    Args:
        vectors: of tokens.
        width: features of a text.
    """

    def __init__(self, vectors: TokenVectors, *, width: int) -> None:
        super().__init__()
        self.vectors, self.width = vectors, width

    def fit(self, *texts: Tensor) -> None:
        """Take over what is needed of (n, T, 1) training texts, of which there may be several lots; of most nothing."""

    def forward(self, texts: Tensor) -> Tensor:
        """(B, T, 1), NaN behind the end of each, to (B, width)."""
        return by_length(self.features, texts)

    def features(self, texts: Tensor) -> Tensor:
        """The same of texts of like length."""
        raise NotImplementedError


class Bag(TextEncoder):
    """``u = A g(E[x_1], ..., E[x_T]) + b``: what stands in a text, in any order.

    g is the mean, the maximum or the sum; or the sum weighted by tf-idf, ``sum_v w_v E[v]`` over the tokens v that are
    known, with ``w_v`` the times that v stands in the text, times ``ln((1 + n) / (1 + n_v)) + 1``, n_v of the n
    training texts having v, and w divided by its length: what a linear layer makes of scikit-learn's
    ``TfidfVectorizer``.

    Args:
        pooling: g, ``mean``, ``max``, ``sum`` or ``tfidf``.
        options: see `TextEncoder`.

    Raises:
        ValueError: for a value out of range, or objects that are no texts.
    """

    def __init__(self, *, pooling: str, **options: Unpack[TextOptions]) -> None:
        check_choice("pooling", pooling, BAGS)
        super().__init__(_WeightedBag if pooling == "tfidf" else partial(_PlainBag, pooling=pooling), **options)


class _PlainBag(TextFeatures):
    def __init__(self, vectors: TokenVectors, *, pooling: str) -> None:
        super().__init__(vectors, width=vectors.vectors.embedding_dim)
        self._pooling = pooling

    def features(self, texts: Tensor) -> Tensor:
        """See `TextFeatures.features`."""
        vectors: Tensor = self.vectors(texts)
        if self._pooling == "sum":
            return vectors.sum(1)
        return (functional.pool_mean if self._pooling == "mean" else functional.pool_max)(vectors, there(texts))


class _WeightedBag(TextFeatures):
    """The sum weighted by tf-idf."""

    rarity: Tensor
    """(V,) of each token ``ln((1 + n) / (1 + n_v)) + 1``; 0 of padding and of what is not known."""

    def __init__(self, vectors: TokenVectors) -> None:
        super().__init__(vectors, width=vectors.vectors.embedding_dim)
        rarity = torch.ones(vectors.words)
        rarity[:FIRST] = 0
        self.register_buffer("rarity", rarity)

    @torch.no_grad()
    def fit(self, *texts: Tensor) -> None:
        """See `TextFeatures.fit`."""
        counts = torch.zeros_like(self.rarity)
        for each in texts:
            for tokens in self.vectors.numbers(each).to(counts.device).split(1024):
                has = torch.zeros(len(tokens), len(counts), device=counts.device).scatter_(1, tokens, 1.0)
                counts += has.sum(0)
        self.rarity.copy_(((1 + sum(map(len, texts))) / (1 + counts)).log() + 1)
        self.rarity[:FIRST] = 0

    def features(self, texts: Tensor) -> Tensor:
        """See `TextFeatures.features`."""
        weighted: Tensor = (self._weights(texts)[:, None] @ self.vectors(texts)).squeeze(1)
        return weighted

    def _weights(self, texts: Tensor) -> Tensor:
        """(B, T) of each token that stands in a text, so that those of equal ones add up to w."""
        tokens = self.vectors.numbers(texts)
        rarity = self.rarity[tokens]
        times = (tokens[:, :, None] == tokens[:, None]).sum(2)
        length = (times * rarity.square()).sum(1, keepdim=True).sqrt()
        return rarity / torch.where(length > 0, length, 1)


class TextConv(TextEncoder):
    """Convolutions of several widths over the tokens, the maximum of each over time, side by side (Kim 2014).

    ``c_t = relu(W [x_t, ..., x_{t+w-1}] + b)`` of each width w, with zeros behind the end of a text.

    Args:
        widths: w, tokens that a filter sees.
        filters: of each width.
        options: see `TextEncoder`.

    Raises:
        ValueError: for a value out of range, or objects that are no texts.
    """

    def __init__(self, *, widths: Sequence[int], filters: int, **options: Unpack[TextOptions]) -> None:
        if not widths:
            raise ValueError("widths=[]: must be one whole number or more")
        sizes = [check_whole_number("widths", width) for width in widths]
        check_whole_number("filters", filters)
        super().__init__(partial(_Convolutions, widths=sizes, filters=filters), **options)


class _Convolutions(TextFeatures):
    def __init__(self, vectors: TokenVectors, *, widths: Sequence[int], filters: int) -> None:
        super().__init__(vectors, width=len(widths) * filters)
        size = vectors.vectors.embedding_dim
        self.convolutions = nn.ModuleList(nn.Conv1d(size, filters, width) for width in widths)

    def features(self, texts: Tensor) -> Tensor:
        """See `TextFeatures.features`."""
        present, by_feature = there(texts), self.vectors(texts).mT
        made = []
        for convolution in self.convolutions:
            assert isinstance(convolution, nn.Conv1d)
            found = convolution(F.pad(by_feature, (0, convolution.kernel_size[0] - 1))).relu()
            made.append(functional.pool_max(found.mT, present))
        return torch.cat(made, dim=-1)
