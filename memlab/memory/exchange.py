"""What processes of torch.distributed that share a support tell one another, and how its gradient comes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from memlab.data.parts import part_of
from memlab.functional import ValueRead, merged_value_reads, value_read_shares

Exchange = Callable[[Tensor], Tensor]
T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """All that work together.

    Args:
        rank: which of them this one is.
        world: W, how many there are.
        group: the processes; None for all.
    """

    rank: int
    world: int
    group: distributed.ProcessGroup | None

    @classmethod
    def of(cls, group: distributed.ProcessGroup | None = None) -> Processes:
        """Those of a group."""
        return cls(distributed.get_rank(group), distributed.get_world_size(group), group)

    def part(self, count: int) -> slice:
        """The objects of this process, of so many: as equally many as can be, next to one another."""
        return part_of(count, rank=self.rank, world=self.world)

    def sharing(self, count: int) -> Everyone:
        """Each with its part of so many queries; nobody is asked."""
        parts = (part_of(count, rank=rank, world=self.world) for rank in range(self.world))
        return Everyone(self.rank, self.world, self.group, [part.stop - part.start for part in parts])

    def total(self, tensor: Tensor) -> Tensor:
        """The sum of what all have."""
        total = tensor.detach().clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total, group=self.group)
        return total

    def of_all(self, tensor: Tensor) -> Tensor:
        """(W, ...) by rank, of tensors of one shape."""
        tensor = tensor.contiguous()
        found = [torch.empty_like(tensor) for _ in range(self.world)]
        distributed.all_gather(found, tensor, group=self.group)
        return torch.stack(found)

    def value_reads_of_all(self, read: ValueRead) -> ValueRead:
        """(W, ...) by rank, of reads of as many queries; in one exchange."""
        parts = [read.shared, *([] if read.differences is None else [read.differences]), read.total[:, None]]
        shared, *differences, total = self.of_all(torch.cat(parts, dim=1)).split([each.shape[1] for each in parts], -1)
        return ValueRead(shared, differences[0] if differences else None, total[..., 0])

    def best(self, near: Tensor, numbers: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Of what each has found for each query the k nearest, of equally near ones those of the smallest numbers.

        Args:
            near: (B, n) how near what this process has found is; minus infinity for nothing.
            numbers: (B, n) what it is.
            k: at most W n.

        Returns:
            (B, k) how near they are and (B, k) their numbers, nearest first.
        """
        all_near, all_numbers = (self.of_all(each).permute(1, 0, 2).flatten(1) for each in (near, numbers))
        by_number = torch.argsort(all_numbers, dim=1, stable=True)
        all_near, all_numbers = all_near.gather(1, by_number), all_numbers.gather(1, by_number)
        order = torch.argsort(all_near, dim=1, descending=True, stable=True)[:, :k]
        return all_near.gather(1, order), all_numbers.gather(1, order)

    def collected(self, tensor: Tensor, *, sizes: Sequence[int]) -> Tensor | None:
        """(n, ...) rows of all, by rank and in host memory, for the first process; the others get nothing.

        Args:
            tensor: (n_r, ...) rows of this process.
            sizes: n_r by rank.
        """
        padded = _padded(tensor, to=max(sizes))
        found = [torch.empty_like(padded) for _ in sizes] if self.rank == 0 else None
        distributed.gather(padded, found, dst=self._first, group=self.group)
        return None if found is None else torch.cat([one[:n].cpu() for one, n in zip(found, sizes, strict=True)])

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give each parameter the sum of its gradients in all processes; one that has none in any is left without.

        There is one all-reduce, or one for each type of number.

        Args:
            parameters: the same in all processes.
        """
        for dtype in dict.fromkeys(parameter.dtype for parameter in parameters):
            self._add_up([parameter for parameter in parameters if parameter.dtype is dtype])

    def _add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        gradients = [each.grad for each in parameters]
        there = torch.tensor([gradient is not None for gradient in gradients])
        pairs = zip(parameters, gradients, strict=True)
        parts = [(torch.zeros_like(each) if gradient is None else gradient).flatten() for each, gradient in pairs]
        flat = torch.cat([*parts, there.to(parts[0])])
        distributed.all_reduce(flat, group=self.group)
        *sums, known = flat.split([*map(len, parts), len(parts)])
        for each, total, is_known in zip(parameters, sums, known.tolist(), strict=True):
            each.grad = total.view_as(each) if is_known else None

    def for_first(self, thing: T) -> list[T] | None:
        """What each has, by rank, for the first process; it is pickled on the way. The others get nothing."""
        found: list[Any] | None = [None] * self.world if self.rank == 0 else None
        distributed.gather_object(thing, found, dst=self._first, group=self.group)
        return found

    @property
    def _first(self) -> int:
        """What rank the first of them has among all."""
        return 0 if self.group is None else distributed.get_global_rank(self.group, 0)


@dataclass(frozen=True)
class Everyone(Processes):
    """The processes, and how many queries each has.

    Args:
        sizes: B_r by rank.
    """

    sizes: Sequence[int]

    @classmethod
    def asked(cls, query: Tensor, group: distributed.ProcessGroup | None) -> Everyone:
        """Ask all for the number of their queries, (B_r, D)."""
        processes = Processes.of(group)
        sizes = processes.of_all(torch.tensor([len(query)], device=query.device)).flatten().tolist()
        return cls(processes.rank, processes.world, group, sizes)

    @property
    def rows(self) -> slice:
        """Where the queries of this process are among all."""
        first = sum(self.sizes[: self.rank])
        return slice(first, first + self.sizes[self.rank])

    def gathered(self, tensor: Tensor) -> Tensor:
        """(B, ...) rows of all processes, by rank, of (B_r, ...) of each."""
        found = self.of_all(_padded(tensor, to=max(self.sizes)))
        return torch.cat([rows[:size] for rows, size in zip(found, self.sizes, strict=True)])

    def summed(self, tensor: Tensor) -> Tensor:
        """(B_r, ...) rows of this process, of the sum of (B, ...) of each."""
        return self.total(tensor)[self.rows]

    def least(self, tensor: Tensor) -> Tensor:
        """(B_r,) rows of this process, of the least of (B,) of each."""
        least = tensor.clone()
        distributed.all_reduce(least, distributed.ReduceOp.MIN, group=self.group)
        return least[self.rows]


def exchanged(tensor: Tensor, exchange: Exchange, *, transpose: Exchange) -> Tensor:
    """What an exchange between the processes gives; its gradient comes back by the exchange that is its transpose.

    Rows that are gathered in all are summed for whose they are, and the other way round; a total is its own transpose.
    """
    found: Tensor = _Exchanged.apply(tensor, exchange, transpose)
    return found


def merged(class_scores: Tensor, everyone: Everyone) -> Tensor:
    """``s_bc = log sum_r exp(s_rbc)`` of the parts' class scores, in the order of ranks: everywhere the same bits.

    ``dL/ds_rbc = dL/ds_bc exp(s_rbc - s_bc)``, where dL/ds_bc comes from the process whose query b is.

    Args:
        class_scores: (B, C) of the queries of all, from the part of this process.
        everyone: the processes.

    Returns:
        (B_r, C) of the queries of this process, from all parts.
    """
    found: Tensor = _Merged.apply(class_scores, everyone)
    return found


def merged_values(read: ValueRead, everyone: Everyone) -> ValueRead:
    """``o_b = sum_r w_rb o_rb`` of what was read of the parts, ``w_rb = exp(t_rb - t_b)``; the same bits everywhere.

    With the gradient ``g_b`` of o_b, which comes from the process whose query b is, ``dL/do_rb = w_rb g_b`` and
    ``dL/dt_rb = w_rb g_b . (o_rb - o_b)``. The merged total t_b is without gradient.

    Args:
        read: by the queries of all, of the part of this process.
        everyone: the processes.

    Returns:
        what the queries of this process have read of all parts.
    """
    return ValueRead(*_MergedValues.apply(*read, everyone))


class _Exchanged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, exchange: Exchange, transpose: Exchange) -> Tensor:
        ctx.transpose = transpose
        return exchange(tensor)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.transpose(gradient), None, None


class _Merged(torch.autograd.Function):
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


class _MergedValues(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, shared: Tensor, differences: Tensor | None, total: Tensor, everyone: Everyone
    ) -> tuple[Tensor | None, ...]:
        read = ValueRead(shared, differences, total)
        merged = merged_value_reads(everyone.value_reads_of_all(read))
        ctx.everyone = everyone
        ctx.save_for_backward(*read, *merged)
        mine = [None if each is None else each[everyone.rows] for each in merged]
        ctx.mark_non_differentiable(mine[-1])
        return tuple(mine)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        read, merged = ctx.saved_tensors[:3], ctx.saved_tensors[3:]
        there = [each for each in gradients[:2] if each is not None]
        of_all = ctx.everyone.gathered(torch.cat(there, dim=1))
        of_all *= value_read_shares(read[2], merged[2])[:, None]
        apart = [mine - whole for mine, whole in zip(read[:2], merged[:2], strict=True) if mine is not None]
        of_total = (of_all * torch.cat(apart, dim=1)).sum(1)
        of_shared, *of_differences = of_all.split([each.shape[1] for each in there], dim=1)
        return of_shared, of_differences[0] if of_differences else None, of_total, None


def _padded(tensor: Tensor, *, to: int) -> Tensor:
    return F.pad(tensor, (0, 0) * (tensor.dim() - 1) + (0, to - len(tensor))).contiguous()
