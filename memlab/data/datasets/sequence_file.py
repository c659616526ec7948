"""A user's own sequences: arrays with lengths, or files of the UCR/UEA archive."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from memlab.checks import check_number
from memlab.data.datasets.labelled import LabelledData, stratified_split
from memlab.data.datasets.tensor_file import label_words, read_arrays, real_numbers
from memlab.data.datasets.ts_file import read_ts
from memlab.data.frames import read_lists
from memlab.data.objects import ObjectStore
from memlab.data.sequences import Sequences

TS, PARQUET = ".ts", ".parquet"


class SequencePart(NamedTuple):
    """Sequences of a file, or of some arrays of one."""

    name: str
    """What each is called, with its place."""
    sequences: Sequences
    labels: list[str] | None
    """(N,) names of classes; None where there are none."""
    classes: list[str]
    """Names of classes in order."""

    def source(self, row: int) -> str:
        """Where a sequence is from."""
        return f"{self.name}[{row}]"


def sequences(*, path: str, test_fraction: float, split_seed: int) -> LabelledData:
    """Sequences of steps, each as long as it is, with m numbers in a step.

    Of a file of arrays, .npz, .pt or .safetensors: ``X`` (N, T, m), or (N, T) of one number a step, ``lengths`` (N,)
    and ``y`` (N,); what is behind the length of each is not looked at, and without lengths all have T steps. Or ``X``
    (S, m), the steps of one sequence after the other, as many as all lengths together. With ``X_test``,
    ``lengths_test`` and ``y_test`` beside them these are the test objects. Of a .parquet file the columns ``X``, in
    each row a list of numbers or of steps, lists of m numbers, and ``y``. Of a folder NAME as the archive has it:
    ``NAME_TRAIN.ts`` and ``NAME_TEST.ts``, its official split. Or of one .ts file.

    Args:
        path: the file or the folder.
        test_fraction: share of the objects held out, between 0 and 1, where there are no test objects.
        split_seed: seed of that split, apart from the seed of a run.

    Raises:
        ValueError: for what is not there, cannot be read or is no such sequences.
    """
    given = Path(str(path))
    parts = _parts(given)
    for part in parts:
        if part.labels is None:
            raise ValueError(f"path={path}: {part.name} has no classes; must have them, to learn from")
    if len({(part.sequences.shape[2], part.sequences.dtype) for part in parts}) > 1:
        kinds = " and ".join(f"{part.name} {part.sequences.shape[2]}" for part in parts)
        raise ValueError(f"path={path}: training and test objects are of two kinds, numbers of a step: {kinds}")
    classes = list(dict.fromkeys(name for part in parts for name in part.classes))
    numbers = {name: number for number, name in enumerate(classes)}
    labels = torch.tensor([numbers[name] for part in parts for name in part.labels or ()])
    if len(labels.unique()) < 2:
        raise ValueError(f"path={path}: has objects of one class alone, {classes[int(labels[0])]}; must have two")
    store = ObjectStore(
        inputs=Sequences(
            torch.cat([part.sequences.steps for part in parts]), torch.cat([part.sequences.lengths for part in parts])
        ),
        labels=labels,
        class_names=tuple(classes),
    )
    rows, size = torch.arange(len(store)), len(parts[0].sequences)
    if len(parts) == 2:
        train_rows, test_rows = rows[:size], rows[size:]
    else:
        check_number("test_fraction", test_fraction, above=0, below=1)
        train_rows, test_rows = stratified_split(rows, store.labels, held_out=test_fraction, seed=split_seed)

    def source(row: int) -> str:
        return parts[0].source(row) if row < size else parts[1].source(row - size)

    return LabelledData(given.stem, store, train_rows, test_rows, source)


def read_sequences(file: Path, *, labelled: bool) -> SequencePart:
    """Sequences of a file, the training objects of one of arrays that has test objects too.

    Args:
        file: of arrays ``X`` and maybe ``lengths``, .parquet or .ts.
        labelled: with classes, ``y`` in a file of arrays.

    Raises:
        ValueError: if it cannot be read, or lacks something.
    """
    part = _of_ts(file) if file.suffix == TS else _of_arrays(file, _arrays(file), "", labelled=labelled)
    if labelled and part.labels is None:
        raise ValueError(f"path={file}: has no classes; must have them")
    return part


def _parts(given: Path) -> list[SequencePart]:
    """Training objects, and test objects where there are any."""
    if given.is_dir():
        files = [given / f"{given.resolve().name}_{part}{TS}" for part in ("TRAIN", "TEST")]
        for file in files:
            if not file.is_file():
                raise ValueError(
                    f"path={given}: lacks {file.name}; must be a folder NAME of NAME_TRAIN.ts, NAME_TEST.ts"
                )
        return [_of_ts(file) for file in files]
    if given.suffix == TS:
        return [_of_ts(given)]
    if not given.exists():
        raise ValueError(f"path={given}: there is no such file or folder")
    arrays = _arrays(given)
    if ("X_test" in arrays) != ("y_test" in arrays):
        raise ValueError(
            f"path={given}: has one of X_test and y_test; must hold both, or neither for a split by a seed"
        )
    suffixes = ["", "_test"] if "X_test" in arrays else [""]
    return [_of_arrays(given, arrays, suffix, labelled=True) for suffix in suffixes]


def _arrays(file: Path) -> Mapping[str, Any]:
    if file.suffix != PARQUET:
        return read_arrays(file)
    try:
        return read_lists(file)
    except ValueError as error:
        raise ValueError(f"path={error}") from error


def _of_ts(file: Path) -> SequencePart:
    found = read_ts(file)
    return SequencePart(
        file.name, found.sequences, None if found.labels is None else list(found.labels), list(found.classes)
    )


def _of_arrays(file: Path, arrays: Mapping[str, Any], suffix: str, *, labelled: bool) -> SequencePart:
    name = f"X{suffix}"
    for needed in (name, f"y{suffix}") if labelled else (name,):
        if needed not in arrays:
            raise ValueError(f"path={file}: lacks {needed}; has {', '.join(map(str, arrays)) or 'nothing'}")
    made = _sequences(file, suffix, real_numbers(str(file), name, arrays[name]), arrays.get(f"lengths{suffix}"))
    if (place := made.first_not_finite()) is not None:
        raise ValueError(
            f"path={file}: {name}[{place[0]}] has NaN or infinity in step {place[1] + 1}; every value must be finite,"
            f" and lengths{suffix} tell where each ends"
        )
    if not labelled:
        return SequencePart(name, made, None, [])
    words = label_words(str(file), f"y{suffix}", arrays[f"y{suffix}"])
    if len(words) != len(made):
        raise ValueError(f"path={file}: {name} holds {len(made)} objects and y{suffix} {len(words)} labels")
    return SequencePart(name, made, [str(word) for word in words], [str(word) for word in np.unique(words)])


def _sequences(file: Path, suffix: str, given: Tensor, lengths: Any) -> Sequences:
    """Of padded sequences, or of the steps of one after the other."""
    count, total = (None, None) if lengths is None else (np.asarray(lengths).size, np.asarray(lengths).sum())
    if given.dim() == 2 and count not in (None, len(given)) and total == len(given):
        return Sequences(given, _lengths(file, f"lengths{suffix}", lengths, count=count or 0, most=len(given)))
    padded = given[..., None] if given.dim() == 2 else given
    if padded.dim() != 3 or not padded.numel():
        raise ValueError(
            f"path={file}: X{suffix} is {tuple(padded.shape)}; must be (N, T, m), m numbers in each of T steps"
        )
    count, most = padded.shape[:2]
    if lengths is None:
        return Sequences(padded.flatten(0, 1), torch.full((count,), most))
    ends = _lengths(file, f"lengths{suffix}", lengths, count=count, most=most)
    return Sequences(padded[torch.arange(most) < ends[:, None]], ends)


def _lengths(file: Path, name: str, given: Any, *, count: int, most: int) -> Tensor:
    """(N,) steps of each sequence."""
    lengths = np.asarray(given)
    if lengths.dtype.kind not in "iu" or lengths.shape != (count,):
        raise ValueError(
            f"path={file}: {name} is {lengths.shape} of {lengths.dtype}; must be ({count},) whole numbers, the steps of"
            " each object"
        )
    if len(bad := ((lengths < 1) | (lengths > most)).nonzero()[0]):
        raise ValueError(
            f"path={file}: {name}[{bad[0]}] is {lengths[bad[0]]}; must be from 1 to {most}, the steps of X"
        )
    return torch.from_numpy(lengths.astype(np.int64))
