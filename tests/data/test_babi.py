"""The bAbI tasks: split by task, filled from 1k where that is allowed, fetched from a real server and checked."""

from __future__ import annotations

import functools
import hashlib
import http.server
import tarfile
import threading
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from memlab.data.datasets.babi import TOP, babi
from tests.conftest import SHARED_DATA

source = import_module("memlab.data.datasets.babi")  # whose name in the package is that of the function
WORDS: dict[str, Any] = {
    "tasks": [1, 2],
    "size": "1k",
    "missing": "refuse",
    "download": False,
    "validation_fraction": 0.25,
    "split_seed": 0,
}


def story(number: int) -> str:
    return f"1 Mary moved {number} times.\n2 How often did Mary move?\t{number}\t1\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Eight stories of two tasks; the second has no training file of 10k."""
    for folder in ("en", "en-10k"):
        (tmp_path / TOP / folder).mkdir(parents=True)
        for task, name in ((1, "qa1_one"), (2, "qa2_two")):
            for part, first in (("train", 0), ("test", 100)):
                lines = "".join(story(1000 * task + first + number) for number in range(8))
                (tmp_path / TOP / folder / f"{name}_{part}.txt").write_text(lines)
    (tmp_path / TOP / "en-10k" / "qa2_two_train.txt").unlink()
    return tmp_path


def asked(stories: tuple[Any, ...]) -> list[tuple[str, int]]:
    return [(each.task, int(each.questions[0].answer)) for each in stories]


@pytest.mark.parametrize("below", ["", TOP])
def test_a_share_of_the_training_stories_of_each_task_is_held_out(root: Path, below: str) -> None:
    data = babi(path=str(root / below), **WORDS)
    train, validation, test = map(asked, (data.train, data.validation, data.test))
    for task in (1, 2):
        assert [task for name, _ in validation if name == f"qa{task}"] == [task, task]
        own = sorted(answer for name, answer in train + validation if name == f"qa{task}")
        assert own == [1000 * task + number for number in range(8)]
    assert test == [(f"qa{task}", 1000 * task + 100 + number) for task in (1, 2) for number in range(8)]
    alone = babi(path=str(root), **{**WORDS, "tasks": [2]})
    assert asked(alone.validation) == [each for each in validation if each[0] == "qa2"]
    other = babi(path=str(root), **{**WORDS, "split_seed": 1})
    assert asked(other.validation) != validation


def test_what_10k_lacks_is_taken_of_1k_where_that_is_allowed(root: Path) -> None:
    with pytest.raises(ValueError, match=r"lacks en-10k/qa2_..._train.txt; missing=1k takes that of 1k"):
        babi(path=str(root), **{**WORDS, "size": "10k"})
    data = babi(path=str(root), **{**WORDS, "size": "10k", "missing": "1k"})
    assert len(data.train) == 12


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ({"tasks": []}, r"tasks=\[\]: must be numbers from 1 to 20, each once"),
        ({"tasks": [0]}, r"tasks=\[0\]"),
        ({"tasks": [1, 1]}, r"tasks=\[1, 1\]"),
        ({"tasks": ["1"]}, r"tasks=\['1'\]"),
        ({"tasks": [3]}, r"lacks en/qa3_..._train.txt$"),
        ({"size": "100k"}, "size=100k"),
        ({"missing": "skip"}, "missing=skip"),
        ({"validation_fraction": 1.0}, "validation_fraction=1.0"),
        ({"path": "nowhere"}, f"path=nowhere: has no {TOP}; name the folder that holds it, or set download=true"),
    ],
)
def test_what_cannot_be_had_is_refused(root: Path, words: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        babi(**{"path": str(root), **WORDS, **words})


@pytest.fixture
def server(root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Serves the archive; the folder it lies in."""
    folder = tmp_path_factory.mktemp("served")
    with tarfile.open(folder / "tasks.tar.gz", "w:gz") as archive:
        archive.add(root / TOP, TOP)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        monkeypatch.setattr(source, "ADDRESS", f"http://127.0.0.1:{serving.server_port}/tasks.tar.gz")
        digest = hashlib.sha256((folder / "tasks.tar.gz").read_bytes()).hexdigest()
        monkeypatch.setattr(source, "SHA256", digest)
        yield folder
        serving.shutdown()


@pytest.mark.usefixtures("server")
def test_a_download_is_the_same_and_leaves_nothing_else(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "new"
    assert babi(path=str(path), **{**WORDS, "download": True}) == babi(path=str(root), **WORDS)
    assert [each.name for each in path.iterdir()] == [TOP]


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_download_that_is_not_what_it_must_be_leaves_nothing(server: Path, tmp_path: Path, damage: str) -> None:
    archive = server / "tasks.tar.gz"
    if damage == "gone":
        archive.unlink()
    else:
        archive.write_bytes(archive.read_bytes() + b"more")
    path = tmp_path / "new"
    with pytest.raises(ValueError, match=r"gave another file|the download failed \(HTTP Error 404"):
        babi(path=str(path), **{**WORDS, "download": True})
    assert list(path.iterdir()) == []


def test_the_real_tasks(tmp_path: Path) -> None:
    archive = SHARED_DATA / "babi-tasks_1-20_v1-2.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no bAbI in {SHARED_DATA}")
    with tarfile.open(archive) as file:
        file.extractall(tmp_path, filter="data")
    data = babi(path=str(tmp_path), **{**WORDS, "tasks": list(range(1, 21)), "validation_fraction": 0.1})
    questions = [sum(len(each.questions) for each in part) for part in (data.train + data.validation, data.test)]
    assert questions == [20_000, 20_000]
    assert {each.task for each in data.validation} == {f"qa{task}" for task in range(1, 21)}
