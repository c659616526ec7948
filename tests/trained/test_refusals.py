"""Folders that are damaged, swapped, hostile or of another version: each is refused in one line, and nothing is run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from memlab.encoders import TorchvisionBackbone
from memlab.trained import RefusedMemoryError, load
from memlab.trained.calibration import read_calibration
from memlab.trained.folder import MemoryFolder
from memlab.trained.recipes import ENCODERS, build, recipe_of
from tests.trained.memories import make, tables


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "memory"
    memory = make(folder, tables())
    memory.relabel(0, "bear")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "memory")


def one(folder: Path, pattern: str) -> Path:
    (file,) = folder.glob(pattern)
    return file


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        manifest = json.loads((folder / "memory.json").read_text())
        change(manifest)
        (folder / "memory.json").write_text(json.dumps(manifest))

    return damage


def written(text: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / "memory.json").write_text(text)

    return damage


def truncated(pattern: str, share: float = 0.5) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = one(folder, pattern)
        file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])

    return damage


def flipped(pattern: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        data = bytearray(one(folder, pattern).read_bytes())
        data[-5] ^= 1
        one(folder, pattern).write_bytes(data)

    return damage


def removed(pattern: str) -> Callable[[Path], None]:
    return lambda folder: one(folder, pattern).unlink()


def keys_of_another_encoder(folder: Path) -> None:
    """The keys of a memory that was trained otherwise, with a manifest that was made to fit."""
    other = make(folder.parent / "other", tables(seed=1), batch_size=7)
    theirs = json.loads((other.folder / "memory.json").read_text())["segments"]
    edited(lambda manifest: manifest.update(segments=theirs))(folder)
    shutil.copy(one(other.folder, "000000-*"), folder)


def weights_of_another_encoder(folder: Path) -> None:
    file = one(folder, "weights-*")
    tensors = load_file(file)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, file)


def keys_of_another_size(folder: Path) -> None:
    file = one(folder, "000000-*")
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    tensors["keys"] = tensors["keys"][:, :4].clone()
    save_file(tensors, file, metadata=metadata)


def forged(**changes: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Objects that were changed by somebody who made digests and names fit."""

    def damage(folder: Path) -> None:
        manifest = MemoryFolder(folder).manifest()
        segment = MemoryFolder(folder).segment(manifest, 0, raw=True)
        segment = replace(segment, **{name: change(getattr(segment, name)) for name, change in changes.items()})
        one(folder, "000000-*").unlink()
        (folder / segment.entry.file(0)).write_bytes(segment.to_bytes(manifest.fingerprint))
        edited(lambda found: found["segments"].update({"0": list(segment.entry)}))(folder)

    return damage


