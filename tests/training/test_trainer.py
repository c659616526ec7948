from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest

from memlab.device import KeptMemory
from memlab.training.trainer import RaiseMallocThresholds, make_trainer
from tests.conftest import REPOSITORY

WORDS: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "num_nodes": 1,
    "strategy": "auto",
    "precision": "32-true",
    "max_epochs": 1,
    "max_steps": None,
    "max_time": None,
    "limit_train_batches": 1.0,
    "limit_val_batches": 1.0,
    "limit_test_batches": 1.0,
    "val_check_interval": 1.0,
    "check_val_every_n_epoch": 1,
    "default_steps": 2000,
    "default_epochs": None,
    "log_every_n_steps": 10,
    "num_sanity_val_steps": 0,
    "batches": {"train": 20, "val": 2, "test": 4},
    "accumulate_grad_batches": 1,
    "gradient_clip_val": None,
    "on_nonfinite": "stop",
    "max_skipped_in_a_row": 10,
    "raise_malloc_thresholds": True,
    "logger": False,
    "enable_checkpointing": False,
}

LIMIT = "must be a whole number of at least 1 or a share above 0 up to 1; a run needs a step, a validation and a test"

MEASURE = """
import resource, torch
from memlab.device import raise_malloc_thresholds
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16, 2**20).exp_()  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
def counted():
    [faults() for _ in range(12)]  # let the heap grow to its size
    return sum(faults() for _ in range(5))
print(counted(), raise_malloc_thresholds(), counted())
"""


