"""The files of public data sets, written small in the layouts that torchvision reads: IDX, pickled batches and .mat."""

from __future__ import annotations

import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from scipy.io import savemat


def write_idx(root: Path, *, folder: str = "MNIST", train: int = 200, test: int = 60, seed: int = 0) -> Path:
    """Write MNIST's files of random 28 x 28 images of ten classes under ``root``; return their folder."""
    raw = root / folder / "raw"
    raw.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for name, size in (("train", train), ("t10k", test)):
        labels = np.arange(size, dtype=np.uint8) % 10
        images = random.integers(0, 40, (size, 28, 28), dtype=np.uint8)
        images[np.arange(size), labels * 2 + 4] = 255  # a bright row tells the class
        (raw / f"{name}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, size, 28, 28) + images.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, size) + labels.tobytes())
    return raw


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, *, dataset: Any = torchvision.datasets.CIFAR10) -> Path:
    """Write 4 images of every class for every batch of CIFAR-10 or -100 and have torchvision expect their checksums.

    Image i of a batch has class ``i % C`` and is grey, of the brightness ``2 class``, but for a blue first row.
    """
    folder = root / str(dataset.base_folder)
    folder.mkdir(parents=True)
    hundred = dataset is torchvision.datasets.CIFAR100
    num_classes = 100 if hundred else 10

    def write(name: str, content: dict[str, Any]) -> str:
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batch(name: str) -> list[str]:
        labels = [i % num_classes for i in range(4 * num_classes)]
        images = np.repeat(2 * np.array(labels, np.uint8), 3072).reshape(-1, 3, 32, 32)
        images[:, 2, 0] = 255
        key = "fine_labels" if hundred else "labels"
        return [name, write(name, {"data": images.reshape(-1, 3072), key: labels})]

    monkeypatch.setattr(dataset, "train_list", [batch(name) for name, _ in dataset.train_list])
    monkeypatch.setattr(dataset, "test_list", [batch(name) for name, _ in dataset.test_list])
    names = {dataset.meta["key"]: [f"class {i}" for i in range(num_classes)]}
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": write(dataset.meta["filename"], names)})
    return folder


def write_svhn(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write 30 training and 20 test images; image i shows the digit ``i % 10``, in SVHN's files 10 for 0."""
    root.mkdir(parents=True, exist_ok=True)
    lists = dict(torchvision.datasets.SVHN.split_list)
    for split, size in (("train", 30), ("test", 20)):
        url, name, _ = lists[split]
        digits = np.arange(size) % 10
        images = np.zeros((32, 32, 3, size), np.uint8)
        images[0, :, 1] = 20 * digits
        savemat(root / name, {"X": images, "y": np.where(digits == 0, 10, digits)[:, None].astype(np.uint8)})
        lists[split] = [url, name, hashlib.md5((root / name).read_bytes()).hexdigest()]
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", lists)
