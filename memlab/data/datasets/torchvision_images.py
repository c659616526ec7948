"""Public data sets of images, through torchvision's own loaders: downloaded, checked and split as published."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock
from torch import Tensor

from memlab.checks import check_choice, check_switch
from memlab.data.datasets.labelled import LabelledData, in_two_parts
from memlab.data.objects import ObjectStore
from memlab.files import DAMAGES


class Part(NamedTuple):
    """The training or the test part of a data set, as torchvision read it."""

    inputs: Tensor
    """(n, channels, height, width) uint8."""
    labels: Tensor
    """(n,) class ids."""
    class_names: tuple[str, ...]


class Source(NamedTuple):
    """How torchvision keeps a family of data sets."""

    name: str
    """Of torchvision's class."""
    parts: tuple[dict[str, Any], dict[str, Any]]
    """By what arguments it gives the training part and the test part."""
    files: Callable[[Any], list[str]]
    """Files of the class that must be there, below the root."""
    read: Callable[[Any], Part]
    """What an instance of the class holds."""

    @property
    def dataset(self) -> Any:
        """Torchvision's class."""
        from torchvision import datasets  # takes seconds, which no other data set is to pay for

        return getattr(datasets, self.name)


def _idx_files(dataset: Any) -> list[str]:
    return [f"{dataset.__name__}/raw/{Path(resource).stem}" for resource, _ in dataset.resources]


def _read_idx(part: Any) -> Part:
    return Part(part.data[:, None], part.targets.long(), tuple(name.split(" - ")[0] for name in part.classes))


def _cifar_files(dataset: Any) -> list[str]:
    names = [name for name, _ in [*dataset.train_list, *dataset.test_list]]
    return [f"{dataset.base_folder}/{name}" for name in [*names, dataset.meta["filename"]]]


def _read_cifar(part: Any) -> Part:
    images = torch.from_numpy(part.data).permute(0, 3, 1, 2)
    return Part(images, torch.tensor(part.targets), tuple(part.classes))


def _svhn_files(dataset: Any) -> list[str]:
    return [dataset.split_list[split][1] for split in ("train", "test")]


def _read_svhn(part: Any) -> Part:
    return Part(torch.from_numpy(part.data), torch.from_numpy(part.labels), tuple(map(str, range(10))))


_BY_TRAIN = {"train": True}, {"train": False}
_BY_SPLIT = {"split": "train"}, {"split": "test"}
SOURCES = {
    "mnist": Source("MNIST", _BY_TRAIN, _idx_files, _read_idx),
    "fashion_mnist": Source("FashionMNIST", _BY_TRAIN, _idx_files, _read_idx),
    "cifar10": Source("CIFAR10", _BY_TRAIN, _cifar_files, _read_cifar),
    "cifar100": Source("CIFAR100", _BY_TRAIN, _cifar_files, _read_cifar),
    "svhn": Source("SVHN", _BY_SPLIT, _svhn_files, _read_svhn),
}


def torchvision_images(*, name: str, root: str, download: bool) -> LabelledData:
    """A data set with its official split, through torchvision's own loader, which checks what it downloads.

    Args:
        name: ``mnist``, ``fashion_mnist``, ``cifar10``, ``cifar100`` or ``svhn`` (without its extra part).
        root: folder that holds, or is to hold, what torchvision keeps of the data set.
        download: fetch what is missing; a download that fails leaves nothing behind.

    Raises:
        ValueError: if files are missing and not to be had, or cannot be read, or are damaged.
    """
    source = SOURCES[check_choice("name", name, SOURCES)]
    folder = Path(str(root))
    files = [folder / file for file in source.files(source.dataset)]
    if missing := _missing(files):
        if not check_switch("download", download):
            raise ValueError(f"root={root}: lacks {missing[0]}; name another folder, or set download=true")
        with _one_at_a_time(folder):
            if _missing(files):  # another process may have downloaded it in the meantime
                _download(source, folder)
    try:
        train, test = (source.read(source.dataset(str(folder), **part)) for part in source.parts)
        store = ObjectStore(
            inputs=torch.cat([train.inputs, test.inputs]),
            labels=torch.cat([train.labels, test.labels]),
            class_names=train.class_names,
        )
    except DAMAGES as error:
        raise ValueError(
            f"root={root}: cannot read {files[0].parent}, a file there is truncated, damaged or unreadable"
            f" ({type(error).__name__}: {error}); remove it and download again"
        ) from error
    rows = torch.arange(len(store))
    size = len(train.labels)
    return LabelledData(name, store, rows[:size], rows[size:], in_two_parts("train", "test", size=size))


def _missing(files: Sequence[Path]) -> list[str]:
    return [str(file) for file in files if not file.is_file()]


def _one_at_a_time(folder: Path) -> FileLock:
    """A lock for what one process of this machine downloads for all; nothing of it is in the folder."""
    place = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
    return FileLock(Path(tempfile.gettempdir()) / f"memlab-{os.getuid()}-{place}.lock")


def _download(source: Source, folder: Path) -> None:
    """Download to a folder of its own and move the files in, less the archives, when they are all there."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryDirectory(dir=existing, prefix=".download-") as staging:
            for part in source.parts:
                source.dataset(staging, download=True, **part)
            shutil.copytree(staging, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.gz"))
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"root={folder}: has no complete {source.name}, and the download failed"
            f" ({str(error).splitlines()[0].rstrip(':')}); is there a network? Or name a folder that has it"
        ) from error
