"""Small memories on the disk, made without training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from memlab.data.columns import Column, Columns
from memlab.data.objects import ObjectStore
from memlab.data.sequences import Sequences
from memlab.data.support import Support
from memlab.data.texts import Text, Texts
from memlab.data.tokens import Tokens
from memlab.encoders import LSTM, MLP, Bag, Conv, TableEncoder
from memlab.index import ExactIndex, HNSWIndex, Index, IVFIndex
from memlab.memory import Cosine, Distance, Dot, Euclidean, Hops, ReadAll, ReadTopK, Similarity, StoredKeys
from memlab.trained import TrainedMemory, load
from memlab.trained.creation import create
from memlab.trained.hops import NamedHops
from memlab.trained.model import Model
from memlab.trained.objects import ObjectKind
from memlab.trained.recipes import recipe_of

NAMES = ("ape", "bear", "cat")
INDEXES: dict[str, tuple[type[Index], dict[str, Any]]] = {
    "exact": (ExactIndex, {}),
    "ivf": (IVFIndex, {"lists": 4, "probes": 4}),
    "hnsw": (HNSWIndex, {"links": 8, "candidates": 64}),
}


def tables(size: int = 60, *, seed: int = 0) -> ObjectStore:
    """Rows of five numbers in three classes that can be told apart."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % 3
    inputs = torch.randn(size, 5, generator=generator) + 2 * torch.nn.functional.one_hot(labels, 5)
    return ObjectStore(inputs=inputs, labels=labels, class_names=NAMES)


def columned(size: int = 60, *, seed: int = 0) -> ObjectStore:
    """Rows of a number, a word, and yes or no, some of them missing; the number tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % 3
    number = 10 * labels + torch.randn(size, generator=generator)
    word, answer = torch.randint(0, 3, (size,), generator=generator), torch.randint(0, 2, (size,), generator=generator)
    inputs = torch.stack([number, word, answer], dim=1).double()
    inputs[::7, 1:] = math.nan
    columns = (Column("size", "number"), Column("colour", "word", words=("red", "blue")), Column("tame", "yes/no"))
    return ObjectStore(inputs=inputs, labels=labels, class_names=NAMES, columns=Columns(columns, "animal"))


def sequences(size: int = 60, *, seed: int = 0) -> ObjectStore:
    """One to six steps of two numbers, around another place for each class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(size) % 3
    lengths = torch.randint(1, 7, (size,), generator=generator)
    steps = torch.randn(int(lengths.sum()), 2, generator=generator) + 2 * labels.repeat_interleave(lengths)[:, None]
    return ObjectStore(inputs=Sequences(steps, lengths), labels=labels, class_names=NAMES)


def spoken(size: int = 60, *, pairs: bool = False) -> ObjectStore:
    """Texts of what the animal of a class does, or pairs of these with another."""
    said = [("the ape climbs", "a bear sleeps", "one cat purrs")[place % 3] for place in range(size)]
    names: dict[str, Any] = {"columns": ("first", "second") if pairs else ("text",)}
    given: list[Text] = [(text, "as we saw") for text in said] if pairs else list(said)
    texts = Texts.of(given, tokens=Tokens("words"), rare_below=1, most_tokens=99, longest=9, **names)
    return ObjectStore(inputs=texts.encoded(given), labels=torch.arange(size) % 3, class_names=NAMES, texts=texts)


