"""Parts of one's own: one line, before anything is written, for those that cannot work; those that can are trained."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import SMOKE, Outcome

OWN = """
import torch
from torch import nn
from memlab.data.datasets import LabelledData, digits
from memlab.memory import FullMemory


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.LazyLinear(8)

    def forward(self, x):
        return self.layer(x.flatten(1))


class Shaped(Plain):
    def __init__(self, input_shape, hidden=8):
        super().__init__()
        self.layer = nn.Linear(input_shape[1] * input_shape[2], hidden)


class Named(Plain):
    def __init__(self, vectors):
        super().__init__()
        assert vectors == 3


class Pictures(Plain):
    def forward(self, x):
        return super().forward(x)[:, None].expand(-1, 2, -1)


class One(Plain):
    def forward(self, x):
        return super().forward(x)[0]


class Pair(Plain):
    def forward(self, x):
        return super().forward(x), x


class Whole(Plain):
    def forward(self, x):
        return super().forward(x).long()


class Fails(Plain):
    def forward(self, x):
        return self.layer(x) @ torch.eye(3)


def number():
    return 3


class Scores(FullMemory):
    def read(self, encoder, query, support, exclude=None):
        return super().read(encoder, query, support, exclude).class_scores


class Swapped(FullMemory):
    def read(self, encoder, query, support, exclude=None):
        return type(super().read(encoder, query, support))(*reversed(super().read(encoder, query, support)))


class Demanding(FullMemory):
    def read(self, encoder, query, support, exclude=None):
        assert len(support) > 100
        return super().read(encoder, query, support, exclude)


class Forgets(FullMemory):
    def read(self, encoder, query, support, exclude=None):
        super().read(encoder, query, support, exclude)


class NoExclude(FullMemory):
    def read(self, encoder, query, support):
        return super().read(encoder, query, support)


class Detached(FullMemory):
    @torch.no_grad()
    def read(self, encoder, query, support, exclude=None):
        return super().read(encoder, query, support, exclude)


class Sharper(FullMemory):
    def read(self, encoder, query, support, exclude=None):
        found = super().read(encoder, query, support, exclude)
        return found._replace(class_scores=2 * found.class_scores)


class NoMemory(nn.Module):
    def __init__(self, similarity):
        super().__init__()


def pair(test_fraction, split_seed):
    return 1, 2


def own_digits(test_fraction, split_seed):
    return digits(test_fraction=test_fraction, split_seed=split_seed)
"""


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "broken.py").write_text("import there_is_no_such_module\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own", raising=False)


def encoder(name: str) -> list[str]:
    return ["encoder=identity", f"encoder._target_={name}"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (encoder("own.Pictures"), "encoder=Pictures: makes (4, 2, 8) float32 of 4 objects; must make their embeddings"),
        (encoder("own.One"), "encoder=One: makes (8,) float32 of 4 objects; must make their embeddings, (4, D) floats"),
        (encoder("own.Pair"), "encoder=Pair: makes ('(4, 8) float32', '(4, 1, 8, 8) float32') of 4 objects; must make"),
        (encoder("own.Whole"), "encoder=Whole: makes (4, 8) int64 of 4 objects; must make their embeddings"),
        (encoder("own.Fails"), "encoder=Fails: cannot take objects of shape (1, 8, 8) (RuntimeError: "),
        (encoder("own.number"), "encoder=own.number: gives a int; must give a torch.nn.modules.Module"),
        (encoder("own.plain"), "encoder._target_=own.plain: there is no plain in own; did you mean Plain?"),
        (encoder("owm.Plain"), 'encoder._target_=owm.Plain: cannot be imported; ModuleNotFoundError("No module named'),
        (encoder("broken.Net"), 'encoder._target_=broken.Net: cannot be imported; ModuleNotFoundError("No module'),
        (
            [*encoder("own.Shaped"), "encoder.hidden=9"],
            "encoder.hidden=9: encoder._target_=own.Shaped was put into an option without it; +encoder.hidden=9 if the"
            " class takes it",
        ),
        (["encoder=identity", "encoder.channels=3"], "there is no such parameter or group with the options chosen"),
        (["memory._target_=own.Scores"], "memory=Scores: read gives (4, 10) float32; must give what memlab.functiona"),
        (
            ["memory._target_=own.Swapped"],
            "memory=Swapped: read gives ClassRead(class_scores='(4,) float32'",
        ),
        (["memory._target_=own.Forgets"], "memory=Forgets: read gives NoneType; must give what memlab.functional.read"),
        (["memory._target_=own.NoExclude"], "memory=NoExclude: cannot read (TypeError: NoExclude.read() takes 4 pos"),
        (["memory._target_=own.Detached"], "memory=Detached: read gives class scores without gradient; must keep it"),
        (
            ["memory=own.Detached"],
            "memory=own.Detached: must be one of chunked, full, linear, prototypes, topk; a",
        ),
        (
            ["encoder=linear", "encoder._target_=own.Plain"],
            "unexpected keyword argument 'embedding_size', which the option that it was put into has; leave it out with"
            " ~encoder.embedding_size",
        ),
        (["memory._target_=own.NoMemory"], "memory=own.NoMemory: gives a NoMemory; must give a memlab.memory.Memory"),
        (["data._target_=own.pair"], "data=own.pair: gives a tuple; must give a memlab.data.datasets.LabelledData"),
    ],
)
def test_one_line(words: list[str], message: str, command: Callable[..., Outcome]) -> None:
    outcome = command(*words, *SMOKE)
    assert outcome.status == 1
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert "did you mean encoder.channels" not in line
    assert not (outcome.folder / "outputs").exists()


@pytest.mark.parametrize(
    "words",
    [
        [*encoder("own.Named"), "+encoder.vectors=3"],  # as an option of encoders of texts is called
        encoder("own.Plain"),
        [*encoder("own.Plain"), "memory=linear"],
        [*encoder("own.Shaped"), "+encoder.hidden=9"],
        ["memory._target_=own.Demanding"],
        ["data._target_=own.own_digits", "data.classes=[3,8]"],
    ],
)
def test_trains(words: list[str], command: Callable[..., Outcome]) -> None:
    outcome = command(*words, *SMOKE)
    assert outcome.status == 0, outcome.err
    assert "test/accuracy" in json.loads((outcome.run_folders[0] / "results.json").read_text())


@pytest.mark.parametrize(("name", "told"), [("own.Sharper", True), ("own.Demanding", False)])
def test_a_memory_that_reads_otherwise_in_evaluation_says_so(
    name: str, told: bool, command: Callable[..., Outcome]
) -> None:
    outcome = command(f"memory._target_={name}", *SMOKE)
    assert outcome.status == 0, outcome.err
    assert ("reads otherwise in training than in evaluation" in outcome.out + outcome.err) == told
