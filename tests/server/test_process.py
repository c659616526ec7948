"""The server as a process: many at a time, killed at any moment, stopped, and what is wrong at its start."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from memlab.__main__ import main
from memlab.trained import load
from tests.server.clients import process
from tests.trained.memories import tables

CONNECTIONS = 16
NEW = tables(24, seed=8).inputs.tolist()
ASKED = tables(4, seed=9).inputs.tolist()


def test_a_hundred_requests_over_sixteen_connections_while_it_is_taught(made: Path, tmp_path: Path) -> None:
    """Each answer is that of the memory whose digest it has, and none is older than what was acknowledged before."""
    folder = shutil.copytree(made / "rows", tmp_path / "served")
    with process(folder) as (server, address):
        added, answers = asyncio.run(_ask_and_teach(address))
        _check_endless_uploads(address)
        assert httpx.get(f"{address}/health").status_code == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0
        assert server.stdout is not None
        assert server.stdout.read() == "stopped\n"
    assert (len(added), len(answers)) == (24, 76)
    memory = load(shutil.copytree(made / "rows", tmp_path / "again"))
    states: dict[str, tuple[int, list[dict[str, Any]]]] = {}
    by_id = {identity: place for place, identity in added.items()}
    for number in range(25):
        states[memory.digest] = number, [next(memory.predict(row, k=3).rows()) for row in ASKED]
        if number < 24:
            place = by_id[min(by_id) + number]
            memory.add([NEW[place]], "new", sources=["upload: inputs[0]"])
    assert load(folder).digest == memory.digest
    for place, acknowledged, answer in answers:
        number, rows = states[answer["digest"]]
        assert number >= acknowledged
        (ours,) = answer["answers"]
        assert ours["probabilities"] == pytest.approx(rows[place]["probabilities"], abs=1e-6)
        assert [each["id"] for each in ours["evidence"]] == [each["id"] for each in rows[place]["evidence"]]
    assert len({answer["digest"] for _, _, answer in answers}) > 2


async def _ask_and_teach(address: str) -> tuple[dict[int, int], list[tuple[int, int, dict[str, Any]]]]:
    """Ids of the objects taught, by place; and answers, each with how many were acknowledged when it was asked."""
    added: dict[int, int] = {}
    answers: list[tuple[int, int, dict[str, Any]]] = []
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as client:

        async def one(number: int) -> None:
            async with room:
                if number % 4 == 0 and number < 96:
                    given = {"inputs": [NEW[number // 4]], "labels": "new"}
                    told = await client.post("/examples", json=given)
                    assert told.status_code == 201, told.text
                    (identity,) = told.json()["ids"]
                    added[number // 4] = identity
                else:
                    acknowledged = len(added)
                    told = await client.post("/predict?k=3", json={"inputs": [ASKED[number % 4]]})
                    assert told.status_code == 200, told.text
                    answers.append((number % 4, acknowledged, told.json()))

        room = asyncio.Semaphore(CONNECTIONS)
        await asyncio.gather(*map(one, range(100)))
    return added, answers


def _check_endless_uploads(address: str) -> None:
    """Refused when they are said to be too large, or when they are: nobody waits for the end of them."""
    port = int(address.rpartition(":")[2])
    head = b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as said:
        said.sendall(head + b"Content-Length: 1000000000000\r\n\r\n--b\r\n")
        assert said.recv(100).startswith(b"HTTP/1.1 413 ")
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="x"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", port), timeout=20) as endless:
        endless.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(part), part))
        sent = 0
        try:
            while sent < 2**27:
                endless.sendall(b"%x\r\n%s\r\n" % (2**20, bytes(2**20)))
                sent += 2**20
        except OSError:  # the server has closed the connection, as it has answered
            pass
        assert 2**24 < sent < 2**27


def test_killed_while_it_is_taught(made: Path, tmp_path: Path) -> None:
    """What was acknowledged is there afterwards; on an address of others with the token that is printed."""
    folder = shutil.copytree(made / "rows", tmp_path / "served")
    with process(folder, "--host", "0.0.0.0") as (server, address):
        assert server.stdout is not None
        token = server.stdout.readline().removeprefix("token for changes: ").strip()
        assert len(token) > 20
        assert httpx.post(f"{address}/undo").status_code == 401
        acknowledged = asyncio.run(_teach_until_killed(address, token, server))
    memory = load(folder)
    there = memory.view.content.sources
    assert len(acknowledged) >= 10
    assert acknowledged <= there.keys()
    assert len(there) <= 48 + len(acknowledged) + 4  # those under way may be there too
    assert memory.journal()[-1]["digest"] == memory.digest
    memory.predict(ASKED)


async def _teach_until_killed(address: str, token: str, server: subprocess.Popen[str]) -> set[int]:
    acknowledged: set[int] = set()
    headers = {"authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=address, headers=headers, timeout=60) as client:

        async def teach(place: int) -> None:
            try:
                while True:
                    given = {"inputs": [NEW[place]], "labels": f"new {place}"}
                    told = await client.post("/examples", json=given)
                    acknowledged.update(told.json()["ids"])
                    if len(acknowledged) == 10:
                        server.kill()
            except (httpx.TransportError, json.JSONDecodeError):
                return

        await asyncio.gather(*map(teach, range(4)))
    return acknowledged


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The one line that a server says that cannot start."""
    monkeypatch.delenv("MEMLAB_TOKEN", raising=False)

    def start(*words: object) -> str:
        assert main(["serve", *map(str, words)]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("error: ")
        assert len(printed.err.splitlines()) == 1
        return printed.err

    return start


def test_what_is_wrong_at_the_start_is_told_in_a_line(
    made: Path, tmp_path: Path, told: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = made / "rows"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"--port={port}: cannot be listened at (Address already in use)" in told(rows, "--port", port)
    assert "--port=70000: must be a whole number from 0 to 65535" in told(rows, "--port", 70000)
    assert "--host=no.such.host.invalid" in told(rows, "--host", "no.such.host.invalid", "--port", 0)
    assert "holds no trained memory" in told(tmp_path, "--port", 0)
    assert "the token must be" in told(rows, "--port", 0, "--token", "")
    monkeypatch.setenv("MEMLAB_TOKEN", "two\nlines")
    assert "the token must be" in told(rows, "--port", 0)
    monkeypatch.delenv("MEMLAB_TOKEN")
    for name, damage in (("000000-*", b""), ("weights-*", b"rubbish"), ("memory.json", b"{")):
        folder = shutil.copytree(rows, tmp_path / name.strip("-*."))
        (file,) = folder.glob(name)
        file.write_bytes(damage)
        assert "damaged" in told(folder, "--port", 0)


def test_the_extra_that_is_missing_is_named(
    made: Path, told: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("fastapi", "uvicorn"):
        with monkeypatch.context() as patch:
            for module in [module for module in sys.modules if module.startswith("memlab.server")]:
                patch.delitem(sys.modules, module)
            patch.setitem(sys.modules, name, None)
            assert f"needs {name}; pip install 'memlab[serve]'" in told(made / "rows", "--port", 0)
