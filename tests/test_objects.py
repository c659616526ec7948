from __future__ import annotations

import pytest
import torch

from memlab.objects import ObjectStore


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


def test_vectors_count_as_one_channel_so_that_a_constant_feature_stays_finite() -> None:
    inputs = torch.stack([torch.arange(10.0), torch.zeros(10)], dim=1)
    store = ObjectStore(inputs=inputs, labels=torch.zeros(10, dtype=torch.int64), class_names=("only",))
    store.normalise_by(torch.arange(10))
    normal = store.take(torch.arange(10), dtype=torch.float32)
    assert normal.isfinite().all()
    torch.testing.assert_close(normal.std(correction=0), torch.ones(()))


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
    with pytest.raises(ValueError, match="labels from 0 to 2: must lie from 0 to 1"):
        ObjectStore(inputs=torch.zeros(3, 2), labels=torch.arange(3), class_names=("a", "b"))
    with pytest.raises(ValueError, match="2 of them for 3 objects"):
        ObjectStore(inputs=torch.zeros(3, 2), labels=torch.zeros(2, dtype=torch.int64), class_names=("a",))


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
