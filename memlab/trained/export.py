"""A trained memory for programs without memlab: the encoder as ONNX, the keys as Parquet.

Both files have, under ``memlab``, what the read needs besides as JSON; see `described`. The read itself is a softmax:
``z_i = score(u, m_i)`` of the encoder's embedding u and the keys m_i, class mass ``sum_{i: y_i=c} softmax(z)_i``.
"""

from __future__ import annotations

import copy
import json
import os
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from memlab.data.objects import is_normalised
from memlab.files import named_when_whole, write_bytes_whole
from memlab.trained.answer import View
from memlab.trained.model import Model

TOLERANCE = 1e-4
"""Largest difference of an embedding's numbers that is taken for rounding, as a share of the largest of them."""
COMPARED = 64
"""Objects that are encoded both ways."""
MISSING = 'needs packages that are not there ({}): pip install "memlab[export]"'


class Comparison(NamedTuple):
    """How an exported encoder differs from torch's, over the largest number of the embeddings."""

    objects: int
    """How many were encoded by both."""
    are_stored: bool
    """Whether they are objects of the memory, or random ones because it keeps no raw inputs."""
    difference: float
    """From the encoder in float32: at most `TOLERANCE`."""
    from_memory: float
    """From the memory's own: larger, if its encoder computes in bfloat16 or float16."""


def described(view: View) -> str:
    """What a reader must know besides vectors and labels, as JSON.

    ``classes`` in their order, ``similarity`` (``euclidean``: ``-scale |u - m|^2``; ``distance``: ``-scale |u - m|``;
    ``dot``: ``scale u . m``; ``cosine``: ``scale u . m / |u| |m|``), ``scale``, ``nearest`` (K, if the K keys of
    highest score are read alone), ``temperature`` (the logs of the class mass are divided by it, and the softmax of
    that is the answer), ``inputs`` (shape, type and lightest grey of raw inputs), ``fingerprint`` of the encoder and
    ``digest`` of the memory.

    Raises:
        ValueError: for a memory with hops, of which these words do not tell.
    """
    model, cells = view.model, view.cells()
    if model.hops is not None:
        raise ValueError("export: a memory with hops is read by memlab alone; train with memory.hops=0 to export it")
    words = {
        "classes": view.content.classes,
        "similarity": type(model.similarity).__name__.lower(),
        "scale": float(torch.as_tensor(model.similarity.scale).detach()),
        "nearest": cells if cells < len(view.content) else None,
        "temperature": view.temperature,
        "inputs": {name: model.described()[name] for name in ("shape", "inputs", "levels")},
        "fingerprint": model.fingerprint(),
        "digest": view.digest,
    }
    return json.dumps(words, ensure_ascii=False)


def export_onnx(view: View, target: Path, stored: Tensor | None) -> Comparison:
    """Write the encoder with its preprocessing, in float32: ``inputs`` (n, ...) raw, ``embeddings`` (n, D).

    Args:
        view: the memory.
        target: the file, written if the comparison is good.
        stored: (n, ...) raw inputs of objects of the memory to compare with, or None for random ones.

    Raises:
        ValueError: for a memory with hops, if packages are missing, the encoder cannot be exported, or what was
            exported differs.
    """
    model = view.model
    if model.kind.columns is not None:
        raise ValueError(f"onnx={target}: rows of a table are read by their columns, which ONNX cannot; must be arrays")
    if model.kind.is_sequence:
        raise ValueError(f"onnx={target}: sequences have any number of steps; must be arrays of one shape")
    raw = (_random(model) if stored is None else stored).cpu()
    words, whole = described(view), _Whole(model)
    data = _exported(whole, raw, words)
    ours, memory = whole(raw).detach(), model.encode(raw).cpu().float()
    theirs = _run(data, raw)
    largest = max(float(ours.abs().max()), torch.finfo(torch.float32).tiny)
    difference, from_memory = (float((theirs - each).abs().max()) / largest for each in (ours, memory))
    if not difference <= TOLERANCE:
        raise ValueError(
            f"onnx={target}: the exported encoder differs by {difference:.1e} from torch's; must be at most"
            f" {TOLERANCE:.0e}, so nothing is written"
        )
    write_bytes_whole(target, data)
    return Comparison(len(raw), stored is not None, difference, from_memory)


def export_parquet(view: View, target: Path) -> None:
    """Write the stored objects by id: ``id``, ``label``, ``source`` and ``vector``, their key.

    Raises:
        ValueError: for a memory with hops, or if packages are missing.
    """
    words = described(view)
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise ValueError(f"parquet={target}: {MISSING.format(error.name)}") from error
    content = view.content
    ids, order = content.ids.cpu().sort()
    keys = content.keys.cpu()[order]
    keys = keys.to(torch.promote_types(keys.dtype, torch.float32))  # there is no bfloat16 in Parquet
    labels = content.labels.cpu()[order].tolist()
    columns = {
        "id": ids.numpy(),
        "label": [content.classes[label] for label in labels],
        "source": [content.sources[identity] for identity in ids.tolist()],
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(keys.flatten().numpy()), keys.shape[1]),
    }
    table = pa.table(columns).replace_schema_metadata({"memlab": words})
    with named_when_whole(target) as unfinished, unfinished.open("wb") as file:
        parquet.write_table(table, file)
        file.flush()
        os.fsync(file.fileno())


class _Whole(nn.Module):
    """Raw inputs to embeddings in float32, on the host."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(model.encoder).cpu().float().eval()
        self.is_normalised = is_normalised(model.kind.dtype)
        self.register_buffer("mean", model.mean.cpu().float())
        self.register_buffer("deviation", model.deviation.cpu().float())

    def forward(self, inputs: Tensor) -> Tensor:
        if self.is_normalised:
            inputs = (inputs.float() - self.mean) / self.deviation
        embeddings: Tensor = self.encoder(inputs)
        return embeddings


def _exported(whole: nn.Module, raw: Tensor, words: str) -> bytes:
    try:
        import onnx  # noqa: F401 - tells before the export if it is missing
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError(f"onnx: {MISSING.format(error.name)}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter, on what is its own business
            program = torch.onnx.export(
                whole,
                (raw[:2],),
                dynamo=True,
                verbose=False,
                input_names=["inputs"],
                output_names=["embeddings"],
                dynamic_shapes=({0: torch.export.Dim("n")},),
            )
    except Exception as error:  # the exporter raises almost anything for a layer that it does not know
        why = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"onnx: the encoder cannot be exported ({why})") from error
    assert program is not None
    proto: Any = program.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = "memlab", words
    data: bytes = proto.SerializeToString()
    return data


def _run(data: bytes, raw: Tensor) -> Tensor:
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(["embeddings"], {"inputs": raw.numpy()})[0])


def _random(model: Model) -> Tensor:
    """(n, ...) raw inputs with the statistics of the training data."""
    generator = torch.Generator().manual_seed(0)
    shape = [side or 0 for side in model.kind.shape]  # all are known of what is exported
    drawn = torch.randn(COMPARED, *shape, generator=generator) * model.deviation.cpu() + model.mean.cpu()
    if model.kind.dtype.is_floating_point:
        return drawn.to(model.kind.dtype)
    return drawn.round().clamp(0, model.kind.levels).to(model.kind.dtype)
