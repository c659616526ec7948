"""Numbers and switches are taken whether Python's or numpy's, and come back as Python's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from memlab.checks import check_number, check_switch, check_whole_number
from memlab.data.support import UniformSupport


@pytest.mark.parametrize("value", [5, np.int64(5), np.int32(5), np.uint8(5)])
def test_whole_numbers(value: int) -> None:
    found = check_whole_number("k", value)
    assert found == 5
    assert type(found) is int


@pytest.mark.parametrize("value", [0.5, np.float64(0.5), np.float32(0.5), np.float16(0.5)])
def test_numbers(value: float) -> None:
    found = check_number("scale", value, above=0)
    assert found == 0.5
    assert type(found) is float
    assert type(check_number("scale", np.int64(2))) is float


@pytest.mark.parametrize("value", [True, False, np.True_, np.False_])
def test_switches(value: bool) -> None:
    found = check_switch("flip", value)
    assert found == value
    assert type(found) is bool


@pytest.mark.parametrize("value", [np.True_, np.float64(5), np.int64(0), np.array([5]), "5", None])
def test_what_is_no_whole_number_above_0(value: object) -> None:
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        check_whole_number("k", value)


@pytest.mark.parametrize("value", [np.True_, np.float32("nan"), np.float32("inf"), np.array([0.5]), 1j, "0.5", None])
def test_what_is_no_number_above_0(value: object) -> None:
    with pytest.raises(ValueError, match="must be a number above 0"):
        check_number("scale", value, above=0)


@pytest.mark.parametrize("value", [0, 1, np.int64(1), "true", None])
def test_what_is_no_switch(value: object) -> None:
    with pytest.raises(ValueError, match="must be true or false"):
        check_switch("flip", value)


def test_a_support_takes_shares_and_sizes_of_numpy() -> None:
    sizes: list[tuple[Any, int]] = [(np.float32(0.5), 5), (np.int64(3), 3)]
    for size, count in sizes:
        assert UniformSupport(size=size).count(train_size=10, batch_size=1) == count
