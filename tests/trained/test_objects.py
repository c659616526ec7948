"""What is given becomes what a data set would hold: to the bit, whatever way it comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from memlab.data.datasets import image_folder
from memlab.trained import objects
from memlab.trained.objects import Batch, ObjectKind
from tests.data.folders_of_images import write_images
from tests.trained.memories import make, sequences

TABLE = ObjectKind((3,), torch.float32)
GREY = ObjectKind((1, 4, 4), torch.uint8)


def read(kind: ObjectKind, inputs: Any, size: int = 100) -> Tensor:
    return torch.cat([batch.raw for batch in kind.batches(inputs, size)])


@pytest.mark.parametrize(("channels", "suffix", "size"), [(3, ".png", 12), (1, ".png", 12), (3, ".jpg", 90)])
def test_files_equal_the_data_set(channels: int, suffix: str, size: int, tmp_path: Path) -> None:
    root = write_images(tmp_path / "pictures", each=4, size=size, suffix=suffix)
    words: dict[str, Any] = {"cache": None, "on_bad_file": "error", "test_fraction": 0.5, "split_seed": 0}
    data = image_folder(root=str(root), image_size=8, channels=channels, **words)
    kind = ObjectKind(data.store.input_shape, data.store.inputs.dtype)
    files = [root / data.source(row) for row in range(len(data.store))]
    assert torch.equal(read(kind, files, size=5), data.store.inputs)
    assert torch.equal(read(kind, list(map(str, files))), data.store.inputs)
    assert torch.equal(read(kind, files[3]), data.store.inputs[3:4])
    assert torch.equal(kind.picture(files[3].read_bytes(), "x", formats=("JPEG", "PNG")), data.store.inputs[3])
    with pytest.raises(ValueError, match="x: cannot be read as a picture"):
        kind.picture(files[3].read_bytes(), "x", formats=("GIF",))
    if suffix == ".png":
        assert torch.equal(read(kind, [Image.open(file) for file in files]), data.store.inputs)


def test_fewer_levels_are_found_again_in_a_file(tmp_path: Path) -> None:
    kind = ObjectKind((1, 4, 4), torch.uint8, levels=16)
    raw = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4) + 1
    Image.fromarray(kind.shown(raw)[0, 0].numpy()).save(tmp_path / "a.png")
    assert kind.shown(raw).max() == 255
    assert torch.equal(read(kind, tmp_path / "a.png"), raw)


def test_arrays_are_raw_inputs() -> None:
    rows = np.random.default_rng(0).normal(size=(5, 3))
    wanted = torch.from_numpy(rows).float()
    for given in (rows, torch.from_numpy(rows), rows.tolist(), list(rows), iter(rows)):
        assert torch.equal(read(TABLE, given, size=2), wanted)
    assert torch.equal(read(TABLE, rows[0]), wanted[:1])
    assert torch.equal(read(TABLE, [1, 2, 3]), torch.tensor([[1.0, 2.0, 3.0]]))
    assert read(GREY, np.full((2, 1, 4, 4), 7.0)).dtype is torch.uint8


@pytest.mark.parametrize(
    ("kind", "given", "told"),
    [
        (TABLE, np.zeros((2, 4)), r"inputs\[0\]: is of shape \(2, 4\).*array \(3,\) of float32"),
        (TABLE, [[1, 2, 3], [1, 2]], r"inputs\[1\]: is of shape \(2,\)"),
        (TABLE, [["a", "b", "c"]], r"inputs\[0\]: is not an array of numbers"),
        (TABLE, 3, "inputs: of type int"),
        (TABLE, "a.png", "a.png: a file is no object of this memory"),
        (TABLE, Image.new("L", (4, 4)), r"inputs\[0\]: a picture is no object"),
        (GREY, np.full((1, 1, 4, 4), 256), "values that an object does not have"),
        (GREY, np.full((1, 1, 4, 4), 0.5), "values that an object does not have"),
        (GREY, ["nowhere.png"], "nowhere.png: cannot be read as a picture .No such file"),
        (GREY, [Image.new("F", (4, 4))], r"inputs\[0\]: cannot be read as a picture .has 32 bits"),
    ],
)
def test_what_is_no_object_is_told_in_a_line(kind: ObjectKind, given: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told) as raised:
        read(kind, given)
    assert "\n" not in str(raised.value)


def test_damaged_files_and_bombs_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.new("L", (200, 200)).save(tmp_path / "large.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "large.png").read_bytes()[:60])
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for name in ("text.png", "cut.png", "large.png"):
        with pytest.raises(ValueError, match=f"{name}: cannot be read as a picture"):
            read(GREY, [tmp_path / name])


def test_a_long_stream_is_decoded_a_batch_ahead_and_no_more() -> None:
    asked = 0

    def endless() -> Iterator[Image.Image]:
        nonlocal asked
        while True:
            asked += 1
            yield Image.new("L", (4, 4), asked % 256)

    batches = GREY.batches(endless(), 10)
    first: Batch = next(batches)
    assert first.raw[:, 0, 0, 0].tolist() == [*range(1, 11)]
    assert asked == 20
    assert next(batches).sources[0] == "inputs[10]"
    assert asked == 30
    batches.close()  # type: ignore[attr-defined]


def test_thumbnails_are_small_pictures() -> None:
    kind = ObjectKind((3, 64, 40), torch.uint8)
    raw = torch.randint(0, 256, (2, 3, 64, 40), dtype=torch.uint8)
    small = kind.kept(raw, "thumbnails")
    assert small is not None
    assert small.shape == (2, 3, objects.THUMBNAIL, 20)
    assert torch.allclose(small.float().mean((2, 3)), raw.float().mean((2, 3)), atol=4)
    assert kind.kept(raw, "raw") is raw
    assert kind.kept(raw, "none") is None
    with pytest.raises(ValueError, match="keep=all: must be one of thumbnails, raw, none"):
        kind.kept(raw, "all")


def test_sequences_are_forgotten_with_the_padding_of_the_longest(tmp_path: Path) -> None:
    memory, never = make(tmp_path / "m", sequences()), make(tmp_path / "never", sequences(), without=[3, 7])
    longest = int(sequences().inputs.lengths[:48].argmax())
    memory.add([torch.zeros(50, 2)], "long")
    memory.forget([3, 7, 60])
    segments = [json.loads((each.folder / "memory.json").read_text())["segments"] for each in (memory, never)]
    assert segments[0] == segments[1]  # with the digest of what is kept of raw inputs
    assert memory.pictures([longest])[longest].shape == (6, 2)
