"""A user's own images: layouts, decoding, and the cache under changes, damage and a kill."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from memlab.data.datasets import LabelledData, image_cache, image_folder
from memlab.data.datasets.image_cache import decoded
from tests.conftest import REPOSITORY, Outcome
from tests.data.folders_of_images import COLOURS, write_images


def load(root: Path, **words: Any) -> LabelledData:
    settings = {
        "image_size": 8,
        "channels": 3,
        "cache": None,
        "on_bad_file": "error",
        "test_fraction": 0.5,
        "split_seed": 0,
        **words,
    }
    return image_folder(root=str(root), **settings)


def mean_colours(data: LabelledData) -> torch.Tensor:
    means: torch.Tensor = data.store.inputs.float().mean(dim=(2, 3))
    return means


@pytest.fixture
def decodings(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What is decoded from now on."""
    seen: list[bytes] = []

    def counted(data: bytes, shape: tuple[int, int, int]) -> Any:
        seen.append(data)
        return decoded(data, shape)

    monkeypatch.setattr(image_cache, "decoded", counted)
    return seen


class TestLayout:
    def test_train_and_test_folders_are_the_split(self, tmp_path: Path) -> None:
        data = load(write_images(tmp_path / "pets"))
        assert data.name == "pets"
        assert data.store.class_names == ("blue", "green", "red")
        assert data.store.inputs.shape == (36, 3, 8, 8)
        assert data.store.inputs.dtype is torch.uint8
        assert (len(data.train_rows), len(data.test_rows)) == (18, 18)
        assert not set(data.train_rows.tolist()) & set(data.test_rows.tolist())
        for rows, part in ((data.train_rows, "train"), (data.test_rows, "test")):
            for row in rows.tolist():
                part_found, class_name, file = data.source(row).split("/")
                assert part_found == part
                assert class_name == data.store.class_names[int(data.store.labels[row])]
                pixels = np.asarray(Image.open(tmp_path / "pets" / part / class_name / file).resize((8, 8)))
                assert abs(pixels.mean() - data.store.inputs[row].float().mean()) < 1
        for label, colour in enumerate(COLOURS.values()):
            seen = mean_colours(data)[data.store.labels == label]
            torch.testing.assert_close(seen, torch.tensor(colour).float().expand(12, 3), atol=12, rtol=0)

    def test_classes_alone_are_split_by_the_seed(self, tmp_path: Path) -> None:
        root = write_images(tmp_path, parts=("",))
        first, again, other = (load(root, split_seed=seed) for seed in (0, 0, 1))
        assert len(first.test_rows) == 9
        assert first.store.labels[first.test_rows].bincount().tolist() == [3, 3, 3]
        assert torch.equal(first.test_rows, again.test_rows)
        assert not torch.equal(first.test_rows, other.test_rows)

    def test_ids_do_not_depend_on_the_order_of_the_disk(self, tmp_path: Path) -> None:
        first = load(write_images(tmp_path / "a"))
        write_images(tmp_path / "b", parts=("test",))
        second = load(write_images(tmp_path / "b", parts=("train",)))
        assert torch.equal(first.store.labels, second.store.labels)
        assert first.store.inputs.shape == second.store.inputs.shape

    def test_folders_within_a_class_and_hidden_files(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        root = write_images(tmp_path)
        (root / "train/red/more").mkdir()
        shutil.move(root / "train/red/000.png", root / "train/red/more/x.PNG")
        (root / "train/red/.DS_Store").touch()
        (root / "train/notes.txt").touch()
        (root / "train/red/notes.txt").touch()
        (root / "validation").mkdir()
        data = load(root)
        assert data.store.labels[data.train_rows].bincount().tolist() == [6, 6, 6]
        assert "train: 2 files left alone" in caplog.text
        assert "validation left alone" in caplog.text

    def test_names_that_are_not_utf8_are_told_with_escapes(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        root = write_images(tmp_path / os.fsdecode(b"caf\xe9"), parts=("",))
        (root / "red").rename(root / os.fsdecode(b"rouge\xe2tre"))
        data = load(root)
        assert data.name == "caf\\xe9"
        assert data.store.class_names == ("blue", "green", "rouge\\xe2tre")
        assert data.source(17) == "rouge\\xe2tre/005.png"
        assert caplog.text.encode()

    @pytest.mark.parametrize(
        ("removed", "message"),
        [
            ([""], "there is no such folder"),
            (["test"], "has train/ but no test/"),
            (["train", "test"], "has no images"),
            (["train/red"], "has test/red but no images in train/red"),
            ([f"test/{name}" for name in COLOURS], "has no images in test/"),
        ],
    )
    def test_another_layout_is_told_in_one_line(self, removed: list[str], message: str, tmp_path: Path) -> None:
        root = write_images(tmp_path / "root")
        for folder in removed:
            shutil.rmtree(root / folder)
        with pytest.raises(ValueError, match=message):
            load(root)

    def test_refuses_values_out_of_range(self, tmp_path: Path) -> None:
        for words in ({"image_size": 0}, {"channels": 2}, {"on_bad_file": "maybe"}, {"test_fraction": 1}):
            with pytest.raises(ValueError, match=next(iter(words))):
                load(write_images(tmp_path / next(iter(words))), **words)


class TestDecoding:
    def bytes_of(self, image: Image.Image, kind: str = "png", **words: Any) -> bytes:
        target = io.BytesIO()
        image.save(target, kind, **words)
        return target.getvalue()

    def test_an_image_of_the_size_asked_for_keeps_its_pixels(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8)
        np.testing.assert_array_equal(
            decoded(self.bytes_of(Image.fromarray(pixels)), (3, 9, 9)), pixels.transpose(2, 0, 1)
        )

    def test_cut_to_the_middle_square(self) -> None:
        pixels = np.zeros((10, 30, 3), np.uint8)
        pixels[:, 10:20] = 200
        seen = decoded(self.bytes_of(Image.fromarray(pixels)), (3, 5, 5))
        assert abs(seen[:, :, 1:4].astype(int) - 200).max() <= 12
        assert seen.min() > 150

    def test_upright(self) -> None:
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[:8] = 250
        turned = Image.fromarray(pixels).rotate(90)
        exif = Image.Exif()
        exif[0x0112] = 6  # to be shown turned by 90 degrees clockwise
        shown = decoded(self.bytes_of(turned, "jpeg", exif=exif, quality=100), (3, 16, 16))
        assert shown[:, :7].min() > 240
        assert shown[:, 9:].max() < 10

    @pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "I;16"])
    def test_every_mode_has_its_brightness(self, mode: str) -> None:
        if mode == "I;16":
            image = Image.fromarray(np.full((6, 6), 128 * 256, np.uint16))
        else:
            image = Image.new("RGB", (6, 6), (255, 255, 255) if mode == "1" else (128, 128, 128))
            image = image.quantize() if mode == "P" else image.convert(mode)
        data = self.bytes_of(image, "tiff" if mode == "CMYK" else "png")
        for channels in (1, 3):
            seen = decoded(data, (channels, 6, 6)).astype(int)
            assert seen.shape == (channels, 6, 6)
            assert abs(seen - (255 if mode == "1" else 128)).max() <= 3

    def test_a_large_photograph_is_the_mean_of_its_pixels(self) -> None:
        pixels = np.zeros((800, 800, 3), np.uint8)
        pixels[:400] = 200
        seen = decoded(self.bytes_of(Image.fromarray(pixels), "jpeg"), (3, 8, 8)).astype(int)
        assert abs(seen[:, :3] - 200).max() <= 6
        assert seen[:, 5:].max() <= 6

    def test_thirty_two_bits_are_refused(self) -> None:
        image = Image.fromarray(np.ones((4, 4), np.float32))
        with pytest.raises(ValueError, match="32 bits"):
            decoded(self.bytes_of(image, "tiff"), (3, 4, 4))


