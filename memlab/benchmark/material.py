"""The data of a problem, made from a seed, the same for every contender."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor, nn

from memlab.benchmark.problem import INPUT_SHAPES, SHORTEST, Problem
from memlab.data.objects import ObjectStore
from memlab.data.sequences import Sequences
from memlab.data.support import Support
from memlab.encoders import LSTM, MLP, Conv, Linear
from memlab.memory.similarity import Dot
from memlab.memory.stored_keys import StoredKeys


class Material:
    """The data of a problem, made when first asked for, the same for every contender.

    Args:
        problem: what is measured.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.device = torch.device(problem.device)
        self.dtype: torch.dtype = getattr(torch, problem.dtype)

    def prepare(self) -> None:
        """Make all data of the task."""
        of_keys = ["query", "keys", "stored"]
        parts = {
            "read": of_keys,
            "evaluation": of_keys,
            "search": ["clustered"],
            "step": ["support", "query_inputs", "encoder"],
            "world": ["support", "query_inputs", "encoder"],
            "audit": [],  # the objects of a memory
        }
        for part in ["labels", "targets", *parts[self.problem.task]]:
            getattr(self, part)

    def _random(self, *shape: int, stream: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * self.problem.seed + stream)
        return torch.randn(*shape, generator=generator, dtype=self.dtype)

    def _sequences(self, count: int, shape: tuple[int, ...], *, stream: int) -> Sequences:
        generator = torch.Generator().manual_seed(1000 * self.problem.seed + stream)
        lengths = torch.randint(SHORTEST, shape[0] + 1, (count,), generator=generator)
        return Sequences(self._random(int(lengths.sum()), shape[1], stream=stream), lengths)

    def _classes(self, count: int, stream: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * self.problem.seed + stream)
        return torch.randint(self.problem.classes, (count,), generator=generator).to(self.device)

    @cached_property
    def labels(self) -> Tensor:
        """(M,) class ids of the support, sorted: its order is free."""
        return self._classes(self.problem.support, 1).sort().values

    @cached_property
    def targets(self) -> Tensor:
        """(B,) class ids of the queries."""
        return self._classes(self.problem.batch, 2)

    @cached_property
    def query(self) -> Tensor:
        """(B, D) encoded queries, for a read or an evaluation; scores have a variance of 1."""
        scale: float = self.problem.embedding**-0.25
        return (scale * self._random(self.problem.batch, self.problem.embedding, stream=3)).to(self.device)

    @cached_property
    def keys(self) -> Tensor:
        """(M, D) keys, for a read or an evaluation."""
        scale: float = self.problem.embedding**-0.25
        return (scale * self._random(self.problem.support, self.problem.embedding, stream=4)).to(self.device)

    @cached_property
    def clustered(self) -> tuple[Tensor, Tensor]:
        """(M, D) keys and (B, D) queries, for a search: in clusters and of few dimensions, as trained encoders have."""
        size = self.problem.embedding
        centres, directions = self._random(self.problem.classes, size, stream=7), self._random(8, size, stream=8)
        both = []
        for labels, stream in ((self.labels, 9), (self.targets, 10)):
            inner = self._random(len(labels), 8, stream=stream) @ directions / 8**0.5
            noise = 0.1 * self._random(len(labels), size, stream=stream + 10)
            both.append((centres[labels.cpu()] + inner + noise).to(self.device))
        return both[0], both[1]

    @cached_property
    def stored(self) -> StoredKeys:
        """The keys as memlab holds them."""
        ids = torch.arange(self.problem.support, device=self.device)
        return StoredKeys(self.keys, self.labels, ids, self.problem.classes, Dot())

    @cached_property
    def query_inputs(self) -> Tensor:
        """(B, ...) inputs of the queries, for a step."""
        shape = INPUT_SHAPES[self.problem.encoder]
        if len(shape) == 2:
            return (
                self._sequences(self.problem.batch, shape, stream=5)
                .taken(torch.arange(self.problem.batch))
                .to(self.device)
            )
        return self._random(self.problem.batch, *shape, stream=5).to(self.device)

    @cached_property
    def support(self) -> Support:
        """The support objects, for a step: images as bytes, vectors and sequences as floats."""
        shape = INPUT_SHAPES[self.problem.encoder]
        inputs: Tensor | Sequences
        if len(shape) == 2:
            inputs = self._sequences(self.problem.support, shape, stream=6)
        elif len(shape) == 3:
            generator = torch.Generator().manual_seed(1000 * self.problem.seed + 6)
            inputs = torch.randint(256, (self.problem.support, *shape), generator=generator, dtype=torch.uint8)
        else:
            inputs = self._random(self.problem.support, *shape, stream=6)
        store = ObjectStore(inputs=inputs, labels=self.labels, class_names=tuple(map(str, range(self.problem.classes))))
        store.place(inputs_on=self.device, compute_on=self.device)
        if len(shape) == 3:
            store.mean, store.deviation = (torch.tensor(value, device=self.device) for value in (127.5, 74.0))
        return Support(store, torch.arange(self.problem.support, device=self.device), self.dtype)

    @cached_property
    def encoder(self) -> nn.Module:
        """The encoder of a step, its embedding scaled so that scores stay moderate."""
        torch.manual_seed(self.problem.seed)
        net = _encoder(self.problem.encoder, self.problem.embedding)
        return net.to(device=self.device, dtype=self.dtype)


def _encoder(name: str, size: int) -> nn.Module:
    """With GroupNorm, because BatchNorm would make chunks differ."""
    shape = INPUT_SHAPES[name]
    if name == "resnet18":
        from torchvision import models

        return models.resnet18(  # type: ignore[no-any-return]
            num_classes=size, norm_layer=lambda width: nn.GroupNorm(32, width)
        )
    if name == "conv":
        return Conv(input_shape=shape, embedding_size=size, channels=64, kernel_size=5, pool_size=2)
    if name == "lstm":
        return LSTM(
            input_shape=shape,
            embedding_size=size,
            hidden_size=128,
            layers=1,
            bidirectional=True,
            pooling="max",
            window=0,
            truncate=None,
        )
    if name == "linear":
        return Linear(input_shape=shape, embedding_size=size)
    return MLP(input_shape=shape, embedding_size=size, hidden_sizes={"mlp": [512, 512], "table": [256, 256]}[name])


Call = Callable[[], Tensor | None]
"""Does all the work of a contender once."""
Maker = Callable[[Material], Call]
