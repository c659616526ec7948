"""Reads together, changes one after the other, reads while a change is made, and changes of other processes."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import torch
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from memlab.server.metrics import Metrics
from memlab.server.served import MAX_JOINT, Reply, ServedMemory
from memlab.trained import TrainedMemory, load
from memlab.trained.answer import View
from tests.trained.memories import tables


def during(memory: TrainedMemory, use: Callable[[ServedMemory], Awaitable[Any]]) -> tuple[Any, str]:
    """What comes of using a memory that is served, and the counts."""

    async def run() -> Any:
        served = ServedMemory(memory, metrics)
        try:
            return await asyncio.wait_for(use(served), 30)
        finally:
            served.close()

    metrics = Metrics()
    return asyncio.run(run()), metrics.text({})


async def while_read(served: ServedMemory, ask: Callable[[], list[Awaitable[Any]]]) -> list[Any]:
    """Ask while another read is under way, which ends when all have asked."""
    begun, go_on = threading.Event(), threading.Event()

    def read() -> None:
        begun.set()
        assert go_on.wait(20)

    under_way = asyncio.ensure_future(served.look(read))
    await asyncio.to_thread(begun.wait, 20)
    asked = [asyncio.ensure_future(each) for each in ask()]
    await asyncio.sleep(0.05)
    go_on.set()
    found = await asyncio.gather(*asked, return_exceptions=True)
    await under_way
    return found


def test_queries_that_wait_are_read_together_each_as_if_alone(of_rows: TrainedMemory) -> None:
    rows = tables(12, seed=3).inputs
    parts = [rows[:1], rows[1:4], rows[4:5], rows[5:12]]

    async def use(served: ServedMemory) -> list[Reply]:
        return await while_read(served, lambda: [served.predict(part, k=3, coverage=None) for part in parts])

    found, counts = during(of_rows, use)
    for part, reply in zip(parts, found, strict=True):
        for ours, alone in zip(reply.rows, of_rows.predict(part, k=3).rows(), strict=True):
            assert ours["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-6)
            assert [each["id"] for each in ours["evidence"]] == [each["id"] for each in alone["evidence"]]
    assert "memlab_joint_read_objects_sum 12.0\nmemlab_joint_read_objects_count 1\n" in counts


def test_sequences_and_texts_of_different_lengths_are_read_together(
    of_sequences: TrainedMemory, of_texts: TrainedMemory
) -> None:
    for memory, given in (
        (of_sequences, [torch.randn(1, length, 2) for length in (5, 1, 3)]),
        (of_texts, [next(iter(of_texts.kind.batches(text, 1))).raw for text in ("a bear sleeps", "purrs", "the ape")]),
    ):

        async def use(served: ServedMemory, given: list[torch.Tensor] = given) -> list[Any]:
            return await while_read(served, lambda: [served.predict(raw, k=3, coverage=None) for raw in given])

        found, counts = during(memory, use)
        assert "memlab_joint_read_objects_sum 3.0\nmemlab_joint_read_objects_count 1\n" in counts
        for raw, reply in zip(given, found, strict=True):
            (alone,) = memory.predict(raw, k=3).rows()
            assert reply.rows[0]["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-6)


def test_one_that_cannot_be_answered_leaves_the_others_alone(of_rows: TrainedMemory) -> None:
    rows = tables(3, seed=3).inputs
    far = torch.full((1, 5), 3e38)

    async def use(served: ServedMemory) -> list[Any]:
        asked = [(rows[:1], 3), (far, 3), (rows[1:2], 3), (rows[2:], 60), (rows[:1], 3)]
        return await while_read(served, lambda: [served.predict(raw, k=k, coverage=None) for raw, k in asked])

    found, _ = during(of_rows, use)
    for place, told in ((1, "too far"), (3, "k=60")):
        assert isinstance(found[place], HTTPException)
        assert told in found[place].detail
    assert [reply.rows[0]["label"] for place, reply in enumerate(found) if place not in (1, 3)] == [
        of_rows.predict(rows[place]).labels[0] for place in (0, 1, 0)
    ]


def test_no_more_are_read_together_than_is_good(of_rows: TrainedMemory) -> None:
    rows = tables(1, seed=3).inputs.repeat(MAX_JOINT - 1, 1)

    async def use(served: ServedMemory) -> list[Reply]:
        return await while_read(served, lambda: [served.predict(rows, k=1, coverage=None) for _ in range(3)])

    found, counts = during(of_rows, use)
    assert [len(reply.rows) for reply in found] == [len(rows)] * 3
    assert "memlab_joint_read_objects_count 3" in counts


def test_reads_go_on_while_a_change_is_made_and_see_it_when_it_is_acknowledged(of_rows: TrainedMemory) -> None:
    row = tables(1, seed=3).inputs
    begun, go_on = threading.Event(), threading.Event()

    def slowly() -> list[int]:
        begun.set()
        assert go_on.wait(20)
        return of_rows.add(row, "new")

    async def use(served: ServedMemory) -> tuple[Reply, Reply, list[int]]:
        change = asyncio.ensure_future(served.change(slowly))
        await asyncio.to_thread(begun.wait, 20)
        meanwhile = await served.predict(row, k=1, coverage=None)
        go_on.set()
        ids = await change
        return meanwhile, await served.predict(row, k=1, coverage=None), ids

    (meanwhile, after, ids), _ = during(of_rows, use)
    assert "new" not in meanwhile.rows[0]["probabilities"]
    assert after.rows[0]["evidence"][0]["id"] == ids[0]


def test_what_another_process_changes_is_seen_by_the_next_request(
    asking_rows: TestClient, of_rows: TrainedMemory
) -> None:
    other = load(of_rows.folder)  # as memlab add opens it
    (identity,) = other.add(tables(1, seed=3).inputs, "new")
    assert asking_rows.get(f"/examples/{identity}").json()["label"] == "new"
    other.relabel(identity, "newer")
    (answer,) = asking_rows.post("/predict", json={"inputs": tables(1, seed=3).inputs.tolist()}).json()["answers"]
    assert answer["evidence"][0] == {**answer["evidence"][0], "id": identity, "label": "newer"}
    other.forget(identity)
    assert asking_rows.delete(f"/examples/{identity}").status_code == 404
    assert asking_rows.get("/health").json()["digest"] == other.digest


def test_a_folder_that_is_damaged_meanwhile_is_told(asking_rows: TestClient, of_rows: TrainedMemory) -> None:
    manifest = of_rows.folder / "memory.json"
    kept = manifest.read_bytes()
    manifest.write_bytes(kept[:100])
    for method, path in (("GET", "/health"), ("GET", "/audit"), ("POST", "/undo")):
        refused = asking_rows.request(method, path)
        assert refused.status_code == 503
        assert "memory.json: damaged or missing" in refused.json()["error"]
    assert asking_rows.post("/predict", json={"inputs": [[1, 2, 3, 4, 5]]}).status_code == 503
    manifest.write_bytes(kept)
    assert asking_rows.get("/health").status_code == 200
    shutil.rmtree(of_rows.folder)
    assert asking_rows.get("/health").status_code == 503


def test_an_audit_is_made_once_for_all_and_ends_when_the_server_stops(of_rows: TrainedMemory) -> None:
    async def use(served: ServedMemory) -> None:
        first, second = await asyncio.gather(served.audit(), served.audit())
        assert first is second
        await served.change(lambda: of_rows.relabel(0, "new"))
        assert (await served.audit()).evidence.view.digest == of_rows.digest != first.evidence.view.digest
        await served.change(lambda: of_rows.relabel(0, "newer"))
        served._stopping.set()
        with pytest.raises(HTTPException, match="stopping"):
            await served.audit()

    during(of_rows, use)


def test_answers_do_not_wait_for_the_calibration_objects_after_a_change(
    of_rows: TrainedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, go_on, class_scores = tables(1, seed=3).inputs, threading.Event(), View.class_scores

    def slowly(view: View, queries: torch.Tensor, exclude: torch.Tensor | None = None) -> torch.Tensor:
        if len(queries) == 12:  # the calibration objects
            assert go_on.wait(20)
        return class_scores(view, queries, exclude)

    async def use(served: ServedMemory) -> tuple[Reply, Reply, Reply]:
        await served.change(lambda: of_rows.add(row, "new"))
        meanwhile = await served.predict(row, k=1, coverage=None)
        with_sets = asyncio.ensure_future(served.predict(row, k=1, coverage=0.9))
        await asyncio.sleep(0.05)
        assert not with_sets.done()
        go_on.set()
        await served.measured()
        return meanwhile, await with_sets, await served.predict(row, k=1, coverage=None)

    monkeypatch.setattr(View, "class_scores", slowly)
    (meanwhile, with_sets, afterwards), _ = during(of_rows, use)
    wanted = next(load(of_rows.folder).predict(row, k=1, coverage=0.9).rows())
    assert meanwhile.rows[0]["credibility"] is None
    assert with_sets.rows[0]["set"] == wanted["set"]
    assert afterwards.rows[0]["credibility"] == with_sets.rows[0]["credibility"] == wanted["credibility"]
