"""The exported files, read by onnxruntime, pyarrow and numpy alone, say what the memory says."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from memlab.trained import export
from tests.conftest import Command
from tests.trained.memories import SIMILARITIES, columned, make, pictures, tables

Numbers = NDArray[np.float64]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The exported encoder of all memories of rows here, which have one and the same; to export takes seconds."""
    for name in ("onnx", "onnxruntime", "onnxscript", "pyarrow"):
        pytest.importorskip(name, reason="the extra export is not there")
    folder = tmp_path_factory.mktemp("exported")
    found = make(folder / "m", tables()).export_onnx(folder / "encoder.onnx")
    assert (found.objects, found.are_stored) == (48, True)
    assert found.difference <= export.TOLERANCE
    return (folder / "encoder.onnx").read_bytes()


def read(onnx: bytes, parquet: Path, inputs: NDArray[Any]) -> tuple[list[str], Numbers]:
    """Classes, and the class mass of raw inputs, without torch and memlab: the definition of the two files."""
    import onnxruntime
    import pyarrow.parquet as pq

    session = onnxruntime.InferenceSession(onnx)
    table = pq.read_table(parquet)
    words = json.loads(table.schema.metadata[b"memlab"])
    keys = np.array(table["vector"].to_pylist(), dtype=np.float64)
    labels = np.array(table["label"].to_pylist())

    queries = session.run(["embeddings"], {"inputs": inputs})[0].astype(np.float64)
    if words["similarity"] == "cosine":
        queries, keys = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (queries, keys))
    scores = queries @ keys.T
    if words["similarity"] in ("euclidean", "distance"):
        distances = np.linalg.norm(queries[:, None] - keys, axis=-1)
        scores = -(distances**2) if words["similarity"] == "euclidean" else -distances
    scores *= words["scale"]
    if words["nearest"]:
        scores[scores < np.sort(scores)[:, [-words["nearest"]]]] = -np.inf
    weights = np.exp(scores - scores.max(1, keepdims=True))
    mass = np.stack([weights[:, labels == name].sum(1) for name in words["classes"]], axis=1)
    tempered = (mass / mass.sum(1, keepdims=True)) ** (1 / words["temperature"])
    return words["classes"], tempered / tempered.sum(1, keepdims=True)


@pytest.mark.parametrize("kind", SIMILARITIES)
@pytest.mark.parametrize("index", [None, "exact"])
def test_rows_are_answered_as_by_the_memory(kind: str, index: str | None, encoder: bytes, tmp_path: Path) -> None:
    memory = make(tmp_path / "m", tables(), similarity=SIMILARITIES[kind](), index=index)
    memory.add(tables(3, seed=8).inputs, "zebra, or so")
    memory.forget(4)
    memory.calibrate()
    memory.export_parquet(tmp_path / "objects.parquet")
    for queries in (tables(23, seed=2).inputs, tables(1, seed=3).inputs):
        answer = memory.predict(queries)
        classes, mass = read(encoder, tmp_path / "objects.parquet", queries.numpy())
        assert classes == list(answer.classes)
        assert mass == pytest.approx(answer.probabilities, abs=1e-5)


@pytest.mark.usefixtures("encoder")
def test_pictures_are_answered_as_by_the_memory(tmp_path: Path) -> None:
    import onnx

    memory = make(tmp_path / "m", pictures(), keep="none", dtype=torch.float64)
    found = memory.export_onnx(tmp_path / "encoder.onnx")
    assert not found.are_stored
    memory.export_parquet(tmp_path / "objects.parquet")
    queries = pictures(9, seed=2).inputs
    _, mass = read((tmp_path / "encoder.onnx").read_bytes(), tmp_path / "objects.parquet", queries.numpy())
    assert mass == pytest.approx(memory.predict(queries).probabilities, abs=1e-5)
    (entry,) = onnx.load(tmp_path / "encoder.onnx").metadata_props
    words = json.loads(entry.value)
    assert (entry.key, words["classes"], words["digest"]) == ("memlab", list(memory.classes), memory.digest)
    assert words["inputs"] == {"shape": [1, 8, 8], "inputs": "uint8", "levels": 255}


