"""Keys of a support that are kept while the activations they are made with are not.

Each chunk is encoded twice, once without graph and once to send the gradient of its keys through, as gradient caching
does for contrastive losses (Gao et al. 2021). What is done with the keys between is left to autograd.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from memlab.memory.batch_norm import running_statistics_restored
from memlab.memory.replay import AutocastState, RandomState
from memlab.memory.scored_support import ScoredSupport
from memlab.memory.two_pass import added


def kept_keys(scored: ScoredSupport, *, parts: Sequence[slice], kept: int) -> Tensor:
    """(M, D) keys of a support, differentiable in the parameters of the encoder.

    They and their gradient are all that is held of size M D. Both times an object is encoded it meets the same random
    numbers and the same autocast; running statistics change the first time alone.

    Args:
        scored: the support.
        parts: disjoint slices that make it up, in order.
        kept: how many of the last parts keep their graph and are not encoded twice.
    """
    parameters = [parameter for parameter in scored.encoder.parameters() if parameter.requires_grad]
    keys: Tensor = _KeptKeys.apply(scored, parts, kept, *parameters)
    return keys


class _KeptKeys(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scored: ScoredSupport, parts: Sequence[slice], kept: int, *parameters: Tensor) -> Tensor:
        device = scored.support.ids.device
        ctx.scored, ctx.parts = scored, parts
        ctx.random_state, ctx.autocast = RandomState(device), AutocastState(device)
        first_kept = len(parts) - kept
        ctx.encoded_again, ctx.kept = parts[:first_kept], []
        keys: Tensor | None = None
        for number, part in enumerate(parts):
            with torch.set_grad_enabled(number >= first_kept), ctx.autocast.again():
                made = scored.keys(part)
            if number >= first_kept:
                ctx.kept.append((part, made))
            if keys is None:
                keys = made.new_empty(len(scored.support), *made.shape[1:])
            keys[part] = made.detach()
            del made
        assert keys is not None, "a support has at least one object"
        ctx.save_for_backward(*parameters)
        return keys

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        parameters = ctx.saved_tensors
        totals: list[Tensor | None] = [None] * len(parameters)
        for part, keys in _KeptKeys.graphs(ctx):
            if keys.requires_grad:
                found = torch.autograd.grad(keys, parameters, gradient[part], allow_unused=True)
                totals = [added(total, more) for total, more in zip(totals, found, strict=True)]
                del found
            del keys
        return None, None, None, *totals

    @staticmethod
    def graphs(ctx: Any) -> Iterator[tuple[slice, Tensor]]:
        """One part after the other with its keys, with graph: kept, or encoded again.

        A kept graph serves once; a second backward encodes all parts again.
        """
        parts = ctx.encoded_again
        if ctx.kept:
            ctx.encoded_again = ctx.parts
        while ctx.kept:
            yield ctx.kept.pop(0)
        with ctx.random_state.again(), running_statistics_restored(ctx.scored.encoder):
            for part in parts:
                with torch.enable_grad(), ctx.autocast.again():
                    keys = ctx.scored.keys(part)
                yield part, keys
                del keys
