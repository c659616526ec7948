"""Stories from files: what is told before a question and what it follows from; broken files in one line each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from memlab.data.stories import Question, Story, read_sentences, read_stories

BABI = """\
1 Mary moved to the bathroom.
2 John took the milk.
3 Where is Mary?\tbathroom\t1
4 Mary took the apple.
5 What is held?\tMilk, apple\t2 4
1 It is a swan.
2 What is it?\tswan
"""
STORIES = [
    Story(
        ("Mary moved to the bathroom.", "John took the milk.", "Mary took the apple."),
        (Question("Where is Mary?", "bathroom", 2, (0,)), Question("What is held?", "milk,apple", 3, (1, 2))),
        "story.txt:1",
        "qa1",
    ),
    Story(("It is a swan.",), (Question("What is it?", "swan", 1),), "story.txt:6", "qa1"),
]


def written(folder: Path, content: str | bytes, name: str = "story.txt") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\n\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_bAbI_tells_what_was_told_before_each_question(tmp_path: Path, line_end: str, mark: bytes) -> None:  # noqa: N802
    content = mark + BABI.replace("\n", line_end).encode()
    stories = read_stories(written(tmp_path, content), task="qa1")
    assert [story.sentences for story in stories] == [story.sentences for story in STORIES]
    assert [story.questions for story in stories] == [story.questions for story in STORIES]
    assert line_end == "\n\n" or stories == STORIES


def test_json_lines_have_a_story_for_each_question(tmp_path: Path) -> None:
    lines = [
        {"story": list(story.sentences[: q.before]), "question": q.text, "answer": q.answer, "supporting": q.supporting}
        for story in STORIES
        for q in story.questions
    ]
    lines[2] = {"story": "It is a swan.", "question": "What is it?", "answer": "swan", "task": "kinds"}
    stories = read_stories(written(tmp_path, "\n".join(map(json.dumps, lines)), "own.jsonl"), task="own")
    assert [story.questions[0] for story in stories] == [q for story in STORIES for q in story.questions]
    assert [story.task for story in stories] == ["own", "own", "kinds"]
    assert stories[1].sentences == STORIES[0].sentences


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        ("1 Où est Marie ?\n".encode("latin-1"), "is no text in UTF-8"),
        ("1 Mary moved.\n".encode("utf-16"), "is no text in UTF-8"),
        (b"1 Mary\0 moved.\n", "has bytes of value 0"),
        ("Mary moved.\n", "story.txt:1: begins with no number"),
        ("1 Mary moved.\n", "asks nothing"),
        ("1 Where is Mary?\tbathroom\t1\n", "story.txt:1: follows from 1, which is no sentence told before"),
        ("1 Where is Mary?\tbathroom\n", "story.txt:1: asks before anything is told"),
        ("1 Mary moved.\n3 Where is Mary?\tbathroom\t1\n", "story.txt:2: has number 3 after 1; must be 2, or 1"),
        ("1 Mary moved.\n2 Where is Mary?\t\t1\n", "story.txt:2: has no answer behind the question"),
        ("1 Mary moved.\n2 ?\tbathroom\t1\n", "story.txt:2: asks without a word"),
        ("1 ...\n2 Where is Mary?\tbathroom\t1\n", "story.txt:1: tells nothing"),
        ("1 Mary moved.\n2 Where is Mary?\tbathroom\tone\n", "story.txt:2: follows from one"),
        ("1 Mary moved.\n2 Where is Mary?\tbathroom\t9\n", "story.txt:2: follows from 9"),
        ("1 Mary moved.\n2 Where?\thall\t1\n3 Where is Mary?\tbathroom\t2\n", "story.txt:3: follows from 2"),
        ("1 Mary moved.\n2 Where is Mary?\tbathroom\t1\t2\n", "story.txt:2: has 3 tabs"),
    ],
)
def test_broken_text_is_refused_in_a_line(tmp_path: Path, content: str | bytes, wrong: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as refusal:
        read_stories(written(tmp_path, content))
    assert wrong in str(refusal.value)


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "must be an object with story, question and answer"),
        ('{"story": ["A."], "question": "Q?"}', "must be an object with story, question and answer"),
        ('{"story": "", "question": "Q?", "answer": "a"}', "tells nothing"),
        ('{"story": [], "question": "Q?", "answer": "a"}', "asks before anything is told"),
        ('{"story": [1], "question": "Q?", "answer": "a"}', "must be a list of sentences"),
        ('{"story": {"a": 1}, "question": "Q?", "answer": "a"}', "must be a list of sentences"),
        ('{"story": ["A."], "question": 7, "answer": "a"}', "question and answer must be texts"),
        ('{"story": ["A."], "question": "Q?", "answer": null}', "question and answer must be texts"),
        ('{"story": ["A."], "question": "Q?", "answer": "a", "supporting": [1]}', "must be places in the story"),
        ('{"story": ["A."], "question": "Q?", "answer": "a", "supporting": [true]}', "must be places in the story"),
        ('{"story": ["A."], "question": "Q?", "answer": "a", "supporting": "0"}', "must be places in the story"),
    ],
)
def test_broken_json_is_refused_in_a_line(tmp_path: Path, line: str, wrong: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as refusal:
        read_stories(written(tmp_path, line + "\n", "own.jsonl"))
    assert wrong in str(refusal.value)
    assert "own.jsonl:1" in str(refusal.value)


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.txt", tmp_path):
        with pytest.raises(ValueError, match=f"{path}: cannot be read"):
            read_stories(path)


def test_a_story_without_questions_is_numbered_or_not(tmp_path: Path) -> None:
    told = ("Mary moved to the hall.", "7 dwarfs came.")
    assert read_sentences(written(tmp_path, f"1 {told[0]}\n2 {told[1]}\n")) == told
    assert read_sentences(written(tmp_path, f"{told[0]}\n\nThe {told[1]}\n")) == (told[0], f"The {told[1]}")
    with pytest.raises(ValueError, match=r"story.txt:2: has a tab"):
        read_sentences(written(tmp_path, "1 Mary moved.\n2 Where is Mary?\thall\n"))
