"""Stored objects as they are listed."""

from __future__ import annotations

from typing import Any

import torch
from starlette.exceptions import HTTPException

from memlab.trained.answer import View


def example(view: View, identity: int) -> dict[str, Any]:
    """A stored object.

    Raises:
        HTTPException: if there is none with this id.
    """
    if not view.reads_objects or identity not in view.content.sources:
        raise HTTPException(404, f"id={identity}: there is no such object in the memory")
    (label,) = view.content.label_names(torch.tensor([identity]))
    return {"id": identity, "label": label, "source": view.content.sources[identity]}


def examples(view: View, label: str | None, source: str | None, after: int, limit: int) -> dict[str, Any]:
    """Some of the stored objects, by id.

    Args:
        view: the memory.
        label: only those of this class.
        source: only those whose source has this text in it.
        after: only those with a larger id.
        limit: how many at most.
    """
    content = view.content
    ids = content.ids if view.reads_objects else content.ids[:0]
    if label is not None:
        ids = ids[content.labels == content.classes.index(label)] if label in content.classes else ids[:0]
    fitting = ids.sort().values.tolist()
    if source is not None:
        fitting = [identity for identity in fitting if source in content.sources[identity]]
    rest = [identity for identity in fitting if identity > after]
    shown = rest[:limit]
    names = content.label_names(torch.tensor(shown, dtype=torch.int64))
    return {
        "total": len(fitting),
        "examples": [
            {"id": identity, "label": name, "source": content.sources[identity]}
            for identity, name in zip(shown, names, strict=True)
        ],
        "next": shown[-1] if len(rest) > limit else None,
    }
