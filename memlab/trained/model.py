"""What of a trained memory never changes: how objects become keys, and how keys are read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from memlab.checks import check_whole_number
from memlab.data.columns import Columns
from memlab.data.objects import ObjectStore
from memlab.data.sequences import Sequences
from memlab.data.support import Support
from memlab.data.texts import Texts
from memlab.memory import ReadAll, Similarity
from memlab.memory.stored_keys import encoded_as_it_is
from memlab.trained.hops import NamedHops
from memlab.trained.objects import ObjectKind
from memlab.trained.recipes import ENCODERS, READINGS, SIMILARITIES, Recipe, build
from memlab.trained.refusal import RefusedMemoryError

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.uint8,
        torch.int8,
        torch.int16,
        torch.int32,
        torch.int64,
        torch.bool,
        torch.float16,
        torch.bfloat16,
        torch.float32,
        torch.float64,
    )
}
"""The types of tensors by their names."""


@dataclass(frozen=True)
class Model:
    """Encoder, statistics of the inputs, similarity, hops and reading.

    Args:
        encoder: f.
        similarity: scores keys for queries.
        reading: reads the keys; opened by nobody.
        recipes: of ``encoder``, ``similarity`` and ``reading``.
        kind: what an object is.
        mean: subtracted from raw inputs, in a shape that fits an object.
        deviation: they are divided by it then.
        dtype: floating type of the encoder's inputs.
        autocast: type that torch's autocast computed in, or None for none.
        batch_size: objects encoded, and queries read, at a time.
        hops: what queries take up before the class is read; None for nothing.
    """

    encoder: nn.Module
    similarity: Similarity
    reading: ReadAll
    recipes: Mapping[str, Recipe]
    kind: ObjectKind
    mean: Tensor
    deviation: Tensor
    dtype: torch.dtype
    autocast: torch.dtype | None
    batch_size: int
    hops: NamedHops | None = None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.mean.device

    def encode(self, raw: Tensor) -> Tensor:
        """(n, D) embeddings of raw inputs, exactly as of the same objects in a data set.

        Raises:
            ValueError: for a value that is not finite, or one that is missing and must not be.
        """
        if (columns := self.kind.columns) is not None and "words" not in self.recipes["encoder"]["arguments"]:
            _check_nothing_missing(raw, columns)
        inputs = Sequences.of_padded(raw) if self.kind.is_sequence else raw
        labels, kind = torch.full((len(raw),), -1), self.kind
        store = ObjectStore(inputs=inputs, labels=labels, class_names=(), columns=kind.columns, texts=kind.texts)
        store.place(inputs_on=self.device, compute_on=self.device)
        store.mean, store.deviation = self.mean, self.deviation
        support = Support(store, torch.arange(len(raw), device=self.device), self.dtype)
        with torch.autocast(self.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            return encoded_as_it_is(self.encoder, support, slice(0, len(raw)), batch_size=self.batch_size)

    def weights(self) -> dict[str, Tensor]:
        """All tensors, in host memory."""
        tensors = {f"encoder.{name}": tensor for name, tensor in self.encoder.state_dict().items()}
        tensors |= {f"similarity.{name}": tensor for name, tensor in self.similarity.state_dict().items()}
        if self.hops is not None:
            tensors |= {f"hops.{name}": tensor for name, tensor in self.hops.hops.state_dict().items()}
        tensors |= {"mean": self.mean, "deviation": self.deviation}
        return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}

    def described(self) -> dict[str, Any]:
        """All else, as plain JSON."""
        return {
            **self.recipes,
            **({} if self.hops is None else {"hops": self.hops.described()}),
            "shape": list(self.kind.shape),
            "inputs": _name(self.kind.dtype),
            "levels": self.kind.levels,
            **({} if self.kind.columns is None else {"columns": self.kind.columns.described()}),
            **({} if self.kind.texts is None else {"texts": self.kind.texts.described()}),
            "dtype": _name(self.dtype),
            "autocast": None if self.autocast is None else _name(self.autocast),
            "batch_size": self.batch_size,
        }

    def fingerprint(self) -> str:
        """SHA-256 of weights, statistics and similarity, and of what makes keys of inputs besides."""
        rest = {name: value for name, value in self.described().items() if name not in ("reading", "batch_size")}
        digest = hashlib.sha256(json.dumps(rest, sort_keys=True).encode())
        for name, tensor in sorted(self.weights().items()):
            digest.update(f"{name} {_name(tensor.dtype)} {tuple(tensor.shape)};".encode())
            digest.update(bytes_of(tensor))
        return digest.hexdigest()


def read_model(
    described: Mapping[str, Any], weights: Path, *, device: torch.device, encoder: nn.Module | None
) -> Model:
    """The model that a folder describes.

    Args:
        described: as `Model.described` gave it.
        weights: file of the tensors.
        device: where it is to compute.
        encoder: takes the weights in the place of one made from the recipe, for classes of the user's own.

    Raises:
        RefusedMemoryError: for what cannot be read, is not allowed or does not fit.
    """
    try:
        kind = ObjectKind(
            _shape(described["shape"]),
            DTYPES[described["inputs"]],
            check_whole_number("levels", described["levels"]),
            Columns.from_described(described["columns"]) if "columns" in described else None,
            Texts.from_described(described["texts"]) if "texts" in described else None,
        )
        if kind.texts is not None and kind.shape != (None, 1):
            raise ValueError(f"objects of shape {kind.shape} are no texts")
        if kind.columns is not None and kind.shape != (len(kind.columns),):
            raise ValueError(f"objects of shape {kind.shape} have {len(kind.columns)} columns")
        dtype, named = DTYPES[described["dtype"]], described["autocast"]
        autocast = None if named is None else DTYPES[named]
        batch_size = check_whole_number("batch_size", described["batch_size"])
        recipes = {part: described[part] for part in ("encoder", "similarity", "reading")}
        own = None if kind.columns is None else list(kind.columns.words)
        known = own if kind.texts is None else len(kind.texts.vocabulary)
        if known is not None and recipes["encoder"]["arguments"].get("words", known) != known:
            raise ValueError("the encoder has other words than the columns, or the texts")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RefusedMemoryError(f"the model is described in no known way ({error})") from error
    reading = build(recipes["reading"], READINGS, name="reading")
    similarity = build(recipes["similarity"], SIMILARITIES, name="similarity")
    with _opened(weights) as file:
        if encoder is None:
            encoder = _made(recipes["encoder"], _shapes(file, "encoder."))
        modules: dict[str, nn.Module] = {"encoder": encoder, "similarity": similarity}
        hops = NamedHops.read(described["hops"], _shapes(file, "hops.")) if "hops" in described else None
        if hops is not None:
            modules["hops"] = hops.hops.to(device)
        for part, module in modules.items():
            _take(module.to(dtype), file, part)
        statistics = [file.get_tensor(name).clone() for name in ("mean", "deviation") if name in file.keys()]  # noqa: SIM118
    if len(statistics) != 2 or any(not _fits(each, kind.shape) for each in statistics):
        raise RefusedMemoryError(f"{weights.name}: has no statistics that fit objects of shape {kind.shape}")
    mean, deviation = (each.to(device) for each in statistics)
    return Model(
        encoder.to(device).eval(),
        similarity.to(device),
        reading,
        recipes,
        kind,
        mean,
        deviation,
        dtype,
        autocast,
        batch_size,
        hops,
    )


def _check_nothing_missing(rows: Tensor, columns: Columns) -> None:
    """See that an encoder that takes numbers alone gets them."""
    if len(places := rows.isnan().nonzero()):
        row, place = places[0].tolist()
        raise ValueError(
            f"row {row + 1}: column {columns.names[place]} is missing, which it was nowhere in training; must be there,"
            " or train with encoder=table"
        )


def bytes_of(tensor: Tensor) -> bytes:
    """The values of a tensor as they lie in memory, row by row."""
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _opened(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise RefusedMemoryError(f"{file.name}: truncated, damaged or missing ({error})") from error


def _made(recipe: object, shapes: Mapping[str, tuple[int, ...]]) -> nn.Module:
    """An encoder for tensors of these shapes; one that asks for others takes no memory before it is refused."""
    with torch.device("meta"):
        sketch: nn.Module = build(recipe, ENCODERS, name="encoder")
    ours = {name: tuple(tensor.shape) for name, tensor in sketch.state_dict().items()}
    if different := sorted(name for name in ours.keys() | shapes.keys() if ours.get(name) != shapes.get(name)):
        name = different[0]
        raise RefusedMemoryError(
            f"encoder: has {name} of shape {shapes.get(name)}, and {type(sketch).__name__} of {ours.get(name)}"
        )
    with torch.random.fork_rng(devices=[]):  # weights are drawn, and replaced: nobody else's draws are to change
        encoder: nn.Module = build(recipe, ENCODERS, name="encoder")
    return encoder


def _shapes(file: Any, prefix: str) -> dict[str, tuple[int, ...]]:
    names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 - not a mapping
    return {name.removeprefix(prefix): tuple(file.get_slice(name).get_shape()) for name in names}


def _take(module: nn.Module, file: Any, part: str) -> None:
    state = {name: file.get_tensor(f"{part}.{name}") for name in _shapes(file, f"{part}.")}
    try:
        module.load_state_dict(state)
    except (RuntimeError, TypeError) as error:
        why = " ".join(str(error).split())
        raise RefusedMemoryError(f"{part}: the weights do not fit a {type(module).__name__} ({why})") from error


def _shape(described: Sequence[object]) -> tuple[int | None, ...]:
    """The shape of an object; the first number may be None, for any."""
    steps = [None] if described[0] is None else []
    return (*steps, *(check_whole_number("shape", side) for side in described[len(steps) :]))


def _fits(statistics: Tensor, shape: tuple[int | None, ...]) -> bool:
    try:
        statistics.expand([side or 1 for side in shape])
    except RuntimeError:
        return False
    return True


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
