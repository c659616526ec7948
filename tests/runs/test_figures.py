from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.image
import pytest
import torch
from torch.utils._pytree import tree_map

from memlab.data.objects import ObjectStore
from memlab.memory.evidence import Evidence
from memlab.memory.prediction import Prediction
from memlab.runs.figures import choose_objects, draw_evidence
from memlab.runs.results import read_curves


def prediction(confidences: list[float], right: list[bool]) -> Prediction:
    """Two classes; every query answers class 0, which is right or not."""
    mass = torch.tensor([[c, 1 - c] for c in confidences])
    n = len(confidences)
    evidence = Evidence(torch.zeros(n, 3, dtype=torch.int64), torch.zeros(n, 3, dtype=torch.int64), torch.rand(n, 3))
    return Prediction(torch.arange(n), torch.tensor([0 if r else 1 for r in right]), mass.log(), evidence)


def test_mistakes_come_first_surest_first_then_right_answers_least_sure_first() -> None:
    found = prediction([0.9, 0.6, 0.8, 0.7, 0.95], [True, False, False, True, True])
    assert choose_objects(found, objects=5).tolist() == [2, 1, 3, 0, 4]
    assert choose_objects(found, objects=4).tolist() == [2, 1, 3, 0]


def test_of_a_memory_without_objects_the_answers_alone_are_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = prediction([0.9, 0.6, 0.8], [True, False, True])
    store = ObjectStore(inputs=torch.rand(4, 1, 8, 8), labels=torch.tensor([0, 1, 0, 1]), class_names=("no", "yes"))
    drawn: list[int] = []
    monkeypatch.setattr("memlab.runs.figures._draw_object", lambda axes, store, row, *, frame: drawn.append(row))  # noqa: ARG005
    draw_evidence(found, store, tmp_path / "with.png", title="a title", objects=3)
    assert len(drawn) == 3 * 4
    drawn.clear()
    none = found._replace(evidence=found.evidence._replace(ids=torch.full((3, 3), -1)))
    draw_evidence(none, store, tmp_path / "without.png", title="a title", objects=3)
    assert len(drawn) == 3


def test_mistakes_take_half_of_the_rows_unless_there_are_too_few_right_answers() -> None:
    found = prediction([0.9, 0.8, 0.7, 0.6, 0.95, 0.55], [False, False, False, False, True, True])
    assert choose_objects(found, objects=4).tolist() == [0, 1, 5, 4]
    assert choose_objects(found, objects=6).tolist() == [0, 1, 2, 3, 5, 4]
    assert choose_objects(found, objects=100).tolist() == [0, 1, 2, 3, 5, 4]


@pytest.mark.parametrize(
    "inputs",
    [
        *(torch.randn(4, *shape) for shape in [(1, 8, 8), (3, 8, 8), (2, 8, 8), (8, 8, 1), (4, 6), (5,), (2, 3, 4, 5)]),
        torch.arange(12).view(4, 3),
        torch.arange(4),
        torch.ones(4, 3, 8, 8, dtype=torch.bool),
        {"words": torch.arange(12).view(4, 3), "pictures": torch.rand(4, 1, 8, 8)},
        (torch.rand(4, 1, 8, 8), [torch.rand(4, 2)]),
    ],
    ids=lambda inputs: str(tree_map(lambda leaf: tuple(leaf.shape[1:]), inputs)),
)
def test_evidence_of_whatever_the_store_takes_can_be_drawn(
    inputs: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = ObjectStore(inputs=inputs, labels=torch.tensor([0, 1, 0, 1]), class_names=("$5 and $\\x_{", "yes"))
    found = prediction([0.9, 0.6, 0.8, 0.7], [True, False, True, True])
    draw_evidence(found, store, tmp_path / "evidence.png", title="$of \\x_{$", objects=3)
    assert matplotlib.image.imread(tmp_path / "evidence.png").std() > 0.05
    assert not caplog.text


def test_evidence_that_was_not_found_is_left_blank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(inputs=torch.rand(4, 5), labels=torch.tensor([0, 1, 0, 1]), class_names=("no", "yes"))
    found = prediction([0.9], [True])
    found.evidence.ids[0] = torch.tensor([2, 1, -1])
    drawn: list[int] = []
    monkeypatch.setattr("memlab.runs.figures._draw_object", lambda *where, **_: drawn.append(where[2]))
    draw_evidence(found, store, tmp_path / "evidence.png", title="a title", objects=1)
    assert drawn == [0, 2, 1]


@pytest.mark.parametrize(("hops", "each"), [(1, 3), (2, 3), (4, 1), (20, 1)])
def test_each_hop_has_columns_of_its_own(hops: int, each: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(inputs=torch.rand(9, 5), labels=torch.arange(9) % 2, class_names=("no", "yes"))
    found = prediction([0.9], [True])
    found.evidence.ids[0] = torch.tensor([6, 7, 8])
    none = torch.zeros(1, 3, dtype=torch.int64)
    found = found._replace(earlier=tuple(Evidence(none + hop % 6, none, none.float()) for hop in range(hops)))
    drawn: list[int] = []
    monkeypatch.setattr("memlab.runs.figures._draw_object", lambda *where, **_: drawn.append(where[2]))
    draw_evidence(found, store, tmp_path / "evidence.png", title="a title", objects=1)
    assert drawn == [0, *(hop % 6 for hop in range(hops) for _ in range(each)), *range(6, 6 + each)]


def test_curves_are_read_by_epoch_without_the_closing_test(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.csv"
    metrics.write_text(
        "epoch,step,train/step_loss,train/accuracy,validation/accuracy,test/accuracy\n"
        "0,9,1.5,,,\n"
        "0,20,,,0.6,0.5\n"
        "0,20,,0.4,,\n"
        "1,41,,,0.8,0.7\n"
        "1,41,,0.75,,\n"
        "2,42,,,,0.7\n"
    )
    assert read_curves(metrics) == {
        "train/accuracy": {1: 0.4, 2: 0.75},
        "validation/accuracy": {1: 0.6, 2: 0.8},
        "test/accuracy": {1: 0.5, 2: 0.7},
    }
