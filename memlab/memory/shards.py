"""A support shared out over processes: each encodes its part of it, for the queries of all.

Known as partial FC (An et al. 2021, 2022), or as vocabulary-parallel cross-entropy, where the rows are class weights.
Here they are encoded, with gradient, and every class has a set of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from memlab.data.support import Support
from memlab.functional import ClassRead
from memlab.memory.classes import Classes
from memlab.memory.exact_memory import ExactMemory
from memlab.memory.out_of_memory import OutOfMemoryError


class ShardedMemory(ExactMemory):
    """Reads a support that is the same in W processes, of which each encodes its W-th part by a memory of its own.

    Queries are those of the process: (B_r, D) of B in all, and as many class scores are given, of the whole support.
    Gradients of a process are parts: their sums over the processes are those of one process with all B queries, if the
    loss of each process is its queries' share of the whole, as ``sum_b loss_b / B``. Between processes go, whatever M,

    - B D numbers of queries forward, and B D of their gradient back;
    - B C class sums of each process forward, and B C of their gradient back; of more classes than support objects
      those alone that have any.

    No process waits for another while it reads, so that parts of any size, or none, hang nothing.

    Args:
        memory: reads a part.
        group: the processes; None for all.
    """

    def __init__(self, memory: ExactMemory, *, group: distributed.ProcessGroup | None = None) -> None:
        super().__init__(similarity=memory.similarity)
        self.memory = memory
        self._group = group

    def _read(
        self, encoder: nn.Module, query: Tensor, support: Support, classes: Classes, exclude: Tensor | None
    ) -> ClassRead:
        everyone = Everyone.of(query, self._group)
        queries: Tensor = _Gathered.apply(query, everyone)
        if exclude is not None:
            exclude = everyone.gathered(exclude)
        part = everyone.part(len(support))
        if part.start == part.stop:
            read = ClassRead(*_NothingRead.apply(queries, classes.number))
        else:
            mine, labels = replace(support, rows=support.rows[part]), classes.labels[part]
            read = self.memory._read(encoder, queries, mine, Classes(labels, classes.number), exclude)
        class_scores: Tensor = _Merged.apply(read.class_scores, everyone)
        return ClassRead(class_scores, everyone.least(read.lowest))

    @property
    def sizes(self) -> dict[str, int | None]:
        """See `Memory.sizes`."""
        return self.memory.sizes

    def shrink(self) -> None:
        """Nothing is computed again: the other processes have gone on. See `Memory.shrink`."""
        raise OutOfMemoryError("out of memory in a step of several processes; needs a smaller chunk or batch")

    def state(self) -> dict[str, Any]:
        """See `Memory.state`."""
        return self.memory.state()

    def restore(self, state: dict[str, Any]) -> None:
        """See `Memory.restore`."""
        self.memory.restore(state)


@dataclass(frozen=True)
class Everyone:
    """The processes, and how many queries each has.

    Args:
        sizes: B_r by rank.
        rank: which of them this one is.
        group: the processes; None for all.
    """

    sizes: Sequence[int]
    rank: int
    group: distributed.ProcessGroup | None

    @classmethod
    def of(cls, query: Tensor, group: distributed.ProcessGroup | None) -> Everyone:
        """Ask all for the number of their queries, (B_r, D)."""
        mine = torch.tensor([len(query)], device=query.device)
        sizes = [torch.empty_like(mine) for _ in range(distributed.get_world_size(group))]
        distributed.all_gather(sizes, mine, group=group)
        return cls([int(size) for size in sizes], distributed.get_rank(group), group)

    @property
    def rows(self) -> slice:
        """Where the queries of this process are among all."""
        first = sum(self.sizes[: self.rank])
        return slice(first, first + self.sizes[self.rank])

    def part(self, count: int) -> slice:
        """The objects of this process, of so many: as equally many as can be."""
        world = len(self.sizes)
        return slice(self.rank * count // world, (self.rank + 1) * count // world)

    def gathered(self, tensor: Tensor) -> Tensor:
        """(B, ...) rows of all processes, by rank, of (B_r, ...) of each."""
        most = max(self.sizes)
        padded = F.pad(tensor, (0, 0) * (tensor.dim() - 1) + (0, most - len(tensor))).contiguous()
        found = [torch.empty_like(padded) for _ in self.sizes]
        distributed.all_gather(found, padded, group=self.group)
        return torch.cat([rows[:size] for rows, size in zip(found, self.sizes, strict=True)])

    def summed(self, tensor: Tensor) -> Tensor:
        """(B_r, ...) rows of this process, of the sum of (B, ...) of each."""
        total = tensor.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total, group=self.group)
        return total[self.rows]

    def least(self, tensor: Tensor) -> Tensor:
        """(B_r,) rows of this process, of the least of (B,) of each."""
        least = tensor.clone()
        distributed.all_reduce(least, distributed.ReduceOp.MIN, group=self.group)
        return least[self.rows]

    def of_all(self, tensor: Tensor) -> Tensor:
        """(W, B, ...) by rank, of (B, ...) of each."""
        tensor = tensor.contiguous()
        found = [torch.empty_like(tensor) for _ in self.sizes]
        distributed.all_gather(found, tensor, group=self.group)
        return torch.stack(found)


class _Gathered(torch.autograd.Function):
    """Queries of all processes; what their gradient is in each is summed for the process that has encoded them."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, everyone: Everyone) -> Tensor:
        ctx.everyone = everyone
        return everyone.gathered(query)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.everyone.summed(gradient), None


class _Merged(torch.autograd.Function):
    """``s_bc = log sum_r exp(s_rbc)`` of the parts' class scores, in the order of ranks: everywhere the same bits.

    ``dL/ds_rbc = dL/ds_bc exp(s_rbc - s_bc)``, where dL/ds_bc comes from the process whose query b is.
    """

    @staticmethod
    def forward(ctx: Any, class_scores: Tensor, everyone: Everyone) -> Tensor:
        merged = everyone.of_all(class_scores).logsumexp(0)
        ctx.everyone = everyone
        ctx.save_for_backward(class_scores, merged)
        return merged[everyone.rows]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        class_scores, merged = ctx.saved_tensors
        finite = merged.clamp(min=torch.finfo(merged.dtype).min)  # minus infinity less itself would be NaN
        shares = (class_scores - finite).exp()
        return ctx.everyone.gathered(gradient).mul_(shares), None


class _NothingRead(torch.autograd.Function):
    """What is read of no object. A graph, for all that: the others wait for the gradient of their queries."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(queries)
        wide = torch.promote_types(queries.dtype, torch.float32)
        lowest = queries.new_full((len(queries),), torch.inf, dtype=wide)
        ctx.mark_non_differentiable(lowest)
        return queries.new_full((len(queries), num_classes), -torch.inf, dtype=wide), lowest

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, None]:
        (queries,) = ctx.saved_tensors
        return torch.zeros_like(queries), None
