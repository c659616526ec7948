"""What commands on a trained memory are given: pictures, folders, files of arrays, tables; and how they answer."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from memlab.files import in_utf8

if TYPE_CHECKING:
    from memlab.data.columns import Columns
    from memlab.data.texts import Texts
    from memlab.trained import Answer, TrainedMemory


class Given(NamedTuple):
    """Objects to be classified or taken in."""

    inputs: Any
    """As of `memlab.trained.TrainedMemory.predict`."""
    names: list[str]
    """(n,) what each is called: its file, or file and row."""
    labels: list[str] | None
    """(n,) class names, where they are told: by folders, an array ``y``, or a column."""


FILES = "pictures, folders, a file of arrays, a table (.csv, .tsv, .parquet), sequences (.npz, .parquet, .ts) or texts"
ARRAYS, TABLES = (".npz", ".pt", ".safetensors"), (".csv", ".tsv", ".parquet")


def add_memory(parser: argparse.ArgumentParser) -> None:
    """Declare the memory and what all commands on one have."""
    parser.add_argument("memory", type=Path, metavar="RUN", help="a run folder, or one that memory.save wrote")
    parser.add_argument("--json", action="store_true", help="answer in JSON")


def add_queries(parser: argparse.ArgumentParser, *, at_least_one: bool = True) -> None:
    """Declare the objects to be classified, and what is to be told of each."""
    files = parser.add_argument("files", type=Path, nargs="+", default=[], metavar="FILES", help=FILES)
    files.required = at_least_one  # nargs="*" would be content with none before an option, and refuse those behind
    parser.add_argument("--k", type=int, default=None, help="objects of the evidence (default: 5, or all if fewer)")
    parser.add_argument("--coverage", type=float, default=None, help="add sets of classes that hold the truth so often")


def add_target(parser: argparse._ActionsContainer) -> None:
    """Declare where a table has the classes."""
    parser.add_argument(
        "--target",
        default=None,
        metavar="COLUMN",
        help="column of a table that has the classes: its name in the first line, or its place from 1",
    )


def told(arguments: argparse.Namespace, values: Any, words: str) -> str:
    """What a command prints: values in JSON if that is asked for, else words."""
    return json.dumps(values, indent=2, ensure_ascii=False) if arguments.json else words


@contextmanager
def told_if_unwritable(target: Path) -> Iterator[None]:
    """Within this context a file that cannot be written is told as a mistake, in a line."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{target}: cannot be written ({error.strerror})") from error


