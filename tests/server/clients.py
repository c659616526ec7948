"""A small memory behind the server, in this process or in one of its own, and files to send."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from memlab.trained import TrainedMemory
from tests.conftest import REPOSITORY

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'memlab[serve]'")
pytest.importorskip("httpx", reason="httpx is not installed")
from starlette.testclient import TestClient

from memlab.server.application import application
from memlab.server.guard import Access


@contextmanager
def client(memory: TrainedMemory, token: str | None = None, **words: Any) -> Iterator[TestClient]:
    """Asks a server in this process, as from this machine."""
    app = application(memory, Access(token))
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False, **words) as asking:
        yield asking


@contextmanager
def process(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and where it listens."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "memlab", "serve", str(folder), "--port", "0", *words]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        assert started.stdout is not None
        first = started.stdout.readline()
        found = re.search(r"at http://[^:]+:(\d+)/", first)
        assert found, first
        yield started, f"http://127.0.0.1:{found[1]}"
    finally:
        started.kill()
        started.wait()
        started.stdout.close()  # type: ignore[union-attr]


def picture(pixels: Any, kind: str = "PNG") -> bytes:
    """Pixels as a picture file."""
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def files(*contents: bytes, name: str = "cat.png") -> list[tuple[str, tuple[str, bytes, str]]]:
    """A form of files."""
    return [("files", (name, content, "image/png")) for content in contents]
