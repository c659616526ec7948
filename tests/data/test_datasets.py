from __future__ import annotations

import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file

from memlab.baselines import PixelKNN
from memlab.data.datasets import (
    LabelledData,
    digits,
    stratified_split,
    synthetic_table,
    tensor_file,
    torchvision_images,
    varied,
)
from memlab.data.objects import ObjectStore
from tests.data.public_files import write_cifar, write_idx, write_svhn

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
    assert [data.source(row) for row in (0, 199, 200, 259)] == ["train[0]", "train[199]", "test[0]", "test[59]"]
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
        with pytest.raises(ValueError, match=r"root=.*none: lacks .*train-images.* set download=true"):
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

    def test_one_downloads_for_all_that_begin_together(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source, fetched = write_idx(tmp_path / "elsewhere"), []

        def fetch(_: str, *, download_root: str, filename: str, **__: str) -> None:
            fetched.append(filename)
            time.sleep(0.05)  # in which the others come
            shutil.copy(source / filename.removesuffix(".gz"), download_root)

        monkeypatch.setattr(torchvision.datasets.mnist, "download_and_extract_archive", fetch)
        with ThreadPoolExecutor(3) as pool:
            begun = [
                pool.submit(torchvision_images, name="mnist", root=str(tmp_path / "data"), download=True) for _ in "123"
            ]
            assert [len(each.result().store) for each in begun] == [260] * 3
        assert len(fetched) == len(set(fetched))

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


class TestCifarAndSvhn:
    @pytest.mark.parametrize(
        ("name", "dataset"), [("cifar10", torchvision.datasets.CIFAR10), ("cifar100", torchvision.datasets.CIFAR100)]
    )
    def test_reads_pickled_batches(
        self, name: str, dataset: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_cifar(tmp_path, monkeypatch, dataset=dataset)
        data = torchvision_images(name=name, root=str(tmp_path), download=False)
        batch = 4 * len(data.store.class_names)
        batches = len(dataset.train_list)
        assert (len(data.train_rows), len(data.test_rows)) == (batch * batches, batch)
        assert data.store.inputs.shape == (batch * (batches + 1), 3, 32, 32)
        assert data.store.inputs.dtype is torch.uint8
        assert data.store.class_names[3] == "class 3"
        assert (data.store.inputs[:, 2, 0] == 255).all()
        assert torch.equal(data.store.inputs[:, 1, 5, 5].long(), 2 * data.store.labels)

    def test_reads_mat_files_where_ten_stands_for_zero(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_svhn(tmp_path, monkeypatch)
        data = torchvision_images(name="svhn", root=str(tmp_path), download=False)
        assert (len(data.train_rows), len(data.test_rows)) == (30, 20)
        assert data.store.inputs.shape == (50, 3, 32, 32)
        assert data.store.labels[data.test_rows].tolist() == list(range(10)) * 2
        assert torch.equal(data.store.inputs[:, 1, 0, 31].long(), 20 * data.store.labels)
        assert not data.store.inputs[:, 0].any()

    @pytest.mark.parametrize("name", ["cifar10", "cifar100", "svhn"])
    def test_missing_files_are_named(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"lacks .*(data_batch_1|train|train_32x32.mat); name another folder"):
            torchvision_images(name=name, root=str(tmp_path), download=False)

    @pytest.mark.parametrize("size", [0, 50, 500])
    def test_damaged_files_are_one_line(self, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = write_cifar(tmp_path, monkeypatch)
        write_svhn(tmp_path, monkeypatch)
        for file, name in ((folder / "data_batch_2", "cifar10"), (tmp_path / "test_32x32.mat", "svhn")):
            file.write_bytes(file.read_bytes()[:size])
            with pytest.raises(ValueError, match="truncated, damaged or unreadable"):
                torchvision_images(name=name, root=str(tmp_path), download=False)

    def test_no_network_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise URLError("no network")

        for module, fetch in (("cifar", "download_and_extract_archive"), ("svhn", "download_url")):
            monkeypatch.setattr(getattr(torchvision.datasets, module), fetch, refuse)
        for name in ("cifar10", "cifar100", "svhn"):
            with pytest.raises(ValueError, match=r"the download failed .*no network"):
                torchvision_images(name=name, root=str(tmp_path / "data"), download=True)
        assert list(tmp_path.iterdir()) == []


class TestOptions:
    def digits(self, **options: Any) -> LabelledData:
        return varied(digits(test_fraction=0.2, split_seed=0), **options)

    def test_sources_are_those_of_the_rows_whatever_is_left_out(self) -> None:
        data = self.digits(classes=[3, 8], train_fraction=0.5, flip_labels=0.1)
        assert [data.source(row) for row in data.test_rows.tolist()] == [f"row {row}" for row in data.test_rows]

    def test_left_out_change_nothing(self) -> None:
        plain = self.digits()
        asked = self.digits(classes=None, train_fraction=1.0, flip_labels=0.0, options_seed=3)
        assert torch.equal(plain.store.labels, asked.store.labels)
        assert torch.equal(plain.train_rows, asked.train_rows)

    def test_train_fraction_keeps_a_share_of_every_class_and_all_test_objects(self) -> None:
        whole, tenth, other = (
            self.digits(train_fraction=share, options_seed=seed) for share, seed in ((1, 0), (0.1, 0), (0.1, 1))
        )
        assert len(tenth.train_rows) == pytest.approx(len(whole.train_rows) / 10, abs=1)
        assert set(tenth.train_rows.tolist()) < set(whole.train_rows.tolist())
        assert (tenth.store.labels[tenth.train_rows].bincount() >= 13).all()
        assert torch.equal(tenth.test_rows, whole.test_rows)
        assert not torch.equal(tenth.train_rows, other.train_rows)

    def test_classes_are_kept_in_the_order_given_with_the_ids_they_had(self) -> None:
        whole, two = self.digits(), self.digits(classes=[7, "3"])
        assert two.store.class_names == ("7", "3")
        for rows, of_whole in ((two.train_rows, whole.train_rows), (two.test_rows, whole.test_rows)):
            former = whole.store.labels[rows]
            assert set(rows.tolist()) == {row for row in of_whole.tolist() if int(whole.store.labels[row]) in (3, 7)}
            assert torch.equal(two.store.labels[rows], (former == 3).long())
        assert two.store.inputs is not None
        assert torch.equal(two.store.inputs, whole.store.inputs)

    def test_objects_of_classes_left_out_are_in_no_class(self) -> None:
        whole, two = self.digits(), self.digits(classes=[7, "3"], flip_labels=0.2, train_fraction=0.5)
        left_out = (whole.store.labels != 3) & (whole.store.labels != 7)
        assert torch.equal(two.store.labels == -1, left_out)
        assert not left_out[torch.cat([two.train_rows, two.test_rows])].any()

    def test_flipped_labels_are_of_the_share_asked_for_wrong_and_of_training_alone(self) -> None:
        whole, noisy = self.digits(), self.digits(flip_labels=0.3)
        differs = whole.store.labels != noisy.store.labels
        assert int(differs[whole.train_rows].sum()) == round(0.3 * len(whole.train_rows))
        assert not differs[whole.test_rows].any()
        steps = (noisy.store.labels - whole.store.labels)[differs] % 10
        assert set(steps.tolist()) == set(range(1, 10))
        assert torch.equal(noisy.store.labels, self.digits(flip_labels=0.3).store.labels)
        assert noisy.true_labels is not None
        assert torch.equal(noisy.true_labels, whole.store.labels)
        assert whole.true_labels is None

    def test_together(self) -> None:
        data = self.digits(classes=[0, 1, 2], train_fraction=0.5, flip_labels=0.2)
        clean = self.digits(classes=[0, 1, 2])
        changed = (data.store.labels != clean.store.labels).nonzero().flatten()
        assert len(changed) == round(0.2 * len(data.train_rows))
        assert set(changed.tolist()) < set(data.train_rows.tolist())
        assert int(data.store.labels[data.train_rows].max()) == 2

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ({"classes": ["3", "cat"]}, "classes=cat: must be among 0, 1, 2"),
            ({"classes": ["3"]}, r"classes=\[3\]: must be two classes or more"),
            ({"classes": ["3", 3]}, r"classes=\[3, 3\]: .* none of them twice"),
            ({"train_fraction": 0}, "train_fraction=0: must be a number above 0"),
            ({"train_fraction": 1.5}, "train_fraction=1.5: must be at most 1"),
            ({"train_fraction": 0.001}, "train_fraction=0.001: held-out share"),
            ({"flip_labels": 1}, "flip_labels=1: must be a number of at least 0 and below 1"),
            ({"options_seed": -1}, "options_seed=-1: must be a whole number"),
        ],
    )
    def test_refuses_values_out_of_range(self, words: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            self.digits(**words)


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (
            torch.arange(6) < 4,
            torch.arange(4, 6),
            r"train_rows: torch.bool of shape \(6,\); must be a vector of torch.",
        ),
        (torch.arange(5), torch.arange(3, 6), r"test_rows: 2 of them are training rows too \(the first is row 3\)"),
    ],
)
def test_rows_are_numbers_and_in_one_part_alone(train: torch.Tensor, test: torch.Tensor, message: str) -> None:
    store = ObjectStore(inputs=torch.zeros(6, 2), labels=torch.tensor([0, 1, 0, 1, 0, 1]), class_names=("a", "b"))
    with pytest.raises(ValueError, match=message):
        LabelledData("mixed", store, train, test)


@pytest.mark.parametrize("part", ["train_rows", "test_rows"])
def test_no_row_in_use_is_in_no_class(part: str) -> None:
    store = ObjectStore(inputs=torch.zeros(6, 2), labels=torch.tensor([0, 1, 0, 1, -1, -1]), class_names=("a", "b"))
    rows = {"train_rows": torch.arange(2), "test_rows": torch.arange(2, 4)}
    assert LabelledData("mine", store, rows["train_rows"], rows["test_rows"]).store is store
    rows[part] = torch.tensor([1, 4, 5])
    with pytest.raises(ValueError, match=f"{part}: 2 of 3 are in no class .the first is row 4.; must be left out"):
        LabelledData("mine", store, rows["train_rows"], rows["test_rows"])


class TestTensorFile:
    X = torch.arange(60.0).view(20, 3)
    Y = torch.arange(20) % 2 * 5 + 2

    def load(self, path: Path) -> LabelledData:
        return tensor_file(path=str(path), test_fraction=0.2, split_seed=0)

    def write(self, path: Path, **arrays: Any) -> Path:
        if path.suffix == ".npz":
            columns: dict[str, Any] = {name: np.asarray(array) for name, array in arrays.items()}
            np.savez(path, **columns)
        elif path.suffix == ".pt":
            torch.save(arrays, path)
        else:
            save_file(arrays, path)
        return path

    @pytest.mark.parametrize("kind", ["npz", "pt", "safetensors"])
    def test_reads_arrays_and_splits_by_the_seed(self, kind: str, tmp_path: Path) -> None:
        data = self.load(self.write(tmp_path / f"mine.{kind}", X=self.X, y=self.Y))
        assert data.name == "mine"
        assert torch.equal(data.store.inputs, self.X)
        assert data.store.class_names == ("2", "7")
        assert [data.source(row) for row in (0, 19)] == ["X[0]", "X[19]"]
        assert torch.equal(data.store.labels, (self.Y == 7).long())
        assert sorted([*data.train_rows.tolist(), *data.test_rows.tolist()]) == list(range(20))
        assert data.store.labels[data.test_rows].bincount().tolist() == [2, 2]

    @pytest.mark.parametrize("kind", ["npz", "pt", "safetensors"])
    def test_test_objects_of_the_file_are_the_test(self, kind: str, tmp_path: Path) -> None:
        arrays = {"X": self.X, "y": self.Y, "X_test": self.X[:4] + 1, "y_test": self.Y[:4].clone()}
        data = self.load(self.write(tmp_path / f"mine.{kind}", **arrays))
        assert (data.train_rows.tolist(), data.test_rows.tolist()) == (list(range(20)), list(range(20, 24)))
        assert torch.equal(data.store.inputs[20:], self.X[:4] + 1)
        assert [data.source(row) for row in (0, 19, 20, 23)] == ["X[0]", "X[19]", "X_test[0]", "X_test[3]"]

    @pytest.mark.parametrize(
        ("inputs", "kept"),
        [
            (torch.ones(20, 1, 5, 5, dtype=torch.uint8), torch.uint8),
            (torch.ones(20, 3, dtype=torch.int64), torch.float32),
            (torch.ones(20, 3, dtype=torch.float64), torch.float32),
            (torch.ones(20, 3, dtype=torch.bfloat16), torch.float32),
            (torch.ones(20, 3, dtype=torch.bool), torch.float32),
        ],
    )
    def test_kinds_of_numbers(self, inputs: torch.Tensor, kept: torch.dtype, tmp_path: Path) -> None:
        data = self.load(self.write(tmp_path / "mine.pt", X=inputs, y=self.Y))
        assert data.store.inputs.dtype is kept
        assert data.store.inputs.shape == inputs.shape

    @pytest.mark.parametrize("kind", ["npz", "pt"])
    def test_words_are_classes(self, kind: str, tmp_path: Path) -> None:
        data = self.load(self.write(tmp_path / f"mine.{kind}", X=self.X, y=["dog", "cat"] * 10))
        assert data.store.class_names == ("cat", "dog")
        assert data.store.labels[:3].tolist() == [1, 0, 1]

    @pytest.mark.parametrize(
        ("arrays", "message"),
        [
            ({"X": X}, "lacks y; must hold X and y, and has X"),
            ({"X": X, "y": Y[:7]}, "X holds 20 objects and y 7 labels"),
            ({"X": X, "y": Y, "X_test": X}, "has one of X_test and y_test"),
            ({"X": X, "y": Y, "X_test": X[:, :2], "y_test": Y}, r"objects of two kinds, \(20, 3\) float32 and"),
            ({"X": X[:, 0], "y": Y}, r"X is \(20,\); must be \(N, ...\) real numbers"),
            ({"X": X, "y": X}, r"y is \(20, 3\) of float32; must be \(N,\) whole numbers or words"),
            ({"X": X, "y": Y.float()}, "must be .* whole numbers or words"),
            ({"X": X / 0, "y": Y}, "hold NaN or infinity"),
            ({"X": ["a"] * 20, "y": Y}, "X is not an array of numbers"),
            ({"X": X, "y": [[1], [2, 3]]}, "y is not an array of labels"),
        ],
    )
    def test_arrays_that_do_not_fit_are_one_line(self, arrays: Any, message: str, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=rf"path=.*mine.pt: .*{message}"):
            self.load(self.write(tmp_path / "mine.pt", **arrays))

    @pytest.mark.parametrize("kind", ["npz", "pt", "safetensors"])
    def test_files_that_cannot_be_read_are_one_line(self, kind: str, tmp_path: Path) -> None:
        path = tmp_path / f"mine.{kind}"
        with pytest.raises(ValueError, match=f"cannot be read as a .{kind} file"):
            self.load(path)
        path.write_bytes(b"")
        with pytest.raises(ValueError, match=f"cannot be read as a .{kind} file"):
            self.load(path)
        path.write_text("something else entirely")
        with pytest.raises(ValueError, match=f"cannot be read as a .{kind} file"):
            self.load(path)

    def test_nothing_in_a_file_is_executed(self, tmp_path: Path) -> None:
        class Harm:
            def __reduce__(self) -> tuple[Any, ...]:
                return (os.mkdir, (str(tmp_path / "harm"),))

        torch.save({"X": self.X, "y": Harm()}, tmp_path / "mine.pt")
        np.savez(tmp_path / "mine.npz", X=self.X, y=np.array(Harm(), dtype=object))
        for kind in ("pt", "npz"):
            with pytest.raises(ValueError, match="cannot be read"):
                self.load(tmp_path / f"mine.{kind}")
        assert not (tmp_path / "harm").exists()

    def test_another_ending_is_told(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"must end in \.npz, \.pt, \.safetensors"):
            self.load(tmp_path / "mine.csv")
        (tmp_path / "list.pt").touch()
        torch.save([1], tmp_path / "list.pt")
        with pytest.raises(ValueError, match="holds a list; must hold a dict"):
            self.load(tmp_path / "list.pt")


def test_unknown_name_is_told_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="name=kmnist: must be one of mnist, fashion_mnist, cifar10, cifar100, svhn"):
        torchvision_images(name="kmnist", root="data", download=False)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, "abc"])
def test_test_fraction_lies_between_zero_and_one(fraction: Any) -> None:
    with pytest.raises(ValueError, match=f"test_fraction={fraction}: must be a number above 0 and below 1"):
        digits(test_fraction=fraction, split_seed=0)


class TestSyntheticTable:
    WORDS: ClassVar[dict[str, Any]] = {
        "objects": 400,
        "features": 8,
        "num_classes": 4,
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
        inputs, labels = data.store.inputs, data.store.labels
        found = PixelKNN(k=3).predict(inputs[data.train_rows], labels[data.train_rows], inputs[data.test_rows])
        assert (found == labels[data.test_rows]).double().mean() > 0.5

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ({"objects": 0}, "objects=0: must be a whole number of at least 1"),
            ({"features": 3}, "features=3: must be a whole number of at least 4"),
            ({"num_classes": 1}, "num_classes=1: must be a whole number of at least 2"),
            ({"clusters": 5}, "clusters=5: must be at most 4 for 4 classes and 8 features"),
            ({"test_fraction": 1}, "test_fraction=1: must be a number above 0 and below 1"),
        ],
    )
    def test_refuses_bad_sizes(self, words: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            synthetic_table(**{**self.WORDS, **words}, seed=0)
