"""Requests that are wrong or hostile: each is refused in one clear line, and nothing has changed afterwards."""

from __future__ import annotations

import asyncio
import io
import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.testclient import TestClient
from starlette.types import Message

from memlab.server import uploads
from memlab.trained import TrainedMemory, load
from tests.server.clients import client, files, picture

GOOD = picture(np.zeros((8, 8)))
NOISE = picture(np.random.default_rng(0).integers(0, 255, (40, 40)))
JSON = {"content-type": "application/json"}


def bomb(side: int = 30_000) -> bytes:
    """A PNG that says it has a thousand million pixels, and has a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


def tiff(mode: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (8, 8)).save(file, "TIFF")
    return file.getvalue()


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(/tmp/x) (w) file\n%%EOF\n"
FORM = {"content-type": "multipart/form-data; boundary=b"}
PICTURES: dict[str, tuple[int, str, str, dict[str, Any]]] = {
    "no body": (415, "POST", "/predict", {}),
    "text": (415, "POST", "/predict", {"content": b"x", "headers": {"content-type": "text/plain"}}),
    "a simple form": (415, "POST", "/predict", {"data": {"files": "x"}}),
    "empty form": (422, "POST", "/predict", {"content": b"--b--\r\n", "headers": FORM}),
    "no boundary": (400, "POST", "/predict", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}),
    "broken form": (422, "POST", "/predict", {"content": b"--b\r\nrubbish", "headers": FORM}),
    "other charset": (
        400,
        "POST",
        "/predict",
        {"content": b"--x", "headers": {"content-type": "multipart/form-data; boundary=b; charset=idna"}},
    ),
    "a text for a file": (422, "POST", "/predict", {"files": {"files": (None, "x")}}),
    "unknown field": (422, "POST", "/predict", {"files": {"file": ("a.png", GOOD)}}),
    "label where none is asked": (422, "POST", "/predict", {"files": files(GOOD), "data": {"label": "x"}}),
    "too many files": (400, "POST", "/predict", {"files": files(*[b""] * 257)}),
    "too many fields": (400, "POST", "/examples", {"files": files(GOOD), "data": {"label": ["x", "y"]}}),
    "large field": (400, "POST", "/examples", {"files": files(GOOD), "data": {"label": "x" * 2**21}}),
    "empty file": (422, "POST", "/predict", {"files": files(b"")}),
    "no picture": (422, "POST", "/predict", {"files": files(b"MZ\x90\0 no picture")}),
    "cut picture": (422, "POST", "/predict", {"files": files(GOOD, NOISE[:900])}),
    "postscript": (422, "POST", "/predict", {"files": files(POSTSCRIPT, name="x.png")}),
    "pickle": (422, "POST", "/predict", {"files": files(b"cos\nsystem\n(S'touch /tmp/x'\ntR.")}),
    "svg": (422, "POST", "/predict", {"files": files(b"<svg xmlns='http://www.w3.org/2000/svg'/>")}),
    "bomb": (413, "POST", "/predict", {"files": files(bomb())}),
    "larger bomb": (413, "POST", "/predict", {"files": files(bomb(2**31 - 1))}),
    "bomb to be taught": (413, "POST", "/examples", {"files": files(bomb()), "data": {"label": "x"}}),
    "32 bits a pixel": (422, "POST", "/predict", {"files": files(tiff("F"))}),
    "too long": (413, "POST", "/predict", {"content": b"x" * (2**25 + 1), "headers": FORM}),
    "said to be too long": (
        413,
        "POST",
        "/predict",
        {"content": b"x", "headers": {**FORM, "content-length": "9" * 15}},
    ),
    "said to be of strange length": (
        413,
        "POST",
        "/predict",
        {"content": b"x", "headers": {**FORM, "content-length": "-1"}},
    ),
    "no label": (422, "POST", "/examples", {"files": files(GOOD)}),
    "empty label": (422, "POST", "/examples", {"files": files(GOOD), "data": {"label": " "}}),
    "long label": (422, "POST", "/examples", {"files": files(GOOD), "data": {"label": "x" * 201}}),
    "label of several lines": (422, "POST", "/examples", {"files": files(GOOD), "data": {"label": "a\nb"}}),
    "label that turns around": (422, "POST", "/examples", {"files": files(GOOD), "data": {"label": "a\u202eb"}}),
    "k of 0": (422, "POST", "/predict?k=0", {"files": files(GOOD)}),
    "huge k": (422, "POST", f"/predict?k={10**30}", {"files": files(GOOD)}),
    "k above what there is": (422, "POST", "/predict?k=60", {"files": files(GOOD)}),
    "k of words": (422, "POST", "/predict?k=x%0ay", {"files": files(GOOD)}),
    "k twice": (422, "POST", "/predict?k=1&k=2", {"files": files(GOOD)}),
    "no coverage": (422, "POST", "/predict?coverage=nan", {"files": files(GOOD)}),
    "coverage of 1": (422, "POST", "/predict?coverage=1", {"files": files(GOOD)}),
    "misspelt coverage": (422, "POST", "/predict?coverge=0.9", {"files": files(GOOD)}),
    "no id": (422, "GET", "/examples/x", {}),
    "negative id": (422, "DELETE", "/examples/-1", {}),
    "huge id": (422, "GET", f"/examples/{2**63}/picture", {}),
    "longer id": (422, "GET", f"/examples/{'9' * 5000}", {}),
    "no such id": (404, "DELETE", "/examples/4711", {}),
    "no such id to relabel": (404, "PATCH", "/examples/4711", {"json": {"label": "x"}}),
    "path for an id": (404, "GET", "/examples/..%2f..%2fetc%2fpasswd/picture", {}),
    "no class": (422, "DELETE", "/examples", {}),
    "no such class": (404, "DELETE", "/examples?label=yeti", {}),
    "huge limit": (422, "GET", "/examples?limit=100000", {}),
    "limit of 0": (422, "GET", "/map?limit=0", {}),
    "audit of all": (422, "GET", "/audit?limit=100000", {}),
    "page after no id": (422, "GET", "/examples?after=x", {}),
    "relabel to nothing": (422, "PATCH", "/examples/1", {"json": {"label": ""}}),
    "relabel to a number": (422, "PATCH", "/examples/1", {"json": {"label": 1}}),
    "relabel more": (422, "PATCH", "/examples/1", {"json": {"label": "x", "id": 2}}),
    "relabel at length": (413, "PATCH", "/examples/1", {"content": b" " * 20_000, "headers": JSON}),
    "half a letter": (422, "PATCH", "/examples/1", {"content": b'{"label": "\\ud800"}', "headers": JSON}),
    "no utf-8": (400, "PATCH", "/examples/1", {"content": b'{"label": "\xff"}', "headers": JSON}),
    "no method": (405, "PUT", "/examples/1", {}),
    "strange method": (405, "BREW", "/predict", {}),
    "no such place": (404, "GET", "/wp-admin.php", {}),
}


def row(*numbers: object) -> bytes:
    return json.dumps({"inputs": [numbers]}).encode()


ROWS: dict[str, tuple[int, bytes]] = {
    "no JSON": (400, b"inputs"),
    "cut": (400, b'{"inputs": [[1, 2'),
    "deep": (400, b"[" * 100_000),
    "deep rows": (400, b'{"inputs": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "NaN": (400, b'{"inputs": [[NaN, 1, 1, 1, 1]]}'),
    "infinity": (400, b'{"inputs": [[-Infinity, 1, 1, 1, 1]]}'),
    "a number of many digits": (400, b'{"inputs": [[' + b"9" * 5000 + b", 1, 1, 1, 1]]}"),
    "too large to be a number": (422, b'{"inputs": [[1e999, 1, 1, 1, 1]]}'),
    "too large for float32": (422, row(1e300, 1, 1, 1, 1)),
    "too large for an integer": (422, row(10**30, 1, 1, 1, 1)),
    "words": (422, row("1", "2", "3", "4", "5")),
    "truths": (422, row(True, False, True, True, True)),
    "nothing in it": (422, row(None, 1, 1, 1, 1)),
    "an object": (422, b'{"inputs": [{"a": 1}]}'),
    "no row": (422, b'{"inputs": [1, 2, 3, 4, 5]}'),
    "short row": (422, row(1, 2, 3, 4)),
    "rows of several lengths": (422, b'{"inputs": [[1, 2, 3, 4, 5], [1, 2, 3]]}'),
    "a row of rows": (422, row([1], [2], [3], [4], [5])),
    "no rows": (422, b'{"inputs": []}'),
    "rows by name": (422, b'{"inputs": {"0": [1, 2, 3, 4, 5]}}'),
    "a list": (422, b"[[1, 2, 3, 4, 5]]"),
    "null": (422, b"null"),
    "unknown field": (422, b'{"inputs": [[1, 2, 3, 4, 5]], "model": "x"}'),
    "too many": (413, json.dumps({"inputs": [[1] * 5] * 257}).encode()),
    "too long": (413, b" " * (2**23 + 1)),
}


def check_refused(asking: TestClient, status: int, method: str, path: str, words: dict[str, Any]) -> str:
    before = asking.get("/health").json()
    refused = asking.request(method, path, **words)
    assert (refused.status_code, list(refused.json())) == (status, ["error"])
    told: str = refused.json()["error"]
    assert len(told.splitlines()) == 1
    assert 5 < len(told) <= 300
    assert told.isprintable()
    assert "Traceback" not in told
    assert asking.get("/health").json() == before
    return told


@pytest.fixture(scope="module")
def shared(made: Path) -> Iterator[tuple[TestClient, TestClient]]:
    with client(load(made / "pictures")) as pictures, client(load(made / "rows")) as rows:
        yield pictures, rows


@pytest.mark.parametrize("name", PICTURES)
def test_refused_in_one_line(name: str, shared: tuple[TestClient, TestClient]) -> None:
    status, method, path, words = PICTURES[name]
    check_refused(shared[0], status, method, path, words)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("path", ["/predict", "/examples"])
def test_rows_refused_in_one_line(name: str, path: str, shared: tuple[TestClient, TestClient]) -> None:
    status, content = ROWS[name]
    if path == "/examples" and status != 400 and content.endswith(b"}"):
        content = content[:-1] + b', "labels": "x"}'
    check_refused(shared[1], status, "POST", path, {"content": content, "headers": JSON})


@pytest.mark.parametrize("labels", [["x"], ["x", 1], ["x", ""], [], 3, None, "", {"a": 1}, ["x", "y", "z"], "a\0b"])
def test_labels_that_do_not_fit(labels: Any, shared: tuple[TestClient, TestClient]) -> None:
    given = {"inputs": [[1, 2, 3, 4, 5], [1, 2, 3, 4, 6]], "labels": labels}
    check_refused(shared[1], 422, "POST", "/examples", {"json": given})


def test_what_was_wrong_is_named(shared: tuple[TestClient, TestClient]) -> None:
    pictures, rows = shared
    sent = files(GOOD) + files(b"rubbish", name="/etc/cron.d/dog.png")
    assert check_refused(pictures, 422, "POST", "/predict", {"files": sent}).startswith("dog.png: must be a picture")
    told = check_refused(rows, 422, "POST", "/predict", {"json": {"inputs": [[1, 2, 3, 4, 5], [1, 2, 3, 4]]}})
    assert told.startswith("inputs[1]: is of shape (4,)")
    assert "k=0" in check_refused(pictures, 422, "POST", "/predict?k=0", {"files": files(GOOD)})


def test_numbers_that_nothing_can_be_read_with_harm_nobody(asking_rows: TestClient, of_rows: TrainedMemory) -> None:
    """Finite, but so large that the encoder overflows: neither answered nor taught, as no such memory can be loaded."""
    with_one = {"inputs": [[0, 1, 0, 0, 0], [3e38, -3e38, 3e38, 3e38, 3e38]]}
    told = check_refused(asking_rows, 422, "POST", "/predict", {"json": with_one})
    assert told.startswith("inputs[1]: is too far")
    check_refused(asking_rows, 422, "POST", "/examples", {"json": {**with_one, "labels": "x"}})
    load(of_rows.folder)


def test_no_upload_is_written_under_its_name(asking: TestClient, of_pictures: TrainedMemory) -> None:
    """In the memory's folder there are its own files alone."""
    names = {entry.name.partition("-")[0] for entry in of_pictures.folder.iterdir()} | {"journal.jsonl", "lock"}
    asking.post("/examples", files=files(GOOD, name="../../x.png"), data={"label": "x"})
    assert {entry.name.partition("-")[0] for entry in of_pictures.folder.iterdir()} == names
    assert not list(of_pictures.folder.parent.rglob("x.png"))


def test_no_more_is_held_than_there_is_room_for(asking: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_HELD", 10)
    refused = asking.post("/predict", files=files(GOOD))
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    monkeypatch.undo()
    assert asking.post("/predict", files=files(GOOD)).status_code == 200


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "PATIENCE", 0.01)

    async def receive() -> Message:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "PATCH", "headers": [(b"content-type", b"application/json")]}
    with pytest.raises(HTTPException) as raised:
        asyncio.run(uploads.read_label(Request(scope, receive)))
    assert raised.value.status_code == 408
