"""Sequences in lots of like length: every one is in one lot, and what is made of it does not tell in which."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from memlab import draws
from memlab.data.sequences import Sequences, there
from memlab.encoders import lengths
from memlab.encoders.dropout import Dropout
from memlab.encoders.lengths import GROWTH, by_length, lots_of


@pytest.mark.parametrize("smallest", [1, 3, 50])
@pytest.mark.parametrize("number", [1, 2, 40, 400])
def test_each_is_in_one_lot_beside_others_of_like_length(number: int, smallest: int) -> None:
    given = torch.randint(1, 300, (number,), generator=torch.Generator().manual_seed(number))
    lots = lots_of(given, smallest=smallest)
    assert torch.cat(lots).sort().values.tolist() == list(range(number))
    assert len(lots) == 1 or min(map(len, lots)) >= smallest
    ordered = given[torch.cat(lots)]
    assert torch.equal(ordered, ordered.sort().values)
    if smallest == 1:
        assert all(int(given[lot].max()) <= GROWTH * int(given[lot].min()) for lot in lots)


def test_all_of_one_length_are_one_lot() -> None:
    assert [lot.tolist() for lot in lots_of(torch.full((5,), 7), smallest=1)] == [[0, 1, 2, 3, 4]]


def test_what_is_dropped_is_that_of_the_object_whatever_the_lots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice within the lots, and once behind them."""
    generator = torch.Generator().manual_seed(0)
    sizes = [3, 9, 1, 30, 2, 8, 25]
    given = Sequences.of([torch.rand(size, 2, generator=generator) + 1 for size in sizes]).taken(torch.arange(7))
    dropout, seen = Dropout(0.5).train(), []

    def features(sequences: Tensor) -> Tensor:
        seen.append(sequences.shape)
        steps = sequences.nan_to_num(0)
        return torch.cat([dropout(steps).sum(1), dropout(steps).sum(1), there(sequences).sum(1, keepdim=True)], dim=1)

    found = []
    for smallest in (100, 1, 2):
        monkeypatch.setattr(lengths, "SMALLEST", smallest)
        with draws.of_objects(torch.tensor([5, 3, 8, 1, 0, 9, 2]), purpose=draws.ENCODED_SUPPORT, seed=4):
            found.append((by_length(features, given), dropout(torch.ones(7, 5))))
    for features_in_lots, behind in found[1:]:
        torch.testing.assert_close(features_in_lots, found[0][0], rtol=1e-6, atol=0)
        assert torch.equal(behind, found[0][1])
    assert found[0][0][:, 4].tolist() == sizes
    assert not torch.equal(found[0][0][:, :2], found[0][0][:, 2:4])
    assert {tuple(shape) for shape in seen[1:]} >= {(1, 1, 2), (2, 9, 2), (2, 30, 2)}


def test_where_no_objects_are_known_torch_draws() -> None:
    given = Sequences.of([torch.ones(size, 1) for size in (2, 40)]).taken(torch.arange(2))
    made = by_length(lambda sequences: Dropout(0.5).train()(sequences.nan_to_num(0)).sum(1), given)
    assert made.shape == (2, 1)
