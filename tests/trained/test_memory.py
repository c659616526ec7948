"""Predicting and changing: against plain loops, to the bit, and by what is left on the disk."""

from __future__ import annotations

import math
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from memlab.trained import TrainedMemory, load
from memlab.trained.folder import MemoryFolder
from tests.trained.memories import INDEXES, NAMES, SIMILARITIES, bytes_on_disk, make, pictures, scores, tables


@pytest.fixture(scope="module")
def table_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "table"
    make(folder, tables())
    return folder


@pytest.fixture
def memory(table_folder: Path, tmp_path: Path) -> TrainedMemory:
    """A memory of 48 rows with calibration objects, of one's own."""
    return load(shutil.copytree(table_folder, tmp_path / "memory"))


def same(memory: TrainedMemory, other: TrainedMemory, queries: torch.Tensor) -> bool:
    """Whether two memories say the same, to the bit."""
    ours, theirs = (each.predict(queries, coverage=0.8) for each in (memory, other))
    return (
        ours.classes == theirs.classes
        and bool((ours.probabilities == theirs.probabilities).all())
        and list(ours.rows()) == list(theirs.rows())
    )


class TestPredict:
    @pytest.mark.parametrize("kind", SIMILARITIES)
    @pytest.mark.parametrize("index", [None, *INDEXES])
    def test_equals_a_plain_loop(self, kind: str, index: str | None, tmp_path: Path) -> None:
        if index in ("ivf", "hnsw"):
            pytest.importorskip("faiss")
        store = tables()
        memory = make(tmp_path / "m", store, similarity=SIMILARITIES[kind](), index=index, dtype=torch.float64)
        queries = torch.randn(7, 5, generator=torch.Generator().manual_seed(1))
        answer = memory.predict(queries, k=3)
        scale = memory.info["scale"]
        encoded = memory._encoded(queries).tolist()
        keys, labels = memory._content.keys.tolist(), memory._content.labels.tolist()
        ids = memory._content.ids.tolist()
        for place, query in enumerate(encoded):
            z = sorted(((scores(kind, scale, query, key), n) for n, key in enumerate(keys)), reverse=True)
            read = z if index is None else z[:8]
            top = read[0][0]
            total = math.fsum(math.exp(score - top) for score, _ in read)
            mass = [0.0, 0.0, 0.0]
            for score, n in read:
                mass[labels[n]] += math.exp(score - top) / total
            assert answer.probabilities[place] == pytest.approx(mass, abs=1e-6)
            assert answer.labels[place] == NAMES[int(np.argmax(mass))]
            assert answer.evidence.ids[place].tolist() == [ids[n] for _, n in read[:3]]
            weights = [math.exp(score - top) / total for score, _ in read[:3]]
            assert answer.evidence.weights[place] == pytest.approx(weights, abs=1e-6)
            assert answer.evidence.labels[place] == [NAMES[labels[n]] for _, n in read[:3]]
            assert answer.evidence.sources[place] == [f"row {ids[n]}" for _, n in read[:3]]
            novelty = math.log(len(keys)) - (top + math.log(total))
            assert answer.novelty[place] == pytest.approx(novelty, abs=1e-5)
            others = z[1:] if index is None else z[1:9]
            without = [math.fsum(math.exp(s - top) for s, n in others if labels[n] == c) for c in range(3)]
            assert answer.without_strongest[place] == NAMES[int(np.argmax(without))]

    def test_usual_novelty_is_that_of_stored_objects_for_all_others(self, tmp_path: Path) -> None:
        memory = make(tmp_path / "m", tables(), dtype=torch.float64)
        keys, scale = memory._content.keys.tolist(), memory.info["scale"]
        novelty = []
        for place, query in enumerate(keys):
            others = [scores("euclidean", scale, query, key) for n, key in enumerate(keys) if n != place]
            novelty.append(math.log(len(keys)) - math.log(math.fsum(map(math.exp, others))))
        assert memory.view.usual_novelty == pytest.approx(sorted(novelty), abs=1e-5)
        memory.forget(memory._content.ids[1:].tolist())
        assert memory.view.usual_novelty == []

    def test_batches_and_iterators_give_what_all_at_once_gives(self, memory: TrainedMemory) -> None:
        queries = tables(40, seed=3).inputs
        whole = memory.predict(queries)
        for given in (queries.numpy(), queries.tolist(), iter(queries.tolist()), list(queries)):
            answer = memory.predict(given)
            assert (answer.probabilities == whole.probabilities).all()
            assert answer.labels == whole.labels
        assert sum(len(each) for each in memory.stream(queries)) == 40
        assert len(memory.predict([])) == 0
        assert memory.predict(queries[0].tolist()).labels == whole.labels[:1]

    def test_k_and_coverage_out_of_range_are_named(self, memory: TrainedMemory) -> None:
        for words, name in (({"k": 0}, "k=0"), ({"k": 49}, "k=49"), ({"coverage": 1.0}, "coverage=1.0")):
            with pytest.raises(ValueError, match=name):
                memory.predict(tables().inputs, **words)
        with pytest.raises(ValueError, match="coverage=None"):
            _ = memory.predict(tables().inputs).sets

    def test_a_loaded_copy_says_the_same_and_loading_draws_nothing(self, memory: TrainedMemory, tmp_path: Path) -> None:
        memory.save(tmp_path / "copy")
        torch.manual_seed(5)
        copy = load(tmp_path / "copy")
        drawn = torch.rand(1)
        torch.manual_seed(5)
        assert drawn == torch.rand(1)
        assert same(memory, copy, tables(9, seed=2).inputs)
        assert copy.digest == memory.digest
        with pytest.raises(ValueError, match="new or an empty folder"):
            memory.save(tmp_path / "copy")


