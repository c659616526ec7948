"""Condensing: which objects stay, that what is left is a memory of them alone, and what is told of it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from memlab.trained import TrainedMemory, condensation, load
from tests.trained.memories import INDEXES, SIMILARITIES, bytes_on_disk, make, pictures, tables


@pytest.fixture
def memory(tmp_path: Path) -> TrainedMemory:
    return make(tmp_path / "memory", tables(150), batch_size=64)


def points_of(memory: TrainedMemory) -> torch.Tensor:
    return memory._model.similarity.search_vectors(memory._content.keys).double()


@pytest.mark.parametrize("kind", SIMILARITIES)
def test_each_class_keeps_what_its_objects_are_nearest_to(kind: str, tmp_path: Path) -> None:
    memory = make(tmp_path / "m", tables(75), similarity=SIMILARITIES[kind]())
    order = condensation.kept_first(memory._view, 18).tolist()
    points, labels = points_of(memory).tolist(), memory._content.labels.tolist()
    for label in range(3):
        own = [place for place, each in enumerate(labels) if each == label]
        chosen = [place for place in order if labels[place] == label]
        assert len(chosen) == 6
        for step in range(6):
            sums = {
                j: math.fsum(min(math.dist(points[i], points[s]) ** 2 for s in [*chosen[:step], j]) for i in own)
                for j in own
            }
            assert sums[chosen[step]] == pytest.approx(min(sums.values()), rel=1e-5)


def test_cells_are_chosen_from_as_if_others_were_far(memory: TrainedMemory, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = condensation.kept_first(memory._view, 60)
    monkeypatch.setattr(condensation, "TOGETHER", 8)
    order = condensation.kept_first(memory._view, 60)
    assert len(order.unique()) == 60
    assert memory._content.labels[order].bincount().tolist() == [20, 20, 20]
    for size in (3, 10, 30):
        assert torch.equal(condensation.kept_first(memory._view, size), order[:size])  # one order for all sizes
    points, labels = points_of(memory), memory._content.labels

    def distance(chosen: torch.Tensor) -> float:
        apart = torch.cdist(points, points[chosen]).square()
        return float(apart.masked_fill(labels[:, None] != labels[chosen], torch.inf).amin(1).sum())

    random = torch.cat([(labels == c).nonzero().flatten()[:20] for c in range(3)])
    assert distance(whole) <= distance(order) < 0.8 * distance(random)


@pytest.mark.parametrize("index", [None, *INDEXES])
def test_equals_a_memory_that_never_held_the_others(index: str | None, tmp_path: Path) -> None:
    if index in ("ivf", "hnsw"):
        pytest.importorskip("faiss")
    memory = make(tmp_path / "m", tables(), index=index)
    before = memory.digest
    found = memory.condense(0.25, into=tmp_path / "into")
    assert memory.digest == before == load(tmp_path / "m").digest == found.digest_before
    never = make(tmp_path / "never", tables(), without=found.ids, index=index)
    done = memory.condense(12)
    assert (done.ids, done.kept, done.after) == (found.ids, 12, found.after)
    assert (found.not_undone, bool(done.not_undone)) == ((), True)
    queries = tables(20, seed=4).inputs
    wanted = list(never.predict(queries, coverage=0.8).rows())
    for each in (memory, load(tmp_path / "m"), load(tmp_path / "into")):
        assert each.digest == never.digest == found.digest_after
        assert list(each.predict(queries, coverage=0.8).rows()) == wanted


def test_what_is_told_is_what_the_memories_say(memory: TrainedMemory, tmp_path: Path) -> None:
    held_out = tables(150)
    queries, truth = held_out.inputs[120:], [held_out.class_names[label] for label in held_out.labels[120:].tolist()]
    memory.calibrate()
    full = memory.predict(queries).labels
    curve = memory.condensation_curve([0.5, 0.1, 6])
    assert [each.objects for each in curve] == [120, 60, 12, 6]
    for size, told in zip((0.5, 0.1, 6), curve[1:], strict=True):
        found = memory.condense(size, into=tmp_path / str(size))
        assert (found.before, found.after) == (curve[0], told)
        answer = load(tmp_path / str(size)).predict(queries)
        assert told.accuracy == pytest.approx(sum(map(str.__eq__, answer.labels, truth)) / 30)
        assert told.agreement == pytest.approx(sum(map(str.__eq__, answer.labels, full)) / 30)
        mass = [row[answer.classes.index(name)] for row, name in zip(answer.probabilities, truth, strict=True)]
        assert told.nll == pytest.approx(-sum(map(math.log, mass)) / 30, abs=1e-5)
    assert (curve[0].agreement, memory.digest) == (1, load(memory.folder).digest)


def test_nothing_is_left_of_what_is_gone(tmp_path: Path) -> None:
    memory = make(tmp_path / "m", pictures())
    memory.relabel(0, "bear")
    keys = dict(zip(memory._content.ids.tolist(), memory._content.keys, strict=True))
    raw = memory.pictures(list(keys))
    found = memory.condense(0.2, into=tmp_path / "into")
    assert memory.condense(0.2).ids == found.ids
    for folder in (tmp_path / "m", tmp_path / "into"):
        left = bytes_on_disk(folder)
        for identity, key in keys.items():
            there = identity not in found.ids
            assert (key.numpy().tobytes() in left) == there
            assert (raw[identity].numpy().tobytes() in left) == there
        again = load(folder)
        assert [line["what"] for line in again.journal()] == ["relabel", "condense"]
        assert again.journal()[1]["ids"] == found.ids
        with pytest.raises(ValueError, match=r"undo: the last change, 2, has forgotten"):
            again.undo()
        assert again.add(pictures(1, seed=7).inputs, "new") == [60]


def test_a_rare_class_stays(tmp_path: Path) -> None:
    memory = make(tmp_path / "m", tables(300))
    memory.add(torch.randn(1, 5), "rare")
    memory.condense(0.02)
    assert memory.classes == ("ape", "bear", "cat", "rare")
    assert memory.info["classes"]["rare"] == 1


def test_a_memory_without_calibration_objects_is_condensed_and_not_measured(tmp_path: Path) -> None:
    memory = make(tmp_path / "m", tables())
    memory._calibration = None
    memory._show(memory._manifest)
    with pytest.raises(ValueError, match="no calibration objects"):
        memory.condensation_curve()
    found = memory.condense(6)
    assert (found.before, found.after, len(memory)) == (None, None, 6)


@pytest.mark.parametrize("keep", [0, 1, 2, 120, 0.0, 1.0, 1.5, -0.1, 0.01, True, "a", float("nan")])
def test_what_cannot_be_kept_is_told(keep: float, memory: TrainedMemory) -> None:
    before = bytes_on_disk(memory.folder)
    with pytest.raises(ValueError, match=rf"keep={keep}.*: must be a share above 0 and below 1, or a whole number"):
        memory.condense(keep)
    assert bytes_on_disk(memory.folder) == before


def test_a_folder_with_something_in_it_and_another_process_are_told(memory: TrainedMemory, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"into=.*: must be a new or an empty folder"):
        memory.condense(0.5, into=memory.folder)
    load(memory.folder).relabel(0, "cat")
    for into in (None, tmp_path / "new"):
        other = load(memory.folder)
        other._view = memory._view  # as if it had been changed while objects were chosen
        with pytest.raises(ValueError, match="another process has changed it meanwhile"):
            other.condense(0.5, into=into)
    assert not (tmp_path / "new").exists()
