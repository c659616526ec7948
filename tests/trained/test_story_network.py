"""A network over stories in a folder answers as it did; a folder that is not as it was left is told in a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from memlab.data.stories import Question, Story
from memlab.questions import ItemNetwork, LSTMReader, MemN2N, MemNN, StoryEncoder, StoryNetwork
from memlab.trained.recipes import recipe_of
from memlab.trained.refusal import RefusedMemoryError
from memlab.trained.story_network import DESCRIPTION, WEIGHTS, keep_network, load_network
from tests.conftest import Command

TOLD = ("Mary took the apple.", "John went home.", "Mary went to the hall.")
STORIES = [
    Story(TOLD, (Question("Where is Mary?", "hall", 3, (2,)), Question("Where is the apple?", "hall", 3, (0, 2)))),
    Story(("John went to the garden.",), (Question("Where is John?", "garden", 1, (0,)),)),
]
KINDS: dict[type[StoryNetwork], dict[str, Any]] = {
    MemN2N: {
        "most_cells": 5,
        "size": 6,
        "hops": 2,
        "tying": "layerwise",
        "encoding": "centred",
        "longest": 6,
        "filled_up": True,
        "random_noise": 0.1,
        "linear_start": 0.5,
    },
    ItemNetwork: {"longest": 6, "size": 6, "hidden": 5, "entity_size": 7, "relation_size": 4},
    MemNN: {
        "longest": 6,
        "size": 6,
        "hops": 2,
        "ngrams": 2,
        "matches": True,
        "nonlinear": True,
        "margin": 1.0,
        "negatives": 2,
    },
    LSTMReader: {"size": 6, "hidden": 5},
}
SIZES = {MemN2N: ("words", "answer_words"), MemNN: ("words", "answer_words")}


def kept(folder: Path, kind: type[StoryNetwork] = MemN2N) -> tuple[StoryNetwork, StoryEncoder]:
    """A network in a folder, and as it is."""
    encoder = StoryEncoder.of(STORIES, most_cells=None)
    known = {"words": len(encoder.vocabulary), "answers": len(encoder.answers), "answer_words": encoder.answer_words}
    arguments = {**{name: known[name] for name in SIZES.get(kind, ("words", "answers"))}, **KINDS[kind]}
    torch.manual_seed(0)
    network = kind(**arguments)
    network.at_progress(0.5)  # which ends a linear start
    recipe = recipe_of(f"{kind.__module__}.{kind.__name__}", arguments)
    keep_network(folder / "network", network.eval(), encoder, recipe=recipe, about={"data": "made"})
    return network, encoder


@pytest.mark.parametrize("kind", KINDS)
def test_answers_as_it_did(kind: type[StoryNetwork], tmp_path: Path) -> None:
    network, encoder = kept(tmp_path, kind)
    loaded = load_network(tmp_path)
    batch = encoder.batch(STORIES[:1])
    with torch.no_grad():
        read = network.read(batch)
    for number, question in enumerate(("Where is Mary?", "Where is the apple?")):
        answer = loaded.answer(TOLD, question)
        assert answer.answer == encoder.answers[int(read.scores[number].argmax())]
        assert answer.probability == pytest.approx(float(read.scores[number].softmax(0).max()), abs=1e-6)
        assert answer.sentences == TOLD
        assert len(answer.weights) == len(read.weights)
        for found, weights in zip(answer.weights, read.weights, strict=True):
            assert found == pytest.approx(weights[batch.asker == number].tolist(), abs=1e-6)
    assert loaded.about == {"data": "made"}


def test_words_never_seen_are_told(tmp_path: Path) -> None:
    kept(tmp_path)
    loaded = load_network(tmp_path)
    assert loaded.answer(["Zorro met Mary."], "Where is Zorro's hat?").unknown == ("zorro's", "hat", "zorro", "met")
    for sentences, question in [([], "Where?"), (["..."], "Where?"), (["Mary."], "?")]:
        with pytest.raises(ValueError, match="must have one"):
            loaded.answer(sentences, question)


def without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def with_value(**values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        found = json.loads((folder / DESCRIPTION).read_text())
        (folder / DESCRIPTION).write_text(json.dumps({**found, **values}))

    return change


def written(name: str, data: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return change


DAMAGES = {
    "no description": without(DESCRIPTION),
    "no weights": without(WEIGHTS),
    "other weights": written(WEIGHTS, b"nothing"),
    "no JSON": written(DESCRIPTION, b"{"),
    "no text": written(DESCRIPTION, b"\xff\xfe\x00"),
    "a list": written(DESCRIPTION, b"[]"),
    "deep": written(DESCRIPTION, b"[" * 100_000),
    "another version": with_value(format=99),
    "code": with_value(network={"class": "os.system", "arguments": {"command": "true"}}),
    "a class of torch": with_value(network={"class": "torch.nn.Linear", "arguments": {}}),
    "other sizes": with_value(network={"class": "memlab.questions.LSTMReader", "arguments": {"words": 3}}),
    "no encoder": with_value(encoder=None),
    "about nothing": with_value(about=7),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_refused_in_one_line(damage: str, tmp_path: Path, memlab: Command) -> None:
    kept(tmp_path / "run")
    DAMAGES[damage](tmp_path / "run" / "network")
    with pytest.raises(RefusedMemoryError) as caught:
        load_network(tmp_path / "run")
    assert "\n" not in str(caught.value)
    (tmp_path / "story.txt").write_text("Mary took the apple.\n")
    status, _, err = memlab("predict", tmp_path / "run", "--story", tmp_path / "story.txt", "--question", "Where?")
    assert status == 1
    assert err.count("\n") == 1
    assert err.startswith("error: ")


def test_questions_over_a_story(tmp_path: Path, memlab: Command) -> None:
    kept(tmp_path / "run")
    (tmp_path / "story.txt").write_text("1 Mary took the apple.\n2 Mary went to the hall.\n")
    asked = ("predict", tmp_path / "run", "--story", tmp_path / "story.txt", "--question", "Where is Mary?")
    status, out, err = memlab(*asked, "--question", "Where is Zorro?")
    assert status == 0
    assert out.splitlines()[0].startswith("Where is Mary? ")
    assert "1 Mary took the apple." in out
    last = out.split("\n\n")[0].splitlines()[-1]
    assert last.endswith("  nothing")
    assert err == "warning: zorro: is a word that training has not seen; read as any such word\n"
    _, out, _ = memlab(*asked, "--json")
    (answer,) = json.loads(out)
    for hop in answer["weights"]:
        assert 0 < sum(hop) < 1  # the rest is what empty cells weigh
    assert all(f"{1 - sum(hop):6.1%}" in last for hop in answer["weights"])
    for words in (asked[:4], asked[:2], (*asked, tmp_path / "picture.png"), (*asked, "--k", "3")):
        status, _, err = memlab(*words)
        assert (status, err.count("\n")) == (1, 1), err
    (tmp_path / "story.txt").write_text("1 Where is Mary?\thall\t1\n")
    assert memlab(*asked)[0] == 1
