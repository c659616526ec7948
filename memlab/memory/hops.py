"""Hops: before the class is read, a query takes up what it reads of values (eqs. 6-9), once or several times."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from memlab import draws
from memlab.checks import check_choice, check_number, check_whole_number
from memlab.functional import ClassRead, ValueRead, Values, lowest_scores

VALUES = ("label", "object+label", "tabr")
HOP_KEYS = ("tied", "apart")
HOP_SEARCH = ("anew", "keep")
ANSWERS = ("read", "layer")

OPTIONS = ("hops", "values", "value_dropout", "hop_keys", "hop_search", "answer")
"""What `hops_of` takes."""

ReadValues = Callable[[int, Tensor], ValueRead]
"""Of a hop's number and (B, D) queries: what the queries read of the values."""


class Hops(nn.Module):
    """``u' = u + o``, ``o_b = sum_i p_bi v_bi``, as often as there are hops (Sukhbaatar et al. 2015, eqs. 8-9).

    Weights p are the softmax of the scores of the hop's keys, and values are those of all hops:

    - ``label``: ``v_i = E[y_i]``;
    - ``object+label``: ``v_i = V m_i + E[y_i]`` with the embedding m_i of the support object;
    - ``tabr``: ``v_bi = E[y_i] + T(u_b - m_i)``, ``T(x) = W_2 relu(W_1 x + b)`` (TabR, Gorishniy et al. 2024, section
      3.2, without the dropout in T).

    In training the values of a share q of the support objects are 0, and those of the others are divided by 1 - q.
    TabR's context dropout draws so for each pair of query and object; here it is for each object, by step and object
    alone (`memlab.draws`), the same for all queries and hops, so that no (B, M) matrix of draws is held.

    Keys are ``m_i``, or ``m_i + A_h m_i`` with a matrix for each hop. Then the class is read of the support (eq. 13),
    or it is ``softmax(W u)`` (eq. 10). E, V, W_2 and A_h start at 0, so that training starts from no hops. The
    parameters of V, W_2 and A_h are D times these: an optimizer such as Adam moves each entry by about the learning
    rate, and D entries together would move an embedding of length 1 by D times as much as E does.

    Args:
        hops: how many.
        values: what support objects hold: ``label``, ``object+label`` or ``tabr``.
        value_dropout: q, from 0 up to 1.
        hop_keys: ``tied``, the keys of the class read, or ``apart``, a matrix for each hop.
        hop_search: where the K nearest cells are read, whether each read searches its own, ``anew``, or all take those
            of the first, ``keep``. Cells are found by the keys of the class read.
        answer: ``read``, the class read, or ``layer``, a softmax layer.

    Raises:
        ValueError: for another number or word.
    """

    class_values: nn.Parameter
    """(C, D) E."""
    object_values: nn.Parameter
    """(D, D) D V, of object+label."""
    inner: nn.Linear
    """W_1 and b, of tabr."""
    outer: nn.Parameter
    """(D, D) D W_2, of tabr."""
    key_changes: nn.Parameter
    """(hops, D, D) D A_h, of keys apart."""
    answer_keys: nn.Parameter
    """(C, D) W, of an answer by a layer; uniform within 1 / sqrt(D) at the start."""

    def __init__(
        self, *, hops: int, values: str, hop_keys: str, hop_search: str, answer: str, value_dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.number = check_whole_number("hops", hops)
        self._values = check_choice("values", values, VALUES)
        self._dropout = check_number("value_dropout", value_dropout, at_least=0, below=1)
        self.has_own_keys = check_choice("hop_keys", hop_keys, HOP_KEYS) == "apart"
        self.searches_anew = check_choice("hop_search", hop_search, HOP_SEARCH) == "anew"
        self.answers_by_layer = check_choice("answer", answer, ANSWERS) == "layer"

    def prepare(self, *, embedding_size: int, num_classes: int) -> None:
        """Make the parameters.

        Args:
            embedding_size: D.
            num_classes: C.
        """
        size = embedding_size
        self.class_values = nn.Parameter(torch.zeros(num_classes, size))
        if self._values == "object+label":
            self.object_values = nn.Parameter(torch.zeros(size, size))
        if self._values == "tabr":
            self.inner = nn.Linear(size, size)
            self.outer = nn.Parameter(torch.zeros(size, size))
        if self.has_own_keys:
            self.key_changes = nn.Parameter(torch.zeros(self.number, size, size))
        if self.answers_by_layer:
            bound = 1 / math.sqrt(size)
            self.answer_keys = nn.Parameter(torch.empty(num_classes, size).uniform_(-bound, bound))

    def path(self, query: Tensor, read: ReadValues) -> list[Tensor]:
        """Queries before each hop and after the last: one more than there are hops, (B, D) in float32 or wider.

        Args:
            query: (B, D) encoded queries.
            read: gives what they read in a hop.
        """
        queries = [_wide(query)]
        with torch.autocast(query.device.type, enabled=False):
            for hop in range(self.number):
                queries.append(self._moved(queries[-1], read(hop, queries[-1])))
        return queries

    @property
    def earlier(self) -> int:
        """How many hops come before the read whose weights are those of the answer: where a layer answers, the last."""
        return self.number - self.answers_by_layer

    def values(self, keys: Tensor, labels: Tensor, ids: Tensor) -> Values:
        """What support objects hold.

        Args:
            keys: (M, D) encoded support objects.
            labels: (M,) their class ids.
            ids: (M,) which object each is.
        """
        with torch.autocast(keys.device.type, enabled=False):
            keys = _wide(keys)
            shared = self.class_values.to(keys.dtype)[labels]
            if self._values == "object+label":
                shared = shared + keys @ self._matrix(self.object_values, keys.dtype).mT
            places = keys @ self.inner.weight.to(keys.dtype).mT if self._values == "tabr" else None
            if self._drops:
                with draws.of_objects(ids, purpose=draws.READ_VALUES):
                    dropped = draws.dropped(len(keys), 1, p=self._dropout, device=keys.device)
                shared = shared.masked_fill(dropped, 0) / (1 - self._dropout)
                places = None if places is None else places.masked_fill(dropped, torch.inf)  # relu(a - inf) = 0
            return Values(shared, places)

    def keys(self, hop: int, keys: Tensor) -> Tensor:
        """(M, D) what a hop scores, of (M, D) encoded support objects."""
        if not self.has_own_keys:
            return keys
        with torch.autocast(keys.device.type, enabled=False):
            keys = _wide(keys)
            return keys + keys @ self._matrix(self.key_changes[hop], keys.dtype).mT

    def origins(self, query: Tensor) -> Tensor | None:
        """(B, H) ``W_1 u_b + b``, from which places ``W_1 m_i`` are subtracted; None for values without places.

        Args:
            query: (B, D) queries before a hop, within `path`.
        """
        if self._values != "tabr":
            return None
        return nn.functional.linear(query, self.inner.weight.to(query.dtype), self.inner.bias.to(query.dtype))

    def layer(self, query: Tensor) -> ClassRead:
        """Class scores ``W u`` of queries after the last hop."""
        with torch.autocast(query.device.type, enabled=False):
            scores = query @ self.answer_keys.to(query.dtype).mT
        return ClassRead(scores, lowest_scores(scores))

    def read_bytes(self, *, support: int, embedding_size: int) -> int:
        """Bytes that reads of M kept keys take: keys and values with their gradients, and the terms of each read."""
        of_differences = 3 if self._values == "tabr" else 0
        return 4 * support * embedding_size * (6 + self.number + of_differences)

    @staticmethod
    def _matrix(parameter: Tensor, dtype: torch.dtype) -> Tensor:
        """(D, D) V, W_2 or A_h, of the parameter for it."""
        return parameter.to(dtype) / parameter.shape[-1]

    def _moved(self, query: Tensor, read: ValueRead) -> Tensor:
        moved = query + read.shared
        if read.differences is None:
            return moved
        kept = 1 - self._dropout if self._drops else 1
        return moved + read.differences @ self._matrix(self.outer, query.dtype).mT / kept

    @property
    def _drops(self) -> bool:
        return self.training and torch.is_grad_enabled() and self._dropout > 0


def hops_of(*, hops: int, **words: Any) -> Hops | None:
    """Hops of their settings, see `Hops`; None for 0 of them.

    Raises:
        ValueError: for another number or word, also where there are none.
    """
    made = Hops(hops=max(check_whole_number("hops", hops, minimum=0), 1), **words)
    return made if hops else None


def _wide(embeddings: Tensor) -> Tensor:
    return embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