class TestChanges:
    def test_forgetting_equals_never_having_had_them(self, tmp_path: Path) -> None:
        store, gone = tables(), [1, 2, 17, 46]
        with_them = make(tmp_path / "with", store)
        never = make(tmp_path / "never", store, without=gone)
        assert not same(with_them, never, tables(20, seed=4).inputs)
        receipt = with_them.forget(gone)
        assert receipt.ids == gone
        assert same(with_them, never, tables(20, seed=4).inputs)
        assert receipt.digest_after == with_them.digest == never.digest != receipt.digest_before
        assert any("weights" in words for words in receipt.not_undone)

    @pytest.mark.parametrize("index", [None, *INDEXES])
    def test_add_and_forget_leave_no_trace(self, index: str | None, tmp_path: Path) -> None:
        if index in ("ivf", "hnsw"):
            pytest.importorskip("faiss")
        memory = make(tmp_path / "m", tables(), index=index)
        memory.save(tmp_path / "before")
        before = load(tmp_path / "before")
        ids = memory.add(tables(10, seed=5).inputs, ["ape", "zebra"] * 5)
        assert memory.classes == ("ape", "bear", "cat", "zebra")
        assert not same(memory, before, tables(20, seed=4).inputs)
        memory.forget(ids[:4])
        memory.forget(ids[4:])
        queries = tables(20, seed=4).inputs
        assert same(memory, before, queries)
        assert same(load(tmp_path / "m"), before, queries)
        assert memory.digest == before.digest
        assert memory.add(tables(1, seed=6).inputs, "ape") == [ids[-1] + 1]  # an id is never given again

    def test_what_is_added_is_found_and_told(self, memory: TrainedMemory) -> None:
        rows = torch.tensor([40.0, -40, 40, -40, 40]) + torch.rand(30, 5)
        ids = memory.add(rows, "far")
        answer = memory.predict(rows, k=2)
        assert answer.labels == ["far"] * 30
        for found, sources in zip(answer.evidence.ids.tolist(), answer.evidence.sources, strict=True):
            assert sources == [f"inputs[{ids.index(n)}]" for n in found]
        assert torch.equal(memory.pictures(ids)[ids[7]], rows[7])

    def test_relabel_and_undo(self, memory: TrainedMemory) -> None:
        queries, digest = tables(20, seed=4).inputs, memory.digest
        before = list(memory.predict(queries).rows())
        assert memory.relabel([0, 1, 4], "bear") == {0: "ape", 1: "bear", 4: "bear"}
        assert memory.info["classes"] == {"ape": 15, "bear": 17, "cat": 16}
        assert list(memory.predict(queries).rows()) != before
        memory.add(queries, "new")
        assert memory.undo()["what"] == "add"
        assert memory.undo()["what"] == "relabel"
        assert list(memory.predict(queries).rows()) == before
        assert memory.digest == digest
        with pytest.raises(ValueError, match="no change is left"):
            memory.undo()

    def test_undo_goes_over_what_was_undone(self, memory: TrainedMemory) -> None:
        memory.relabel(0, "cat")
        memory.relabel(3, "cat")
        memory.undo()
        memory.relabel(6, "cat")
        assert memory.undo()["ids"] == [6]
        assert memory.undo()["ids"] == [0]

    def test_forgetting_is_final(self, memory: TrainedMemory) -> None:
        memory.relabel(3, "cat")
        memory.forget(7)
        with pytest.raises(ValueError, match="has forgotten 1 objects"):
            memory.undo()

    def test_by_class_and_by_source(self, memory: TrainedMemory) -> None:
        assert memory.forget(source="row 5").ids == [5]
        assert memory.forget(class_="bear").ids == [n for n in range(48) if n % 3 == 1]
        assert memory.classes == ("ape", "cat")
        assert memory.predict(tables().inputs).probabilities.shape == (60, 2)

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            ({"ids": [3, 99]}, "ids=99: there is no such object"),
            ({"ids": []}, "none are given"),
            ({"ids": [1.5]}, "ids=1.5"),
            ({"class_": "dog"}, "class_=dog: must be one of ape, bear, cat"),
            ({"source": "nowhere"}, "source=nowhere"),
            ({}, "one of ids, class_ and source"),
            ({"ids": list(range(48))}, "nothing would be left"),
        ],
    )
    def test_what_cannot_be_forgotten_is_told(self, memory: TrainedMemory, words: dict[str, Any], told: str) -> None:
        before = bytes_on_disk(memory.folder)
        with pytest.raises(ValueError, match=told):
            memory.forget(**words)
        assert bytes_on_disk(memory.folder) == before

    def test_labels_that_do_not_fit_are_told(self, memory: TrainedMemory) -> None:
        for labels in (["ape"], ["ape", ""]):
            with pytest.raises(ValueError, match="labels"):
                memory.add(tables().inputs[:2], labels)
        assert memory.add(tables().inputs[:0], []) == []

    def test_ids_may_be_arrays(self, memory: TrainedMemory) -> None:
        assert memory.forget(np.array([3, 4])).ids == [3, 4]  # type: ignore[arg-type]
        assert memory.forget(torch.tensor([5])).ids == [5]  # type: ignore[arg-type]

    def test_the_journal_tells_who_did_what(self, memory: TrainedMemory) -> None:
        memory.relabel([0], "cat")
        memory.forget([4])
        first, second = memory.journal()
        assert (first["what"], first["ids"], first["before"], first["label"]) == ("relabel", [0], ["ape"], "cat")
        assert (second["what"], second["ids"], second["digest"]) == ("forget", [4], memory.digest)
        assert all(line["who"] and line["when"].endswith("+00:00") for line in (first, second))


