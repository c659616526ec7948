"""What encoders of sequences share: steps, of numbers or tokens, then outputs of all steps, then one embedding.

A sequence is (T, m), and those encoded together are as long as the longest of them, NaN behind the end of each. What is
behind its end changes nothing of the embedding of a sequence, nor of its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Required, Unpack

import torch
from torch import Tensor, nn

from memlab import functional
from memlab.checks import check_choice, check_number, check_whole_number
from memlab.data.sequences import there
from memlab.encoders.lengths import by_length
from memlab.encoders.projection import Projected, Projection
from memlab.encoders.texts import TokenVectors, of_objects

POOLINGS = ("last", "mean", "max", "attention")
SHOWN = 512
"""Training objects that the start of the last layer depends on."""


class StepOptions(Projection, total=False):
    """What every encoder of sequences takes besides its own; see `SequenceEncoder`."""

    input_shape: Required[Sequence[int | None]]
    words: int | None
    separator: int | None
    word_size: int
    word_dropout: float


class StepFeatures(nn.Module):
    """Sequences (B, T, m) to features (B, width): outputs of all steps, an attention window, pooling.

    A subclass says what the outputs are.

    Args:
        vectors: of tokens, which steps then are; None for steps of numbers.
        width: numbers of an output.
        hidden_size: of what tells the weights of ``attention``.
        pooling: of the outputs of all steps: ``last``, ``mean``, ``max``, or ``attention``, ``sum_t a_t h_t`` with
            ``a = softmax_t(v . tanh(A h_t + b))``.
        window: n of ``o_k = sum_{i=0}^{2n} a_i h_{k+i-n}`` with learned a, whose sum is 1, before pooling; 0 for none.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self, vectors: TokenVectors | None, *, width: int, hidden_size: int, pooling: str, window: int
    ) -> None:
        super().__init__()
        self.vectors, self.width = vectors, width
        self._pooling = check_choice("pooling", pooling, POOLINGS)
        if check_whole_number("window", window, minimum=0):
            self.window = nn.Parameter(torch.zeros(2 * window + 1))
        if pooling == "attention":
            self.score = nn.Sequential(nn.Linear(width, hidden_size), nn.Tanh(), nn.Linear(hidden_size, 1))

    def outputs(self, steps: Tensor, present: Tensor) -> Tensor:
        """(B, T, width) of steps (B, T, m).

        Args:
            steps: 0 behind the end of each sequence.
            present: (B, T) steps that there are.
        """
        raise NotImplementedError

    def last(self, outputs: Tensor, present: Tensor) -> Tensor:
        """(B, width) of (B, T, width): where what is read of a sequence ends."""
        return functional.pool_last(outputs, present)

    def forward(self, sequences: Tensor) -> Tensor:
        """(B, T, m), NaN behind the end of each, to (B, width)."""
        return by_length(self._features, sequences)

    def _features(self, sequences: Tensor) -> Tensor:
        present = there(sequences)
        steps = sequences.masked_fill(~present[..., None], 0) if self.vectors is None else self.vectors(sequences)
        outputs = self.outputs(steps, present)
        if isinstance(weights := getattr(self, "window", None), nn.Parameter):
            outputs = functional.window(outputs, weights.softmax(0), present)
        if self._pooling == "mean":
            return functional.pool_mean(outputs, present)
        if self._pooling == "max":
            return functional.pool_max(outputs, present)
        if self._pooling == "attention":
            return functional.pool_attention(outputs, self.score(outputs).squeeze(-1), present)
        return self.last(outputs, present)


class SequenceEncoder(Projected):
    """Features of all steps, then Linear to D.

    Args:
        features: makes features of sequences, of the vectors of tokens, if steps are such, and the numbers of a step.
        input_shape: (T, m), T being None where sequences have different lengths; sequences of any length are read.
        words: V, numbers that tokens of texts have; None for steps of numbers.
        separator: number of what is between the texts of a pair; None for single texts.
        word_size: of the vector of a token.
        word_dropout: share of the tokens that are not known at a training step.
        projection: ``embedding_size``, ``normalisation``, ``dropout`` (within the features too); see `Projected`.

    Raises:
        ValueError: for a value out of range, or objects that are no sequences.
    """

    reads_sequences = True
    """Whether it takes objects of different lengths, NaN behind the end of each."""

    def __init__(
        self,
        features: Callable[[TokenVectors | None, int], StepFeatures],
        *,
        input_shape: Sequence[int | None],
        words: int | None = None,
        separator: int | None = None,
        word_size: int = 64,
        word_dropout: float = 0.0,
        **projection: Unpack[Projection],
    ) -> None:
        if len(input_shape) != 2 or input_shape[1] is None:
            raise ValueError(f"input_shape={tuple(input_shape)}: must be (steps, numbers of a step), sequences")
        check_number("dropout", projection.get("dropout", 0.0), at_least=0, below=1)
        vectors = None if words is None else TokenVectors(words, size=word_size, dropout=word_dropout)
        own = features(vectors, input_shape[1] if vectors is None else word_size)
        trunk, width = of_objects(own, own.width, separator)
        super().__init__(trunk, width=width, **projection)

    @torch.no_grad()
    def fit_inputs(self, objects: Tensor) -> None:
        """Have embeddings of training objects start around 0, with a deviation of 1 in each number.

        What sequences have in common is most of what random layers make of them. Embeddings that are nearly alike are
        soon made quite alike, as what they are far from by chance costs most, and of few objects a network stays there.
        The start depends on data as that of Salimans and Kingma (2016, section 3): ``A / s`` for A and ``- A m / s``
        for b, m being the mean of the features and s the deviation of what A makes of them.

        Args:
            objects: (n, T, m) training objects, of which `SHOWN` are looked at; fewer than 2 change nothing.
        """
        if len(objects) < 2:
            return
        training = self.trunk.training
        self.trunk.eval()
        features: Tensor = self.trunk(objects[:: -(-len(objects) // SHOWN)])
        self.trunk.train(training)
        mean = features.mean(0)
        deviation = ((features - mean) @ self.projection.weight.mT).std(0)
        self.projection.weight.div_(torch.where(deviation > 0, deviation, 1)[:, None])
        self.projection.bias.copy_(-(self.projection.weight @ mean))
