"""Hops of a trained memory: their values are of classes by name, as its classes come and go."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from memlab.memory import Hops
from memlab.trained.refusal import RefusedMemoryError


@dataclass(frozen=True)
class NamedHops:
    """Hops, and the names of the classes that they were trained with.

    What an object adds follows from its key and its label, so that to add it, to give it another label and to take it
    out is as exact as without hops. Of a class that was not trained the part of the label, ``E[y]``, is 0.

    Args:
        hops: as they were trained; the class is read after the last.
        settings: what they were made with, plain values.
        classes: (C,) names, in the order of ``hops.class_values``.
    """

    hops: Hops
    settings: Mapping[str, Any]
    classes: tuple[str, ...]

    def of(self, classes: Sequence[str]) -> Hops:
        """Those of other classes, in their order."""
        made, rows = copy.deepcopy(self.hops), self.hops.class_values.detach()
        number = {name: row for row, name in zip(rows, self.classes, strict=True)}
        own = [number.get(name, torch.zeros_like(rows[0])) for name in classes]
        made.class_values = nn.Parameter(torch.stack(own), requires_grad=False)
        return made

    def described(self) -> dict[str, Any]:
        """Settings and names, as plain JSON."""
        return {**self.settings, "classes": list(self.classes)}

    @classmethod
    def read(cls, described: object, shapes: Mapping[str, tuple[int, ...]]) -> NamedHops:
        """Hops for tensors of these shapes; those that ask for others take no memory before they are refused.

        Args:
            described: as `described` gave it.
            shapes: of the tensors that there are.

        Raises:
            RefusedMemoryError: for what does not fit, or is described in no known way.
        """
        try:
            settings = dict(described)  # type: ignore[call-overload]
            classes = tuple(map(str, settings.pop("classes")))
            hops = Hops(**settings)
            sizes = {"embedding_size": shapes["class_values"][1], "num_classes": len(classes)}
        except (TypeError, ValueError, LookupError) as error:
            raise RefusedMemoryError(f"hops: are described in no known way ({error})") from error
        with torch.device("meta"):
            hops.prepare(**sizes)
        ours = {name: tuple(tensor.shape) for name, tensor in hops.state_dict().items()}
        if hops.answers_by_layer or ours != dict(shapes) or not classes:
            raise RefusedMemoryError(f"hops: have tensors of {dict(shapes)}, and these settings {ours}")
        with torch.random.fork_rng(devices=[]):
            hops.prepare(**sizes)
        return cls(hops, settings, classes)
