"""Who is measured: memlab's modes, and what a user would otherwise take, each in the way its authors mean it.

A contender is made for some material and then called again and again; every call does all the work once. Calls for a
read or a step return the loss, which must be that of `full`: a rival that computes something else is no rival. Only
topk, which reads less by design, returns none, and neither does the arithmetic alone, which is no contender but the
limit of all. Calls for a search return the places found, those for an audit scores of the labels. A call for a start is
the life of a process, and returns none; one for a fit returns the seconds of a step, as the process tells them.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from memlab import functional
from memlab.benchmark.arithmetic import encodings_and_products, four_products, products, search_products
from memlab.benchmark.auditors import audits
from memlab.benchmark.material import Call, Maker, Material
from memlab.benchmark.problem import OWN
from memlab.benchmark.whole_commands import fits, starts
from memlab.index import ExactIndex, HNSWIndex, Index, IVFIndex
from memlab.memory import ChunkedMemory, FullMemory, Memory, TopKMemory
from memlab.memory.chunked import graph_bytes
from memlab.memory.scored_support import ScoredSupport
from memlab.memory.similarity import Dot, Euclidean

ARITHMETIC = "arithmetic alone"
"""The products, and of a step the encodings too, without which it cannot be done, and nothing else."""
SLOW_ON_CPU = {"KeOps": "without matrix products it takes minutes on a CPU"}
"""Measured there only if named, and why."""
NEEDS = {
    "KeOps": "pykeops",
    "NCALoss": "pytorch_metric_learning",
    "cleanlab": "cleanlab",
    "faiss": "faiss",
    "ivf": "faiss",
    "hnsw": "faiss",
}
"""Package that a contender needs whose name has the word in it."""
INDEXES: dict[str, Callable[[], Index]] = {
    "exact": ExactIndex,
    "ivf": lambda: IVFIndex(lists="auto", probes=16),
    "hnsw": lambda: HNSWIndex(links=32, candidates=64),
}
REFRESH_EVERY = 20
"""Steps between two refreshes of the keys that topk stores."""
NEIGHBOURS = 10
"""Neighbours that vote where a rival does not read everything."""


def contenders(task: str, *, chunks: Sequence[int], budgets: Sequence[float]) -> dict[str, Maker]:
    """The contenders for a task by name, without those whose package or script is missing.

    Args:
        task: one of `memlab.benchmark.problem.TASKS`.
        chunks: chunk sizes for the contenders that have one.
        budgets: shares of all graphs that chunked may keep, besides none.
    """
    if task == "read":
        found = {
            ARITHMETIC: four_products,
            f"{OWN} full": _read(_full_read),
            f"{OWN} tiles": _read(_tiles_read),
            "plain PyTorch": _read(_plain_loss),
            "SDPA, one-hot values": _read(_attention),
            "NCALoss": _read(_nca),
            "KeOps": _read(_keops),
        }
    elif task == "step":
        found = {ARITHMETIC: encodings_and_products, f"{OWN} full": _full_step}
        for chunk in chunks:
            for budget in [0.0, *budgets]:
                keeps = f" keeping {budget:.0%}" if budget else ""
                found[f"{OWN} chunked {chunk}{keeps}"] = _chunked_step(chunk, budget)
            found[f"checkpoint {chunk}"] = _checkpoint_step(chunk)
            found[f"gradient caching {chunk}"] = _gradient_caching_step(chunk)
        for index in ("exact", "ivf"):
            found[f"{OWN} topk {index}"] = _topk_step(index, REFRESH_EVERY)
            found[f"{OWN} topk {index}, refresh apart"] = _topk_step(index, 10**9)
        found["plain PyTorch"] = _encode_all(_plain_loss)
        found["NCALoss"] = _encode_all(_nca)
        found["KeOps"] = _encode_all(_keops)
    elif task == "search":
        found = {ARITHMETIC: search_products} | {f"{OWN} {index}": _search(index) for index in INDEXES}
        found["faiss flat"] = _faiss_flat
    elif task == "audit":
        found = audits()
    elif task == "fit":
        found = fits()
    elif task == "start":
        found = starts()
    else:
        found = {
            ARITHMETIC: products,
            f"{OWN} full": _whole_matrix,
            f"{OWN} tiles": _tiles,
            "faiss flat + vote": _faiss,
            "scikit-learn brute": _scikit_learn,
        }
    return {
        name: make
        for name, make in found.items()
        if all(find_spec(package) for word, package in NEEDS.items() if word in name)
    }


def period(contender: str) -> int:
    """Calls after which the work repeats: a time is taken over a multiple of them."""
    return REFRESH_EVERY if " topk " in contender and "refresh apart" not in contender else 1


Loss = Callable[[Material, Tensor, Tensor], Tensor]
"""Mean loss from material, (B, D) queries and (M, D) keys."""


def _plain_loss(material: Material, query: Tensor, keys: Tensor) -> Tensor:
    """What a careful user writes: two log-sum-exps of one matrix."""
    scores = query @ keys.T
    own = scores.masked_fill(material.targets[:, None] != material.labels[None, :], -torch.inf)
    return (scores.logsumexp(1) - own.logsumexp(1)).mean()


def _full_read(material: Material, query: Tensor, keys: Tensor) -> Tensor:
    class_scores = functional.class_scores(Dot()(query, keys), material.labels, material.problem.classes)
    return functional.nll(class_scores, material.targets).mean()


def _tiles_read(material: Material, query: Tensor, keys: Tensor) -> Tensor:
    stored = replace(material.stored, keys=keys)
    return functional.nll(stored.class_scores(query), material.targets).mean()


def _attention(material: Material, query: Tensor, keys: Tensor) -> Tensor:
    values = F.one_hot(material.labels, material.problem.classes).to(keys.dtype)
    mass = F.scaled_dot_product_attention(query[None], keys[None], values[None], scale=1.0)[0]
    return F.nll_loss(mass.log(), material.targets)


def _nca(material: Material, query: Tensor, keys: Tensor) -> Tensor:
    from pytorch_metric_learning.distances import DotProductSimilarity
    from pytorch_metric_learning.losses import NCALoss

    loss = NCALoss(softmax_scale=1, distance=DotProductSimilarity(normalize_embeddings=False))
    result: Tensor = loss(query, material.targets, ref_emb=keys, ref_labels=material.labels)
    return result


def _keops(material: Material, query: Tensor, keys: Tensor) -> Tensor:
    from pykeops.torch import LazyTensor

    scores = (LazyTensor(query[:, None, :]) * LazyTensor(keys[None, :, :])).sum(-1)
    mine = LazyTensor(material.targets.to(query.dtype)[:, None, None])
    theirs = LazyTensor(material.labels.to(query.dtype)[None, :, None])
    apart = 1e4 * (mine - theirs).square()  # takes objects of other classes out of the sum
    result: Tensor = (scores.logsumexp(dim=1) - (scores - apart).logsumexp(dim=1)).mean()
    return result


def _read(loss: Loss) -> Maker:
    def make(material: Material) -> Call:
        def call() -> Tensor:
            query, keys = material.query.detach().requires_grad_(), material.keys.detach().requires_grad_()
            value = loss(material, query, keys)
            value.backward()
            return value.detach()

        return call

    return make


def _step(material: Material, loss: Callable[[], Tensor]) -> Call:
    def call() -> Tensor:
        material.encoder.zero_grad()
        value = loss()
        value.backward()
        return value.detach()

    return call


def _encode_all(loss: Loss) -> Maker:
    def make(material: Material) -> Call:
        encoder, support = material.encoder, material.support
        return _step(material, lambda: loss(material, encoder(material.query_inputs), encoder(support.inputs())))

    return make


def _memory_step(material: Material, memory: Memory) -> Call:
    def loss() -> Tensor:
        class_scores = memory(material.encoder, material.encoder(material.query_inputs), material.support)
        return functional.nll(class_scores, material.targets).mean()

    return _step(material, loss)


def _full_step(material: Material) -> Call:
    return _memory_step(material, FullMemory(similarity=Dot()))


def _chunked_step(chunk: int, share: float) -> Maker:
    def make(material: Material) -> Call:
        memory = ChunkedMemory(similarity=Dot(), chunk_size=chunk)
        if share:
            query = material.encoder(material.query_inputs).detach()
            parts = memory.parts(material.support)
            scored = ScoredSupport(material.encoder, memory.similarity, material.support, None)
            graphs = graph_bytes(query, scored, parts[0]) * len(parts)
            memory = ChunkedMemory(similarity=Dot(), chunk_size=chunk, activation_budget=int(share * graphs))
        return _memory_step(material, memory)

    return make


def _topk_step(index: str, refresh_every: int) -> Maker:
    def make(material: Material) -> Call:
        memory = TopKMemory(
            similarity=Dot(),
            k=material.problem.nearest,
            index=INDEXES[index](),
            chunk_size=4000,
            refresh_every=refresh_every,
            refresh_share=0.2,  # of no use to a fixed interval
        )
        step = _memory_step(material, memory)

        def call() -> None:
            step()
            memory.after_step()

        return call

    return make


def _parts(material: Material, chunk: int) -> list[slice]:
    return [slice(start, start + chunk) for start in range(0, len(material.support), chunk)]


def _checkpoint_step(chunk: int) -> Maker:
    """Every chunk under `torch.utils.checkpoint`: activations are computed again, keys and scores are held."""

    def make(material: Material) -> Call:
        def encode(part: slice) -> Tensor:
            keys: Tensor = material.encoder(material.support.inputs(part))
            return keys

        def loss() -> Tensor:
            keys: Any = [checkpoint(encode, part, use_reentrant=False) for part in _parts(material, chunk)]
            return _plain_loss(material, material.encoder(material.query_inputs), torch.cat(keys))

        return _step(material, loss)

    return make


def _gradient_caching_step(chunk: int) -> Maker:
    """Gao et al. 2021, section 3: keys without graph, gradients of the keys, then chunk by chunk with graph."""

    def make(material: Material) -> Call:
        encoder, support, parts = material.encoder, material.support, _parts(material, chunk)

        def call() -> Tensor:
            encoder.zero_grad()
            with torch.no_grad():
                keys = torch.cat([encoder(support.inputs(part)) for part in parts])
            keys.requires_grad_()
            value = _plain_loss(material, encoder(material.query_inputs), keys)
            value.backward()
            assert keys.grad is not None
            for part in parts:
                encoder(support.inputs(part)).backward(keys.grad[part])
            return value.detach()

        return call

    return make


@torch.no_grad()
def _no_gradient(compute: Callable[[], Any]) -> None:
    compute()


def _whole_matrix(material: Material) -> Call:
    def compute() -> Tensor:
        scores = Dot()(material.query, material.keys)
        return functional.class_scores(scores, material.labels, material.problem.classes).softmax(-1)

    return lambda: _no_gradient(compute)


def _tiles(material: Material) -> Call:
    stored, query = material.stored, material.query
    return lambda: _no_gradient(lambda: stored.class_scores(query).softmax(-1))


def _faiss(material: Material) -> Call:
    import faiss

    index = faiss.IndexFlatIP(material.problem.embedding)
    index.add(material.keys.cpu().numpy())
    query, labels = material.query.cpu().numpy(), material.labels.cpu()

    def compute() -> Tensor:
        scores, found = index.search(query, NEIGHBOURS)
        weights = torch.from_numpy(scores).softmax(-1)
        mass = torch.zeros(len(query), material.problem.classes)
        return mass.scatter_add_(1, labels[torch.from_numpy(found)], weights)

    return lambda: _no_gradient(compute)


def _scikit_learn(material: Material) -> Call:
    from sklearn.neighbors import KNeighborsClassifier

    keys, query = material.keys.cpu().numpy(), material.query.cpu().numpy()
    classifier = KNeighborsClassifier(NEIGHBOURS, algorithm="brute")
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that few objects of many classes may be odd
        classifier.fit(keys, np.asarray(material.labels.cpu()))
    return lambda: _no_gradient(lambda: classifier.predict_proba(query))


def _search(name: str) -> Maker:
    def make(material: Material) -> Call:
        keys, query = material.clustered
        index = INDEXES[name]()
        index.build(keys, metric=Euclidean.metric)
        return lambda: index.search(query, material.problem.nearest)

    return make


def _faiss_flat(material: Material) -> Call:
    import faiss

    keys, query = (each.cpu().numpy() for each in material.clustered)
    index = faiss.IndexFlatL2(material.problem.embedding)
    index.add(keys)
    return lambda: torch.from_numpy(index.search(query, material.problem.nearest)[1])


def recall(material: Material, found: Tensor) -> float:
    """Share of the K nearest that a search has found."""
    nearest = _search("exact")(material)()
    assert nearest is not None
    return float((found.to(nearest.device)[:, :, None] == nearest[:, None, :]).any(1).float().mean())
