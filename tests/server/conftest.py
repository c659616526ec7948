"""Memories that a server is given."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from memlab.trained import TrainedMemory, load
from tests.trained.memories import columned, make, pictures, sequences, spoken, tables

pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'memlab[serve]'")
from starlette.testclient import TestClient

from tests.server.clients import client


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of memories, of pictures and of rows."""
    folder = tmp_path_factory.mktemp("served")
    make(folder / "pictures", pictures())
    make(folder / "rows", tables())
    make(folder / "table", columned())
    make(folder / "sequences", sequences())
    make(folder / "texts", spoken())
    make(folder / "pairs", spoken(pairs=True))
    return folder


@pytest.fixture
def of_pictures(made: Path, tmp_path: Path) -> TrainedMemory:
    """48 grey pictures of 8 x 8."""
    return load(shutil.copytree(made / "pictures", tmp_path / "pictures"))


@pytest.fixture
def of_rows(made: Path, tmp_path: Path) -> TrainedMemory:
    """48 rows of five numbers."""
    return load(shutil.copytree(made / "rows", tmp_path / "rows"))


@pytest.fixture
def of_table(made: Path, tmp_path: Path) -> TrainedMemory:
    """48 rows of a number, a word, and yes or no."""
    pytest.importorskip("polars")
    return load(shutil.copytree(made / "table", tmp_path / "table"))


@pytest.fixture
def of_sequences(made: Path, tmp_path: Path) -> TrainedMemory:
    """48 sequences of one to six steps of two numbers."""
    return load(shutil.copytree(made / "sequences", tmp_path / "sequences"))


@pytest.fixture
def of_texts(made: Path, tmp_path: Path) -> TrainedMemory:
    """48 texts of three words."""
    return load(shutil.copytree(made / "texts", tmp_path / "texts"))


@pytest.fixture
def of_pairs(made: Path, tmp_path: Path) -> TrainedMemory:
    """48 pairs of texts."""
    return load(shutil.copytree(made / "pairs", tmp_path / "pairs"))


@pytest.fixture
def asking(of_pictures: TrainedMemory) -> Iterator[TestClient]:
    """Asks a server of pictures."""
    with client(of_pictures) as asking:
        yield asking


@pytest.fixture
def asking_table(of_table: TrainedMemory) -> Iterator[TestClient]:
    """Asks a server of rows of a table."""
    with client(of_table) as asking:
        yield asking


@pytest.fixture
def asking_rows(of_rows: TrainedMemory) -> Iterator[TestClient]:
    """Asks a server of rows."""
    with client(of_rows) as asking:
        yield asking
