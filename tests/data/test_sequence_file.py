"""Files of sequences: what is read, and one line for each that is broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from memlab.data.datasets import LabelledData, digits, sequences
from memlab.data.datasets.options import as_sequences
from memlab.data.datasets.sequence_file import read_sequences
from memlab.data.objects import raw_objects
from tests.data.sequence_files import TS_HEAD, arrays, write_archive

OPTIONS: dict[str, Any] = {"test_fraction": 0.25, "split_seed": 0}


def test_arrays_are_read_as_far_as_their_lengths(tmp_path: Path) -> None:
    given = arrays(12)
    given["X"][3, given["lengths"][3] :] = np.nan  # which nobody looks at
    np.savez(tmp_path / "mine.npz", **given)
    data = sequences(path=str(tmp_path / "mine.npz"), **OPTIONS)
    assert data.store.input_shape == (None, 2)
    assert data.store.class_names == ("down", "up")
    assert (data.name, data.source(5), len(data.test_rows)) == ("mine", "X[5]", 3)
    for row, length in enumerate(given["lengths"]):
        own = raw_objects(data.store.inputs, torch.tensor([row]))[0]
        torch.testing.assert_close(own, torch.from_numpy(given["X"][row, :length]).float(), rtol=0, atol=0)
    assert [data.store.class_names[label] for label in data.store.labels] == given["y"].tolist()


def test_arrays_may_have_test_objects_one_number_a_step_and_no_lengths(tmp_path: Path) -> None:
    given = arrays(9)
    test = {f"{name}_test": each[:4] for name, each in arrays(9, seed=1).items()}
    np.savez(tmp_path / "mine.npz", **given, **test)
    data = sequences(path=str(tmp_path / "mine.npz"), **OPTIONS)
    assert (len(data.train_rows), len(data.test_rows), data.source(10)) == (9, 4, "X_test[1]")
    np.savez(tmp_path / "flat.npz", X=given["X"][..., 0], y=given["y"])
    data = sequences(path=str(tmp_path / "flat.npz"), **OPTIONS)
    assert data.store.input_shape == (None, 1)
    assert raw_objects(data.store.inputs, torch.arange(9)).shape == (9, given["X"].shape[1], 1)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("kind", ["npz", "parquet"])
def test_sequences_may_be_one_after_the_other_or_lists(kind: str, wide: bool, tmp_path: Path) -> None:
    given = arrays(12)
    each = [x[:length] if wide else x[:length, :1] for x, length in zip(given["X"], given["lengths"], strict=True)]
    file = tmp_path / f"mine.{kind}"
    if kind == "npz":
        np.savez(file, X=np.concatenate(each), lengths=given["lengths"], y=given["y"])
    else:
        polars = pytest.importorskip("polars")
        lists = [x.tolist() if wide else x[:, 0].tolist() for x in each]
        polars.DataFrame({"X": lists, "y": given["y"].tolist()}).write_parquet(file)
    data = sequences(path=str(file), **OPTIONS)
    assert data.store.input_shape == (None, 2 if wide else 1)
    assert [data.store.class_names[label] for label in data.store.labels] == given["y"].tolist()
    for row, own in enumerate(each):
        found = raw_objects(data.store.inputs, torch.tensor([row]))[0]
        torch.testing.assert_close(found, torch.from_numpy(own).float(), rtol=0, atol=0)
    assert len(read_sequences(file, labelled=False).sequences) == 12


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"x": [[1.0], [2.0]], "y": ["a", "b"]}, "lacks X; has x, y"),
        ({"X": [[1.0], []], "y": ["a", "b"]}, r"X\[1\] is no steps; must be a list of steps"),
        ({"X": [[1.0], None], "y": ["a", "b"]}, r"X\[1\] is no steps"),
        ({"X": [1.0, 2.0], "y": ["a", "b"]}, r"X\[0\] is float, no list; must be a list of steps"),
        ({"X": [[[1.0, 2.0], [3.0]], [[1.0, 2.0]]], "y": ["a", "b"]}, "steps of X are of several sizes or none"),
        ({"X": [[1.0, None], [2.0]], "y": ["a", "b"]}, "steps of X are of several sizes or none"),
        ({"X": [["u", "v"], ["w"]], "y": ["a", "b"]}, "steps of X are of several sizes or none"),
        ({"X": [[1.0, float("nan")], [2.0]], "y": ["a", "b"]}, r"X\[0\] has NaN or infinity in step 2"),
        ({"X": [[1.0], [2.0]]}, "lacks y; has X, lengths"),
        ({"X": [[1.0], [2.0]], "y": [0.5, 1.5]}, r"y is \(2,\) of float64"),
    ],
)
def test_lists_that_are_no_sequences_are_told_in_one_line(columns: dict[str, Any], told: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.parquet"
    pytest.importorskip("polars").DataFrame(columns, strict=False).write_parquet(file)
    with pytest.raises(ValueError, match=told) as error:
        sequences(path=str(file), **OPTIONS)
    assert str(error.value).startswith(f"path={file}")
    assert "\n" not in str(error.value)
    file.write_text("no parquet")
    with pytest.raises(ValueError, match="cannot be read as a table"):
        sequences(path=str(file), **OPTIONS)


def test_a_folder_of_the_archive_has_its_official_split(tmp_path: Path) -> None:
    data = sequences(path=str(write_archive(tmp_path / "Two", train=8, test=6)), **OPTIONS)
    train, test = arrays(8), arrays(6, seed=1)
    assert (data.name, data.store.class_names) == ("Two", ("up", "down"))  # as its head has them
    assert (data.train_rows.tolist(), data.test_rows.tolist()) == (list(range(8)), list(range(8, 14)))
    assert (data.source(0), data.source(9)) == ("Two_TRAIN.ts[0]", "Two_TEST.ts[1]")
    for row in range(14):
        part, place = (train, row) if row < 8 else (test, row - 8)
        own = raw_objects(data.store.inputs, torch.tensor([row]))[0].double()
        expected = torch.from_numpy(part["X"][place, : part["lengths"][place]])
        torch.testing.assert_close(own, expected, rtol=1e-6, atol=1e-6)
        assert data.store.class_names[int(data.store.labels[row])] == part["y"][place]
    alone = sequences(path=str(tmp_path / "Two" / "Two_TRAIN.ts"), **OPTIONS)
    assert (len(alone.train_rows), len(alone.test_rows)) == (6, 2)


def test_a_file_may_have_no_classes_where_none_are_needed(tmp_path: Path) -> None:
    (tmp_path / "new.ts").write_text("@classLabel false\n@data\n1,2:3,4\n")
    np.savez(tmp_path / "new.npz", X=np.zeros((3, 4, 2)), lengths=[1, 2, 4])
    assert read_sequences(tmp_path / "new.ts", labelled=False).sequences.steps.tolist() == [[1, 3], [2, 4]]
    assert read_sequences(tmp_path / "new.npz", labelled=False).sequences.lengths.tolist() == [1, 2, 4]
    for name, told in (("new.ts", "has no classes"), ("new.npz", "lacks y; has X, lengths")):
        with pytest.raises(ValueError, match=told):
            read_sequences(tmp_path / name, labelled=True)


BROKEN_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "no X": ({"X": None}, r"lacks X; has lengths, y"),
    "no y": ({"y": None}, r"lacks y; has X, lengths"),
    "words for numbers": ({"X": np.full((6, 5, 2), "a")}, r"X is not an array of numbers"),
    "no steps": ({"X": np.zeros(6)}, r"X is \(6,\); must be \(N, \.\.\.\)"),
    "images": ({"X": np.zeros((6, 5, 2, 2))}, r"X is \(6, 5, 2, 2\); must be \(N, T, m\)"),
    "steps of nothing": ({"X": np.zeros((6, 5, 0))}, r"X is \(6, 5, 0\); must be \(N, T, m\)"),
    "too few lengths": ({"lengths": [1, 2]}, r"lengths is \(2,\) of int64; must be \(6,\) whole numbers"),
    "halves of steps": ({"lengths": [1.5] * 6}, r"lengths is \(6,\) of float64; must be \(6,\) whole numbers"),
    "length 0": ({"lengths": [1, 2, 0, 4, 5, 5]}, r"lengths\[2\] is 0; must be from 1 to 5"),
    "too long": ({"lengths": [1, 2, 3, 4, 5, 6]}, r"lengths\[5\] is 6; must be from 1 to 5"),
    "NaN in step 3": ({"X": np.where(np.arange(5)[:, None] == 2, np.nan, np.zeros((6, 5, 2)))}, r"X\[0\] .* in step 3"),
    "infinity": ({"X": np.full((6, 5, 2), np.inf)}, r"X\[0\] has NaN or infinity in step 1"),
    "too few labels": ({"y": [0, 1]}, r"X holds 6 objects and y 2 labels"),
    "labels in halves": ({"y": [0.5] * 6}, r"y is \(6,\) of float64"),
    "one class": ({"y": [7] * 6}, r"objects of one class alone, 7"),
    "half a test": ({"X_test": np.zeros((6, 5, 2))}, r"has one of X_test and y_test"),
    "another test": ({"X_test": np.zeros((6, 5, 3)), "y_test": [0] * 6}, r"of two kinds, .*: X 2 and X_test 3"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN_ARRAYS)
def test_arrays_that_do_not_fit_are_told_in_one_line(kind: str, tmp_path: Path) -> None:
    changes, told = BROKEN_ARRAYS[kind]
    given = {"X": np.zeros((6, 5, 2)), "lengths": np.full(6, 5), "y": np.arange(6) % 2} | changes
    file = tmp_path / "mine.npz"
    np.savez(file, **{name: each for name, each in given.items() if each is not None})
    with pytest.raises(ValueError, match=told) as error:
        sequences(path=str(file), **OPTIONS)
    assert str(error.value).startswith(f"path={file}")
    assert "\n" not in str(error.value)


BROKEN_TS: dict[str, tuple[str, str]] = {
    "no data": ("@classLabel true a b\n", "lacks a line @data"),
    "empty": (TS_HEAD, "has no line behind @data"),
    "time stamps": (f"@timeStamps true\n{TS_HEAD}(0,1):a\n", "has time stamps"),
    "numbers to be predicted": ("@targetLabel true\n@data\n1,2:0.5\n", "has a number to be predicted"),
    "no classes": ("@classLabel false\n@data\n1,2\n", "has no classes"),
    "another class": (f"{TS_HEAD}1,2:c\n", "line 3 has the class 'c'; must be one of a, b"),
    "a word": (f"{TS_HEAD}1,2:a\n1,x:b\n", "line 4 has x in step 2; must have finite numbers"),
    "missing": (f"{TS_HEAD}1,2,?:a\n", r"line 3 has \? in step 3"),
    "NaN": (f"{TS_HEAD}1,2,NaN:a\n", "line 3 has NaN in step 3"),
    "length 0": (f"{TS_HEAD}1,2:a\n:b\n", "line 4 has no steps in dimension 1"),
    "no dimension": (f"{TS_HEAD}a\n", "line 3 has no steps"),
    "other dimensions": (f"{TS_HEAD}1,2:a\n1,2:1,2:b\n", "line 4 has 2 dimensions; must have 1"),
    "other lengths": (f"{TS_HEAD}1,2:1,2,3:a\n", "line 3 has 3 steps in dimension 2 and 2 before"),
}


@pytest.mark.parametrize("kind", BROKEN_TS)
def test_a_broken_file_of_the_archive_is_told_in_one_line(kind: str, tmp_path: Path) -> None:
    text, told = BROKEN_TS[kind]
    file = tmp_path / "mine.ts"
    file.write_text(text)
    with pytest.raises(ValueError, match=told) as error:
        sequences(path=str(file), **OPTIONS)
    assert str(error.value).startswith(f"path={file}")
    assert "\n" not in str(error.value)


def test_what_is_not_there_or_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(b"PK\x03\x04 no more")
    (tmp_path / "mine.csv").write_text("1,2\n")
    (tmp_path / "mine.ts").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "Empty").mkdir()
    for name, told in (
        ("none.npz", "there is no such file or folder"),
        ("none.ts", "cannot be read as a .ts file"),
        ("mine.npz", "cannot be read as a .npz file"),
        ("mine.csv", "must end in .npz"),
        ("mine.ts", "it is no text in UTF-8"),
        ("Empty", "lacks Empty_TRAIN.ts; must be a folder NAME"),
    ):
        with pytest.raises(ValueError, match=told):
            sequences(path=str(tmp_path / name), **OPTIONS)


def test_images_are_read_by_rows_or_by_pixels() -> None:
    data = digits(test_fraction=0.2, split_seed=0)
    images = data.store.inputs
    for read, shape in (("pixel_rows", (8, 8)), ("pixels", (64, 1))):
        made = as_sequences(data, read).store
        taken = raw_objects(made.inputs, torch.tensor([4, 2]))
        assert (made.input_shape, taken.shape, taken.dtype) == ((None, shape[1]), (2, *shape), torch.uint8)
        torch.testing.assert_close(taken.view(2, 1, 8, 8), images[[4, 2]], rtol=0, atol=0)
    assert as_sequences(data, None) is data
    for read, size in (("pixel_rows", 4), ("pixels", 16)):
        made = as_sequences(data, read, shrink=2).store
        (taken,) = raw_objects(made.inputs, torch.tensor([4]))
        assert (len(taken), taken.dtype) == (size, torch.uint8)
        image, shrunk = images[4, 0].tolist(), taken.view(4, 4).tolist()
        for row in range(4):
            for column in range(4):
                square = [image[2 * row + down][2 * column + right] for down in range(2) for right in range(2)]
                assert abs(shrunk[row][column] - sum(square) / 4) <= 0.5
    wrong: list[tuple[LabelledData, str | None, int, str]] = [
        (data, "columns", 1, "as=columns: must be one of pixel_rows, pixels"),
        (as_sequences(data, "pixels"), "pixels", 1, "as=pixels: is for images"),
        (data, "pixels", 3, r"shrink=3: must divide the sides of images \(1, 8, 8\)"),
        (data, "pixels", 0, "shrink=0: must be a whole number of at least 1"),
        (data, None, 2, "shrink=2: is for images that are read as sequences; must be 1, or as one of them"),
    ]
    for given, words, shrink, told in wrong:
        with pytest.raises(ValueError, match=told):
            as_sequences(given, words, shrink=shrink)