def forged_calibration(**changes: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        noted = MemoryFolder(folder).manifest().calibration
        assert noted is not None
        objects = read_calibration(folder / noted.file, digest=noted.digest, objects=noted.objects)
        objects = replace(objects, **{name: change(getattr(objects, name)) for name, change in changes.items()})
        one(folder, "calibration-*").unlink()
        noted = replace(noted, digest=objects.digest)
        (folder / noted.file).write_bytes(objects.to_bytes())
        edited(lambda found: found["calibration"].update(digest=noted.digest))(folder)

    return damage


def set_at(place: int, value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same tensor with another value in one row."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.index_fill(0, torch.tensor([place]), value)

    return change


def exchanged(pattern: str) -> Callable[[Path], None]:
    """The file of a memory that was trained otherwise, under the name of this one's."""

    def damage(folder: Path) -> None:
        other = make(folder.parent / "other", tables(seed=1), batch_size=7)
        shutil.copy(one(other.folder, pattern), one(folder, pattern))

    return damage


def header(pattern: str, length: int) -> Callable[[Path], None]:
    """A file that says that its header is so long."""

    def damage(folder: Path) -> None:
        file = one(folder, pattern)
        file.write_bytes(length.to_bytes(8, "little") + file.read_bytes()[8:])

    return damage


def linked_file(pattern: str) -> Callable[[Path], None]:
    return lambda folder: linked(one(folder, pattern).name)(folder)


def linked(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder.parent / "secret").write_text("mine")
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(folder.parent / "secret")

    return damage


def huge(manifest: dict[str, Any]) -> None:
    manifest["model"]["encoder"]["arguments"]["hidden_sizes"] = [10**9]


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "no manifest": (removed("memory.json"), "holds no trained memory"),
    "manifest cut": (truncated("memory.json"), "memory.json: damaged or missing"),
    "manifest no object": (written("[]"), "no description"),
    "manifest deep": (written("[" * 10**5), "memory.json: damaged"),
    "manifest lacks": (edited(lambda m: m.pop("fingerprint")), "memory.json: damaged or missing"),
    "manifest has more": (edited(lambda m: m.update(command="rm")), "memory.json: damaged or missing"),
    "other version": (edited(lambda m: m.update(format=99)), "written by another version of memlab"),
    "no segments": (edited(lambda m: m.update(segments={})), "memory.json: damaged"),
    "path in a digest": (
        edited(lambda m: m["segments"].update({"0": [48, "../../etc/passwd", ""]})),
        "memory.json: damaged",
    ),
    "negative segment": (edited(lambda m: m["segments"].update({"-1": m["segments"]["0"]})), "memory.json: damaged"),
    "segment elsewhere": (edited(lambda m: m.update(segments={"1": m["segments"]["0"]})), "is missing"),
    "path in a number": (
        edited(lambda m: m["segments"].update({"../../0": m["segments"]["0"]})),
        "memory.json: damaged",
    ),
    "segment a huge number": (edited(lambda m: m["segments"].update({"9" * 30: m["segments"]["0"]})), "is missing"),
    "wrong fingerprint": (edited(lambda m: m.update(fingerprint="0" * 64)), "weights-0000000000000000.* missing"),
    "next id used": (edited(lambda m: m.update(next_id=5)), "memory.json: next_id"),
    "wrong count": (edited(lambda m: m["segments"]["0"].__setitem__(0, 47)), "is not what was written"),
    "segment cut": (truncated("000000-*"), "000000-.*: truncated or damaged"),
    "segment empty": (truncated("000000-*", 0), "000000-.*: truncated or damaged"),
    "segment flipped": (flipped("000000-*"), "000000-"),
    "segment exchanged": (exchanged("000000-*"), "made by another encoder"),
    "segment with a huge header": (header("000000-*", 2**63), "000000-.*: truncated or damaged"),
    "segment with a long header": (header("000000-*", 2**27), "000000-.*: truncated or damaged"),
    "segment a link": (linked_file("000000-*"), "is a link"),
    "keys not finite": (forged(keys=set_at(3, torch.nan)), "is not what was written"),
    "keys of whole numbers": (forged(keys=lambda keys: keys.long()), "is not what was written"),
    "keys in a heap": (forged(keys=lambda keys: keys[:, :, None]), "is not what was written"),
    "keys of a size that the encoder has not": (forged(keys=lambda keys: keys[:, :5]), "made by another encoder"),
    "ids negative": (forged(ids=set_at(0, -1)), "is not what was written"),
    "ids twice": (forged(ids=set_at(4, 3)), "is not what was written"),
    "ids of another segment": (forged(ids=set_at(47, 1030)), "is not what was written"),
    "ids no whole numbers": (forged(ids=lambda ids: ids.double()), "is not what was written"),
    "ids in a heap": (forged(ids=lambda ids: ids[:, None]), "is not what was written"),
    "labels no words": (forged(labels=lambda labels: (3, *labels[1:])), "is not what was written"),
    "labels empty": (forged(labels=lambda labels: ("", *labels[1:])), "is not what was written"),
    "sources too few": (forged(sources=lambda sources: sources[1:]), "is not what was written"),
    "raw of another shape": (forged(raw=lambda raw: raw[:40]), "is not what was written"),
    "segment gone": (removed("000000-*"), "is missing"),
    "weights cut": (truncated("weights-*"), "weights-.*: truncated, damaged or missing"),
    "weights flipped": (flipped("weights-*"), "is not the encoder that made the keys"),
    "weights gone": (removed("weights-*"), "weights-.*: truncated, damaged or missing"),
    "weights of another": (weights_of_another_encoder, "is not the encoder that made the keys"),
    "keys of another": (keys_of_another_encoder, "made by another encoder"),
    "keys of another size": (keys_of_another_size, "is not what was written"),
    "weights exchanged": (exchanged("weights-*"), "is not the encoder that made the keys"),
    "weights with a huge header": (header("weights-*", 2**63), "weights-.*: truncated, damaged or missing"),
    "weights a link": (linked_file("weights-*"), "is a link"),
    "calibration exchanged": (exchanged("calibration-*"), "calibration-.*: is not what was written"),
    "calibration a link": (linked_file("calibration-*"), "is a link"),
    "calibration not finite": (forged_calibration(queries=set_at(2, torch.nan)), "is not what was written"),
    "calibration in a heap": (
        forged_calibration(nonconformity=lambda each: each[:, None]),
        "calibration-.*: is not what was written",
    ),
    "calibration not measured": (forged_calibration(nonconformity=set_at(0, torch.nan)), "is not what was written"),
    "calibration cut": (truncated("calibration-*"), "calibration-.*: truncated"),
    "calibration flipped": (flipped("calibration-*"), "calibration-.*: "),
    "calibration gone": (removed("calibration-*"), "calibration-.*: is missing"),
    "temperature": (edited(lambda m: m["calibration"].update(temperature=0)), "temperature"),
    "foreign class": (
        edited(lambda m: m["model"]["encoder"].update({"class": "os.system"})),
        "encoder: is of the class os.system",
    ),
    "foreign index": (
        edited(
            lambda m: m["model"].update(
                reading={
                    "class": "memlab.memory.reading.ReadTopK",
                    "arguments": {"k": 1, "index": {"class": "pickle.loads", "arguments": {}}},
                }
            )
        ),
        "reading.index: is of the class pickle.loads",
    ),
    "unknown argument": (edited(lambda m: m["model"]["encoder"]["arguments"].update(target="x")), "cannot be made so"),
    "argument of a wrong type": (
        edited(lambda m: m["model"]["encoder"]["arguments"].update(hidden_sizes="x")),
        "cannot be made so",
    ),
    "encoder too large": (edited(huge), "encoder: has .* of shape"),
    "other objects": (edited(lambda m: m["model"].update(shape=[7])), "statistics that fit"),
    "no objects": (edited(lambda m: m["model"].update(shape="x")), "described in no known way"),
    "unknown type": (edited(lambda m: m["model"].update(dtype="object")), "described in no known way"),
    "other similarity": (
        edited(lambda m: m["model"]["similarity"]["arguments"].update(learn_scale=False)),
        "similarity: the weights do not fit",
    ),
    "other scale": (
        edited(lambda m: m["model"]["similarity"]["arguments"].update(scale=2.0)),
        "is not the encoder that made the keys",
    ),
    "manifest a link": (linked("memory.json"), "is a link"),
    "lock a link": (linked("lock"), "is a link"),
    "journal a link": (linked("journal.jsonl"), "is a link"),
    "unfinished a link": (linked("memory.json.unfinished"), "is a link"),
    "folder inside": (lambda folder: (folder / "000001-0000000000000000.safetensors").mkdir(), "is a link or a folder"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_is_refused_in_one_line(name: str, folder: Path) -> None:
    damage, told = DAMAGES[name]
    damage(folder)
    with pytest.raises(RefusedMemoryError, match=told) as raised:
        load(folder).pictures([0])
    assert len(str(raised.value).splitlines()) == 1
    if (folder.parent / "secret").exists():
        assert (folder.parent / "secret").read_text() == "mine"


def journal_of_others(folder: Path) -> None:
    """Lines that say something else, and are as long."""
    file = folder / "journal.jsonl"
    file.write_bytes(file.read_bytes().replace(b'"relabel"', b'"changed"'))


@pytest.mark.parametrize(
    "damage", [truncated("journal.jsonl"), removed("journal.jsonl"), flipped("journal.jsonl"), journal_of_others]
)
def test_a_damaged_journal_is_refused_where_it_is_needed(damage: Callable[[Path], None], folder: Path) -> None:
    damage(folder)
    memory = load(folder)
    memory.predict(tables().inputs)
    with pytest.raises(RefusedMemoryError, match=r"journal\.jsonl: truncated, damaged or missing"):
        memory.undo()


def test_what_a_kept_picture_was_is_checked(folder: Path) -> None:
    file = one(folder, "000000-*")
    data = file.read_bytes()
    raw = load_file(file)["raw"]
    place = data.index(raw[5].numpy().tobytes())
    file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    memory = load(folder)
    with pytest.raises(RefusedMemoryError, match="is not what was written"):
        memory.pictures([5])


def test_files_of_others_are_left_alone(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    (folder / "000007-0123456789abcdef.safetensors").write_text("left by a process that was killed")
    load(folder).relabel(3, "cat")
    assert (folder / "notes.txt").read_text() == "mine"
    assert not (folder / "000007-0123456789abcdef.safetensors").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_can_be_read(folder: Path) -> None:
    folder.chmod(0o500)
    try:
        memory = load(folder)
        memory.predict(tables().inputs)
        with pytest.raises(ValueError, match="cannot be changed"):
            memory.forget(0)
    finally:
        folder.chmod(0o700)


def test_networks_of_torchvision_are_made_without_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    words = {"name": "squeezenet1_1", "pretrained": True, "embedding_size": 4, "input_shape": [3, 32, 32]}
    recipe = recipe_of("memlab.encoders.backbones.TorchvisionBackbone", words)
    assert isinstance(build(json.loads(json.dumps(recipe)), ENCODERS, name="encoder"), TorchvisionBackbone)
