"""Sequences of different lengths in a store: what is taken, how they are normalised, what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from memlab.data.objects import ObjectStore, raw_objects
from memlab.data.sequences import Sequences, joined, padded, without_padding_of_all
from memlab.data.support import Support

LENGTHS = [3, 1, 4, 2]


def each(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        (100 * torch.rand(length, 2, generator=generator) * torch.tensor([1.0, 2.0])).to(dtype) for length in LENGTHS
    ]


def store(dtype: torch.dtype = torch.float32) -> ObjectStore:
    return ObjectStore(inputs=Sequences.of(each(dtype)), labels=torch.zeros(4, dtype=torch.int64), class_names=("a",))


def test_they_are_as_long_as_the_longest_taken_with_them() -> None:
    taken = Sequences.of(each()).taken(torch.tensor([3, 0, 3]))
    assert taken.shape == (3, 3, 2)
    for own, row in zip(taken, (3, 0, 3), strict=True):
        torch.testing.assert_close(own[: LENGTHS[row]], each()[row], rtol=0, atol=0)
        assert own[LENGTHS[row] :].isnan().all()


def test_what_a_support_makes_is_as_long_as_the_longest_of_a_chunk() -> None:
    support = Support(store(), torch.tensor([1, 3, 2]))
    assert [support.inputs(part).shape[1] for part in (slice(0, 1), slice(0, 2), slice(1, 3))] == [1, 2, 4]
    assert len(support.store.inputs.steps) == sum(LENGTHS)  # none of it is padding
    assert (support.store.input_shape, support.store.shape_of_all) == ((None, 2), (None, 2))
    assert Sequences.of([torch.ones(3, 2)] * 2).shape_of_all == (3, 2)


def test_pixels_stay_bytes_unless_lengths_differ() -> None:
    pixels = Sequences.of(each(torch.uint8))
    assert pixels.taken(torch.tensor([1, 1])).dtype is torch.uint8
    mixed = pixels.taken(torch.tensor([1, 0]))
    assert mixed.dtype is torch.float32
    torch.testing.assert_close(mixed[1], each(torch.uint8)[0].float(), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
def test_they_are_normalised_by_the_steps_of_some_number_by_number_and_pixels_as_one(dtype: torch.dtype) -> None:
    objects, rows = store(dtype), [0, 2]
    objects.normalise_by(torch.tensor(rows))
    steps = [step for row in rows for step in each(dtype)[row].double().tolist()]
    columns = [list(column) for column in zip(*steps, strict=True)]
    if dtype is torch.uint8:
        columns = [columns[0] + columns[1]] * 2
    means = [math.fsum(column) / len(column) for column in columns]
    deviations = [
        math.sqrt(math.fsum((value - mean) ** 2 for value in column) / len(column))
        for column, mean in zip(columns, means, strict=True)
    ]
    expected = (each(dtype)[3].double() - torch.tensor(means)) / torch.tensor(deviations)
    taken = objects.take(torch.tensor([3, 2]), dtype=torch.float64)
    torch.testing.assert_close(taken[0, :2], expected.double(), rtol=1e-6, atol=1e-6)
    assert taken[0, 2:].isnan().all()


def test_padding_goes_and_comes_with_the_longest() -> None:
    long, short = Sequences.of(each()[:3]).taken(torch.arange(3)), padded(each()[3], torch.tensor([2]))
    both = joined([long, short])
    torch.testing.assert_close(both, Sequences.of(each()).taken(torch.arange(4)), equal_nan=True)
    torch.testing.assert_close(Sequences.of_padded(both).steps, Sequences.of(each()).steps)
    assert without_padding_of_all(both[[0, 1]]).shape == (2, 3, 2)
    rows_of_a_table = torch.tensor([[1.0, math.nan]])
    assert without_padding_of_all(rows_of_a_table) is rows_of_a_table
    assert joined([rows_of_a_table, rows_of_a_table]).shape == (2, 2)


def test_raw_objects_are_as_they_were_given() -> None:
    torch.testing.assert_close(raw_objects(store().inputs, torch.tensor([2]))[0], each()[2], rtol=0, atol=0)
    images = torch.arange(12).view(3, 1, 2, 2)
    torch.testing.assert_close(raw_objects(images, torch.tensor([2])), images[2:])


def test_what_cannot_be_is_told() -> None:
    bad = Sequences.of(each())
    bad.steps[sum(LENGTHS[:2]) + 2, 1] = math.inf
    with pytest.raises(ValueError, match="row 2 has NaN or infinity in step 3"):
        ObjectStore(inputs=bad, labels=torch.zeros(4, dtype=torch.int64), class_names=("a",))
    with pytest.raises(ValueError, match="3 in all for steps"):
        Sequences(torch.zeros(4, 2), torch.tensor([1, 2]))
    hole = torch.ones(2, 4, 1)
    hole[1, 2] = math.nan
    with pytest.raises(ValueError, match="row 1 has NaN in step 3"):
        Sequences.of_padded(hole)
    hole[1] = math.nan
    with pytest.raises(ValueError, match="row 1 has no steps"):
        Sequences.of_padded(hole)
