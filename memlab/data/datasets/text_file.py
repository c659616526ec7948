"""A user's own texts: a column of a table, lines of JSON, or a folder of .txt files for each class."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from memlab.checks import check_number
from memlab.data.columns import as_text, listed, shown, trimmed
from memlab.data.datasets.labelled import LabelledData, stratified_split
from memlab.data.frames import SUFFIXES, is_table, read_frame
from memlab.data.objects import ObjectStore
from memlab.data.texts import Text, Texts, quoted, told_coverage
from memlab.data.tokens import Tokens
from memlab.files import in_utf8

log = logging.getLogger(__name__)

LINES = (".jsonl", ".ndjson")
PLAIN = ".txt"


class TextPart(NamedTuple):
    """Texts of a file or a folder."""

    texts: list[Text]
    labels: list[str] | None
    """(N,) names of classes; None where they were not asked for."""
    places: list[str]
    """(N,) where each is: file and row, or file."""

    def sources(self) -> list[str]:
        """(N,) where each is from, and how it begins."""
        return [f"{place}: {quoted(text)}" for place, text in zip(self.places, self.texts, strict=True)]


def text(
    *,
    path: str,
    text: str | Sequence[str],
    target: str,
    test_path: str | None,
    tokens: str,
    rare_below: int,
    most_tokens: int,
    longest: int,
    test_fraction: float,
    split_seed: int,
) -> LabelledData:
    """Texts as sequences of tokens, whose numbers are those of the training texts; see `memlab.data.texts`.

    Of a table (`memlab.data.frames`) the column ``text``; of a .jsonl file the field of each line; of a folder all
    .txt files, whose classes are the folders in it that they are in. What has no class is left out. With two columns or
    fields objects are pairs of texts.

    Args:
        path: the file or the folder.
        text: name of the column or field of texts, or of the two of pairs.
        target: that of classes.
        test_path: the test texts, likewise; None to hold some out.
        tokens: ``words``, ``characters``, or the file of a tokenizer; see `memlab.data.tokens`.
        rare_below: tokens in fewer training texts have no number of their own.
        most_tokens: that have one, at most.
        longest: tokens of a text that are read, the first.
        test_fraction: share of the texts held out, between 0 and 1, without ``test_path``.
        split_seed: seed of that split, apart from the seed of a run.

    Raises:
        ValueError: for what is not there or cannot be read, or nothing to learn from.
    """
    try:
        cut = Tokens.of(str(tokens))
    except ValueError as error:
        raise ValueError(f"tokens={error}") from error
    columns = [text] if isinstance(text, str) else list(map(str, text))
    if len(columns) not in (1, 2):
        raise ValueError(f"text=[{', '.join(columns)}]: must be a column, or two of pairs")
    given = {"path": path} if test_path is None else {"path": path, "test_path": test_path}
    parts = []
    for parameter, name in given.items():
        try:
            parts.append(read_texts(Path(str(name)), columns=columns, target=str(target)))
        except ValueError as error:
            raise ValueError(f"{parameter}={error}" if str(error).startswith(str(name)) else str(error)) from error
    classes = sorted({label for part in parts for label in part.labels or ()})
    if len(classes) < 2:
        raise ValueError(f"path={path}: has texts of one class alone, {classes[0]}; must have two")
    numbers = {name: number for number, name in enumerate(classes)}
    labels = torch.tensor([numbers[label] for part in parts for label in part.labels or ()])
    rows, size = torch.arange(len(labels)), len(parts[0].texts)
    if test_path is None:
        check_number("test_fraction", test_fraction, above=0, below=1)
        train_rows, test_rows = stratified_split(rows, labels, held_out=test_fraction, seed=split_seed)
    else:
        train_rows, test_rows = rows[:size], rows[size:]
    all_texts = [each for part in parts for each in part.texts]
    train, test = ([all_texts[row] for row in part.tolist()] for part in (train_rows, test_rows))
    names = {"columns": tuple(columns), "target": str(target)}
    made = Texts.of(train, tokens=cut, rare_below=rare_below, most_tokens=most_tokens, longest=longest, **names)
    log.info(f"{path}: {len(made.vocabulary.words):,} {cut.kind} known")
    for line in told_coverage(made, {"training": train, "test": test}):
        log.info(line)
    store = ObjectStore(inputs=made.encoded(all_texts), labels=labels, class_names=tuple(classes), texts=made)
    sources = [source for part in parts for source in part.sources()]
    source: Callable[[int], str] = sources.__getitem__
    return LabelledData(Path(str(path)).name.split(".")[0], store, train_rows, test_rows, source)


def read_texts(path: Path, *, columns: Sequence[str], target: str | None) -> TextPart:
    """The texts of a file or a folder.

    Args:
        path: a table, a .jsonl file, a folder, or a .txt file of one text.
        columns: names of the columns or fields of texts; a table of one column needs not have the one.
        target: that of classes; None to read texts alone.

    Raises:
        ValueError: for what is not there, or cannot be read; it begins with the path, or names what is wrong in it.
    """
    name = in_utf8(path)
    if path.is_dir():
        return _of_folder(path, name, columns, labelled=target is not None)
    if not path.exists():
        raise ValueError(f"{name}: there is no such file or folder")
    if is_table(path):
        return _of_table(path, name, columns, target)
    if path.suffix in LINES:
        return _of_lines(path, name, columns, target)
    if path.suffix == PLAIN and target is None and len(columns) == 1:
        return TextPart([_read(path)], None, [name])
    raise ValueError(f"{name}: must be a folder of {PLAIN} files by class, or end in {', '.join((*SUFFIXES, *LINES))}")


def _of_table(path: Path, name: str, columns: Sequence[str], target: str | None) -> TextPart:
    frame = read_frame(path)
    columns = frame.columns if frame.width == len(columns) == 1 else columns
    for parameter, column in (*(("text", each) for each in columns), ("target", target)):
        if column is not None and column not in frame.columns:
            raise ValueError(f"{parameter}={column}: {name} has no such column; must be one of {listed(frame.columns)}")
    texts = _joined([as_text(frame[column]).fill_null("").to_list() for column in columns])
    labels = None if target is None else trimmed(frame[target]).to_list()
    return _labelled(texts, labels, [f"{path.name} row {row + 1}" for row in range(len(texts))], name)


def _of_lines(path: Path, name: str, columns: Sequence[str], target: str | None) -> TextPart:
    texts: list[list[str]] = [[] for _ in columns]
    labels, places = [], []
    for number, line in enumerate(_read(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{name}: line {number} is no JSON ({error.msg}); must be {{...}}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{name}: line {number} is {shown(line)}; must be {{...}} with fields")
        if missing := [field for field in (*columns, target) if field is not None and field not in values]:
            raise ValueError(f"{name}: line {number} lacks {missing[0]}; has {listed(list(values)) or 'nothing'}")
        for field, part in zip(columns, texts, strict=True):
            if not isinstance(values[field], str):
                raise ValueError(f"{name}: {field} of line {number} is {shown(values[field])}; must be a text")
            part.append(values[field])
        labels.append(None if target is None or values[target] is None else str(values[target]))
        places.append(f"{path.name} line {number}")
    if not places:
        raise ValueError(f"{name}: has no lines; must have a text on each")
    return _labelled(_joined(texts), None if target is None else labels, places, name)


def _of_folder(path: Path, name: str, columns: Sequence[str], *, labelled: bool) -> TextPart:
    if len(columns) > 1:
        raise ValueError(f"{name}: is a folder, of single texts; pairs must be in a table or a .jsonl file")
    files = sorted(file for file in path.rglob(f"*{PLAIN}") if file.is_file() and file.name[0] != ".")
    if labelled:
        files = [file for file in files if file.parent != path]
    if not files:
        below = f"folders <class>/ of {PLAIN} files" if labelled else f"{PLAIN} files"
        raise ValueError(f"{name}: has no texts; must have {below} in it")
    places = [in_utf8(file.relative_to(path)) for file in files]
    labels = [in_utf8(file.relative_to(path).parts[0]) for file in files] if labelled else None
    return TextPart([_read(file) for file in files], labels, places)


def _joined(columns: Sequence[list[str]]) -> list[Text]:
    """Texts of one column, or pairs of two."""
    return list(columns[0]) if len(columns) == 1 else list(zip(*columns, strict=True))


def _labelled(texts: list[Text], labels: list[str | None] | None, places: list[str], name: str) -> TextPart:
    """Those that have a class."""
    if labels is None:
        return TextPart(texts, None, places)
    kept = [row for row, label in enumerate(labels) if label is not None]
    if missing := len(labels) - len(kept):
        log.warning(f"{name}: {missing:,} of {len(labels):,} texts have no class; they are left out")
    if not kept:
        raise ValueError(f"{name}: has no text with a class; must have some")
    return TextPart([texts[row] for row in kept], [str(labels[row]) for row in kept], [places[row] for row in kept])


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"{in_utf8(file)}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{in_utf8(file)}: is not UTF-8 at byte {error.start:,}; must be a text in UTF-8") from error
