from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from memlab.allocator import RaiseMallocThresholds
from memlab.trainer import make_trainer
from tests.conftest import REPOSITORY

WORDS: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "precision": "32-true",
    "max_epochs": 1,
    "accumulate_grad_batches": 1,
    "gradient_clip_val": None,
    "raise_malloc_thresholds": True,
    "logger": False,
    "enable_checkpointing": False,
}

MEASURE = """
import resource, sys, torch
from memlab.allocator import raise_malloc_thresholds
if sys.argv[1] == "raised" and not raise_malloc_thresholds():
    sys.exit(77)
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16, 2**20).exp_()  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
[faults() for _ in range(3)]  # let the heap grow to its size
print(sum(faults() for _ in range(5)))
"""


def test_raised_thresholds_keep_pages_from_step_to_step() -> None:
    """Counted, not timed: page faults of the same five allocations in two fresh processes."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Linux")
    counts = {}
    for mode in ("default", "raised"):
        run = subprocess.run([sys.executable, "-c", MEASURE, mode], cwd=REPOSITORY, capture_output=True, text=True)
        if run.returncode == 77:
            pytest.skip("no glibc")
        counts[mode] = int(run.stdout)
    assert counts["raised"] < counts["default"] / 10


def test_the_cpu_trainer_raises_them_unless_told_not_to() -> None:
    def raises(**words: Any) -> bool:
        callbacks = make_trainer(**{**WORDS, **words}).callbacks  # type: ignore[attr-defined]
        return any(isinstance(callback, RaiseMallocThresholds) for callback in callbacks)

    assert raises()
    assert not raises(raise_malloc_thresholds=False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"max_epochs": 0}, "max_epochs=0: must be a whole number of at least 1"),
        ({"devices": 2}, "devices=2: must be 1"),
        ({"accumulate_grad_batches": 0}, "accumulate_grad_batches=0"),
        ({"gradient_clip_val": -1}, "gradient_clip_val=-1: must be a number above 0"),
        ({"raise_malloc_thresholds": "maybe"}, "raise_malloc_thresholds=maybe: must be true or false"),
        ({"accelerator": "abacus"}, "accelerator=abacus: must be one of auto, cpu"),
    ],
)
def test_refuses_what_cannot_be(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(**{**WORDS, **words})