def pictures(size: int = 60, *, seed: int = 0) -> ObjectStore:
    """Noisy grey 8 x 8 images."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(0, 256, (size, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return ObjectStore(inputs=inputs, labels=torch.arange(size) % 3, class_names=NAMES)


def make(
    folder: Path,
    store: ObjectStore,
    *,
    without: Sequence[int] = (),
    similarity: Similarity | None = None,
    index: str | None = None,
    keep: str = "raw",
    batch_size: int = 16,
    dtype: torch.dtype = torch.float32,
    levels: int = 255,
    hops: dict[str, Any] | None = None,
) -> TrainedMemory:
    """A memory of the rows of a store but some; the last fifth are for calibration. It is opened from its folder."""
    torch.manual_seed(0)
    held_out = torch.arange(len(store))[-len(store) // 5 :]
    rows = torch.arange(len(store) - len(held_out))
    store.normalise_by(torch.arange(len(store) - len(held_out)))
    image = len(store.input_shape) == 3
    own: dict[str, Any] = {"channels": 4, "kernel_size": 3, "pool_size": 2} if image else {"hidden_sizes": [8]}
    if store.columns is not None:
        own = {"words": list(store.columns.words), "numbers": "quantile", "embedding": "piecewise_linear", "bins": 4}
        own |= {"number_size": 4, "word_size": 4, "width": 8, "blocks": 0}
    if len(store.input_shape) == 2:
        own = {"hidden_size": 4, "layers": 1, "bidirectional": True, "pooling": "mean", "window": 0, "truncate": None}
    if (texts := store.texts) is not None:
        pairs = {} if texts.separator is None else {"separator": texts.separator}
        own = {"words": len(texts.vocabulary), "word_size": 8, "word_dropout": 0.0, "pooling": "mean", **pairs}
    words = {**own, "embedding_size": 6, "normalisation": "layer", "input_shape": list(store.input_shape)}
    of_rows = MLP if store.columns is None else TableEncoder
    kinds: dict[int, type[nn.Module]] = {1: of_rows, 2: LSTM if texts is None else Bag, 3: Conv}
    encoder = kinds[len(store.input_shape)](**words)
    if isinstance(encoder, TableEncoder):
        encoder.fit_inputs(store.take(rows, dtype=torch.float32))
    encoder = encoder.to(dtype).eval()
    similarity = (similarity or Euclidean(scale=0.3, learn_scale=True)).to(dtype)
    reading, read = ReadAll(), recipe_of("memlab.memory.reading.ReadAll", {})
    if index is not None:
        kind, arguments = INDEXES[index]
        reading = ReadTopK(k=8, index=kind(**arguments))
        named = recipe_of(f"memlab.index.{kind.__name__}", arguments)
        read = recipe_of("memlab.memory.reading.ReadTopK", {"k": 8, "index": named})
    learned = similarity.log_scale is not None
    scale = {"scale": similarity.fixed_scale, "learn_scale": learned}
    model = Model(
        encoder=encoder,
        similarity=similarity,
        reading=reading,
        recipes={
            "encoder": recipe_of(f"memlab.encoders.{type(encoder).__name__}", words),
            "similarity": recipe_of(f"memlab.memory.similarity.{type(similarity).__name__}", scale),
            "reading": read,
        },
        kind=ObjectKind(store.input_shape, store.inputs.dtype, levels, store.columns, store.texts),
        mean=store.mean,
        deviation=store.deviation,
        dtype=dtype,
        autocast=None,
        batch_size=batch_size,
        hops=None if hops is None else NamedHops(drawn_hops(hops, dtype), hops, NAMES),
    )
    keys = StoredKeys.encode(
        encoder=encoder, similarity=similarity, support=Support(store, rows, dtype), batch_size=batch_size
    )
    others = ~torch.isin(keys.ids, torch.tensor(list(without), dtype=torch.int64))
    keys = replace(keys, keys=keys.keys[others], labels=keys.labels[others], ids=keys.ids[others])
    create(
        folder,
        model=model,
        keys=keys,
        store=store,
        source="row {}".format,
        calibration_rows=held_out,
        keep=keep,
        about={"data": "made up"},
    )
    return load(folder)


def drawn_hops(settings: dict[str, Any], dtype: torch.dtype) -> Hops:
    """Hops of embeddings of size 6, with parameters that are not 0."""
    made = Hops(**settings)
    made.prepare(embedding_size=6, num_classes=len(NAMES))
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, dtype=torch.float64).to(dtype) / 3
    return made


SIMILARITIES = {
    "euclidean": lambda: Euclidean(scale=0.3, learn_scale=True),
    "distance": lambda: Distance(scale=1.5, learn_scale=True),
    "cosine": lambda: Cosine(scale=5.0),
    "dot": lambda: Dot(scale=0.5),
}


def scores(kind: str, scale: float, query: list[float], key: list[float]) -> float:
    """One score by its definition."""
    dot = math.fsum(a * b for a, b in zip(query, key, strict=True))
    if kind == "dot":
        return scale * dot
    if kind == "cosine":
        return scale * dot / (math.hypot(*query) * math.hypot(*key))
    return -scale * math.dist(query, key) ** (1 if kind == "distance" else 2)


def bytes_on_disk(folder: Path) -> bytes:
    """All that the files of a folder hold, one after the other."""
    return b"".join(file.read_bytes() for file in sorted(folder.iterdir()))
