"""Items as a list are the tensor memory of the paper, written and read sentence by sentence."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from memlab.functional.items import Items, items_of, read_items, relation_weights

S, N, Q, D, R = 3, 5, 4, 6, 4


def drawn(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def read(items: Items, entities: Tensor, relations: Tensor, told: Tensor) -> Tensor:
    """(S, Q, D) the second of two reads whose relations are weighed together."""
    both = torch.stack([torch.zeros_like(relations), relations], dim=2)
    return read_items(items, entities, relation_weights(items, both, told)[:, :, 1])


def by_recurrence(entities: Tensor, relations: Tensor) -> list[Tensor]:
    """Of one story the (D, R, D) memory before each sentence and after the last (Schlag and Schmidhuber, eqs. 9-15)."""
    memory = torch.zeros(D, R, D, dtype=torch.float64)
    states = [memory]
    for (e1, e2), (r1, r2, r3) in zip(entities, relations, strict=True):
        w, m, b = (torch.einsum("d,r,drx->x", e, r, memory) for e, r in ((e1, r1), (e1, r2), (e2, r3)))
        for e, r, v in ((e1, r1, e2 - w), (e1, r2, w - m), (e2, r3, e1 - b)):
            memory = memory + torch.einsum("d,r,x->drx", e, r, v)
        states.append(memory)
    return states


def test_reads_are_those_of_the_tensor_memory() -> None:
    entities, relations = drawn(S, N, 2, D, seed=0), drawn(S, N, 3, R, seed=1)
    asked, along = drawn(S, Q, D, seed=2), drawn(S, Q, R, seed=3)
    told = torch.tensor([[0, 1, 3, 5], [5, 5, 2, 4], [1, 2, 3, 4]])
    found = read(items_of(entities, relations), asked, along, told)
    for story in range(S):
        states = by_recurrence(entities[story], relations[story])
        for question in range(Q):
            memory = states[int(told[story, question])]
            expected = torch.einsum("d,r,drx->x", asked[story, question], along[story, question], memory)
            torch.testing.assert_close(found[story, question], expected, rtol=1e-12, atol=1e-14)


def test_sentences_that_are_not_there_change_nothing() -> None:
    entities, relations = drawn(S, N, 2, D, seed=0), drawn(S, N, 3, R, seed=1)
    asked, along, told = drawn(S, Q, D, seed=2), drawn(S, Q, R, seed=3), torch.full((S, Q), N)
    padded = [F.pad(each, (0, 0, 0, 0, 0, 2)) for each in (entities, relations)]
    more = read(items_of(padded[0], padded[1]), asked, along, told)
    torch.testing.assert_close(more, read(items_of(entities, relations), asked, along, told))


def test_gradients() -> None:
    asked, along, told = drawn(S, Q, D, seed=2), drawn(S, Q, R, seed=3), torch.tensor([[1, 2, 3, 5]] * S)
    given = drawn(S, N, 2, D, seed=0).requires_grad_(), drawn(S, N, 3, R, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda e, r: read(items_of(e, r), asked, along, told), given)
