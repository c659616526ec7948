"""What is read with an encoder in training: at once and in chunks it must be the same, dropout on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from memlab import draws
from memlab.data.support import Support
from memlab.functional import nll
from memlab.memory import ChunkedMemory, Euclidean, FullMemory, Memory


def check_that_chunks_change_nothing(encoder: nn.Module, objects: Support, *, chunk_size: int = 4) -> None:
    """Loss and gradients are those of the support read at once, and not those without dropout.

    Args:
        encoder: in training mode, with dropout.
        objects: of three classes; some of them are the queries.
        chunk_size: of the support.
    """
    ids = torch.tensor([1, 2, 4])
    queries, targets, found = objects.store.take(ids, dtype=torch.float64), torch.arange(3), []
    similarity = Euclidean(scale=1.0)
    memories: list[Memory] = [
        FullMemory(similarity=similarity),
        ChunkedMemory(similarity=similarity, chunk_size=chunk_size),
    ]
    for memory in memories:
        draws.begin_step(7)
        with draws.of_objects(ids, purpose=draws.ENCODED_QUERIES):
            query: Tensor = encoder(queries)
        loss = nll(memory(encoder, query, objects), targets).sum()
        found.append([loss, *torch.autograd.grad(loss, list(encoder.parameters()))])
    for full, chunked in zip(*found, strict=True):
        torch.testing.assert_close(chunked, full, rtol=1e-10, atol=1e-12)
    encoder.eval()
    assert not torch.allclose(found[0][0], nll(memories[0](encoder, encoder(queries), objects), targets).sum())