class TestCache:
    def test_nothing_is_decoded_twice(self, tmp_path: Path, decodings: list[bytes]) -> None:
        root = write_images(tmp_path)
        first = load(root)
        assert len(decodings) == 36
        second = load(root)
        assert len(decodings) == 36
        assert torch.equal(first.store.inputs, second.store.inputs)

    def test_manifest_tells_what_the_pixels_are_of(self, tmp_path: Path) -> None:
        root = write_images(tmp_path)
        load(root)
        manifest = json.loads((root / ".memlab/8x8x3.json").read_text())
        path, size, _, checksum, class_name, problem = manifest["files"][0]
        file = root / path
        assert (class_name, problem) == ("blue", None)
        assert size == file.stat().st_size
        assert checksum == hashlib.sha256(file.read_bytes()).hexdigest()
        assert (root / ".memlab" / manifest["pixels"]).stat().st_size == 36 * 3 * 8 * 8

    def test_only_what_changed_is_decoded_again(self, tmp_path: Path, decodings: list[bytes]) -> None:
        root = write_images(tmp_path)
        before = load(root).store.inputs.clone()
        decodings.clear()
        changed = root / "train/red/003.png"
        Image.new("RGB", (12, 12), (255, 255, 255)).save(changed)
        (root / "train/blue/000.png").unlink()
        shutil.copy(root / "train/red/000.png", root / "train/red/new.png")
        data = load(root)
        assert decodings == [changed.read_bytes(), (root / "train/red/new.png").read_bytes()]
        fresh = load(root, cache=str(tmp_path / "elsewhere"))
        assert torch.equal(data.store.inputs, fresh.store.inputs)
        assert len(data.store) == 36
        assert not torch.equal(data.store.inputs, before)
        assert (data.store.inputs == 255).flatten(1).all(1).sum() == 1
        assert len(list((root / ".memlab").glob("*.u8"))) == 1

    def test_a_file_with_a_new_time_and_the_same_bytes_is_not_decoded(
        self, tmp_path: Path, decodings: list[bytes]
    ) -> None:
        root = write_images(tmp_path)
        load(root)
        decodings.clear()
        os.utime(root / "train/red/003.png", (1, 1))
        load(root)
        assert decodings == []

    def test_a_change_of_the_same_size_is_seen(self, tmp_path: Path) -> None:
        root = write_images(tmp_path, suffix=".bmp")
        before = load(root).store.inputs.clone()
        file = root / "train/red/003.bmp"
        data = bytearray(file.read_bytes())
        data[-30:] = bytes(30)
        file.write_bytes(data)
        assert (load(root).store.inputs != before).any(dim=(1, 2, 3)).sum() == 1

    def test_sizes_and_roots_keep_apart(self, tmp_path: Path) -> None:
        first, second = (write_images(tmp_path / name) for name in "ab")
        Image.new("RGB", (12, 12)).save(second / "train/red/000.png")
        cache = str(tmp_path / "cache")
        one, two = load(first, cache=cache), load(second, cache=cache)
        assert not torch.equal(one.store.inputs, two.store.inputs)
        assert load(first, cache=cache, image_size=5).store.inputs.shape[-1] == 5
        assert load(first, cache=cache, channels=1).store.inputs.shape[1] == 1
        assert torch.equal(load(first, cache=cache).store.inputs, one.store.inputs)
        assert not (first / ".memlab").exists()

    def test_what_is_cached_cannot_be_changed_by_its_readers(self, tmp_path: Path) -> None:
        root = write_images(tmp_path)
        first = load(root)
        first.store.inputs.zero_()
        assert load(root).store.inputs.float().mean() > 50

    @pytest.mark.parametrize("damage", ["pixels cut", "pixels gone", "manifest cut", "manifest of another format"])
    def test_a_damaged_cache_is_built_anew(self, damage: str, tmp_path: Path, decodings: list[bytes]) -> None:
        root = write_images(tmp_path)
        before = load(root).store.inputs.clone()
        decodings.clear()
        manifest = root / ".memlab/8x8x3.json"
        pixels = next((root / ".memlab").glob("*.u8"))
        if damage == "pixels cut":
            os.truncate(pixels, 100)
        if damage == "pixels gone":
            pixels.unlink()
        if damage == "manifest cut":
            manifest.write_text(manifest.read_text()[:200])
        if damage == "manifest of another format":
            manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 0}))
        assert torch.equal(load(root).store.inputs, before)
        assert len(decodings) == 36
        assert len(list((root / ".memlab").glob("*.u8*"))) == 1

    def test_a_cache_that_cannot_be_written_is_told_in_one_line(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ValueError, match=r"cache=.*file: cannot keep decoded images in .* name another folder"):
            load(write_images(tmp_path / "root"), cache=str(tmp_path / "file"))

    def test_a_full_disk_is_told_and_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
        root = write_images(tmp_path)
        with pytest.raises(ValueError, match="No space left"):
            load(root)
        assert [entry.name for entry in (root / ".memlab").iterdir()] == ["8x8x3.lock"]


