"""A training step that runs out of memory is computed again in smaller parts: nobody need know beforehand what fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from memlab.memory.replay import AutocastState, RandomState

T = TypeVar("T")


class OutOfMemoryError(RuntimeError):
    """Memory has run out, and nothing can be made smaller."""


class Step(NamedTuple):
    """What a training step computes."""

    loss: Tensor
    """A scalar with graph."""
    right: Tensor
    """(B,) which queries are answered right."""
    absent: Tensor
    """(B,) of which queries the support had no object of their class."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that an allocation failed, on a GPU or in host memory."""
    return (
        isinstance(error, torch.OutOfMemoryError | MemoryError)
        or "can't allocate memory" in str(error)  # torch's allocator of host memory, which raises a RuntimeError
        or "CUBLAS_STATUS_ALLOC_FAILED" in str(error)
    )


def until_it_fits(
    compute: Callable[[], Step], *, shrink: Callable[[], None], parameters: Sequence[Tensor], device: torch.device
) -> Step:
    """Compute a step; when memory runs out, in the forward or later in the backward, shrink and compute it again.

    To autograd the step is one function of the parameters: what the loss is multiplied with afterwards (a loss scale, a
    share of accumulated steps) reaches a step computed again too, and ``.grad`` is as before until one has succeeded.

    Args:
        compute: the step; every attempt starts from the same random state, under the same autocast.
        shrink: makes the next attempt smaller, or raises `OutOfMemoryError`.
        parameters: what gradients are wanted for.
        device: where the step is computed.

    Raises:
        OutOfMemoryError: when memory has run out, and nothing can be made smaller.
    """
    return Step(*_Attempts.apply(compute, shrink, device, *parameters))


class _Attempts(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, compute: Callable[[], Step], shrink: Callable[[], None], device: torch.device, *parameters: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        random_state, autocast = RandomState(device), AutocastState(device)

        def attempt() -> Step:
            random_state.restore()
            with torch.enable_grad(), autocast.again():
                return compute()

        step = _first_that_fits(attempt, shrink, device)
        ctx.loss, ctx.attempt, ctx.shrink, ctx.random_state = step.loss, attempt, shrink, random_state
        ctx.save_for_backward(*parameters)
        ctx.mark_non_differentiable(step.right, step.absent)
        return step.loss.detach(), step.right, step.absent

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        parameters = ctx.saved_tensors
        loss, ctx.loss = [ctx.loss], None  # in a list to be popped: an attempt that failed must hold no memory

        def attempt() -> list[Tensor | None]:
            step_loss = loss.pop() if loss else ctx.attempt().loss
            return list(torch.autograd.grad(step_loss, parameters, gradient, allow_unused=True))

        with ctx.random_state.again():
            return None, None, None, *_first_that_fits(attempt, ctx.shrink, gradient.device)


def _first_that_fits(attempt: Callable[[], T], shrink: Callable[[], None], device: torch.device) -> T:
    while True:
        try:
            return attempt()
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
                raise
        # Only now that the exception is gone, and with it the frames that hold what was computed.
        if device.type == "cuda":
            torch.cuda.empty_cache()
        shrink()
