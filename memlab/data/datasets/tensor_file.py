"""A user's own arrays: tables, embeddings computed elsewhere, images that are decoded already."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from memlab.checks import check_number
from memlab.data.datasets.labelled import LabelledData, in_two_parts, stratified_split
from memlab.data.objects import ObjectStore
from memlab.files import DAMAGES


def tensor_file(*, path: str, test_fraction: float, split_seed: int) -> LabelledData:
    """Arrays ``X`` (N, ...) and ``y`` (N,) of a .npz, .pt or .safetensors file; nothing in it is executed.

    With ``X_test`` and ``y_test`` beside them these are the test objects; without, a stratified share of the others is.
    ``X`` stays uint8 if it is, as of images (N, channels, height, width); all other numbers become float32. ``y`` holds
    whole numbers or, in .npz and .pt files, words; its different values in order are the classes.

    Args:
        path: the file.
        test_fraction: share of the objects held out, between 0 and 1, if the file has no test objects.
        split_seed: seed of that split, apart from the seed of a run.

    Raises:
        ValueError: if the file cannot be read, lacks an array, or the arrays do not fit each other.
    """
    file = Path(str(path))
    arrays = read_arrays(file)
    if missing := [name for name in ("X", "y") if name not in arrays]:
        there = ", ".join(map(str, arrays)) or "nothing"
        raise ValueError(f"path={path}: lacks {missing[0]}; must hold X and y, and has {there}")
    if ("X_test" in arrays) != ("y_test" in arrays):
        raise ValueError(f"path={path}: has one of X_test and y_test; must hold both, or neither for a split by a seed")
    names = ["", "_test"] if "X_test" in arrays else [""]
    inputs = [real_numbers(path, f"X{name}", arrays[f"X{name}"]) for name in names]
    words = [label_words(path, f"y{name}", arrays[f"y{name}"]) for name in names]
    for name, x, y in zip(names, inputs, words, strict=True):
        if len(x) != len(y):
            raise ValueError(f"path={path}: X{name} holds {len(x)} objects and y{name} {len(y)} labels")
    if len({(x.shape[1:], x.dtype) for x in inputs}) > 1:
        shapes = " and ".join(f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}" for x in inputs)
        raise ValueError(f"path={path}: X and X_test hold objects of two kinds, {shapes}")
    values, labels = np.unique(np.concatenate(words), return_inverse=True)
    try:
        store = ObjectStore(
            inputs=torch.cat(inputs), labels=torch.from_numpy(labels).long(), class_names=tuple(map(str, values))
        )
    except ValueError as error:
        raise ValueError(f"path={path}: {error}") from error
    rows = torch.arange(len(store))
    if len(names) == 2:
        train_rows, test_rows = rows[: len(inputs[0])], rows[len(inputs[0]) :]
    else:
        check_number("test_fraction", test_fraction, above=0, below=1)
        train_rows, test_rows = stratified_split(rows, store.labels, held_out=test_fraction, seed=split_seed)
    source = in_two_parts("X", "X_test", size=len(inputs[0]))
    return LabelledData(file.stem, store, train_rows, test_rows, source)


def _read_npz(file: Path) -> Mapping[str, Any]:
    with np.load(file, allow_pickle=False) as arrays:
        return dict(arrays)


def _read_pt(file: Path) -> Any:
    return torch.load(file, map_location="cpu", weights_only=True)


_READERS: dict[str, Callable[[Path], Any]] = {".npz": _read_npz, ".pt": _read_pt, ".safetensors": load_file}


def read_arrays(file: Path) -> Mapping[str, Any]:
    """What a .npz, .pt or .safetensors file holds, by name; nothing in it is executed.

    Raises:
        ValueError: if the file cannot be read.
    """
    if file.suffix not in _READERS:
        raise ValueError(f"path={file}: must end in {', '.join(_READERS)}")
    try:
        arrays = _READERS[file.suffix](file)
    except (*DAMAGES, SafetensorError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"path={file}: cannot be read as a {file.suffix} file ({why})") from error
    if not isinstance(arrays, Mapping):
        raise ValueError(f"path={file}: holds a {type(arrays).__name__}; must hold a dict of X and y")
    return arrays


def real_numbers(path: str, name: str, array: Any) -> Tensor:
    """(N, ...) objects as they are kept: uint8 as it is, all else as float32.

    Raises:
        ValueError: for what is no such array.
    """
    try:
        inputs = torch.as_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"path={path}: {name} is not an array of numbers") from error
    if inputs.dim() < 2 or inputs.is_complex():
        raise ValueError(f"path={path}: {name} is {tuple(inputs.shape)}; must be (N, ...) real numbers, N objects")
    return inputs if inputs.dtype is torch.uint8 else inputs.float()


def label_words(path: str, name: str, array: Any) -> np.ndarray[Any, Any]:
    """(N,) labels, whole numbers or words.

    Raises:
        ValueError: for what is no such array.
    """
    try:
        labels = np.asarray(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"path={path}: {name} is not an array of labels") from error
    if labels.ndim != 1 or labels.dtype.kind not in "biuU":
        raise ValueError(
            f"path={path}: {name} is {labels.shape} of {labels.dtype}; must be (N,) whole numbers or words, one label"
            " for each object"
        )
    return labels
