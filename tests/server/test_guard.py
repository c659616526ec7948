"""Who may ask: by Host, Origin and token; and what answers say to browsers."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from memlab.server import guard
from memlab.server.guard import HEADERS
from memlab.trained import TrainedMemory
from tests.server.clients import client

ROW = {"inputs": [[1, 2, 3, 4, 5]]}
CHANGES: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/examples", {"json": {**ROW, "labels": "x"}}),
    ("PATCH", "/examples/1", {"json": {"label": "x"}}),
    ("DELETE", "/examples/1", {}),
    ("DELETE", "/examples?label=ape", {}),
    ("POST", "/undo", {}),
]


@pytest.mark.parametrize(
    "host", ["example.org", "127.0.0.1.example.org", "localhost.", "192.168.1.7:8000", "", "[::2]:80"]
)
def test_a_name_of_others_is_refused(host: str, asking_rows: TestClient) -> None:
    refused = asking_rows.get("/health", headers={"host": host})
    assert refused.status_code == 403
    assert refused.json()["error"].startswith(f"host={host}: must be")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:9", "127.8.8.8", "[::1]:8000"])
def test_names_of_this_machine_may_ask(host: str, asking_rows: TestClient) -> None:
    assert asking_rows.get("/health", headers={"host": host}).status_code == 200
    assert asking_rows.post("/predict", json=ROW, headers={"host": host, "origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize("origin", ["null", "http://example.org", "http://127.0.0.1:8001", "http://localhost:8000", ""])
def test_other_web_sites_may_not_ask(origin: str, asking_rows: TestClient, of_rows: TrainedMemory) -> None:
    before = of_rows.digest
    for method, path, words in [*CHANGES, ("POST", "/predict", {"json": ROW}), ("GET", "/info", {})]:
        assert asking_rows.request(method, path, headers={"origin": origin}, **words).status_code == 403
    assert of_rows.digest == before


def test_changes_need_the_token(of_rows: TrainedMemory) -> None:
    before = of_rows.digest
    with client(of_rows, token="s3cret") as asking:
        assert asking.get("/info", headers={"host": "example.org"}).json()["needs_token"] is True
        assert asking.post("/predict", json=ROW, headers={"host": "example.org"}).status_code == 200
        for method, path, words in CHANGES:
            for told in (
                "",
                "s3cret",
                "Bearer",
                "Bearer ",
                "Bearer s3cre",
                "Bearer s3crets",
                "Basic s3cret",
                "Bearer \xe9",
            ):
                headers = {b"authorization": told.encode("latin-1")}
                refused = asking.request(method, path, headers=headers, **words)
                assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
            assert asking.request(method, path, **words).status_code == 401
        assert of_rows.digest == before
    with client(of_rows, token="s3cret", headers={"authorization": "Bearer s3cret"}) as asking:
        assert asking.patch("/examples/1", json={"label": "x"}).status_code == 200
        assert asking.post("/undo").status_code == 200


def test_every_answer_has_the_headers_that_browsers_heed(asking_rows: TestClient) -> None:
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/", {}),
        ("/health", {}),
        ("/nowhere", {}),
        ("/health", {"headers": {"host": "example.org"}}),
    ]
    for path, words in asked:
        answer = asking_rows.get(path, **words)
        assert answer.headers.items() >= {name.lower(): value for name, value in HEADERS.items()}.items()
        assert "access-control-allow-origin" not in answer.headers
    assert asking_rows.get("/health").headers["cache-control"] == "no-store"


def test_too_many_at_a_time_are_told_to_come_again(asking_rows: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "MAX_REQUESTS", 0)
    refused = asking_rows.get("/health")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
