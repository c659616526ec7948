"""A map of a memory: its keys in the plane of their two leading principal components."""

from __future__ import annotations

from typing import Any

import torch

from memlab.trained.answer import View

SEED = 0


@torch.no_grad()
def plane(view: View, limit: int) -> dict[str, Any]:
    """Stored objects in the plane: ``x_i = (M_i - mean M) v`` for the leading eigenvectors v of the keys' covariance.

    Each axis is turned so that its largest component is positive: the same memory has the same map.

    Args:
        view: the memory.
        limit: objects shown; of more a sample, which is the same for the same memory.

    Returns:
        ``points`` with id, label, x and y, by id; ``shown`` and ``total``.
    """
    content = view.content
    keys = content.keys.double()
    centre = keys.mean(0)
    covariance = (keys - centre).mT @ (keys - centre) / len(keys)
    axes = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :2]
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    axes = axes * largest.sign()
    chosen = torch.arange(len(keys))
    if len(keys) > limit:
        chosen = torch.randperm(len(keys), generator=torch.Generator().manual_seed(SEED))[:limit]
    chosen = chosen[content.ids.cpu()[chosen].argsort()].to(keys.device)
    places = ((keys[chosen] - centre) @ axes).tolist()
    named = zip(content.ids[chosen].tolist(), content.labels[chosen].tolist(), places, strict=True)
    points = [
        {"id": identity, "label": content.classes[label], "x": place[0], "y": place[1] if len(place) > 1 else 0.0}
        for identity, label, place in named
    ]
    return {"method": "pca", "points": points, "shown": len(points), "total": len(keys), "digest": view.digest}
