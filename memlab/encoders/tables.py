"""An encoder of table rows: numbers mapped by what they were in training, words by learned vectors, residual blocks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlab.checks import check_choice, check_number, check_whole_number
from memlab.encoders.dropout import Dropout
from memlab.encoders.projection import Projected, Projection

LEVELS = 256
"""Steps of the quantiles kept of each column of numbers."""
OUTERMOST = 0.5 / LEVELS
"""Share of the training values taken to lie outside of the quantiles, at either end."""
MAPS = ("quantile", "standard")
EMBEDDINGS = ("none", "piecewise_linear", "periodic")


class MappedNumbers(nn.Module):
    """Columns of numbers on one scale, that of the training rows.

    ``quantile``: ``z = Phi^-1(c(x))``, c the share of the training values below x, linear between quantiles and the
    middle of its jump where many values are equal, and Phi the normal distribution. ``standard``: ``z = (x - mean) /
    deviation``. A missing number, NaN, is at 0, the middle.

    Args:
        count: F, columns.
        to: ``quantile`` or ``standard``.
    """

    quantiles: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, count: int, *, to: str) -> None:
        super().__init__()
        self._by_quantile = check_choice("numbers", to, MAPS) == "quantile"
        self.register_buffer("quantiles", torch.linspace(-3, 3, LEVELS + 1).repeat(count, 1))
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))

    def fit(self, numbers: Tensor) -> None:
        """Take over the distribution of (n, F) training numbers; a column without any keeps what it has."""
        for column, values in enumerate(numbers.double().unbind(1)):
            values = values[~values.isnan()].sort().values
            if not len(values):
                continue
            places = torch.linspace(0, len(values) - 1, LEVELS + 1, dtype=torch.float64, device=values.device)
            low, share = places.long(), places.frac()
            high = (low + 1).clamp(max=len(values) - 1)
            self.quantiles[column] = torch.lerp(values[low], values[high], share)
            deviation, self.mean[column] = torch.std_mean(values, correction=0)
            self.deviation[column] = torch.where(deviation > 0, deviation, 1.0)

    def forward(self, numbers: Tensor) -> Tensor:
        """(B, F) numbers to (B, F) on one scale."""
        if not self._by_quantile:
            return ((numbers - self.mean) / self.deviation).nan_to_num(0.0)
        shares = self.shares(numbers).clamp(OUTERMOST, 1 - OUTERMOST)
        mapped: Tensor = torch.special.ndtri(shares)
        return mapped

    def shares(self, numbers: Tensor) -> Tensor:
        """(B, F) shares of the training values below, from 0 to 1."""
        values = numbers.T.contiguous()
        first = torch.searchsorted(self.quantiles, values)  # quantiles below x
        last = torch.searchsorted(self.quantiles, values, right=True)  # and up to x
        low, high = (first - 1).clamp(min=0), first.clamp(max=LEVELS)
        below, above = self.quantiles.gather(1, low), self.quantiles.gather(1, high)
        within = (values - below) / torch.where(above > below, above - below, 1.0)
        between = low + within.clamp(0, 1) * (high > low)
        shares = torch.where(last > first, (first + last - 1) / 2, between) / LEVELS
        return shares.masked_fill(values.isnan(), 0.5).T

    def edges(self, bins: int) -> Tensor:
        """(F, bins + 1) quantiles that have between them as many training values each."""
        return self.quantiles[:, torch.linspace(0, LEVELS, bins + 1).round().long()]


class PlainNumbers(nn.Module):
    """Each number as it is mapped, and whether it is missing."""

    size = 2

    def forward(self, numbers: Tensor, mapped: MappedNumbers) -> Tensor:
        """(B, F) numbers to (B, F, 2)."""
        return torch.stack([mapped(numbers), numbers.isnan().to(numbers.dtype)], dim=-1)


class EmbeddedNumbers(nn.Module):
    """Numbers as vectors ``[z, relu(W g(x) + b)]``, z as it is mapped; where one is missing, 0 and learned numbers.

    Args:
        count: F, columns.
        size: of a vector, less one for z.
        features: of g.
        shared: one W for all columns, or one each.
    """

    def __init__(self, count: int, *, size: int, features: int, shared: bool) -> None:
        super().__init__()
        self.size = 1 + check_whole_number("number_size", size)
        bound = 1 / math.sqrt(features)
        self.weight = nn.Parameter(torch.empty(1 if shared else count, features, size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(1 if shared else count, size).uniform_(-bound, bound))
        self.missing = nn.Parameter(torch.randn(count, size) * 0.1)

    def forward(self, numbers: Tensor, mapped: MappedNumbers) -> Tensor:
        """(B, F) numbers to (B, F, 1 + size)."""
        on_scale = mapped(numbers)
        features = self.features(numbers, on_scale, mapped)
        if len(self.weight) == 1:
            made = features @ self.weight[0] + self.bias
        else:
            made = torch.baddbmm(self.bias[:, None], features.transpose(0, 1), self.weight).transpose(0, 1)
        made = torch.where(numbers.isnan()[..., None], self.missing.to(made.dtype), F.relu(made))
        return torch.cat([on_scale[..., None].to(made.dtype), made], dim=-1)

    def features(self, numbers: Tensor, on_scale: Tensor, mapped: MappedNumbers) -> Tensor:
        """(B, F) numbers, and as they are mapped, to (B, F, features), finite for missing ones too."""
        raise NotImplementedError


class PiecewiseLinear(EmbeddedNumbers):
    """``g_t(x) = clip((x - b_t) / (b_{t+1} - b_t), 0, 1)``, b the quantiles of the column (Gorishniy et al. 2022).

    Where both ends of a bin are equal g steps from 0 to 1 behind them.

    Args:
        count: F, columns.
        size: of a vector.
        bins: for each column.
    """

    def __init__(self, count: int, *, size: int, bins: int) -> None:
        if check_whole_number("bins", bins) > LEVELS:
            raise ValueError(f"bins={bins}: must be at most {LEVELS}")
        super().__init__(count, size=size, features=bins, shared=False)
        self._bins = bins

    def features(self, numbers: Tensor, on_scale: Tensor, mapped: MappedNumbers) -> Tensor:
        """See `EmbeddedNumbers.features`."""
        edges = mapped.edges(self._bins)
        start, width = edges[:, :-1], edges.diff(dim=1)
        past = numbers.nan_to_num(0.0)[..., None] - start
        shares = torch.where(width > 0, past / torch.where(width > 0, width, 1.0), (past > 0).to(past.dtype))
        return shares.clamp(0, 1)


class Periodic(EmbeddedNumbers):
    """``g(x) = [sin 2 pi w z, cos 2 pi w z]``, w learned from N(0, 1/4), W shared: PLR-lite (Gorishniy et al. 2022).

    Args:
        count: F, columns.
        size: of a vector.
        bins: frequencies w of each column.
    """

    def __init__(self, count: int, *, size: int, bins: int) -> None:
        super().__init__(count, size=size, features=2 * check_whole_number("bins", bins), shared=True)
        self.frequencies = nn.Parameter(torch.randn(count, bins) * 0.25)

    def features(self, numbers: Tensor, on_scale: Tensor, mapped: MappedNumbers) -> Tensor:
        """See `EmbeddedNumbers.features`."""
        phases = 2 * math.pi * self.frequencies * on_scale[..., None]
        return torch.cat([phases.sin(), phases.cos()], dim=-1)


class Words(nn.Module):
    """Learned vectors of the words of each column, and one in the place of a missing word.

    Codes are 0 for a word that is rare or was not seen in training, whose vector is 0 at first, and from 1 for others.

    Args:
        counts: (W,) words of each column, at least 1.
        size: of a vector.
    """

    starts: Tensor
    counts: Tensor

    def __init__(self, counts: Sequence[int], *, size: int) -> None:
        super().__init__()
        rows = torch.tensor([count + 2 for count in counts], dtype=torch.int64, device="cpu")
        starts = rows.cumsum(0) - rows
        self.register_buffer("starts", starts, persistent=False)
        self.register_buffer("counts", rows - 2, persistent=False)
        vectors = torch.randn(int(rows.sum()), check_whole_number("word_size", size)) / math.sqrt(size)
        vectors[starts] = 0
        self.vectors = nn.Parameter(vectors)

    def forward(self, codes: Tensor) -> Tensor:
        """(B, W) codes, NaN for missing, to (B, W, size)."""
        known = codes.nan_to_num(0.0).long()
        known = torch.where((known < 0) | (known > self.counts), 0, known)  # no word has such a code
        places = torch.where(codes.isnan(), self.counts + 1, known)
        return F.embedding(self.starts + places, self.vectors)


class Residual(nn.Sequential):
    """``x + dropout(B dropout(relu(A norm(x))))`` (Gorishniy et al. 2021; here with LayerNorm).

    Args:
        width: of x.
        dropout: share of the features dropped in training.
    """

    def __init__(self, width: int, dropout: float) -> None:
        layers = [nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU(), Dropout(dropout), nn.Linear(width, width)]
        super().__init__(*layers, Dropout(dropout))

    def forward(self, input: Tensor) -> Tensor:
        """(B, width) to the same."""
        changed: Tensor = super().forward(input)
        return input + changed


class Rows(nn.Module):
    """Rows of a table to features: numbers and words as vectors, side by side.

    Args:
        words: (F,) words of each column; 0 for a column of numbers.
        numbers, embedding, bins, number_size, word_size: see `TableEncoder`.
    """

    number_columns: Tensor
    word_columns: Tensor

    def __init__(
        self, words: Sequence[int], *, numbers: str, embedding: str, bins: int, number_size: int, word_size: int
    ) -> None:
        super().__init__()
        counts = [check_whole_number("words", count, minimum=0) for count in words]
        for name, chosen in (("number_columns", False), ("word_columns", True)):
            places = [place for place, count in enumerate(counts) if bool(count) is chosen]
            self.register_buffer(name, torch.tensor(places, dtype=torch.int64, device="cpu"), persistent=False)
        count = counts.count(0)
        self.mapped = MappedNumbers(count, to=numbers)
        check_choice("embedding", embedding, EMBEDDINGS)
        self.numbers: PlainNumbers | EmbeddedNumbers = PlainNumbers()
        if embedding == "piecewise_linear":
            self.numbers = PiecewiseLinear(count, size=number_size, bins=bins)
        if embedding == "periodic":
            self.numbers = Periodic(count, size=number_size, bins=bins)
        self.words = Words([each for each in counts if each], size=word_size)
        self.width = count * self.numbers.size + (len(counts) - count) * word_size

    def forward(self, rows: Tensor) -> Tensor:
        """(B, F) to (B, width)."""
        numbers = rows.index_select(1, self.number_columns)
        made = [self.numbers(numbers, self.mapped).flatten(1)]
        if len(self.word_columns):
            made.append(self.words(rows.index_select(1, self.word_columns)).flatten(1))
        return torch.cat(made, dim=1)


class TableEncoder(Projected):
    """Numbers and words of a row as vectors, a linear layer, residual blocks, then Linear to D.

    What numbers are in the training rows, which `fit_inputs` is shown, is kept with the weights.

    Args:
        input_shape: (F,), the columns.
        words: (F,) words of each column, whose codes an object has, from 1, with 0 for others; 0 for a column of
            numbers. None if all are numbers.
        numbers: how they are mapped: ``quantile`` or ``standard``; see `MappedNumbers`.
        embedding: of mapped numbers: ``none``, ``piecewise_linear`` or ``periodic``.
        bins: of each number, or its frequencies.
        number_size: of the vector of a number, behind itself; without an embedding, whether it is missing is there.
        word_size: of the vector of a word.
        width: of the residual blocks.
        blocks: how many.
        projection: ``embedding_size``, ``normalisation``, ``dropout`` (of the blocks too); see `Projected`.

    Raises:
        ValueError: for a value out of range, or objects that are no rows.
    """

    def __init__(
        self,
        *,
        input_shape: Sequence[int],
        words: Sequence[int] | None = None,
        numbers: str,
        embedding: str,
        bins: int,
        number_size: int,
        word_size: int,
        width: int,
        blocks: int,
        **projection: Unpack[Projection],
    ) -> None:
        if len(input_shape) != 1:
            raise ValueError(f"input_shape={tuple(input_shape)}: must be (columns,), rows of a table")
        words = [0] * input_shape[0] if words is None else words
        if len(words) != input_shape[0]:
            raise ValueError(f"words={list(words)}: must be {input_shape[0]}, one for each column")
        dropout = check_number("dropout", projection.get("dropout", 0.0), at_least=0, below=1)
        sizes = {"bins": bins, "number_size": number_size, "word_size": word_size}
        rows = Rows(words, numbers=numbers, embedding=embedding, **sizes)
        check_whole_number("width", width)
        inner = [Residual(width, dropout) for _ in range(check_whole_number("blocks", blocks, minimum=0))]
        trunk = nn.Sequential(rows, nn.Linear(rows.width, width), *inner, nn.LayerNorm(width), nn.ReLU())
        super().__init__(trunk, width=width, **projection)

    @torch.no_grad()
    def fit_inputs(self, rows: Tensor) -> None:
        """Take over what the numbers of (n, F) training rows are."""
        own = self.trunk.get_submodule("0")
        assert isinstance(own, Rows)
        own.mapped.fit(rows.index_select(1, own.number_columns))
