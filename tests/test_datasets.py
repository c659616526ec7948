from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError

import pytest
import torch
import torchvision

from memlab.baselines import PixelKNN
from memlab.datasets import digits, stratified_split, synthetic_table, torchvision_images
from tests.idx_files import write_idx

NAMES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", refuse)


def test_digits_are_the_1797_with_a_split_that_only_its_seed_decides() -> None:
    data = digits(test_fraction=0.2, split_seed=0)
    assert data.store.inputs.shape == (1797, 1, 8, 8)
    assert data.store.inputs.dtype is torch.uint8
    assert len(data.test_rows) == 360
    assert sorted([*data.train_rows.tolist(), *data.test_rows.tolist()]) == list(range(1797))
    assert torch.equal(data.test_rows, digits(test_fraction=0.2, split_seed=0).test_rows)
    assert not torch.equal(data.test_rows, digits(test_fraction=0.2, split_seed=1).test_rows)


def test_stratified_split_keeps_the_shares_of_the_classes() -> None:
    labels = torch.tensor([0] * 60 + [1] * 40)
    kept, held = stratified_split(torch.arange(100), labels, held_out=0.1, seed=3)
    assert labels[held].bincount().tolist() == [6, 4]
    assert not set(kept.tolist()) & set(held.tolist())


@pytest.mark.parametrize(("name", "folder"), NAMES.items())
def test_reads_idx_files_with_their_official_split(name: str, folder: str, tmp_path: Path) -> None:
    write_idx(tmp_path, folder=folder)
    data = torchvision_images(name=name, root=str(tmp_path), download=False)
    assert data.store.inputs.shape == (260, 1, 28, 28)
    assert (len(data.train_rows), len(data.test_rows)) == (200, 60)
    assert data.test_rows[0] == 200
    assert data.store.labels[[0, 199, 200, 259]].tolist() == [0, 9, 0, 9]
    assert len(data.store.class_names) == 10
    bright = data.store.inputs[:, 0, :, 0].float().argmax(dim=1)
    assert torch.equal(bright, data.store.labels * 2 + 4)


def test_reads_the_real_mnist(mnist_root: str) -> None:
    data = torchvision_images(name="mnist", root=mnist_root, download=True)
    assert (len(data.train_rows), len(data.test_rows)) == (60000, 10000)
    assert data.store.class_names[0] == "0"
    assert data.store.labels[data.train_rows].bincount().tolist()[:3] == [5923, 6742, 5958]


class TestBadRoot:
    def test_missing_and_not_to_be_downloaded(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"root=.*none: lacks .*train-images.* set data\.download=true"):
            torchvision_images(name="mnist", root=str(tmp_path / "none"), download=False)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.usefixtures("no_network")
    @pytest.mark.parametrize("there", ["nothing", "the folder", "three files of four"])
    def test_no_network_leaves_things_as_they_were(self, there: str, tmp_path: Path) -> None:
        root = tmp_path / "data"
        if there == "the folder":
            root.mkdir()
        if there == "three files of four":
            (write_idx(root) / "t10k-labels-idx1-ubyte").unlink()
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(ValueError, match=r"has no complete MNIST, and the download failed .* network"):
            torchvision_images(name="mnist", root=str(root), download=True)
        assert sorted(tmp_path.rglob("*")) == before

    def test_download_moves_in_what_is_complete(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = write_idx(tmp_path / "elsewhere")

        def fetch(_: str, *, download_root: str, filename: str, **__: str) -> None:
            assert "data" not in os.listdir(tmp_path)  # noqa: PTH208
            shutil.copy(source / filename.removesuffix(".gz"), download_root)

        monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", fetch)
        data = torchvision_images(name="mnist", root=str(tmp_path / "data"), download=True)
        assert len(data.store) == 260
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data", "elsewhere"]

    @pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
    @pytest.mark.parametrize("size", [0, 3, 10, 150])
    def test_truncated_file(self, file: str, size: int, tmp_path: Path) -> None:
        raw = write_idx(tmp_path)
        if size >= (raw / file).stat().st_size:
            size //= 3
        (raw / file).write_bytes((raw / file).read_bytes()[:size])
        with pytest.raises(ValueError, match=r"cannot read .*raw, a file there is truncated, damaged or unreadable"):
            torchvision_images(name="mnist", root=str(tmp_path), download=False)

    def test_labels_of_another_size_than_the_images(self, tmp_path: Path) -> None:
        raw, other = write_idx(tmp_path), write_idx(tmp_path / "other", train=100)
        shutil.copy(other / "train-labels-idx1-ubyte", raw)
        with pytest.raises(ValueError, match=r"cannot read .* must be one for each"):
            torchvision_images(name="mnist", root=str(tmp_path), download=False)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_unreadable_file(self, tmp_path: Path) -> None:
        (write_idx(tmp_path) / "train-images-idx3-ubyte").chmod(0)
        with pytest.raises(ValueError, match="unreadable"):
            torchvision_images(name="mnist", root=str(tmp_path), download=False)

    def test_root_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ValueError, match=r"root=.*file"):
            torchvision_images(name="mnist", root=str(tmp_path / "file"), download=True)


def test_unknown_name_is_told_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="name=kmnist: must be one of mnist, fashion_mnist"):
        torchvision_images(name="kmnist", root="data", download=False)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, "abc"])
def test_test_fraction_lies_between_zero_and_one(fraction: object) -> None:
    with pytest.raises(ValueError, match=f"test_fraction={fraction}: must be a number above 0 and below 1"):
        digits(test_fraction=fraction, split_seed=0)  # type: ignore[arg-type]


class TestSyntheticTable:
    WORDS: ClassVar[dict[str, Any]] = {
        "objects": 400,
        "features": 8,
        "classes": 4,
        "clusters": 2,
        "test_fraction": 0.25,
    }

    def test_is_the_same_for_the_same_seed_and_has_every_class_in_both_parts(self) -> None:
        first, second, other = (synthetic_table(**self.WORDS, seed=seed) for seed in (0, 0, 1))
        assert torch.equal(first.store.inputs, second.store.inputs)
        assert not torch.equal(first.store.inputs, other.store.inputs)
        assert first.store.inputs.shape == (400, 8)
        assert first.store.inputs.dtype is torch.float32
        assert (len(first.train_rows), len(first.test_rows)) == (300, 100)
        assert not set(first.train_rows.tolist()) & set(first.test_rows.tolist())
        for rows in (first.train_rows, first.test_rows):
            assert len(first.store.labels[rows].unique()) == 4

    def test_features_tell_the_class(self) -> None:
        data = synthetic_table(**self.WORDS, seed=0)
        assert PixelKNN(k=3).accuracy(data.store, train_rows=data.train_rows, test_rows=data.test_rows) > 0.5

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ({"objects": 0}, "objects=0: must be a whole number of at least 1"),
            ({"features": 3}, "features=3: must be a whole number of at least 4"),
            ({"classes": 1}, "classes=1: must be a whole number of at least 2"),
            ({"clusters": 5}, "clusters=5: must be at most 4 for 4 classes and 8 features"),
            ({"test_fraction": 1}, "test_fraction=1: must be a number above 0 and below 1"),
        ],
    )
    def test_refuses_bad_sizes(self, words: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            synthetic_table(**{**self.WORDS, **words}, seed=0)
