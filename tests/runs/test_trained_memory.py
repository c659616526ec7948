"""The memory that a run leaves: what it says is what the run's own test said."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

import memlab
from memlab.trained import Answer, RefusedMemoryError
from tests.conftest import SMOKE, Outcome
from tests.data.folders_of_images import write_images

WHOLE_TEST = [word for word in SMOKE if word != "trainer=smoke"] + ["trainer.max_epochs=1"]


def run(command: Callable[..., Outcome], *words: str) -> Path:
    outcome = command(*WHOLE_TEST, *words)
    assert outcome.status == 0, outcome.err
    return outcome.run_folders[-1]


def told(folder: Path) -> tuple[list[int], list[str], np.ndarray]:
    """Ids, answers and masses of the run's ``predictions.csv``."""
    with (folder / "predictions.csv").open() as file:
        _, *rows = csv.reader(file)
    mass = np.array([[np.float32(value) for value in row[4:]] for row in rows])
    return [int(row[0]) for row in rows], [row[3] for row in rows], mass


def digits(ids: list[int]) -> torch.Tensor:
    return torch.from_numpy(load_digits().images.astype(np.uint8))[ids][:, None]


def equal(answer: Answer, answers: list[str], mass: np.ndarray) -> bool:
    ours = answer.class_scores.log_softmax(-1).float().exp().numpy()  # as the run writes them, in float32
    return answer.labels == answers and bool((ours == mass).all())


@pytest.mark.parametrize(
    "words",
    [
        ["keep_objects=raw", "similarity=cosine"],
        ["memory=topk", "memory.k=8", "evaluation.k=7", "keep_objects=none"],
        ["encoder=identity", "memory=full", "encoder._target_=torch.nn.Flatten"],
        ["memory.hops=2", "memory.hop_keys=apart"],
        ["memory=topk", "memory.k=8", "memory.hops=1", "memory.values=tabr", "trainer.precision=bf16-mixed"],
        ["memory=linear", "encoder=mlp", "augmentation=none"],
        ["memory=prototypes", "encoder=linear", "trainer.precision=64-true"],
        ["encoder=resnet_small", "trainer.precision=bf16-mixed"],
        ["compile=false", "data.classes=[3,8]", "encoder=lenet"],
    ],
)
def test_predicts_what_the_run_tested_to_the_bit(words: list[str], command: Callable[..., Outcome]) -> None:
    folder = run(command, *words)
    ids, answers, mass = told(folder)
    memory = memlab.load(folder)
    assert equal(memory.predict(digits(ids)), answers, mass)
    accuracy = json.loads((folder / "results.json").read_text())["test/accuracy"]
    assert memory.info["test/accuracy"] == accuracy
    if any(word in ("memory=linear", "memory=prototypes") for word in words):
        assert memory.predict(digits(ids)).evidence.ids.shape == (len(ids), 0)
        with pytest.raises(ValueError, match="reads no objects"):
            memory.add(digits([0]), "new")
    else:
        new = memory.add(digits(ids), "new")
        assert memory.classes[-1] == "new"
        memory.forget(new)
        assert equal(memory.predict(digits(ids)), answers, mass)


def test_picture_files_are_predicted_as_in_the_data_set(command: Callable[..., Outcome], tmp_path: Path) -> None:
    root = write_images(tmp_path / "pictures", each=20, size=20)
    folder = run(command, "data=folder", f"data.root={root}", "data.image_size=8", "datamodule.batch_size=16")
    _, answers, mass = told(folder)
    with (folder / "predictions.csv").open() as file:
        sources = [row["source"] for row in csv.DictReader(file)]
    memory = memlab.load(folder)
    answer = memory.predict([root / source for source in sources], coverage=0.9)
    assert equal(answer, answers, mass)
    assert all((root / source).is_file() for source in answer.evidence.sources[0])


def test_an_encoder_of_ones_own_is_given(
    command: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_encoder.py").write_text(
        "from torch import nn\n"
        "class Own(nn.Sequential):\n"
        "    def __init__(self, size):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, size))\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "own_encoder", raising=False)
    folder = run(command, "encoder=identity", "encoder._target_=own_encoder.Own", "+encoder.size=7")
    with pytest.raises(RefusedMemoryError, match=r"encoder: is of the class own_encoder\.Own; must be one of"):
        memlab.load(folder)
    ids, answers, mass = told(folder)
    memory = memlab.load(folder, encoder=nn.Sequential(nn.Flatten(), nn.Linear(64, 7)))
    assert equal(memory.predict(digits(ids)), answers, mass)
    with pytest.raises(RefusedMemoryError, match="encoder: the weights do not fit a Sequential"):
        memlab.load(folder, encoder=nn.Sequential(nn.Flatten(), nn.Linear(64, 8)))


def test_none_is_kept_whose_layer_knows_the_classes_of_training_alone(command: Callable[..., Outcome]) -> None:
    outcome = command(*SMOKE, "memory.hops=1", "memory.answer=layer")
    assert outcome.status == 0, outcome.err
    assert "no trained memory is kept with memory.answer=layer, whose classes are those of training" in outcome.out
    assert not (outcome.run_folders[0] / "memory").exists()


def test_what_to_keep_is_checked_at_the_start(command: Callable[..., Outcome]) -> None:
    outcome = command(*SMOKE, "keep_objects=all")
    assert outcome.status == 1
    assert outcome.err.splitlines() == ["error: keep_objects=all: must be one of thumbnails, raw, none"]
    assert not outcome.run_folders
