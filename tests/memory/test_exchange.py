"""What processes tell one another, in real processes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn

from memlab.memory.exchange import Processes
from memlab.training.processes import DriftError, check_alike, was_lost
from tests.processes import FORKS, status_of

WORLD = 3


def in_processes(work: Callable[[int], Any], folder: Path) -> list[Any]:
    """What a function gives in each of some processes, by rank."""
    processes = [FORKS.Process(target=_work, args=(work, rank, folder)) for rank in range(WORLD)]
    for process in processes:
        process.start()
    assert [*map(status_of, processes)] == [0] * WORLD
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


def _work(work: Callable[[int], Any], rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=WORLD)
    torch.save(work(rank), folder / f"{rank}.pt")
    distributed.destroy_process_group()


def gradients(rank: int) -> list[Tensor | None]:
    """Of parameters that all, one and none of the processes have a gradient for, of two types."""
    parameters = [
        nn.Parameter(torch.zeros(2, 3, dtype=dtype)) for dtype in (torch.float32, torch.float64) for _ in "123"
    ]
    for number, parameter in enumerate(parameters):
        if number % 3 == 0 or (number % 3 == 1 and rank == 1):
            parameter.grad = torch.full((2, 3), float(10**rank), dtype=parameter.dtype)
    Processes.of().add_up(parameters)
    return [parameter.grad for parameter in parameters]


def test_gradients_are_added_up_and_none_is_made_where_there_is_none(tmp_path: Path) -> None:
    for found in in_processes(gradients, tmp_path):
        assert [None if each is None else each.unique().tolist() for each in found] == 2 * [[111.0], [10.0], None]
        assert [each.dtype for each in found if each is not None] == 2 * [torch.float32] + 2 * [torch.float64]


def drifts(rank: int) -> list[bool]:
    """Whether it is seen that weights differ: not at all, in one bit of one process, and in their order alone."""
    trainer: Any = SimpleNamespace(world_size=WORLD, strategy=SimpleNamespace(root_device=torch.device("cpu")))
    found = []
    for case in ("alike", "a bit", "order"):
        module = nn.Linear(1, 40)
        nn.init.constant_(module.bias, 0)
        with torch.no_grad():
            module.weight[:, 0] = torch.arange(40) / 7
            if case == "a bit" and rank == 2:
                module.weight[17] = torch.nextafter(module.weight[17], torch.tensor(9.0))
            if case == "order" and rank == 1:
                module.weight[:2] = module.weight[:2].flip(0)
        try:
            check_alike(trainer, module)
            found.append(False)
        except DriftError:
            found.append(True)
    return found


def test_weights_that_drift_apart_are_seen_in_all_processes(tmp_path: Path) -> None:
    assert in_processes(drifts, tmp_path) == [[False, True, True]] * WORLD


def best(rank: int) -> tuple[Tensor, Tensor]:
    near = torch.tensor([[[3.0, 1.0], [2.0, 2.0]], [[3.0, 2.5], [2.0, 2.0]], [[0.0, -torch.inf], [5.0, 2.0]]])
    numbers = torch.tensor([[[7, 4], [9, 8]], [[2, 5], [3, 1]], [[6, 0], [11, 10]]])
    return Processes.of().best(near[rank], numbers[rank], 3)


def test_the_best_of_all_are_found_with_ties_by_number(tmp_path: Path) -> None:
    for near, numbers in in_processes(best, tmp_path):
        assert near.tolist() == [[3.0, 3.0, 2.5], [5.0, 2.0, 2.0]]
        assert numbers.tolist() == [[2, 7, 5], [11, 1, 3]]


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:56996"), True),
        (distributed.DistBackendError("NCCL communicator was aborted"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("gloo"), False),
    ],
)
def test_what_says_that_a_process_is_gone(error: Exception, lost: bool) -> None:
    assert was_lost(error) == lost
