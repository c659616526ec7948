"""Stored keys shared out over processes: each holds a part, and all read the same queries."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from memlab.functional import ClassRead, ValueRead, merged_value_reads
from memlab.memory.exchange import Processes
from memlab.memory.readable import ReadableKeys, ReadInHop, ReadWithStrongest
from memlab.memory.reading import ReadAll, ReadTopK
from memlab.memory.stored_keys import StoredKeys
from memlab.memory.strongest import Strongest


def shared_reading(
    reading: ReadAll, *, group: distributed.ProcessGroup | None = None
) -> SharedReadAll | SharedReadTopK:
    """The same reading, of keys that are shared out over processes.

    Args:
        reading: as of one process.
        group: the processes; None for all.

    Raises:
        ValueError: for a reading of which it is not known how.
    """
    if type(reading) is ReadTopK:
        return SharedReadTopK(reading, group=group)
    if type(reading) is ReadAll:
        return SharedReadAll(reading, group=group)
    raise ValueError(f"evaluation={type(reading).__name__}: cannot be shared out over processes; must be all or topk")


class Shared:
    """Keys of which every process holds those next to its neighbours', by rank, and knows the labels of all.

    What is read are the same queries in all processes, and what they give is the same too, to the bit. Between the
    processes go, for B queries, W B C class sums, W B D values for each hop, twice as many of tabr, and W B k findings
    where the strongest keys are told or searched for.
    """

    stored: StoredKeys
    """The part of this process."""

    def _take_note(self, stored: StoredKeys, group: distributed.ProcessGroup | None) -> None:
        self.processes = Processes.of(group)
        sizes = self.processes.of_all(torch.tensor(len(stored), device=stored.keys.device))
        self.sizes: list[int] = sizes.tolist()
        """Keys of each process, by rank."""
        self._first = sum(self.sizes[: self.processes.rank])
        self._labels, self._ids = self._of_all(stored.labels), self._of_all(stored.ids)

    @property
    def labels(self) -> Tensor:
        """See `ReadAll.labels`."""
        return self._labels

    @property
    def ids(self) -> Tensor:
        """See `ReadAll.ids`."""
        return self._ids

    def whole(self) -> StoredKeys | None:
        """All keys, in host memory, for the first process; the others get nothing."""
        keys = self.processes.collected(self.stored.keys, sizes=self.sizes)
        if keys is None:
            return None
        stored = self.stored
        return StoredKeys(keys, self.labels.cpu(), self.ids.cpu(), stored.num_classes, stored.similarity, stored.hops)

    def strongest_of_all(self, strongest: Strongest, k: int) -> Strongest:
        """The k of highest score of what each process has found among its keys, k of them or all that it has."""
        places = torch.where(strongest.places < 0, -1, strongest.places + self._first)
        missing = k - places.shape[1]
        places = F.pad(places, (0, missing), value=-1)
        scores = F.pad(strongest.scores, (0, missing), value=-torch.inf)
        scores, places = self.processes.best(scores, places, k)
        return Strongest(places.masked_fill(scores.isneginf(), -1), scores)

    def here(self, strongest: Strongest) -> Tensor:
        """(B, k) places among the keys of this process; -1 for those of the others, and for none."""
        places = strongest.places - self._first
        return places.masked_fill((places < 0) | (places >= len(self.stored)), -1)

    def _of_all(self, tensor: Tensor) -> Tensor:
        most = max(self.sizes)
        rows = self.processes.of_all(F.pad(tensor, (0, most - len(tensor))))
        return torch.cat([one[:size] for one, size in zip(rows, self.sizes, strict=True)])


class SharedReadAll(Shared, ReadAll):
    """`ReadAll` of keys that are shared out.

    Args:
        reading: as of one process.
        group: the processes; None for all.
    """

    def __init__(self, reading: ReadAll, *, group: distributed.ProcessGroup | None) -> None:
        self._alone, self._group = reading, group

    @property
    def alone(self) -> ReadAll:
        """See `ReadAll.alone`."""
        return self._alone

    def open(self, stored: StoredKeys) -> None:
        """Read these keys and those that the others hold from now on; to be called in all processes."""
        super().open(stored)
        self._take_note(stored, self._group)

    def small(self) -> ReadAll:
        """See `ReadAll.small`; of one process."""
        return self._alone.small()

    @torch.no_grad()
    def read(self, query: Tensor, exclude: Tensor | None = None) -> ClassRead:
        """See `ReadAll.read`. Without gradient, and to be called in all processes."""
        return super().read(query, exclude)

    def _readable(self, exclude: Tensor | None) -> ReadableKeys:
        return _KeysOfAll(super()._readable(exclude), self)


class SharedReadTopK(Shared, ReadTopK):
    """`ReadTopK` of keys that are shared out: of what each process has found the K nearest are read.

    Args:
        reading: as of one process.
        group: the processes; None for all.
    """

    def __init__(self, reading: ReadTopK, *, group: distributed.ProcessGroup | None) -> None:
        self.__dict__.update(copy.copy(reading).__dict__)
        self._alone, self._group = reading, group

    @property
    def alone(self) -> ReadAll:
        """See `ReadAll.alone`."""
        return self._alone

    def open(self, stored: StoredKeys) -> None:
        """See `SharedReadAll.open`."""
        super().open(stored)
        self._take_note(stored, self._group)

    def small(self) -> ReadTopK:
        """See `ReadAll.small`; of one process."""
        return self._alone.small()

    @torch.no_grad()
    def read(self, query: Tensor, exclude: Tensor | None = None) -> ClassRead:
        """See `SharedReadAll.read`."""
        return super().read(query, exclude)

    def _readable(self, exclude: Tensor | None) -> ReadableKeys:
        return _KeysOfAll(super()._readable(exclude), self)

    def _found(self, query: Tensor, exclude: Tensor | None) -> Tensor:
        """Those of the K nearest of all that are here; (B, 0) where there are no keys."""
        places = super()._found(query, exclude) if len(self.stored) else self.stored.ids.new_empty(len(query), 0)
        nearest = Strongest(places, self.stored.scores_of(query, places))
        found = self.here(self.strongest_of_all(nearest, self.cells(len(self.ids))))
        return found if len(self.stored) else places


class _KeysOfAll(ReadableKeys):
    """What keys of all processes give the same queries: the reads of the parts are merged.

    ``s_bc = log sum_r exp(s_rbc)`` with the class scores of each part; see `memlab.functional.merged_value_reads`.

    Args:
        part: the keys of this process.
        shared: whose they are.
    """

    def __init__(self, part: ReadableKeys, shared: Shared) -> None:
        self._part, self._shared = part, shared

    def values(self, hop: int, reader: Tensor) -> ValueRead:
        """See `memlab.memory.readable.Readable.values`."""
        return merged_value_reads(self._shared.processes.value_reads_of_all(self._part.values(hop, reader)))

    def classes(self, reader: Tensor) -> ClassRead:
        """See `memlab.memory.readable.Readable.classes`."""
        return self._merged(self._part.classes(reader))

    def strongest(self, hop: int, reader: Tensor, k: int) -> ReadInHop:
        """See `memlab.memory.readable.ReadableKeys.strongest`."""
        strongest, total = self._part.strongest(hop, reader, k)
        return ReadInHop(self._shared.strongest_of_all(strongest, k), self._logs_added(total))

    def classes_with_strongest(self, reader: Tensor, k: int) -> ReadWithStrongest:
        """See `memlab.memory.readable.ReadableKeys.classes_with_strongest`."""
        read, strongest, total = self._part.classes_with_strongest(reader, k)
        return ReadWithStrongest(
            self._merged(read), self._shared.strongest_of_all(strongest, k), self._logs_added(total)
        )

    def _merged(self, read: ClassRead) -> ClassRead:
        lowest = self._shared.processes.of_all(read.lowest).amin(0)
        return ClassRead(self._logs_added(read.class_scores), lowest)

    def _logs_added(self, logs: Tensor) -> Tensor:
        """``log sum_r exp(s_r)``."""
        return self._shared.processes.of_all(logs).logsumexp(0)
