"""A network over stories in a folder: ``network.json``, how it is made, and ``weights.safetensors``; none is executed.

The weights are written first, and ``network.json`` names their SHA-256: a folder is there as a whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from memlab.data.stories import words
from memlab.files import in_utf8, write_bytes_whole
from memlab.questions.answered import AnsweredQuestion, answered
from memlab.questions.encoded import StoryEncoder
from memlab.questions.network import StoryNetwork
from memlab.trained.recipes import NETWORKS, Recipe, build
from memlab.trained.refusal import RefusedMemoryError

FOLDER, DESCRIPTION, WEIGHTS = "network", "network.json", "weights.safetensors"
FORMAT = 2
"""Goes up by one when what a folder holds becomes another."""
LARGEST = 2**26
"""Bytes of a description, at most."""


@dataclass(frozen=True)
class TrainedStoryNetwork:
    """Answers questions over stories.

    Args:
        network: in evaluation, in host memory.
        encoder: that it was trained with.
        about: where it comes from, to be told.
    """

    network: StoryNetwork
    encoder: StoryEncoder
    about: Mapping[str, Any]

    def answer(self, sentences: Sequence[str], question: str) -> AnsweredQuestion:
        """The answer to a question, with what was read for it.

        Args:
            sentences: of the story, the oldest first.
            question: about it.

        Raises:
            ValueError: for a story without a sentence, or a sentence or question without a word.
        """
        if not sentences:
            raise ValueError("story: has no sentence; must have one")
        for text in (*sentences, question):
            if not words(text):
                raise ValueError(f"{text!r}: has no word; must have one")
        with torch.no_grad():
            return answered(self.network, self.encoder, sentences, question)


def keep_network(
    folder: Path, network: StoryNetwork, encoder: StoryEncoder, *, recipe: Recipe, about: Mapping[str, Any]
) -> None:
    """Write a network.

    Args:
        folder: to be made.
        network: as it was tested.
        encoder: that it was trained with.
        recipe: how it is made; see `memlab.trained.recipes`.
        about: where it comes from, plain values.
    """
    weights = save({name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()})
    description = {
        "format": FORMAT,
        "network": recipe,
        "encoder": encoder.state(),
        "weights": hashlib.sha256(weights).hexdigest(),
        "about": dict(about),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes_whole(folder / WEIGHTS, weights)
    write_bytes_whole(folder / DESCRIPTION, (json.dumps(description) + "\n").encode())


def has_network(path: Path) -> bool:
    """Whether there is one in a run's folder, or in a folder of its own."""
    return any((folder / DESCRIPTION).is_file() for folder in (path, path / FOLDER))


def load_network(path: Path) -> TrainedStoryNetwork:
    """Read a network.

    Args:
        path: a run's folder, or that of the network.

    Raises:
        RefusedMemoryError: for a folder that holds none, or one that is damaged, of another version or class.
    """
    folder = path if (path / DESCRIPTION).is_file() else path / FOLDER
    name = in_utf8(folder)
    if not (folder / DESCRIPTION).is_file():
        raise RefusedMemoryError(f"{in_utf8(path)}: holds no network over stories; must be a run of task=questions")
    try:
        if (folder / DESCRIPTION).stat().st_size > LARGEST:
            raise ValueError("it is too large")
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        data = (folder / WEIGHTS).read_bytes()
        if found["format"] != FORMAT:
            raise RefusedMemoryError(f"{name}: written by another version of memlab; must be of this one")
        if hashlib.sha256(data).hexdigest() != found["weights"]:
            raise ValueError(f"{WEIGHTS} is not what was written")
        network: StoryNetwork = build(found["network"], NETWORKS, name="network")
        network.load_state_dict(load(data))
        encoder = StoryEncoder.from_state(found["encoder"])
        return TrainedStoryNetwork(network.eval(), encoder, dict(found["about"]))
    except RefusedMemoryError:
        raise
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, RecursionError, SafetensorError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise RefusedMemoryError(f"{name}: is damaged ({why}); must be as a run left it") from error
