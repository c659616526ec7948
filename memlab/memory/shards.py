"""A support shared out over processes: each encodes its part of it, for the queries of all.

Known as partial FC (An et al. 2021, 2022), or as vocabulary-parallel cross-entropy, where the rows are class weights.
Here they are encoded, with gradient, and every class has a set of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn

from memlab.data.support import Support
from memlab.functional import ClassRead, ValueRead, lowest_scores, sums_by_class
from memlab.index import ExactIndex, Places
from memlab.memory.class_keys import LinearMemory, PrototypeMemory, means_of_classes
from memlab.memory.classes import Classes
from memlab.memory.exact_memory import ExactMemory
from memlab.memory.exchange import Everyone, Processes, exchanged, merged, merged_values
from memlab.memory.index_vectors import Share, joined, share_of
from memlab.memory.memory import Memory
from memlab.memory.out_of_memory import OutOfMemoryError
from memlab.memory.readable import Readable, read_after
from memlab.memory.scored_support import ScoredSupport
from memlab.memory.stored_keys import StoredKeys
from memlab.memory.topk import TopKMemory, recalled


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
        return ShardedLinearMemory(memory, group=group)
    raise ValueError(f"memory={type(memory).__name__}: cannot be shared out over processes; must be one of memlab's")


class Sharded(Memory):
    """What memories of a support that is shared out have in common; what they hold is of the share of this process.

    Its parameters are those of the memory that reads the share, and have the same names: what was learned by several
    processes is gone on with by one.

    Args:
        memory: reads a share.
        group: the processes; None for all.
    """

    memory: Memory

    def __init__(self, memory: Memory, *, group: distributed.ProcessGroup | None = None) -> None:
        super().__init__(similarity=memory.similarity, hops=memory.hops)
        self.__dict__["memory"] = memory  # no module of this one, by whose name its parameters would be called
        self._modules, self._parameters = memory._modules, memory._parameters
        self.group = group

    @property
    def alone(self) -> Memory:
        """See `Memory.alone`."""
        return self.memory

    def prepare(self, *, embedding_size: int, num_classes: int) -> None:
        """See `Memory.prepare`."""
        self.memory.prepare(embedding_size=embedding_size, num_classes=num_classes)

    @property
    def sizes(self) -> dict[str, int | None]:
        """See `Memory.sizes`."""
        return self.memory.sizes

    def after_step(self) -> dict[str, Tensor | float]:
        """See `Memory.after_step`."""
        return self.memory.after_step()

    def stored_keys(self, encode: Callable[[], StoredKeys]) -> StoredKeys:
        """Those of a part, of which ``encode`` encodes the objects; see `Memory.stored_keys`."""
        return self.memory.stored_keys(encode)

    def shrink(self) -> None:
        """Nothing is computed again: the other processes have gone on. See `Memory.shrink`."""
        raise OutOfMemoryError(
            "out of memory in a step of several processes; needs more of them, or a smaller chunk, support or batch"
        )

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
      those alone that have any;
    - for each hop again B D numbers of queries and of their gradient, B D of values read from each process, twice as
      many of tabr, and as many of their gradient back.

    No process waits for another while it reads, so that parts of any size, or none, hang nothing.

    Args:
        memory: reads a part.
        group: the processes; None for all.
    """

    memory: ExactMemory

    def opened(
        self, encoder: nn.Module, support: Support, classes: Classes, exclude: Tensor | None, *, like: Tensor
    ) -> Readable:
        """See `ExactMemory.opened`; what is given besides the support is of this process."""
        everyone = Everyone.asked(like, self.group)
        if exclude is not None:
            exclude = everyone.gathered(exclude)
        part = everyone.part(len(support))
        mine, classes = replace(support, rows=support.rows[part]), Classes(classes.labels[part], classes.number)
        of_all = like.new_zeros(sum(everyone.sizes), like.shape[1])
        if len(mine):
            read = self.memory.opened(encoder, mine, classes, exclude, like=of_all)
        else:
            keys: Tensor = _KeysOfNone.apply(of_all, *encoder.parameters())
            read = StoredKeys(keys, classes.labels, mine.ids, classes.number, self.similarity, self.hops).readable()
        return _OfAll(read, everyone)


