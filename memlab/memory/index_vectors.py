"""What topk searches: a vector of every support object, how old each is, and which are encoded again when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from memlab.checks import check_number, check_whole_number
from memlab.data.support import Support
from memlab.index import Index, Places


class Share(NamedTuple):
    """Every W-th object, from the r-th on, of those of several processes; of one process all."""

    rank: int = 0
    """r."""
    world: int = 1
    """W."""

    def of(self, part: slice) -> slice:
        """Where the objects from one place to another lie, among those of the share."""
        first, last = (-((self.rank - place) // self.world) for place in (part.start, part.stop))
        return slice(first, last)


ALL = Share()


class Refresh:
    """How many index vectors are encoded again at a training step.

    Args:
        every: all every so many steps; ``auto`` for some at every step, in turn, as many as its share pays for;
            None with ``max_age``.
        share: of ``auto``, share of a step's encoding that goes into refreshing. A step that reads U unique cells for B
            queries encodes each with gradient, about as much as ``3 (U + B)`` encodings without, and so pays for
            ``3 (U + B) share / (1 - share)`` of them at the next step, whatever M is.
        max_age: a slice at every step, so that none is older than so many; None with ``every``.

    Raises:
        ValueError: for a value out of range, or if not exactly one of ``every`` and ``max_age`` is given.
    """

    def __init__(self, *, every: int | str | None, share: float, max_age: int | None) -> None:
        if (every is None) == (max_age is None):
            raise ValueError(
                f"refresh_every={every}: must be given, or max_age (it is {max_age}), one of the two and null for the"
                " other"
            )
        check_number("refresh_share", share, above=0, below=1)
        self.share = share if every == "auto" else None
        self.every = None if every in (None, "auto") else check_whole_number("refresh_every", every, or_else="auto")
        self.max_age = None if max_age is None else check_whole_number("max_age", max_age)

    def due(self, *, step: int, saved: float, size: int) -> int:
        """How many are to be encoded again.

        Args:
            step: training steps since all were first encoded.
            saved: how many earlier steps have paid for; see `earned`.
            size: M.
        """
        if self.share is not None:
            return min(int(saved), size)
        if self.max_age is not None:
            return -(-size // self.max_age)
        assert self.every is not None
        return 0 if step % self.every else size

    def earned(self, *, cells: int, queries: int) -> float:
        """How many a step pays for, from the unique cells and the queries that it has encoded."""
        return 0.0 if self.share is None else 3 * (cells + queries) * self.share / (1 - self.share)


Encode = Callable[[slice], Tensor]
"""(m, D) search vectors of a part of the support as it is, by the encoder as in evaluation."""


class IndexVectors:
    """The vectors of one support in an index. They are searched, never read.

    Args:
        ids: (M,) which objects the support has.
        index: holds and searches them.
        metric: by which the index compares; see `memlab.index`.
        share: which objects of a support these are.
        size: M, how many that has.
    """

    def __init__(
        self,
        *,
        ids: Tensor,
        index: Index,
        metric: str,
        share: Share = ALL,
        size: int | None = None,
    ) -> None:
        self.index = index
        self.ids = ids
        self.places = Places(ids)
        self.encoded_at = torch.zeros(len(ids), dtype=torch.int64, device=ids.device)
        """(M,) the step at which each was encoded."""
        self.step = 0
        """Training steps since all were first encoded."""
        self._rows: Tensor | None = None
        self._metric = metric
        self._share = share
        self._size = len(ids) if size is None else size
        self._next = 0
        self._saved = 0.0
        self._refreshed_at = 0

    def holds(self, support: Support) -> bool:
        """Whether the vectors are of this support; the same rows object is not compared again."""
        if self._rows is not support.rows and torch.equal(self.ids, support.ids):
            self._rows = support.rows
        return self._rows is support.rows

    def encode_all(self, encode: Encode) -> None:
        """Encode all objects, and hold their vectors and no others."""
        self.index.build(encode(slice(0, len(self.ids))), metric=self._metric)
        self.encoded_at.fill_(self.step)

    def refresh(self, encode: Encode, rule: Refresh) -> None:
        """Encode again what is due at this step, unless it was done in an earlier attempt at the step."""
        if self._refreshed_at == self.step:
            return
        count = rule.due(step=self.step, saved=self._saved, size=self._size)
        if count == self._size:
            self.encode_all(encode)
        else:
            self._refresh_in_turn(encode, count)
        self._saved -= count
        self._refreshed_at = self.step

    def _refresh_in_turn(self, encode: Encode, count: int) -> None:
        size, end = self._size, self._next + count
        for part in map(self._share.of, (slice(self._next, min(end, size)), slice(0, max(end - size, 0)))):
            if part.start < part.stop:
                self.write(torch.arange(part.start, part.stop, device=self.ids.device), encode(part))
        self._next = end % size

    def write(self, cells: Tensor, vectors: Tensor) -> None:
        """Put vectors that were encoded in this step at some places."""
        self.index.update(cells, vectors)
        self.encoded_at[cells] = self.step

    def ages(self) -> tuple[Tensor, Tensor]:
        """Mean and largest age of the vectors, in steps; no copy of M numbers is made."""
        size = len(self.encoded_at)
        total = self.step * size - self.encoded_at.sum()  # whole numbers: a float has no room for so many steps
        return total / size, (self.step - self.encoded_at.min()).float()

    def end_step(self, rule: Refresh, *, cells: int, queries: int) -> None:
        """A training step is over that has encoded so many unique cells and queries, in all processes."""
        self._saved += rule.earned(cells=cells, queries=queries)
        self.step += 1

    def state(self) -> dict[str, Any]:
        """Tensors and numbers to go on from."""
        return {
            "ids": self.ids,
            "encoded_at": self.encoded_at,
            "step": self.step,
            "next": self._next,
            "saved": self._saved,
            "refreshed_at": self._refreshed_at,
            "index": self.index.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Be as in a `state` of the same objects, whatever the index that was in use then."""
        self.encoded_at = state["encoded_at"].to(self.ids.device)
        self.step, self._refreshed_at = state["step"], state["refreshed_at"]
        self._next, self._saved = state["next"], state["saved"]
        self.index.restore(state["index"], metric=self._metric, device=self.ids.device)