@contextmanager
def progress_bar(what: str, *, total: int) -> Iterator[Callable[[int], object]]:
    """A bar on a terminal, that is gone at the end; what is given is called with each number done."""
    from rich.console import Console
    from rich.progress import Progress

    screen = Console(stderr=True)
    with Progress(console=screen, transient=True, disable=not screen.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.advance(task, done)


def answered(memory: TrainedMemory, given: Given, *, k: int | None, coverage: float | None) -> Answer:
    """What the memory says of the objects, with a bar on a terminal while it works."""
    from memlab.trained import Answer

    answers = []
    with progress_bar("classifying", total=len(given.names)) as advance:
        for answer in memory.stream(given.inputs, k=k, coverage=coverage):
            answers.append(answer)
            advance(len(answer))
    if not answers:
        raise ValueError("there are no objects to classify")
    return Answer.join(answers)


def ids(text: str) -> list[int]:
    """An argument of ids with commas between.

    >>> ids("3,17")
    [3, 17]
    """
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: must be numbers with commas between, as 3,17") from None


def collect(
    memory: TrainedMemory, paths: Sequence[Path], *, labelled: bool = False, target: str | None = None
) -> Given:
    """The objects of some files and folders.

    Args:
        memory: knows what an object is.
        paths: picture files and folders of these; for a memory of other objects a .npz, .pt or .safetensors file of X,
            or of vectors a table, of sequences a .ts file.
        labelled: with their classes: of folders ``<class>/...``, of an array y beside X, or of a column of a table.
        target: this column.

    Raises:
        ValueError: for what is not there or holds no objects.
    """
    from memlab.data.frames import is_table

    for path in paths:
        if not path.exists():
            raise ValueError(f"{path}: there is no such file")
    if memory.kind.texts is not None:
        return _texts(memory.kind.texts, paths, labelled=labelled, target=target)
    if memory.kind.is_sequence:
        return _sequences(paths, labelled=labelled, target=target)
    columns = memory.kind.columns
    tables = [path for path in paths if (path.suffix in TABLES if columns is None else is_table(path))]
    if target is not None and not tables:
        raise ValueError(f"target={target}: is for tables; {paths[0]} is none")
    whole = [path for path in paths if path.suffix in ARRAYS] + tables
    if whole and len(paths) > 1:
        raise ValueError(f"{whole[0]}: must be given alone, as a file of many objects")
    if tables and columns is not None:
        return _rows(columns, tables[0], labelled=labelled, target=target)
    if tables:
        return _table(memory, tables[0], labelled=labelled, target=target)
    if whole:
        return _arrays(whole[0], labelled=labelled)
    if not memory.kind.is_picture:
        raise ValueError(
            f"{paths[0]}: must be a file that ends in {', '.join(ARRAYS)}, or {', '.join(TABLES)} of vectors; objects"
            f" as {memory.kind.wanted}"
        )
    return _labelled_pictures(paths) if labelled else _pictures(paths)


def typed(memory: TrainedMemory, given: Sequence[Sequence[str]]) -> Given:
    """Texts, or pairs of them, that are given themselves.

    Raises:
        ValueError: if they are no objects of the memory.
    """
    from memlab.data.texts import not_known, quoted

    if memory.kind.texts is None:
        raise ValueError(f"--text: is for a memory of texts; must be given {memory.kind.wanted}")
    parts = len(memory.kind.texts.columns)
    if wrong := [each for each in given if len(each) != parts]:
        raise ValueError(f"--text {quoted(wrong[0])}: must be {memory.kind.wanted}, {parts} after each --text")
    for note in not_known(memory.kind.texts, given):
        print(f"warning: {note}", file=sys.stderr)
    return Given([each[0] if parts == 1 else each for each in given], [quoted(each) for each in given], None)


def _texts(texts: Texts, paths: Sequence[Path], *, labelled: bool, target: str | None) -> Given:
    """The texts of a file, or of a folder."""
    from memlab.data.datasets.text_file import read_texts
    from memlab.data.texts import not_known

    path, *others = paths
    if others:
        raise ValueError(f"{others[0]}: must be given alone, a file or a folder of texts")
    found = read_texts(path, columns=texts.columns, target=(target or texts.target) if labelled else None)
    for note in not_known(texts, found.texts):
        print(f"warning: {path}: {note}", file=sys.stderr)
    return Given(found.texts, found.sources(), found.labels)


def _sequences(paths: Sequence[Path], *, labelled: bool, target: str | None) -> Given:
    """The sequences of a file."""
    from memlab.data.datasets.sequence_file import PARQUET, TS, read_sequences

    path, *others = paths
    if target is not None:
        raise ValueError(f"target={target}: is for tables; {path} is none")
    if path.suffix not in (kinds := (*ARRAYS, PARQUET, TS)) or others:
        raise ValueError(f"{path}: must be one file of sequences that ends in {', '.join(kinds)}")
    found = read_sequences(path, labelled=labelled)
    each = str(path) if path.suffix == TS else f"{path} {found.name}"
    return Given(found.sequences, [f"{each}[{row}]" for row in range(len(found.sequences))], found.labels)


def _rows(columns: Columns, path: Path, *, labelled: bool, target: str | None) -> Given:
    """The rows of a table whose columns are known by name."""
    from memlab.data.columns import listed, trimmed
    from memlab.data.frames import read_frame

    frame = read_frame(path)
    rows, notes = columns.rows(frame, name=str(path))
    for note in notes:
        print(f"warning: {note}", file=sys.stderr)
    names = [f"{path} row {row + 1}" for row in range(len(rows))]
    if not labelled:
        return Given(rows, names, None)
    target = columns.target if target is None else target
    if target not in frame.columns:
        raise ValueError(f"target={target}: {path} has no such column; must be one of {listed(frame.columns)}")
    labels = trimmed(frame[target])
    if unlabelled := labels.null_count():
        raise ValueError(f"{path}: {target} is missing in {unlabelled} rows; must be the name of a class")
    return Given(rows, names, labels.to_list())


def _table(memory: TrainedMemory, path: Path, *, labelled: bool, target: str | None) -> Given:
    from memlab.data.datasets.table_file import read_table

    features = memory.kind.shape[0]
    if len(memory.kind.shape) != 1 or features is None:
        raise ValueError(f"{path}: a table has rows of numbers; must be {memory.kind.wanted}")
    if labelled and target is None:
        raise ValueError(f"{path}: target must be given, the column that has the classes")
    inputs, labels = read_table(path, features=features, target=target)
    return Given(inputs, [f"{path} row {row + 1}" for row in range(len(inputs))], labels)


def _arrays(path: Path, *, labelled: bool) -> Given:
    from memlab.data.datasets.tensor_file import label_words, read_arrays, real_numbers

    arrays = read_arrays(path)
    for name in ("X", "y") if labelled else ("X",):
        if name not in arrays:
            raise ValueError(f"{path}: lacks {name}; has {', '.join(map(str, arrays)) or 'nothing'}")
    inputs = real_numbers(str(path), "X", arrays["X"])
    labels = [str(word) for word in label_words(str(path), "y", arrays["y"])] if labelled else None
    return Given(inputs, [f"{path} X[{row}]" for row in range(len(inputs))], labels)


def _pictures(paths: Sequence[Path]) -> Given:
    found = [file for path in paths for file in (_below(path) if path.is_dir() else [path])]
    if not found:
        raise ValueError(f"{paths[0]}: has no picture files")
    return Given(found, [in_utf8(file) for file in found], None)


def _labelled_pictures(paths: Sequence[Path]) -> Given:
    pairs = []
    for path in paths:
        if not path.is_dir():
            raise ValueError(f"{path}: must be a folder <class>/... of pictures, so that their classes are known")
        for folder in sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
            pairs += [(file, folder.name) for file in _below(folder)]
    if not pairs:
        raise ValueError(f"{paths[0]}: has no pictures in folders <class>/...")
    files, labels = zip(*pairs, strict=True)
    return Given(list(files), [in_utf8(file) for file in files], [in_utf8(label) for label in labels])


def _below(folder: Path) -> list[Path]:
    from memlab.data.datasets.image_folder import IMG_EXTENSIONS

    files = (file for file in folder.rglob("*") if not any(part.startswith(".") for part in file.parts[-2:]))
    return sorted(file for file in files if file.suffix.lower() in IMG_EXTENSIONS and file.is_file())
