"""Public data sets of images, through torchvision's own loaders: downloaded, checked and split as published."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch
import torchvision

from memlab.argument_checks import check_choice, check_switch
from memlab.datasets.labelled import LabelledData
from memlab.objects import ObjectStore

TORCHVISION_IMAGES = {"mnist": torchvision.datasets.MNIST, "fashion_mnist": torchvision.datasets.FashionMNIST}


def torchvision_images(*, name: str, root: str, download: bool) -> LabelledData:
    """MNIST or Fashion-MNIST with their official split, through torchvision's own loader.

    Args:
        name: ``mnist`` or ``fashion_mnist``.
        root: folder that holds, or is to hold, torchvision's folder of the data set.
        download: fetch what is missing; a download that fails leaves nothing behind.

    Raises:
        ValueError: if files are missing and not to be had, or cannot be read, or are damaged.
    """
    dataset = TORCHVISION_IMAGES[check_choice("name", name, TORCHVISION_IMAGES)]
    folder = Path(str(root))
    files = [folder / dataset.__name__ / "raw" / Path(resource).stem for resource, _ in dataset.resources]
    if missing := [str(file) for file in files if not file.is_file()]:
        if not check_switch("download", download):
            raise ValueError(f"root={root}: lacks {missing[0]}; name another folder, or set data.download=true")
        _download(dataset, folder)
    try:
        train, test = (dataset(str(folder), train=train) for train in (True, False))
        store = ObjectStore(
            inputs=torch.cat([train.data, test.data])[:, None],
            labels=torch.cat([train.targets, test.targets]).long(),
            class_names=tuple(label.split(" - ")[0] for label in dataset.classes),
        )
    except (RuntimeError, ValueError, IndexError, AssertionError, TypeError, OSError) as error:
        raise ValueError(
            f"root={root}: cannot read {files[0].parent}, a file there is truncated, damaged or unreadable"
            f" ({type(error).__name__}: {error}); remove it and download again"
        ) from error
    rows = torch.arange(len(store))
    return LabelledData(name, store, rows[: len(train)], rows[len(train) :])


def _download(dataset: type[torchvision.datasets.MNIST], folder: Path) -> None:
    """Download to a folder of its own and move the files in when they are all there."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    try:
        with tempfile.TemporaryDirectory(dir=existing, prefix=".download-") as staging:
            dataset(staging, download=True)
            shutil.copytree(staging, folder, dirs_exist_ok=True)
    except (RuntimeError, OSError) as error:
        raise ValueError(
            f"root={folder}: has no complete {dataset.__name__}, and the download failed"
            f" ({str(error).splitlines()[0].rstrip(':')}); is there a network? Or name a folder that has it"
        ) from error
