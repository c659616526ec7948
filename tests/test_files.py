from __future__ import annotations

from pathlib import Path

import pytest

from memlab.files import write_bytes_whole, written_whole


def test_is_there_when_it_is_complete_and_not_before(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    with written_whole(target) as file:
        file.write("half")
        assert not target.exists()
    assert target.read_text() == "half"
    assert list(tmp_path.iterdir()) == [target]


def test_what_was_there_stays_when_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("before")

    def write() -> None:
        with written_whole(target) as file:
            file.write("half")
            raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write()
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_bytes_do_not_follow_a_link_left_in_their_way(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "file.unfinished").symlink_to(tmp_path / "mine")
    write_bytes_whole(tmp_path / "file", b"\0whole")
    assert (tmp_path / "file").read_bytes() == b"\0whole"
    assert (tmp_path / "mine").read_text() == "mine"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "mine"]