def joined(shares: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The state of the vectors of all objects, from those of the shares of several processes, by rank.

    How an approximate index had put its vectors into lists is let go.
    """
    first = shares[0]
    if "ids" not in first:  # nothing has been read yet
        return first
    centre = first["index"]["centre"]
    vectors = [each["index"]["vectors"] + (each["index"]["centre"] - centre) for each in shares]
    index = {
        "vectors": _in_turn(vectors),
        "centre": centre,
        "present": _in_turn([each["index"]["present"] for each in shares]),
    }
    by_object = {name: _in_turn([each[name] for each in shares]) for name in ("ids", "encoded_at")}
    return {**first, **by_object, "index": index}


def share_of(state: dict[str, Any], share: Share) -> dict[str, Any]:
    """The state of the vectors of a share, from that of all objects."""
    if "ids" not in state:
        return state
    index = state["index"]
    rows = slice(share.rank, None, share.world)
    return {
        **state,
        **{name: state[name][rows] for name in ("ids", "encoded_at")},
        "index": {"vectors": index["vectors"][rows], "centre": index["centre"], "present": index["present"][rows]},
    }


def _in_turn(parts: Sequence[Tensor]) -> Tensor:
    """The rows of several tensors, of each the first, then of each the second, and so on."""
    rows = parts[0].new_empty(sum(map(len, parts)), *parts[0].shape[1:])
    for rank, part in enumerate(parts):
        rows[rank :: len(parts)] = part
    return rows
