"""Vectors of words from files in the formats of GloVe and word2vec, and what is no such file."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch

from memlab.data.vocabulary import FIRST
from memlab.data.word_vectors import read_word_vectors

WORDS = ("apple", "milk", "the")
GLOVE = "the 0.5 -1\napple 1e-1 2\nqwertz 3 4\n"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (GLOVE, [[0.1, 2], [0, 0], [0.5, -1]]),
        ("3 2\n" + GLOVE, [[0.1, 2], [0, 0], [0.5, -1]]),  # word2vec's first line
        ("\n".join(f"{line} " for line in GLOVE.splitlines()), [[0.1, 2], [0, 0], [0.5, -1]]),
        ("The 1 1\nTHE 2 2\nthe 3 3\nMilk 4 4\nthe 5 5\n", [[0, 0], [4, 4], [3, 3]]),
        ("apple 1 2\napple pie 3 4\nthe ( 5 6\n", [[1, 2], [0, 0], [0, 0]]),  # of several words
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_words_have_the_vectors_of_the_file(text: str, rows: list[list[float]], zipped: bool, tmp_path: Path) -> None:
    file = tmp_path / ("v.txt.gz" if zipped else "v.txt")
    file.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    found = read_word_vectors(file, WORDS)
    assert found.size == 2
    torch.testing.assert_close(found.rows[FIRST:], torch.tensor(rows).float())
    assert not found.rows[:FIRST].any()
    assert found.found.tolist() == FIRST * [False] + [bool(any(row)) for row in rows]


def test_what_is_covered_is_told(tmp_path: Path) -> None:
    file = tmp_path / "v.txt"
    file.write_text(GLOVE)
    counts = torch.tensor([0, 9, 3, 2, 5])
    assert read_word_vectors(file, WORDS).told("v.txt", counts) == (
        "v.txt: 2 of 3 words, 80.0% of what training texts say, have a vector of 2 numbers there; others start at 0, as"
        " milk"
    )
    assert read_word_vectors(file, ("the",)).told("v.txt", counts[:3]).endswith(" of 2 numbers there")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read (No such file or directory)"),
        (b"", "has no vectors; must have a word and its numbers on each line, with spaces between"),
        (b"the\napple\n", "has no vectors; must have a word and its numbers"),
        (b"the 1 2\napple 1\n", "line 2 has 1 numbers; must have 2 finite ones, as the first"),
        (b"the 1 x2\n", "line 1 has 'x2'; must be a number"),
        (b"the 1 nan\n", "line 1 has numbers that are not finite; must have 2 finite ones"),
        (b"the 1 1e99\n", "line 1 has numbers that are not finite"),
        (b"qwertz 1 2\n", "has none of the 3 words of the training texts, as apple"),
        (bytes(range(256)) * 4, "has n"),
        ("ärger 1 2\n".encode("latin-1"), "has none of the 3 words"),
    ],
)
def test_what_is_no_such_file_is_told_in_a_line(content: bytes | None, told: str, tmp_path: Path) -> None:
    file = tmp_path / "v.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r".") as error:
        read_word_vectors(file, WORDS)
    assert str(error.value).startswith(f"{file}: ")
    assert told in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_a_damaged_gzip_and_a_folder_are_told(tmp_path: Path) -> None:
    whole = gzip.compress(GLOVE.encode() * 1000)
    for name, content in (("cut.gz", whole[:50]), ("no.gz", b"the 1 2\n"), ("bad.gz", whole[:20] + b"x" + whole[21:])):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="cannot be read"):
            read_word_vectors(tmp_path / name, WORDS)
    with pytest.raises(ValueError, match=r"cannot be read \(Is a directory"):
        read_word_vectors(tmp_path, WORDS)
