"""A support shared out over processes: each encodes its part of it, for the queries of all.

Known as partial FC (An et al. 2021, 2022), or as vocabulary-parallel cross-entropy, where the rows are class weights.
Here they are encoded, with gradient, and every class has a set of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from memlab.data.support import Support
from memlab.functional import ClassRead, lowest_scores
from memlab.index import Places
from memlab.memory.class_keys import LinearMemory, PrototypeMemory, sums_by_class
from memlab.memory.classes import Classes
from memlab.memory.exact_memory import ExactMemory
from memlab.memory.index_vectors import Share
from memlab.memory.memory import Memory
from memlab.memory.out_of_memory import OutOfMemoryError
from memlab.memory.scored_support import ScoredSupport
from memlab.memory.topk import TopKMemory

Exchange = Callable[[Tensor], Tensor]


def sharded(memory: Memory, *, group: distributed.ProcessGroup | None = None) -> Memory:
    """The same memory, of a support that is shared out over processes.

    Args:
        memory: as of one process.
        group: the processes; None for all.

    Raises:
        ValueError: for a memory of which it is not known how.
    """
    if isinstance(memory, ExactMemory):
        return ShardedMemory(memory, group=group)
    if isinstance(memory, TopKMemory):
        return ShardedTopKMemory(memory, group=group)
    if isinstance(memory, PrototypeMemory):
        return ShardedPrototypeMemory(memory, group=group)
    if isinstance(memory, LinearMemory):
        return memory  # reads no support
    raise ValueError(f"memory={type(memory).__name__}: cannot be shared out over processes; must be one of memlab's")


class Sharded(Memory):
    """What memories of a support that is shared out have in common; what they hold is of the share of this process.

    Args:
        memory: reads a share.
        group: the processes; None for all.
    """

    def __init__(self, memory: Memory, *, group: distributed.ProcessGroup | None = None) -> None:
        super().__init__(similarity=memory.similarity)
        self.memory = memory
        self.group = group

    @property
    def sizes(self) -> dict[str, int | None]:
        """See `Memory.sizes`."""
        return self.memory.sizes

    def after_step(self) -> dict[str, Tensor | float]:
        """See `Memory.after_step`."""
        return self.memory.after_step()

    def shrink(self) -> None:
        """Nothing is computed again: the other processes have gone on. See `Memory.shrink`."""
        raise OutOfMemoryError("out of memory in a step of several processes; needs a smaller chunk or batch")

    def state(self) -> dict[str, Any]:
        """See `Memory.state`."""
        return self.memory.state()

    def restore(self, state: dict[str, Any]) -> None:
        """See `Memory.restore`."""
        self.memory.restore(state)


class ShardedMemory(Sharded, ExactMemory):
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

    memory: ExactMemory

    def _read(
        self, encoder: nn.Module, query: Tensor, support: Support, classes: Classes, exclude: Tensor | None
    ) -> ClassRead:
        everyone = Everyone.of(query, self.group)
        queries: Tensor = _Exchanged.apply(query, everyone.gathered, everyone.summed)
        if exclude is not None:
            exclude = everyone.gathered(exclude)
        part = everyone.part(len(support))
        if part.start == part.stop:
            parameters = ScoredSupport(encoder, self.similarity, support, None).parameters
            read = ClassRead(*_NothingRead.apply(classes.number, queries, *parameters))
        else:
            mine, labels = replace(support, rows=support.rows[part]), classes.labels[part]
            read = self.memory._read(encoder, queries, mine, Classes(labels, classes.number), exclude)
        class_scores: Tensor = _Merged.apply(read.class_scores, everyone)
        return ClassRead(class_scores, everyone.least(read.lowest))


class ShardedTopKMemory(Sharded):
    """`TopKMemory` of a support that is the same in W processes, each of which has the index of every W-th object.

    A query reads the best K of what all have found, of equally near ones those of the smallest ids; who has a cell
    encodes it, once for all queries. Index vectors are refreshed when one process would. Besides what goes between the
    processes of `ShardedMemory` they tell one another B K findings each, and how near those are.

    Args:
        memory: reads what is read of a share.
        group: the processes; None for all.
    """

    needs_whole_support = True
    encodes_as_it_finds = True

    memory: TopKMemory

    def __init__(self, memory: TopKMemory, *, group: distributed.ProcessGroup | None = None) -> None:
        super().__init__(memory, group=group)
        self._shared: tuple[Support, Support] | None = None

    def read(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None = None) -> ClassRead:
        """Read the K nearest cells; see `Memory.read`. ``query`` and what is given are of this process."""
        everyone = Everyone.of(query, self.group)
        if len(support) < len(everyone.sizes):
            raise ValueError(
                f"support: {len(support)} objects for {len(everyone.sizes)} processes; must be one for each"
            )
        queries: Tensor = _Exchanged.apply(query, everyone.gathered, everyone.summed)
        if exclude is not None:
            exclude = everyone.gathered(exclude)
        share = Share(everyone.rank, len(everyone.sizes))
        mine = self._mine(support, share)
        self.memory.share(share, size=len(support), choose=partial(self._nearest_of_all, everyone, mine.ids))
        read = self.memory.read(encoder, queries, mine, exclude)
        class_scores: Tensor = _Merged.apply(read.class_scores, everyone)
        return ClassRead(class_scores, everyone.least(read.lowest))

    def _mine(self, support: Support, share: Share) -> Support:
        """The share of a support; one object for all steps, as the support is."""
        if self._shared is None or self._shared[0] is not support:
            self._shared = support, replace(support, rows=support.rows[share.rank :: share.world])
        return self._shared[1]

    def _nearest_of_all(self, everyone: Everyone, ids: Tensor, vectors: Tensor, found: Tensor) -> tuple[Tensor, int]:
        """What is found here and is among the best K of all; and how many cells all read."""
        nearness = self.memory.index.nearness(vectors, found)
        of_all = everyone.of_all(nearness).permute(1, 0, 2).flatten(1)  # (B, W k)
        ids_of_all = everyone.of_all(ids[found.clamp(min=0)]).permute(1, 0, 2).flatten(1)
        by_id = ids_of_all.argsort(1)
        order = by_id.gather(1, torch.argsort(of_all.gather(1, by_id), dim=1, descending=True, stable=True))
        best = torch.zeros_like(of_all, dtype=torch.bool).scatter_(1, order[:, : self.memory.k], True)
        best &= of_all.isfinite()
        cells = len(ids_of_all[best].unique())
        here = best.view(len(found), len(everyone.sizes), -1)[:, everyone.rank]
        none_last = torch.argsort((~here).int(), dim=1, stable=True)
        return found.masked_fill(~here, -1).gather(1, none_last), cells


class ShardedPrototypeMemory(Sharded):
    """`PrototypeMemory` of a support that is the same in W processes, of which each encodes its W-th part.

    Between the processes go C D sums of keys and their gradient, and with excluded objects B D keys and theirs.

    Args:
        memory: scores the means.
        group: the processes; None for all.
    """

    memory: PrototypeMemory

    def read(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None = None) -> ClassRead:
        """Score the class means; see `Memory.read`. ``query`` and what is given are of this process."""
        everyone = Everyone.of(query, self.group)
        part = everyone.part(len(support))
        scored = ScoredSupport(encoder, self.similarity, support, exclude)
        # Of no objects a graph all the same: the others wait in the backward.
        keys = query[:0] if part.start == part.stop else scored.keys(part)
        keys = keys.to(torch.promote_types(keys.dtype, torch.float32))
        sums, _ = sums_by_class(keys, support.labels[part], support.num_classes)
        counts = support.labels.bincount(minlength=support.num_classes)
        total: Tensor = _Exchanged.apply(sums, everyone.total, everyone.total)
        if exclude is None:
            scores = self.memory.scores_of_means(query, total, counts)
        else:
            own = Places(support.ids).of(exclude)
            scores = self.memory.scores_without_own(
                query,
                total,
                counts,
                own=self._own_keys(keys, support.ids[part], everyone, exclude),
                labels=support.labels[own.clamp(min=0)],
                there=own >= 0,
            )
        return ClassRead(scores, lowest_scores(scores))

    def _own_keys(self, keys: Tensor, ids: Tensor, everyone: Everyone, exclude: Tensor) -> Tensor:
        """(B_r, D) the key of each query's own object, from who has encoded it; 0 of one that is not there."""
        here = Places(ids).of(everyone.gathered(exclude))
        if len(keys):
            of_all = keys[here.clamp(min=0)].masked_fill((here < 0)[:, None], 0)
        else:
            of_all = keys.sum(0).expand(len(here), -1)
        found: Tensor = _Exchanged.apply(of_all, everyone.summed, everyone.gathered)
        return found


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

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of what all have."""
        total = tensor.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total, group=self.group)
        return total

    def summed(self, tensor: Tensor) -> Tensor:
        """(B_r, ...) rows of this process, of the sum of (B, ...) of each."""
        return self.total(tensor)[self.rows]

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


class _Exchanged(torch.autograd.Function):
    """What an exchange between the processes gives; its gradient comes back by the exchange that is its transpose.

    Rows that are gathered in all are summed for whose they are, and the other way round; a total is its own transpose.
    """

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, exchange: Exchange, transpose: Exchange) -> Tensor:
        ctx.transpose = transpose
        return exchange(tensor)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transpose(gradient), None, None


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
    """What is read of no object. With a graph of all that a read has: the others wait in the backward."""

    @staticmethod
    def forward(ctx: Any, num_classes: int, queries: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(queries, *parameters)
        wide = torch.promote_types(queries.dtype, torch.float32)
        lowest = queries.new_full((len(queries),), torch.inf, dtype=wide)
        ctx.mark_non_differentiable(lowest)
        return queries.new_full((len(queries), num_classes), -torch.inf, dtype=wide), lowest

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        return None, *map(torch.zeros_like, ctx.saved_tensors)