def test_raised_thresholds_keep_pages_from_step_to_step() -> None:
    """Counted, not timed: page faults of the same allocations before and after, in a process of its own."""
    if not sys.platform.startswith("linux"):
        pytest.skip("needs Linux")
    run = subprocess.run([sys.executable, "-c", MEASURE], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    before, raised, after = run.stdout.split()
    if raised == "False":
        pytest.skip("no glibc")
    assert int(after) < int(before) / 10


@pytest.mark.parametrize(
    "needed", [[100] * 300, [100, 900, 100, 400] * 80, list(range(100, 900, 3))], ids=["even", "uneven", "growing"]
)
def test_kept_memory_follows_what_steps_need(needed: list[int]) -> None:
    """Of a heap, in MiB, that keeps all it ever had and a little more at each step."""
    in_use, leak, kept = 300, 15, 0
    held: list[int] = []

    def give_back() -> None:
        nonlocal kept
        kept = 0

    memory = KeptMemory(held=lambda: (in_use + kept) * 2**20, give_back=give_back)
    for need in needed:
        kept = max(kept, need) + leak
        held.append(in_use + kept)
        memory.after_step()
    needs = in_use + max(needed) + 3 * leak
    assert max(held) <= 1.2 * needs + 128 + leak
    assert memory.given_back <= len(needed) * leak / 128 + 1
    assert memory.most == max(held) * 2**20
    assert in_use + sum(needed) / len(needed) + leak * len(needed) > max(held)  # as it would be without a bound


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
        ({"max_steps": 0}, "max_steps=0: must be a whole number of at least 1"),
        ({"max_steps": -1}, "max_steps=-1: must be a whole number of at least 1"),
        ({"max_steps": 1.5}, r"max_steps=1\.5: must be a whole number of at least 1"),
        *(
            ({f"limit_{stage}_batches": limit}, f"limit_{stage}_batches={limit}: {LIMIT}")
            for stage in ("train", "val", "test")
            for limit in (0, -1, 0.0, -0.5, 1.5, True, None, "abc", math.nan)
        ),
        ({"limit_train_batches": 0.04}, r"limit_train_batches=0\.04: is less than one batch of 20; must be a larger"),
        ({"limit_val_batches": 0.4}, r"limit_val_batches=0\.4: is less than one batch of 2"),
        ({"limit_test_batches": 0.2}, r"limit_test_batches=0\.2: is less than one batch of 4"),
        ({"val_check_interval": 0}, "val_check_interval=0: must be a whole number of at least 1 or a share above 0"),
        ({"val_check_interval": 21}, "val_check_interval=21: must be at most 20, the batches of an epoch"),
        ({"val_check_interval": 11, "limit_train_batches": 0.5}, "val_check_interval=11: must be at most 10"),
        ({"val_check_interval": 6, "limit_train_batches": 5}, "val_check_interval=6: must be at most 5"),
        ({"check_val_every_n_epoch": 0}, "check_val_every_n_epoch=0: must be a whole number of at least 1, or auto"),
        ({"check_val_every_n_epoch": None}, "check_val_every_n_epoch=None: needs a whole number of batches"),
        ({"max_time": 5}, "max_time=5: must be days:hours:minutes:seconds above 0"),
        ({"max_time": "00:00:00:00"}, "max_time=00:00:00:00: must be days:hours:minutes:seconds above 0"),
        ({"log_every_n_steps": -1}, "log_every_n_steps=-1: must be a whole number of at least 0"),
        ({"num_sanity_val_steps": -2}, "num_sanity_val_steps=-2: must be a whole number of at least -1"),
        ({"fast_dev_run": True}, "fast_dev_run=True: writes no checkpoint"),
        ({"devices": 0}, "devices=0: must be a whole number of at least 1"),
        ({"num_nodes": "all"}, "num_nodes=all: must be a whole number of at least 1"),
        (
            {"devices": 2, "strategy": "fsdp_cpu_offload"},
            "strategy=fsdp_cpu_offload: must be auto or ddp; FSDP",
        ),
        ({"devices": 2, "strategy": "deepspeed"}, "strategy=deepspeed: must be one of auto, ddp"),
        ({"accumulate_grad_batches": 0}, "accumulate_grad_batches=0"),
        ({"gradient_clip_val": -1}, "gradient_clip_val=-1: must be a number above 0"),
        ({"raise_malloc_thresholds": "maybe"}, "raise_malloc_thresholds=maybe: must be true or false"),
        ({"accelerator": "abacus"}, "accelerator=abacus: must be one of auto, cpu"),
    ],
)
def test_refuses_what_cannot_be(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(**{**WORDS, **words})


@pytest.mark.parametrize(
    "words",
    [
        {"limit_train_batches": 0.05, "limit_val_batches": 0.5, "limit_test_batches": 0.25},
        {"limit_train_batches": 500, "val_check_interval": 20},
        {"val_check_interval": 21, "check_val_every_n_epoch": None},
        {"max_steps": 1, "max_time": "01:23:59:59", "log_every_n_steps": 0, "num_sanity_val_steps": -1},
        {"fast_dev_run": False},
    ],
)
def test_takes_what_can_be(words: dict[str, Any]) -> None:
    make_trainer(**{**WORDS, **words})


@pytest.mark.parametrize(
    ("words", "epochs", "every"),
    [
        ({}, 100, 5),  # 2,000 steps of 20 in an epoch
        ({"default_steps": 1}, 1, 1),
        ({"default_steps": 630}, 32, 1),
        ({"default_epochs": 30}, 30, 1),
        ({"default_epochs": 300}, 100, 5),
        ({"accumulate_grad_batches": 3}, 286, 14),  # 7 steps in an epoch
        ({"limit_train_batches": 0.5}, 200, 10),
        ({"max_epochs": 3}, 3, 1),
        ({"max_steps": 100}, -1, 1),
        ({"max_steps": 2001}, -1, 5),
        ({"check_val_every_n_epoch": 2}, 100, 2),
    ],
)
def test_without_a_limit_a_run_is_as_long_as_so_many_steps(words: dict[str, Any], epochs: int, every: int) -> None:
    trainer = make_trainer(**{**WORDS, "max_epochs": None, "check_val_every_n_epoch": "auto", **words})
    assert trainer.max_epochs == epochs
    assert trainer.check_val_every_n_epoch == every
