from __future__ import annotations

from typing import Any

import pytest
import torch

from memlab.data.objects import ObjectStore


def images(n: int = 20) -> ObjectStore:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (n, 3, 4, 4), generator=generator, dtype=torch.uint8)
    return ObjectStore(inputs=inputs, labels=torch.arange(n) % 2, class_names=("even", "odd"))


def test_normalises_each_channel_by_the_rows_named_and_no_others() -> None:
    store, rows = images(), torch.arange(3, 15)
    store.normalise_by(rows)
    normal = store.take(rows, dtype=torch.float64)
    torch.testing.assert_close(normal.mean(dim=(0, 2, 3)), torch.zeros(3).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(normal.std(dim=(0, 2, 3), correction=0), torch.ones(3).double(), atol=1e-6, rtol=0)
    assert store.take(torch.arange(20), dtype=torch.float64).mean().abs() > 1e-3


def normalised(inputs: torch.Tensor, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """All objects of a store of one class, normalised by all of them."""
    store = ObjectStore(inputs=inputs, labels=torch.zeros(len(inputs), dtype=torch.int64), class_names=("only",))
    store.normalise_by(torch.arange(len(inputs)))
    normal: torch.Tensor = store.take(torch.arange(len(inputs)), dtype=dtype)
    return normal


def assert_standard(normal: torch.Tensor, dim: tuple[int, ...], atol: float = 1e-6) -> None:
    mean, deviation = normal.mean(dim), normal.std(dim, correction=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), atol=atol, rtol=0)
    torch.testing.assert_close(deviation, torch.ones_like(deviation), atol=atol, rtol=0)


def features(n: int = 300, seed: int = 0) -> torch.Tensor:
    """Three features of scale 1."""
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_vectors_are_standardised_feature_by_feature() -> None:
    scales = torch.tensor([1e6, 1.0, 1e-3])
    assert_standard(normalised((features() * scales + scales).float()), (0,))


def test_a_table_of_bytes_is_too() -> None:
    assert_standard(normalised((features() * torch.tensor([40.0, 9.0, 2.0]) + 128).to(torch.uint8)), (0,))


@pytest.mark.parametrize("shape", [(20, 6, 5), (20, 2, 3, 4, 5)])
def test_objects_of_other_dimensions_count_as_one_channel(shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3 + 5
    torch.testing.assert_close(normalised(inputs), (inputs - inputs.mean()) / inputs.std(correction=0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.uint8])
def test_a_constant_feature_becomes_0(dtype: torch.dtype) -> None:
    table = features(5000)
    table[:, 1] = 100 / 3
    normal = normalised((table.abs() * 9 if dtype is torch.uint8 else table).to(dtype))
    assert (normal[:, 1] == 0).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_feature_that_differs_by_rounding_alone_is_constant(dtype: torch.dtype) -> None:
    table = features().to(dtype)
    table[:, 1] = 1000
    table[::2, 1] += 1000 * torch.finfo(dtype).eps
    assert normalised(table)[:, 1].abs().max() <= 1000 * torch.finfo(dtype).eps


def test_moments_far_from_0_are_exact() -> None:
    assert_standard(normalised(features() + 1e8), (0,))
    image = torch.randn(6, 2, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert_standard(normalised(image + 1e8), (0, 2, 3))


def test_parts_of_other_means_are_merged() -> None:
    table = features(10_000).sort(dim=0).values
    assert_standard(normalised(table), (0,), atol=1e-12)


def test_a_narrow_type_gets_what_a_wide_one_tells_apart() -> None:
    assert_standard(normalised(1e6 + 1e-3 * features(), torch.float32), (0,), atol=1e-3)
    assert_standard(normalised((1e6 + 100 * features()).float(), torch.bfloat16).double(), (0,), atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_take_gives_the_rows_in_order_and_leaves_the_store_as_it_is(dtype: torch.dtype) -> None:
    store = images()
    before = store.inputs.clone()
    taken = store.take(torch.tensor([5, 5, 0]), dtype=dtype)
    assert taken.dtype is dtype
    torch.testing.assert_close(taken, before[[5, 5, 0]].to(dtype))
    assert torch.equal(store.inputs, before)
    assert store.inputs.dtype is torch.uint8


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_refuses_values_that_are_not_finite_and_says_where(bad: float) -> None:
    inputs = torch.zeros(10, 3)
    inputs[4, 1] = inputs[7, 0] = bad
    with pytest.raises(ValueError, match=r"2 of 10 objects hold NaN or infinity \(the first is row 4\)"):
        ObjectStore(inputs=inputs, labels=torch.zeros(10, dtype=torch.int64), class_names=("only",))


def test_refuses_labels_without_a_class_and_sizes_that_differ() -> None:
    for labels in (torch.arange(3), torch.tensor([0, -2, 2])):
        with pytest.raises(ValueError, match=r"labels from (0|-2) to 2: must lie from 0 to 1, or be -1 for"):
            ObjectStore(inputs=torch.zeros(3, 2), labels=labels, class_names=("a", "b"))
    with pytest.raises(ValueError, match="2 of them for 3 objects"):
        ObjectStore(inputs=torch.zeros(3, 2), labels=torch.zeros(2, dtype=torch.int64), class_names=("a",))


def test_an_object_may_be_in_no_class() -> None:
    store = ObjectStore(inputs=torch.zeros(3, 2), labels=torch.tensor([1, -1, 0]), class_names=("a", "b"))
    assert store.labels.tolist() == [1, -1, 0]


def test_objects_of_several_parts_are_a_tree_and_each_part_is_treated_by_its_type() -> None:
    pictures, words = images().inputs, torch.arange(40).view(20, 2)
    store = ObjectStore(inputs={"x": pictures, "words": [words]}, labels=torch.arange(20) % 2, class_names=("a", "b"))
    alone = ObjectStore(inputs=pictures, labels=store.labels, class_names=("a", "b"))
    rows = torch.tensor([4, 0, 19])
    for each in (store, alone):
        each.normalise_by(torch.arange(10))
    taken = store.take(rows, dtype=torch.float64)
    assert torch.equal(taken["x"], alone.take(rows, dtype=torch.float64))
    assert torch.equal(taken["words"][0], words[rows])
    assert store.input_shape == {"x": (3, 4, 4), "words": [(2,)]}
    assert len(store) == 20


def test_refuses_a_part_of_another_length() -> None:
    with pytest.raises(ValueError, match="20 of them for 19 objects"):
        ObjectStore(inputs=[torch.zeros(20, 2), torch.zeros(19, 2)], labels=torch.zeros(20).long(), class_names=("a",))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_rows_of_host_memory_reach_the_gpu_as_they_are() -> None:
    store, rows = images(), torch.tensor([3, 3, 7])
    expected = store.take(rows, dtype=torch.float32)
    store.place(inputs_on=torch.device("cpu"), compute_on=torch.device("cuda"))
    assert torch.equal(store.take(rows.cuda(), dtype=torch.float32).cpu(), expected)


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3), r"labels: torch.float32 of shape \(3,\); must be a vector of torch.int64"),
        (torch.zeros(3, 2), torch.zeros(3, 1, dtype=torch.int64), r"labels: torch.int64 of shape \(3, 1\); must be a"),
        (torch.zeros(3, 2), [0, 0, 0], "labels: list; must be a vector of torch.int64"),
        (torch.zeros(3, 2).numpy(), torch.zeros(3, dtype=torch.int64), "inputs: of type ndarray; must be tensors"),
    ],
)
def test_what_is_of_another_type_is_told(inputs: Any, labels: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ObjectStore(inputs=inputs, labels=labels, class_names=("only",))