class ShardedTopKMemory(Sharded):
    """`TopKMemory` of a support that is the same in W processes, each of which has the index of every W-th object.

    A query reads the best K of what all have found, of equally near ones those of the smallest ids; who has a cell
    encodes it, once for all queries. Index vectors are refreshed when one process would. Besides what goes between the
    processes of `ShardedMemory` they tell one another B K findings each, and how near those are, for each search.

    Args:
        memory: reads what is read of a share.
        group: the processes; None for all.
    """

    has_hops = True
    needs_whole_support = True
    encodes_as_it_finds = True

    memory: TopKMemory

    def __init__(self, memory: TopKMemory, *, group: distributed.ProcessGroup | None = None) -> None:
        super().__init__(memory, group=group)
        self._shared: tuple[Support, Support] | None = None

    def read(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None = None) -> ClassRead:
        """Read the K nearest cells; see `Memory.read`. ``query`` and what is given are of this process."""
        everyone = Everyone.asked(query, self.group)
        if len(support) < everyone.world:
            raise ValueError(f"support: {len(support)} objects for {everyone.world} processes; must be one for each")
        if exclude is not None:
            exclude = everyone.gathered(exclude)
        share = Share(everyone.rank, everyone.world)
        mine = self._mine(support, share)
        self.memory.share(share, size=len(support), choose=partial(self._nearest_of_all, everyone, mine.ids))
        return read_after(self.hops, query, _OfAll(self.memory.opened(encoder, mine, exclude), everyone))

    def _mine(self, support: Support, share: Share) -> Support:
        """The share of a support; one object for all steps, as the support is."""
        if self._shared is None or self._shared[0] is not support:
            self._shared = support, replace(support, rows=support.rows[share.rank :: share.world])
        return self._shared[1]

    def _nearest_of_all(self, everyone: Everyone, ids: Tensor, vectors: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """What is found here and is among the best K of all; and which cells all read."""
        mine = ids[found.clamp(min=0)].masked_fill(found < 0, -1)
        near, best = everyone.best(self.memory.index.nearness(vectors, found), mine, self.memory.k)
        best = best.masked_fill(near.isneginf(), -1)
        here = (mine[:, :, None] == best[:, None]).any(-1) & (mine >= 0)
        none_last = torch.argsort((~here).int(), dim=1, stable=True)
        return found.masked_fill(~here, -1).gather(1, none_last), best[best >= 0].unique()

    @torch.no_grad()
    def recall(self, query: Tensor, keys: Tensor, ids: Tensor) -> Tensor | None:
        """See `Memory.recall`; the queries are those of all, the keys a part that this process has encoded."""
        vectors = self.memory.index_vectors(ids.device)
        if vectors is None:
            return None
        processes = Processes.of(self.group)
        fresh = ExactIndex()
        fresh.build(self.similarity.search_vectors(keys), metric=self.similarity.metric)
        encoded, searched = processes.total(torch.tensor([len(fresh), len(vectors.ids)], device=keys.device)).tolist()
        if encoded != searched:
            return None
        points, k = self.similarity.search_vectors(query), min(self.memory.k, searched)
        nearest, found = (
            processes.best(index.nearness(points, places), objects[places.clamp(min=0)], k)[1]
            for index, objects in ((fresh, ids), (vectors.index, vectors.ids))
            for places in (index.search(points, k),)
        )
        return recalled(nearest, found)

    def state(self) -> dict[str, Any]:
        """Those of all, for the first process; see `Memory.state`."""
        shares = Processes.of(self.group).for_first(self.memory.state())
        return {} if shares is None else {"shares": shares}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with a share of it, however many processes it is of; see `Memory.restore`."""
        processes = Processes.of(self.group)
        shares = state.get("shares", [])
        if len(shares) == processes.world:
            mine, size = shares[processes.rank], sum(len(each.get("ids", ())) for each in shares)
        else:
            whole = joined(shares) if shares else state
            mine, size = share_of(whole, Share(processes.rank, processes.world)), len(whole.get("ids", ()))
        self.memory.share(Share(processes.rank, processes.world), size=size, choose=None)
        self.memory.restore(mine)


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
        everyone = Everyone.asked(query, self.group)
        part = everyone.part(len(support))
        scored = ScoredSupport(encoder, self.similarity, support, exclude)
        # Of no objects a graph all the same: the others wait in the backward.
        keys = query[:0] if part.start == part.stop else scored.keys(part)
        keys = keys.to(torch.promote_types(keys.dtype, torch.float32))
        sums, _ = sums_by_class(keys, support.labels[part], support.num_classes)
        counts = support.labels.bincount(minlength=support.num_classes)
        total = exchanged(sums, everyone.total, transpose=everyone.total)
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

    def stored_keys(self, encode: Callable[[], StoredKeys]) -> StoredKeys:
        """A part of the class means; see `Sharded.stored_keys`."""
        objects, processes = encode(), Processes.of(self.group)
        sums, counts = map(processes.total, sums_by_class(objects.keys, objects.labels, objects.num_classes))
        means = means_of_classes(sums, counts, self.similarity)
        return means.part(processes.part(len(means)))

    def _own_keys(self, keys: Tensor, ids: Tensor, everyone: Everyone, exclude: Tensor) -> Tensor:
        """(B_r, D) the key of each query's own object, from who has encoded it; 0 of one that is not there."""
        here = Places(ids).of(everyone.gathered(exclude))
        if len(keys):
            of_all = keys[here.clamp(min=0)].masked_fill((here < 0)[:, None], 0)
        else:
            of_all = keys.sum(0).expand(len(here), -1)
        return exchanged(of_all, everyone.summed, transpose=everyone.gathered)


class ShardedLinearMemory(Sharded):
    """`LinearMemory`, of which in training there is nothing to share out: each process reads for its queries.

    Args:
        memory: has the class keys.
        group: the processes; None for all.
    """

    memory: LinearMemory

    def read(self, encoder: nn.Module, query: Tensor, support: Support, exclude: Tensor | None = None) -> ClassRead:
        """Score the classes; see `Memory.read`. ``query`` is of this process."""
        return self.memory.read(encoder, query, support, exclude)

    def stored_keys(self, encode: Callable[[], StoredKeys]) -> StoredKeys:
        """A part of the class keys; see `Sharded.stored_keys`."""
        keys = self.memory.stored_keys(encode)
        return keys.part(Processes.of(self.group).part(len(keys)))


class _OfAll(Readable):
    """A support of which each process reads its part, for the queries of all.

    Args:
        part: that of this process.
        everyone: the processes.
    """

    def __init__(self, part: Readable, everyone: Everyone) -> None:
        self._part, self._everyone = part, everyone

    def values(self, hop: int, reader: Tensor) -> ValueRead:
        """See `Readable.values`; readers are those of this process."""
        return merged_values(self._part.values(hop, self._gathered(reader)), self._everyone)

    def classes(self, reader: Tensor) -> ClassRead:
        """See `Readable.classes`; readers are those of this process."""
        read = self._part.classes(self._gathered(reader))
        return ClassRead(merged(read.class_scores, self._everyone), self._everyone.least(read.lowest))

    def _gathered(self, reader: Tensor) -> Tensor:
        return exchanged(reader, self._everyone.gathered, transpose=self._everyone.summed)


class _KeysOfNone(torch.autograd.Function):
    """(0, D) keys of no object. With a graph, as keys have: the others wait in the backward."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, *parameters: Tensor) -> Tensor:
        ctx.save_for_backward(*parameters)
        return queries.new_empty(0, queries.shape[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:
        return None, *map(torch.zeros_like, ctx.saved_tensors)