@pytest.mark.usefixtures("encoder")
def test_parquet_holds_each_object_by_id(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    memory = make(tmp_path / "m", tables())
    memory.relabel(7, "cat")
    memory.export_parquet(tmp_path / "objects.parquet")
    table = pq.read_table(tmp_path / "objects.parquet").to_pylist()
    assert [row["id"] for row in table] == list(range(48))
    assert [row["label"] for row in table] == [("ape", "bear", "cat")[n % 3] if n != 7 else "cat" for n in range(48)]
    assert [row["source"] for row in table] == [f"row {n}" for n in range(48)]
    places = memory._content.ids.argsort()
    assert [row["vector"] for row in table] == memory._content.keys[places].tolist()


def test_what_an_encoder_in_bfloat16_loses_is_told(
    encoder: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_exported", lambda *_: encoder)
    memory = make(tmp_path / "m", tables())
    view = memory._view
    view.model = replace(view.model, autocast=torch.bfloat16)
    found = memory.export_onnx(tmp_path / "encoder.onnx")
    assert found.difference <= export.TOLERANCE < found.from_memory < 0.1


class Strange(nn.Module):
    """What the exporter cannot follow: the shape of what it gives depends on the values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[: int(x.sum())] if x.sum() > 0 else x


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("_run", lambda _, raw: torch.zeros(len(raw), 6), r"differs by 1\.0e\+00 from torch's"),
        ("_Whole", lambda _: Strange(), "onnx: the encoder cannot be exported"),
        ("onnxscript", None, r'onnxscript.*pip install "memlab\[export\]"'),
    ],
)
def test_nothing_is_written_if_it_is_not_good(
    name: str, value: Any, told: str, encoder: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = make(tmp_path / "m", tables())
    if name == "_run":
        monkeypatch.setattr(export, "_exported", lambda *_: encoder)
    if value is None:
        monkeypatch.setitem(sys.modules, name, value)  # as if the package were not there
    else:
        monkeypatch.setattr(export, name, value)
    with pytest.raises(ValueError, match=told) as raised:
        memory.export_onnx(tmp_path / "encoder.onnx")
    assert len(str(raised.value).splitlines()) == 1
    assert not list(tmp_path.glob("*.onnx*"))


def test_command(encoder: bytes, tmp_path: Path, memlab: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_exported", lambda *_: encoder)
    make(tmp_path / "m", tables())
    status, out, err = memlab(
        "export", tmp_path / "m", "--onnx", tmp_path / "e.onnx", "--parquet", tmp_path / "o.parquet", "--json"
    )
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert (told["onnx"], told["objects"], told["rows"]) == (str(tmp_path / "e.onnx"), 48, 48)
    assert (tmp_path / "e.onnx").read_bytes() == encoder
    assert (tmp_path / "o.parquet").is_file()
    for words, why in (
        ([], "must be given a file to write"),
        (["--onnx", "no/such/folder.onnx"], "no/such/folder.onnx: cannot be written"),
        (["--parquet", "no/such/folder.parquet"], "no/such/folder.parquet: cannot be written"),
    ):
        status, out, err = memlab("export", tmp_path / "m", *words)
        assert (status, out, len(err.splitlines())) == (1, "", 1)
        assert why in err


def test_a_memory_of_a_table_has_its_keys_alone_exported(tmp_path: Path) -> None:
    memory = make(tmp_path / "m", columned())
    with pytest.raises(ValueError, match="rows of a table are read by their columns, which ONNX cannot"):
        memory.export_onnx(tmp_path / "encoder.onnx")
    memory.export_parquet(tmp_path / "objects.parquet")
    assert (tmp_path / "objects.parquet").exists()
