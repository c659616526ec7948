"""``memlab encoders`` counts what each encoder of the configuration costs."""

from __future__ import annotations

import argparse
import json

import pytest

from memlab.commands.encoders import shape
from tests.conftest import Command


def test_sequences_are_counted_with_formulas(memlab: Command) -> None:
    status, out, _ = memlab("encoders", "--input", "50x32", "--hidden", "16")
    assert status == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line}
    n, m = 16, 32
    cells = 2 * 4 * (n * n + m * n + 2 * n)
    assert f"{cells + 2 * n * 64 + 64 + 64:,}" in lines["lstm"]
    assert f"{2 * 50 * 4 * (n * n + m * n) + 2 * n * 64:,}" in lines["lstm"]
    assert "4 (n^2 + m n + 2 n)" in lines["lstm"]
    assert "4 n^2 + 4 m n + 7 n" in lines["peephole"]
    assert "mlp" not in lines  # it has no hidden_size


def test_images_are_counted_and_others_named(memlab: Command) -> None:
    status, out, _ = memlab("encoders", "--input", "1x8x8", "encoder.embedding_size=8", "encoder.dropout=0", "--json")
    assert status == 0
    found = json.loads(out)
    assert {"conv", "lenet", "mlp"} <= found.keys()
    assert found["linear"] == {"parameters": 64 * 8 + 8, "multiplications": 64 * 8, "cell": None, "step": None}
    assert "lstm" not in found


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--input", "50x32", "encoder.vrnt=cudnn"], "encoder.vrnt=cudnn: no encoder has such parameters"),
        (["--input", "50x32", "--hidden", "0"], "hidden_size=0: must be a whole number of at least 1"),
        (["--input", "50x32", "data=mnist"], "data=mnist: must be encoder.PARAMETER=VALUE"),
        (["--input", "50", "encoder.pooling=max"], "input_shape=(50,): must be (steps, numbers of a step)"),
    ],
)
def test_mistakes_are_told_in_a_line(words: list[str], line: str, memlab: Command) -> None:
    status, _, err = memlab("encoders", *words)
    assert status == 1
    assert line in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("given", ["50by32", "", "5x0", "5x"])
def test_a_shape_is_sizes_with_x_between(given: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be sizes with x between, as 50x32"):
        shape(given)
