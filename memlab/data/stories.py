"""Stories with questions about them: what is told, sentence after sentence, and what is asked in between.

Two formats are read. *bAbI's* (Weston et al. 2015): lines that are numbered, from 1 in each story; a question is a line
with its answer and the numbers of the lines that it follows from behind tabs:

    1 Mary moved to the bathroom.
    2 Where is Mary?<tab>bathroom<tab>1

*JSON lines*, in a file whose name ends in ``.jsonl``: on each line one question,
``{"story": ["Mary moved to the bathroom."], "question": "Where is Mary?", "answer": "bathroom", "supporting": [0]}``,
where ``supporting``, places in the story, may be left out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

JSON_LINES = ".jsonl"
WORD = re.compile(r"\w+(?:'\w+)*")
NUMBERED = re.compile(r"(\d+)\s+(.*)")


@dataclass(frozen=True)
class Question:
    """What is asked in a story.

    Args:
        text: as it is written.
        answer: a word, or several with commas between.
        before: how many sentences have been told when it is asked.
        supporting: places of the sentences, from 0, that the answer follows from, as far as the data tells.
    """

    text: str
    answer: str
    before: int
    supporting: tuple[int, ...] = ()


@dataclass(frozen=True)
class Story:
    """Sentences in the order in which they are told, and the questions about them.

    Args:
        sentences: as they are written.
        questions: in the order in which they are asked.
        source: where it is from, as file and line.
        task: what kind of story it is.
    """

    sentences: tuple[str, ...]
    questions: tuple[Question, ...]
    source: str = ""
    task: str = ""


def words(text: str) -> list[str]:
    """The words of a sentence or of an answer, without what is between them, in small letters.

    >>> words("Where is Mary's milk?"), words("milk,apple")
    (['where', 'is', "mary's", 'milk'], ['milk', 'apple'])
    """
    return [word.lower() for word in WORD.findall(text)]


def answer_of(text: str) -> str:
    """An answer as it is compared: its words with commas between.

    >>> answer_of(" Milk, apple ")
    'milk,apple'
    """
    return ",".join(words(text))


def read_stories(path: Path, *, task: str = "") -> list[Story]:
    """The stories of a file.

    Args:
        path: a text in the format of bAbI, or JSON lines if its name ends in ``.jsonl``.
        task: what kind of stories they are.

    Raises:
        ValueError: for a file that is not there, is empty or no text, or a line that is not as it must be.
    """
    read = _of_json if path.suffix == JSON_LINES else _of_babi
    stories = list(read(path, _lines(path), task))
    if not any(story.questions for story in stories):
        raise ValueError(f"{path}: asks nothing; must have lines with a question, a tab and its answer")
    return [story for story in stories if story.questions]


def read_sentences(path: Path) -> tuple[str, ...]:
    """The sentences of one story without questions: a line each, numbered or not.

    Raises:
        ValueError: for a file that is not there, is empty or no text, or has a line without a word.
    """
    sentences = []
    for number, line in _lines(path):
        text = match[2] if (match := NUMBERED.fullmatch(line)) else line
        if "\t" in text:
            raise ValueError(f"{path}:{number}: has a tab, as a question has; must be a sentence of the story")
        sentences.append(_told(text, path, number))
    return tuple(sentences)


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, with their numbers from 1."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: is no text in UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    if "\0" in text:
        raise ValueError(f"{path}: has bytes of value 0, as no text has; must be a text in UTF-8")
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    if not (found := [(number, line) for number, line in lines if line]):
        raise ValueError(f"{path}: is empty; must have the sentences of a story, a line each")
    return found


@dataclass
class _Draft:
    """A story as far as it has been read."""

    source: str
    task: str
    sentences: list[str] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    """Of each number of a line the place of its sentence."""

    def story(self) -> Story:
        return Story(tuple(self.sentences), tuple(self.questions), self.source, self.task)


def _of_babi(path: Path, lines: Iterable[tuple[int, str]], task: str) -> Iterator[Story]:
    draft, last = _Draft(f"{path.name}:1", task), 0
    for number, line in lines:
        match = NUMBERED.fullmatch(line)
        if match is None:
            raise ValueError(f"{path}:{number}: begins with no number; must be as in '1 Mary moved to the bathroom.'")
        place = int(match[1])
        if place == 1 and last:
            yield draft.story()
            draft, last = _Draft(f"{path.name}:{number}", task), 0
        if place != last + 1:
            raise ValueError(
                f"{path}:{number}: has number {place} after {last}; must be {last + 1}, or 1 in a new story"
            )
        last = place
        text, *rest = match[2].split("\t")
        if rest:
            draft.questions.append(_asked(text, rest, draft, f"{path}:{number}"))
        else:
            draft.places[place] = len(draft.sentences)
            draft.sentences.append(_told(text, path, number))
    yield draft.story()


def _asked(text: str, rest: list[str], draft: _Draft, where: str) -> Question:
    answer, *behind = (part.strip() for part in rest)
    if len(behind) > 1:
        raise ValueError(f"{where}: has {len(behind) + 1} tabs; must have at most two, before answer and numbers")
    supporting = []
    for each in behind[0].split() if behind else ():
        if not each.isdigit() or int(each) not in draft.places:
            raise ValueError(f"{where}: follows from {each}, which is no sentence told before; must be such a number")
        supporting.append(draft.places[int(each)])
    return _question(text, answer, before=len(draft.sentences), supporting=supporting, where=where)


def _of_json(path: Path, lines: Iterable[tuple[int, str]], task: str) -> Iterator[Story]:
    for number, line in lines:
        where = f"{path}:{number}"
        try:
            entry = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"{where}: is no JSON ({error}); must be an object on a line of its own") from None
        if not isinstance(entry, dict) or not {"story", "question", "answer"} <= entry.keys():
            raise ValueError(f"{where}: must be an object with story, question and answer")
        story = entry["story"].split("\n") if isinstance(entry["story"], str) else entry["story"]
        if not _are(str, story):
            raise ValueError(f"{where}: story={_short(story)}: must be a list of sentences")
        if not _are(str, [entry["question"], entry["answer"]]):
            raise ValueError(f"{where}: question and answer must be texts")
        supporting = entry.get("supporting") or []
        if not _are(int, supporting) or not all(0 <= each < len(story) for each in supporting):
            raise ValueError(f"{where}: supporting={_short(supporting)}: must be places in the story, from 0")
        sentences = tuple(_told(text, path, number) for text in story)
        question = _question(
            entry["question"], entry["answer"], before=len(sentences), supporting=supporting, where=where
        )
        yield Story(sentences, (question,), f"{path.name}:{number}", str(entry.get("task", task)))


def _question(text: str, answer: str, *, before: int, supporting: list[int], where: str) -> Question:
    if not words(text):
        raise ValueError(f"{where}: asks without a word; must be as in 'Where is Mary?'")
    if not answer_of(answer):
        raise ValueError(f"{where}: has no answer behind the question; must be a word, or several with commas between")
    if not before:
        raise ValueError(f"{where}: asks before anything is told; must follow a sentence of its story")
    return Question(text.strip(), answer_of(answer), before, tuple(supporting))


def _told(text: str, path: Path, number: int) -> str:
    if not words(text):
        raise ValueError(f"{path}:{number}: tells nothing; must have a word")
    return text.strip()


def _are(kind: type, values: Any) -> bool:
    return isinstance(values, list) and all(type(each) is kind for each in values)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
