"""What is answered over HTTP is what the memory itself says, and what is described at /openapi.json."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from memlab.server import contract
from memlab.trained import TrainedMemory, load
from tests.server.clients import client, files, picture
from tests.trained.memories import make, pictures, tables


def same_rows(answers: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """See that answers are rows with a name."""
    assert len(answers) == len(rows)
    for answer, row in zip(answers, rows, strict=True):
        assert list(answer) == ["name", *row]
        assert answer["label"] == row["label"]
        assert answer["probabilities"] == pytest.approx(row["probabilities"], abs=1e-6)
        for ours, theirs in zip(answer["evidence"], row["evidence"], strict=True):
            assert {**ours, "weight": 0} == {**theirs, "weight": 0}
            assert ours["weight"] == pytest.approx(theirs["weight"], abs=1e-6)
        for name in ("without_strongest", "set"):
            assert answer.get(name) == row.get(name)
        assert answer["novelty"] == pytest.approx(row["novelty"], abs=1e-5)
        assert answer["credibility"] == row["credibility"]


def test_pictures_are_answered_as_the_memory_answers(asking: TestClient, of_pictures: TrainedMemory) -> None:
    raw = pictures(5, seed=3).inputs
    sent = files(*(picture(each[0].numpy()) for each in raw), name="a/../cat.png")
    given = asking.post("/predict?k=3&coverage=0.8", files=sent)
    answers = contract.Answers.model_validate_json(given.content)
    assert answers.digest == of_pictures.digest
    assert [row.name for row in answers.answers] == ["cat.png"] * 5
    same_rows(given.json()["answers"], list(of_pictures.predict(raw, k=3, coverage=0.8).rows()))
    # a photograph goes through the same preprocessing as a file
    photo = picture(np.random.default_rng(0).integers(0, 255, (70, 90, 3)), "JPEG")
    (answer,) = asking.post("/predict", files=files(photo)).json()["answers"]
    (of_pictures.folder.parent / "photo.jpg").write_bytes(photo)
    same_rows([answer], list(of_pictures.predict(str(of_pictures.folder.parent / "photo.jpg")).rows()))


def test_rows_are_answered_as_the_memory_answers(asking_rows: TestClient, of_rows: TrainedMemory) -> None:
    rows = tables(4, seed=7).inputs
    given = asking_rows.post("/predict", json={"inputs": rows.tolist()})
    assert given.status_code == 200
    contract.Answers.model_validate_json(given.content)
    same_rows(given.json()["answers"], list(of_rows.predict(rows).rows()))
    assert [each["name"] for each in given.json()["answers"]] == [f"inputs[{place}]" for place in range(4)]


def test_raw_pictures_in_json(asking: TestClient, of_pictures: TrainedMemory) -> None:
    raw = pictures(2, seed=3).inputs
    given = asking.post("/predict", json={"inputs": raw.tolist()}).json()["answers"]
    same_rows(given, list(of_pictures.predict(raw).rows()))


def test_teaching_and_taking_back(asking: TestClient, of_pictures: TrainedMemory) -> None:
    image = pictures(1, seed=9).inputs[0, 0].numpy()
    before = asking.get("/health").json()
    given = asking.post("/examples", files=files(picture(image), name="..\\lynx 1.png"), data={"label": " lynx "})
    assert given.status_code == 201
    added = contract.Added.model_validate_json(given.content)
    (identity,) = added.ids
    assert asking.get(f"/examples/{identity}").json() == {
        "id": identity,
        "label": "lynx",
        "source": "upload: lynx 1.png",
        "picture": True,
    }
    shown = np.asarray(Image.open(io.BytesIO(asking.get(f"/examples/{identity}/picture").content)))
    assert (shown == image).all()
    (answer,) = asking.post("/predict", files=files(picture(image))).json()["answers"]
    assert (answer["evidence"][0]["id"], answer["evidence"][0]["label"]) == (identity, "lynx")
    assert answer["probabilities"]["lynx"] == pytest.approx(answer["evidence"][0]["weight"])

    changed = contract.Relabelled.model_validate_json(
        asking.patch(f"/examples/{identity}", json={"label": "cat"}).content
    )
    assert (changed.before, changed.label, changed.digest) == ("lynx", "cat", of_pictures.digest)
    assert asking.post("/undo").json()["what"] == "relabel"
    assert asking.get(f"/examples/{identity}").json()["label"] == "lynx"
    receipt = contract.Receipt.model_validate_json(asking.delete(f"/examples/{identity}").content)
    assert (receipt.ids, receipt.digest_before) == ([identity], added.digest)
    assert receipt.digest_after == before["digest"] == load(of_pictures.folder).digest
    assert asking.get(f"/examples/{identity}").status_code == 404
    assert asking.post("/undo").status_code == 409
    journal = contract.Journal.model_validate_json(asking.get("/journal?limit=2").content).changes
    assert [line["what"] for line in journal] == ["forget", "undo"]


def test_rows_of_a_table_have_words_and_cells_that_are_missing(
    asking_table: TestClient, of_table: TrainedMemory
) -> None:
    assert asking_table.get("/info").json()["columns"] == ["size", "colour", "tame"]
    rows: list[Any] = [[0.3, "red", "yes"], [10, None, "no"], ["19.5", "green", ""]]
    named = [dict(zip(["size", "colour", "tame"], row, strict=True)) for row in rows]
    expected = of_table.predict(rows)
    for inputs in (rows, named):
        given = asking_table.post("/predict", json={"inputs": inputs})
        answers = given.json()["answers"]
        assert [answer["label"] for answer in answers] == expected.labels
    ids = asking_table.post("/examples", json={"inputs": rows, "labels": "dog"}).json()["ids"]
    assert asking_table.get(f"/examples/{ids[0]}").json()["label"] == "dog"
    for wrong in ([[1, "red"]], [{"size": 1}], [[[1], "red", "yes"]], [5]):
        refused = asking_table.post("/predict", json={"inputs": wrong})
        assert refused.status_code == 422, refused.text


def test_sequences_of_any_length_are_answered_and_taught(of_sequences: TrainedMemory) -> None:
    given = [[[0.5, 1.5]], [[4.0, 4.5], [3.5, 4.0], [4.5, 4.0]], [[2.0, 2.0]] * 9]
    expected = of_sequences.predict([torch.tensor(each) for each in given])
    with client(of_sequences) as asking:
        assert asking.get("/info").json()["input_shape"] == [None, 2]
        answers = asking.post("/predict", json={"inputs": given}).json()["answers"]
        assert [answer["label"] for answer in answers] == expected.labels
        ids = asking.post("/examples", json={"inputs": given, "labels": "dog"}).json()["ids"]
        assert asking.get(f"/examples/{ids[0]}").json()["label"] == "dog"
        refused_inputs: list[Any] = [
            [[]],
            [[1.0, 2.0]],
            [[[1.0]]],
            [[[1.0, 2.0], [1.0]]],
            [[[1.0, "a"]]],
            [[[1.0, 1e200]]],
        ]
        for wrong in refused_inputs:
            refused = asking.post("/predict", json={"inputs": wrong})
            assert refused.status_code == 422, refused.text


def test_texts_and_pairs_are_answered_and_taught_in_words(of_texts: TrainedMemory, of_pairs: TrainedMemory) -> None:
    given: dict[str, tuple[TrainedMemory, list[Any], list[Any]]] = {
        "text": (of_texts, ["The bear climbs", "", "purrs"], [3, ["a", "b"], None]),
        "first": (of_pairs, [["The bear climbs", "today"], ["", "purrs"]], [3, "a", ["a"], ["a", 3]]),
    }
    for column, (memory, texts, mistakes) in given.items():
        expected = memory.predict(texts)
        with client(memory) as asking:
            assert asking.get("/info").json()["texts"][0] == column
            answers = asking.post("/predict", json={"inputs": texts}).json()["answers"]
            assert [answer["label"] for answer in answers] == expected.labels
            ids = asking.post("/examples", json={"inputs": texts, "labels": "dog"}).json()["ids"]
            found = asking.get(f"/examples/{ids[0]}").json()
            assert found["label"] == "dog"
            assert found["source"].startswith('upload: "The bear climbs"')
            for wrong in mistakes:
                refused = asking.post("/predict", json={"inputs": [wrong]})
                assert refused.status_code == 422, refused.text


def test_rows_are_taught_with_labels_of_each(asking_rows: TestClient, of_rows: TrainedMemory) -> None:
    rows = tables(3, seed=5).inputs.tolist()
    added = asking_rows.post("/examples", json={"inputs": rows, "labels": ["x", "y", "x"]}).json()
    assert [asking_rows.get(f"/examples/{each}").json()["label"] for each in added["ids"]] == ["x", "y", "x"]
    receipt = asking_rows.delete("/examples", params={"label": "x"}).json()
    assert receipt["ids"] == [added["ids"][0], added["ids"][2]]
    assert of_rows.classes[-1] == "y"
    assert asking_rows.get(f"/examples/{added['ids'][1]}/picture").status_code == 404


def test_stored_objects_are_listed_page_by_page(asking: TestClient, of_pictures: TrainedMemory) -> None:
    content = of_pictures.view.content
    wanted = sorted(n for n, label in zip(content.ids.tolist(), content.labels.tolist(), strict=True) if label == 1)
    found: list[int] = []
    after: int | None = -1
    while after is not None:
        given = asking.get("/examples", params={"label": "bear", "after": after, "limit": 5})
        page = contract.Page.model_validate_json(given.content)
        assert page.total == len(wanted)
        found += [each.id for each in page.examples]
        after = page.next
    assert found == wanted
    assert [each["id"] for each in asking.get("/examples?source=row 4").json()["examples"]] == [4, *range(40, 48)]
    assert asking.get("/examples?label=nothing").json() == {"total": 0, "examples": [], "next": None}


def test_what_all_others_say_of_a_stored_object(asking: TestClient, of_pictures: TrainedMemory) -> None:
    given = contract.Read.model_validate_json(asking.get("/examples/7/neighbours?k=4").content)
    content = of_pictures.view.content
    (place,) = (content.ids == 7).nonzero()[0].tolist()
    others = of_pictures.view.answer(
        content.keys[place : place + 1], k=4, coverage=None, exclude=content.ids[place : place + 1]
    )
    (row,) = others.rows()
    assert [piece.id for piece in given.evidence] == [piece["id"] for piece in row["evidence"]]
    assert 7 not in [piece.id for piece in given.evidence]
    assert given.probabilities == pytest.approx(row["probabilities"], abs=1e-6)


def test_audit_and_map(asking: TestClient, of_pictures: TrainedMemory) -> None:
    given = contract.Audit.model_validate_json(asking.get("/audit?limit=3").content)
    found = of_pictures.audit()
    doubted = [n for n, own, other in zip(found.ids, found.labels, found.suggested, strict=True) if own != other]
    assert given.suspicious == len(doubted)
    assert [each.id for each in given.labels] == doubted[:3]
    assert all(each.id not in [piece.id for piece in each.evidence] for each in given.labels)
    progress = contract.Progress.model_validate_json(asking.get("/audit/progress").content)
    assert (progress.running, progress.done, progress.total) == (False, 48, 48)
    shown = contract.Map.model_validate_json(asking.get("/map").content)
    assert (shown.shown, shown.total, shown.digest) == (48, 48, of_pictures.digest)
    assert [each.id for each in shown.points] == sorted(of_pictures.view.content.ids.tolist())


def test_facts(asking: TestClient, of_pictures: TrainedMemory) -> None:
    about = asking.get("/info").json()
    assert about.items() >= of_pictures.info.items()
    assert (about["picture"], about["input_shape"], about["writable"]) == (True, [1, 8, 8], True)
    assert (about["needs_token"], about["calibrated"]) == (False, True)
    contract.Health.model_validate_json(asking.get("/health").content)


def test_a_memory_that_reads_no_objects_cannot_be_taught(tmp_path: Path) -> None:
    memory = make(tmp_path / "m", tables())
    manifest = json.loads((memory.folder / "memory.json").read_text())
    (memory.folder / "memory.json").write_text(json.dumps({**manifest, "reads_objects": False}))
    with client(load(tmp_path / "m")) as asking:
        assert asking.get("/info").json()["writable"] is False
        assert asking.get("/examples").json()["total"] == 0
        refused = asking.post("/examples", json={"inputs": [[1, 2, 3, 4, 5]], "labels": "x"})
        assert refused.status_code == 422
        assert "reads no objects" in refused.json()["error"]
        (answer,) = asking.post("/predict", json={"inputs": [[1, 2, 3, 4, 5]]}).json()["answers"]
        assert answer["evidence"] == []


def test_the_page_and_no_other_file(asking: TestClient) -> None:
    page = asking.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "'unsafe-inline'" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    for address in (
        "/application.py",
        "/page/../application.py",
        "/..%2fapplication.py",
        "/page/%2e%2e/guard.py",
        "/docs",
    ):
        assert asking.get(address).status_code == 404


def test_everything_is_described(asking: TestClient) -> None:
    described = asking.get("/openapi.json").json()
    routes = {(method.upper(), path) for path, methods in described["paths"].items() for method in methods}
    assert len(routes) == 17
    for methods in described["paths"].values():
        for operation in methods.values():
            assert operation["description"]
            assert "4XX" in operation["responses"]
    predict = described["paths"]["/predict"]["post"]
    assert set(predict["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert predict["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Answers")


def test_counts_for_prometheus(asking_rows: TestClient) -> None:
    for _ in range(3):
        asking_rows.post("/predict", json={"inputs": tables(2).inputs.tolist()})
    asking_rows.get("/examples/99999")
    asking_rows.get("/nowhere/1234")
    lines = asking_rows.get("/metrics").text.splitlines()
    assert "memlab_objects 48" in lines
    assert 'memlab_requests_total{method="POST",route="/predict",status="200"} 3' in lines
    assert 'memlab_requests_total{method="GET",route="/examples/{identity}",status="404"} 1' in lines
    assert 'memlab_request_seconds_count{method="POST",route="/predict"} 3' in lines
    assert 'memlab_joint_read_objects_bucket{le="2"} 3' in lines
    assert "memlab_joint_read_objects_sum 6.0" in lines
    assert not any("nowhere" in line for line in lines)


def test_nothing_is_drawn_from_the_generator_of_others(asking: TestClient) -> None:
    before = torch.get_rng_state()
    asking.get("/map?limit=5")
    assert torch.equal(before, torch.get_rng_state())
