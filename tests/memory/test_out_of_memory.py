"""A step that runs out of memory, in the forward or in the backward, in a made-up way and for real."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from memlab import functional
from memlab.memory import ChunkedMemory, FullMemory, Memory
from memlab.memory.out_of_memory import OutOfMemoryError, Step, is_out_of_memory, until_it_fits
from memlab.memory.similarity import Dot
from tests.conftest import REPOSITORY, random_support

C, M, B = 4, 24, 5
CPU = torch.device("cpu")


class _Limit(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, largest: int, when: str) -> Tensor:
        ctx.largest, ctx.when = largest, when
        if when == "forward" and len(x) > largest:
            raise torch.OutOfMemoryError("no room")
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        if ctx.when == "backward" and len(gradient) > ctx.largest:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")
        return gradient, None, None


class Limited(nn.Module):
    """Has room for so many objects at a time."""

    def __init__(self, largest: int, when: str) -> None:
        super().__init__()
        self.largest, self.when = largest, when

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = _Limit.apply(x, self.largest, self.when)
        return result


def encoder(largest: int = M, when: str = "forward", dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Dropout(dropout), Limited(largest, when), nn.Linear(8, 3)).double()


def step(net: nn.Module, memory: Memory) -> Step:
    """One step at fixed random numbers."""
    support = random_support(M, num_classes=C)
    queries = torch.randn(B, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def compute() -> Step:
        own = memory.read_own(net, net(queries), support, torch.arange(B) % C)
        return Step(functional.own_nll(own, num_classes=C).mean(), own.right, own.log_mass.isneginf())

    torch.manual_seed(7)
    return until_it_fits(compute, shrink=memory.shrink, parameters=list(net.parameters()), device=CPU)


def gradients(net: nn.Module) -> list[Tensor]:
    found = []
    for parameter in net.parameters():
        assert parameter.grad is not None
        found.append(parameter.grad)
    return found


@pytest.mark.parametrize("when", ["forward", "backward"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("budget", [0, 2**30])
def test_chunk_is_halved_until_it_fits_and_the_step_is_that_of_the_smaller_chunk(
    when: str, dropout: float, budget: float, caplog: pytest.LogCaptureFixture
) -> None:
    """With dropout the draws depend on the chunk; the gradient must be one of a single draw, whole."""
    memory = ChunkedMemory(similarity=Dot(), chunk_size=M, activation_budget=budget)
    net, wanted = encoder(6, when, dropout), encoder(dropout=dropout)
    with caplog.at_level(logging.WARNING):
        (3.0 * step(net, memory).loss).backward()
    assert memory.chunk_size == 6
    (3.0 * step(wanted, ChunkedMemory(similarity=Dot(), chunk_size=6)).loss).backward()
    torch.testing.assert_close(gradients(net), gradients(wanted), rtol=1e-12, atol=1e-14)
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        f"out of memory in a step with chunks of {chunk} objects" for chunk in (24, 12)
    ]


@pytest.mark.parametrize("when", ["forward", "backward"])
def test_steps_accumulated_before_are_kept(when: str) -> None:
    memory, net, wanted = ChunkedMemory(similarity=Dot(), chunk_size=M), encoder(6, when), encoder()
    for each in (net, wanted):
        for parameter in each.parameters():
            parameter.grad = torch.ones_like(parameter)
    step(net, memory).loss.backward()
    step(wanted, FullMemory(similarity=Dot())).loss.backward()
    torch.testing.assert_close(gradients(net), gradients(wanted), rtol=1e-12, atol=1e-14)


def test_without_trouble_it_is_the_step_itself_times_what_the_loss_is_multiplied_with() -> None:
    net, memory = encoder(), FullMemory(similarity=Dot())
    found = step(net, memory)
    (2.0 * found.loss).backward()
    support = random_support(M, num_classes=C)
    queries = torch.randn(B, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    own = memory.read_own(net, net(queries), support, torch.arange(B) % C)
    loss = functional.own_nll(own, num_classes=C).mean()
    expected = torch.autograd.grad(2.0 * loss, list(net.parameters()))
    assert torch.equal(found.loss, loss)
    assert torch.equal(found.right, own.right)
    assert torch.equal(found.absent, own.log_mass.isneginf())
    assert all(torch.equal(a, b) for a, b in zip(gradients(net), expected, strict=True))


@pytest.mark.parametrize("when", ["forward", "backward"])
@pytest.mark.parametrize(
    ("memory", "advice"),
    [
        (lambda: FullMemory(similarity=Dot()), "chunked gives the same at the memory of one chunk"),
        (lambda: ChunkedMemory(similarity=Dot(), chunk_size=4), "needs a smaller batch"),
    ],
)
def test_when_nothing_can_be_made_smaller_it_says_what_to_do(
    when: str, memory: Callable[[], Memory], advice: str
) -> None:
    with pytest.raises(OutOfMemoryError, match=advice):
        step(encoder(0, when), memory()).loss.backward()


def test_other_errors_pass() -> None:
    memory = ChunkedMemory(similarity=Dot(), chunk_size=M)
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        step(nn.Linear(5, 3).double(), memory)
    assert memory.chunk_size == M


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), True),
        (MemoryError("std::bad_alloc"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("x"), False),
    ],
)
def test_is_out_of_memory(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


PROGRAM = """
import resource
from pathlib import Path

import torch

from memlab.memory import ChunkedMemory, FullMemory, Memory
from memlab.memory.similarity import Dot
from tests.memory import test_out_of_memory as here

torch.set_num_threads(1)
here.M = 1000
net = torch.nn.Sequential(torch.nn.Linear(6, 10_000), torch.nn.Tanh(), torch.nn.Linear(10_000, 3)).double()


def gradients(memory):
    here.step(net, memory).loss.backward()
    found = [parameter.grad for parameter in net.parameters()]
    net.zero_grad()
    return found


expected = gradients(FullMemory(similarity=Dot()))
in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (in_use + 200 * 2**20, resource.RLIM_INFINITY))
memory = ChunkedMemory(similarity=Dot(), chunk_size=1000)
torch.testing.assert_close(gradients(memory), expected, rtol=1e-9, atol=1e-12)
print(memory.chunk_size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space, as Linux allows")
def test_a_process_that_really_has_no_more_memory_goes_on() -> None:
    """Two activations of 80 MB and their gradient for a chunk of 1,000, in 200 MB."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert 1 < int(done.stdout) < 1000