class TestBadFiles:
    @pytest.fixture
    def spoilt(self, tmp_path: Path) -> Path:
        root = write_images(tmp_path, suffix=".jpg")
        whole = (root / "train/red/001.jpg").read_bytes()
        (root / "train/red/001.jpg").write_bytes(whole[: len(whole) // 2])
        (root / "test/blue/004.jpg").write_text("not an image")
        (root / "test/blue/005.jpg").write_bytes(b"")
        return root

    def test_are_named_and_stop_the_run(self, spoilt: Path, caplog: pytest.LogCaptureFixture) -> None:
        for _ in range(2):  # the second time they are known from the manifest
            caplog.clear()
            with pytest.raises(ValueError, match=r"3 of 36 files cannot be read as images, .*on_bad_file=skip"):
                load(spoilt)
            for path in ("train/red/001.jpg", "test/blue/004.jpg", "test/blue/005.jpg"):
                assert path in caplog.text

    def test_are_left_out_when_asked(self, spoilt: Path, decodings: list[bytes]) -> None:
        data = load(spoilt, on_bad_file="skip")
        assert data.store.labels[data.train_rows].bincount().tolist() == [6, 6, 5]
        assert data.store.labels[data.test_rows].bincount().tolist() == [4, 6, 6]
        used = torch.cat([data.train_rows, data.test_rows])
        assert data.store.inputs[used].flatten(1).any(1).all()
        decodings.clear()
        load(spoilt, on_bad_file="skip")
        assert decodings == []

    def test_mended_they_are_in(self, spoilt: Path, decodings: list[bytes]) -> None:
        load(spoilt, on_bad_file="skip")
        for path in ("train/red/001.jpg", "test/blue/004.jpg", "test/blue/005.jpg"):
            shutil.copy(spoilt / "train/green/000.jpg", spoilt / path)
        decodings.clear()
        assert len(load(spoilt).train_rows) == 18
        assert len(decodings) == 3

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_file_without_permission(self, tmp_path: Path) -> None:
        root = write_images(tmp_path)
        (root / "train/red/001.png").chmod(0)
        with pytest.raises(ValueError, match="1 of 36 files"):
            load(root)
        (root / "train/red/001.png").chmod(0o644)
        assert len(load(root).train_rows) == 18


def test_processes_that_start_together_agree(tmp_path: Path) -> None:
    root = write_images(tmp_path, each=40)
    program = (
        "import sys; from pathlib import Path; from tests.data.test_image_folder import load;"
        "print(int(load(Path(sys.argv[1])).store.inputs.long().sum()))"
    )
    words = [sys.executable, "-c", program, str(root)]
    processes = [subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    sums = {process.communicate(timeout=120)[0] for process in processes}
    assert sums == {f"{int(load(root).store.inputs.long().sum())}\n"}
    assert len(list((root / ".memlab").glob("*.u8*"))) == 1


def test_killed_half_way_the_next_start_is_right(tmp_path: Path) -> None:
    root = write_images(tmp_path, each=400, size=64)
    program = (
        "import sys, time; from tests.data.test_image_folder import load; from memlab.data.datasets import image_cache;"
        "from pathlib import Path; decoded = image_cache.decoded;"
        "image_cache.decoded = lambda *words: (time.sleep(0.005), decoded(*words))[1];"
        "load(Path(sys.argv[1]))"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(root)], cwd=REPOSITORY)
    deadline = time.monotonic() + 120
    while not list(root.glob(".memlab/*.unfinished")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(root.glob(".memlab/*.unfinished"))
    assert not list(root.glob(".memlab/*.json"))
    data = load(root)
    fresh = load(root, cache=str(tmp_path / "elsewhere"))
    assert torch.equal(data.store.inputs, fresh.store.inputs)
    assert len(list(root.glob(".memlab/*.u8*"))) == 1


def test_trains_through_the_command(tmp_path: Path, command: Any) -> None:
    root = write_images(tmp_path / "colours", each=30)
    outcome: Outcome = command(
        "data=folder",
        f"data.root={root}",
        "data.image_size=8",
        "support.size=20",
        "datamodule.batch_size=20",
        "datamodule.eval_batch_size=50",
        "trainer.max_epochs=10",
        "trainer.enable_progress_bar=false",
        "figures=false",
    )
    assert outcome.status == 0, outcome.err
    results = json.loads((outcome.run_folders[0] / "results.json").read_text())
    assert results["data"] == "colours"
    assert results["test/accuracy"] == 1.0


def test_a_bad_file_is_one_line_of_the_command(tmp_path: Path, command: Any) -> None:
    root = write_images(tmp_path / "colours")
    (root / "test/red/000.png").write_bytes(b"")
    outcome: Outcome = command("data=folder", f"data.root={root}")
    assert outcome.status == 1
    assert "1 of 36 files cannot be read as images, among them test/red/000.png" in outcome.err
    assert "test/red/000.png: cannot identify image file" in (outcome.run_folders[0] / "train.log").read_text()
