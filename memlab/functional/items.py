"""A memory of role-filler items, in which what is new takes the place of what was there (Schlag and Schmidhuber 2018).

Each sentence gives entities e1, e2 and relations r1, r2, r3, and writes three items, an item being an entity, a
relation and a value. With ``w``, ``m``, ``b`` what reads of (e1, r1), (e1, r2), (e2, r3) gave before it, these are

``(e1, r1, e2 - w), (e1, r2, w - m), (e2, r3, e1 - b)``,

and a read of (e, r) is ``sum_j (e . e_j) (r . r_j) v_j`` over all items. As a list this is the tensor memory of the
paper.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Items(NamedTuple):
    """The items of S stories of N sentences, three of each, one sentence after the other."""

    entities: Tensor
    """(S, 3 N, d)."""
    relations: Tensor
    """(S, 3 N, d')."""
    values: Tensor
    """(S, 3 N, d)."""


def items_of(entities: Tensor, relations: Tensor) -> Items:
    """The items that sentences write.

    Keys depend on their sentence alone, so that values need no recurrence: they solve one lower triangular system
    ``L V = C`` with ones on its diagonal. C is (e2, e2, e1) of each sentence; L is ``(E E^T) * (R R^T)`` where the
    column is of an earlier sentence, and 1 at the first item of the same sentence in the row of its second, for ``w``.

    Args:
        entities: (S, N, 2, d) e1 and e2 of each sentence; zeros are a sentence that is not there.
        relations: (S, N, 3, d') r1, r2 and r3.

    Returns:
        the items, differentiable in both.
    """
    sentences = entities.shape[1]
    size, device = 3 * sentences, entities.device
    first, second = entities.unbind(2)
    of_entities = torch.stack([first, first, second], 2).flatten(1, 2)
    of_relations = relations.flatten(1, 2)
    told = torch.stack([second, second, first], 2).flatten(1, 2)
    sentence = torch.arange(size, device=device) // 3
    same = torch.zeros(size, size, dtype=entities.dtype, device=device)
    same[torch.arange(1, size, 3), torch.arange(0, size, 3)] = 1
    nearness = (of_entities @ of_entities.mT) * (of_relations @ of_relations.mT)
    system = nearness * (sentence[:, None] > sentence) + same
    values = torch.linalg.solve_triangular(system, told, upper=False, unitriangular=True)
    return Items(of_entities, of_relations, values)


def relation_weights(items: Items, relations: Tensor, told: Tensor) -> Tensor:
    """How near the relations of questions are to those of items: ``r . r_j``, and 0 of an item told later.

    Args:
        items: of S stories.
        relations: (S, Q, n, d') r of the n reads of each question.
        told: (S, Q) sentences of its story that each may read.

    Returns:
        (S, Q, n, 3 N).
    """
    stories, questions, reads, _ = relations.shape
    weights = (relations.flatten(1, 2) @ items.relations.mT).view(stories, questions, reads, -1)
    sentence = torch.arange(weights.shape[3], device=told.device) // 3
    return weights * (sentence < told[:, :, None])[:, :, None]


def read_items(items: Items, entities: Tensor, weights: Tensor) -> Tensor:
    """What questions read: ``sum_j (e . e_j) (r . r_j) v_j`` over the items of the sentences told before.

    Args:
        items: of S stories.
        entities: (S, Q, d) e of each question.
        weights: (S, Q, 3 N) of one read; see `relation_weights`.

    Returns:
        (S, Q, d).
    """
    return ((entities @ items.entities.mT) * weights) @ items.values