def test_no_file_holds_a_byte_of_what_was_forgotten(tmp_path: Path) -> None:
    memory = make(tmp_path / "m", pictures())
    (new,) = memory.add(pictures(1, seed=9).inputs, "added")
    gone = [3, 30, new]
    kept = memory.pictures([*gone, 4])
    at = [memory._content.ids.tolist().index(n) for n in gone]
    traces = [kept[n].numpy().tobytes() for n in gone]
    traces += [memory._content.keys[place].numpy().tobytes() for place in at]
    traces += [b"row 30", b'"row 3\\"']
    assert all(trace in bytes_on_disk(memory.folder) for trace in traces)
    memory.relabel(gone, "odd")
    memory.forget(gone)
    left = bytes_on_disk(memory.folder)
    assert not any(trace in left for trace in traces)
    assert kept[4].numpy().tobytes() in left
    assert not memory.pictures(gone)


def test_random_changes_equal_a_memory_built_at_once(tmp_path: Path) -> None:
    """Against a plain dict of what is held: labels, evidence, digest, and a folder loaded anew."""
    memory, draw = make(tmp_path / "m", tables(1500), batch_size=512), random.Random(0)
    held = {n: NAMES[n % 3] for n in range(1200)}
    undoable: list[dict[int, str]] = []
    for _ in range(40):
        what = draw.choice(["add", "forget", "relabel", "undo"])
        some = draw.sample(sorted(held), 3)
        before = dict(held)
        if what == "add":
            label = draw.choice([*NAMES, "new", "other"])
            held.update(dict.fromkeys(memory.add(tables(3, seed=draw.randrange(99)).inputs, label), label))
        elif what == "forget":
            memory.forget(some)
            held = {n: label for n, label in held.items() if n not in some}
            undoable.clear()
            continue
        elif what == "relabel":
            memory.relabel(some, "other")
            held.update(dict.fromkeys(some, "other"))
        elif undoable:
            memory.undo()
            held = undoable.pop()
            continue
        else:
            continue
        undoable.append(before)
    again = load(tmp_path / "m")
    for each in (memory, again):
        content = each._content
        names = [content.classes[label] for label in content.labels.tolist()]
        assert dict(zip(content.ids.tolist(), names, strict=True)) == held
        pairs = list(zip(content.labels.tolist(), content.ids.tolist(), strict=True))
        assert pairs == sorted(pairs)
        assert content.sources.keys() == held.keys()
    assert same(memory, again, tables(20, seed=4).inputs)


