"""A user's own images in folders named by class, decoded once."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import torch

from memlab.checks import check_choice, check_number, check_whole_number
from memlab.data.datasets.image_cache import Cache, CachedImages, ImageFile
from memlab.data.datasets.labelled import LabelledData, stratified_split
from memlab.data.objects import ObjectStore
from memlab.files import in_utf8

IMG_EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Endings of files that are taken for images, as torchvision's `ImageFolder` takes them."""

log = logging.getLogger(__name__)
PARTS = ("train", "test")
"""Folders of a set that is split already."""


def image_folder(
    *,
    root: str,
    image_size: int,
    channels: int,
    cache: str | None,
    on_bad_file: str,
    test_fraction: float,
    split_seed: int,
) -> LabelledData:
    """Images under ``train/<class>/...`` and ``test/<class>/...``, or under ``<class>/...`` alone, split by a seed.

    Each is turned upright, cut to a square about its middle and resized, once: `memlab.data.datasets.image_cache` keeps
    the pixels in a file that is mapped into memory, so that sets larger than RAM work. Ids are in the order of the
    paths.

    Args:
        root: the folder.
        image_size: side of the square, in pixels.
        channels: 3 for colour, 1 for grey.
        cache: folder for the decoded images; None for ``.memlab`` in the root.
        on_bad_file: ``error``, or ``skip`` files that cannot be read as images and name them in a warning.
        test_fraction: share of the objects held out, between 0 and 1, if there is no ``test`` folder.
        split_seed: seed of that split, apart from the seed of a run.

    Raises:
        ValueError: for a folder of another layout, files that cannot be read, or a cache that cannot be written.
    """
    check_whole_number("image_size", image_size)
    if check_whole_number("channels", channels) not in (1, 3):
        raise ValueError(f"channels={channels}: must be 3 for colour or 1 for grey")
    check_choice("on_bad_file", on_bad_file, ["error", "skip"])
    check_number("test_fraction", test_fraction, above=0, below=1)
    folder = Path(str(root))
    if not folder.is_dir():
        raise ValueError(f"root={root}: there is no such folder; must hold train/<class>/... or <class>/...")
    parts = _parts(folder)
    files = [file for part in parts for file in _files_of_classes(folder, part)]
    if not files:
        raise ValueError(
            f"root={root}: has no images; must hold train/<class>/... and test/<class>/..., or <class>/..."
        )
    try:
        place = _place(folder, cache)
        images = Cache(folder, place, image_size=image_size, channels=channels).open(files)
    except OSError as error:
        raise ValueError(
            f"cache={cache}: cannot keep decoded images in {place} ({error}); name another folder"
        ) from error
    _see_to_bad_files(root, images, on_bad_file=on_bad_file)
    names = sorted({file.class_name for file in files})
    number = {name: label for label, name in enumerate(names)}
    store = ObjectStore(
        inputs=images.pixels,
        labels=torch.tensor([number[file.class_name] for file in files]),
        class_names=tuple(map(in_utf8, names)),
    )
    good = torch.tensor([file.path not in images.problems for file in files])
    if parts == PARTS:
        of_train = torch.tensor([file.part == "train" for file in files])
        train_rows, test_rows = ((good & own).nonzero().flatten() for own in (of_train, ~of_train))
        for rows, other in ((train_rows, "train"), (test_rows, "test")):
            if not len(rows):
                raise ValueError(f"root={root}: has no images in {other}/")
        if strangers := sorted(set(store.labels[test_rows].tolist()) - set(store.labels[train_rows].tolist())):
            raise ValueError(
                f"root={root}: has test/{names[strangers[0]]} but no images in train/{names[strangers[0]]}"
            )
    else:
        rows = good.nonzero().flatten()
        train_rows, test_rows = stratified_split(rows, store.labels, held_out=test_fraction, seed=split_seed)
    paths = [in_utf8(file.path) for file in files]
    return LabelledData(in_utf8(folder.resolve().name), store, train_rows, test_rows, paths.__getitem__)


def _place(folder: Path, cache: str | None) -> Path:
    """Where the decoded images are kept; of several roots that share a named folder, each has a place of its own."""
    if cache is None:
        return folder / ".memlab"
    return Path(str(cache)) / f"{folder.resolve().name}-{hashlib.sha256(bytes(folder.resolve())).hexdigest()[:8]}"


def _parts(folder: Path) -> tuple[str, ...]:
    there = {entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")}
    if there >= set(PARTS):
        if others := sorted(there - set(PARTS)):
            log.warning(f"{in_utf8(folder)}: {in_utf8(', '.join(others))} left alone beside train and test")
        return PARTS
    if "train" in there and there <= {"train", "val", "valid", "validation"}:
        raise ValueError(
            f"root={folder}: has train/ but no test/; must have both, or the classes alone; objects for validation are"
            " taken from train/ by datamodule.validation_fraction"
        )
    return ("",)


def _files_of_classes(folder: Path, part: str) -> Iterator[ImageFile]:
    """All images of a part, by path."""
    above = os.path.join(folder, "")  # noqa: PTH118 - the prefix of every path found, with its last separator
    others = 0
    for class_name in sorted(entry.name for entry in os.scandir(folder / part) if not entry.name.startswith(".")):
        if not (folder / part / class_name).is_dir():
            others += 1
            continue
        for entry in sorted(_files_below(folder / part / class_name), key=lambda entry: entry.path):
            if not entry.name.lower().endswith(IMG_EXTENSIONS):
                others += 1
                continue
            stat = entry.stat()
            path = entry.path[len(above) :].replace(os.sep, "/")  # pathlib takes as long as all the rest here
            yield ImageFile(path, class_name, part, stat.st_size, stat.st_mtime_ns)
    if others:
        where = in_utf8(folder / part)
        log.warning(f"{where}: {others:,} files left alone that are in no class or have no image's name")


def _files_below(folder: Path | str) -> Iterator[os.DirEntry[str]]:
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _files_below(entry.path)
        else:
            yield entry


def _see_to_bad_files(root: str, images: CachedImages, *, on_bad_file: str) -> None:
    for path, problem in images.problems.items():
        log.warning(f"{in_utf8(path)}: {problem}")
    if images.problems:
        count, total = f"{len(images.problems):,}", f"{len(images.pixels):,}"
        if on_bad_file == "error":
            raise ValueError(
                f"root={root}: {count} of {total} files cannot be read as images, among them"
                f" {next(iter(images.problems))}; the log names all: mend or remove them, or set on_bad_file=skip"
            )
        log.warning(f"{count} of {total} files skipped that cannot be read as images")