def test_changes_of_two_that_have_it_open_come_one_after_the_other(memory: TrainedMemory) -> None:
    other = load(memory.folder)
    (first,) = memory.add(tables(1, seed=5).inputs, "first")
    (second,) = other.add(tables(1, seed=6).inputs, "second")
    assert second == first + 1
    assert other.classes[-2:] == ("first", "second")
    memory.calibrate()
    other.forget(first)
    memory.relabel(second, "first")
    assert same(memory, load(memory.folder), tables(9, seed=7).inputs)
    assert len(memory.journal()) == 5


def test_thumbnails_and_nothing_kept(tmp_path: Path) -> None:
    store = pictures(30)
    store.inputs = store.inputs.repeat_interleave(8, 2).repeat_interleave(6, 3)  # 64 x 48
    store.normalise_by(torch.arange(20))
    memory = make(tmp_path / "thumbnails", store, keep="thumbnails")
    assert memory.pictures([3])[3].shape == (1, 32, 24)
    none = make(tmp_path / "none", store, keep="none")
    assert none.pictures([3]) == {}
    none.add(store.inputs[:1], "new")
    none.forget(2)
    assert make(tmp_path / "table", tables(), keep="thumbnails").pictures([3]) == {}


def test_another_process_s_changes_are_taken_over_on_request(memory: TrainedMemory) -> None:
    other, view = load(memory.folder), memory.view
    assert memory.is_current
    rows = tables(2, seed=3).inputs
    ids = other.add(rows, "new", sources=["here", "there"])
    other.calibrate(tables(12, seed=4).inputs, ["ape", "bear", "cat"] * 4)
    other.forget(0)
    assert memory.view is view
    memory.refresh()
    assert same(memory, load(memory.folder), rows)
    assert memory.forget(source="there").ids == ids[1:]
    other.refresh()
    assert other.digest == memory.digest
    assert len(view.content) == 48  # as it was, to whom holds it


def test_a_segment_that_is_replaced_while_it_is_read_is_read_anew(
    memory: TrainedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, read = load(memory.folder), MemoryFolder.segment

    def replaced_first(folder: MemoryFolder, *words: Any, **more: Any) -> Any:
        monkeypatch.setattr(MemoryFolder, "segment", read)
        other.relabel(3, "new")
        return read(folder, *words, **more)

    other.relabel(2, "new")
    monkeypatch.setattr(MemoryFolder, "segment", replaced_first)
    memory.refresh()
    assert memory.digest == other.digest


def test_what_all_others_say_of_an_object(memory: TrainedMemory) -> None:
    content = memory.view.content
    (place,) = (content.ids == 7).nonzero()[0].tolist()
    answer = memory.neighbours(7, k=3)
    read = memory.view.class_scores(content.keys[place : place + 1], torch.tensor([7]))
    assert torch.allclose(answer.class_scores, read)
    (row,) = answer.rows()
    assert 7 not in [piece["id"] for piece in row["evidence"]]
    assert "without_strongest" not in row
    with pytest.raises(ValueError, match="without_strongest: is not known"):
        answer.without_strongest  # noqa: B018
    with pytest.raises(ValueError, match="ids=999: there is no such object"):
        memory.neighbours(999)
    with pytest.raises(ValueError, match="k=48: must be at most 47"):
        memory.neighbours(7, k=48)


def test_what_has_no_finite_embedding_is_not_taken_in(memory: TrainedMemory) -> None:
    """As a memory that held it could not be loaded again."""
    rows = torch.tensor([[0.0, 1, 0, 0, 0], [3e38, -3e38, 3e38, 3e38, 3e38]])
    with pytest.raises(ValueError, match=r"inputs\[1\]: has no finite embedding"):
        memory.add(rows, "new")
    assert load(memory.folder).digest == memory.digest
    with pytest.raises(ValueError, match="sources: 1 of them for 2 objects"):
        memory.add(tables(2).inputs, "new", sources=["one"])
