"""A trained memory with hops: exact whatever was added, relabelled and forgotten."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from memlab.memory import Euclidean
from memlab.server import contract
from memlab.trained import RefusedMemoryError, load
from memlab.trained.explain_page import explain_page
from memlab.trained.export import described
from memlab.trained.hops import NamedHops
from memlab.trained.memory import TrainedMemory
from tests.trained.memories import NAMES, drawn_hops, make, tables

USUAL = {"hops": 2, "values": "object+label", "hop_keys": "tied", "hop_search": "anew", "answer": "read"}
SETTINGS: dict[str, dict[str, Any]] = {
    "object+label": USUAL,
    "tabr, keys apart": {**USUAL, "values": "tabr", "hop_keys": "apart"},
    "label, cells kept": {**USUAL, "values": "label", "hop_search": "keep"},
}


def by_plain_loop(memory: TrainedMemory, query: list[float]) -> list[float]:
    """Log masses of the classes by the equations, values of object+label, all objects read."""
    content, named = memory._view.content, memory._model.hops
    assert named is not None
    scale = float(torch.as_tensor(memory._model.similarity.scale).detach())
    of_object = named.hops.object_values.tolist()
    of_class = dict(zip(named.classes, named.hops.class_values.tolist(), strict=True))
    objects = [
        (key, content.classes[label]) for key, label in zip(content.keys.tolist(), content.labels.tolist(), strict=True)
    ]
    size = len(query)

    def weights(u: list[float]) -> list[float]:
        scores = [-scale * math.fsum((a - b) ** 2 for a, b in zip(u, key, strict=True)) for key, _ in objects]
        shares = [math.exp(score - max(scores)) for score in scores]
        return [share / math.fsum(shares) for share in shares]

    for _ in range(named.hops.number):
        moved = list(query)
        for p, (key, name) in zip(weights(query), objects, strict=True):
            for d in range(size):
                value = math.fsum(of_object[d][e] * key[e] for e in range(size)) / size
                moved[d] += p * (value + of_class.get(name, [0.0] * size)[d])
        query = moved
    masses = dict.fromkeys(content.classes, 0.0)
    for p, (_, name) in zip(weights(query), objects, strict=True):
        masses[name] += p
    return [math.log(masses[name]) for name in content.classes]


def test_answers_are_those_of_the_plain_loop_also_with_a_new_class(tmp_path: Path) -> None:
    store = tables()
    memory = make(tmp_path / "memory", store, dtype=torch.float64, hops=USUAL)
    memory.add(store.inputs[48:54], ["dog"] * 3 + ["bear"] * 3)
    memory.relabel([0, 1], "dog")
    answer = memory.predict(store.inputs[54:])
    expected = [by_plain_loop(memory, query) for query in answer.queries.tolist()]
    found = answer.class_scores.log_softmax(-1)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("index", [None, "exact"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_what_is_forgotten_was_never_there(tmp_path: Path, setting: str, index: str | None) -> None:
    words: dict[str, Any] = {"hops": SETTINGS[setting], "index": index}
    memory = make(tmp_path / "memory", tables(), **words)
    never = make(tmp_path / "never", tables(), without=[3, 4, 7], **words)
    inputs = tables().inputs[40:]
    before = memory.predict(inputs).class_scores
    memory.forget([3, 4, 7])
    for each in (memory, load(tmp_path / "memory")):
        found, expected = each.predict(inputs, k=5), never.predict(inputs, k=5)
        assert torch.equal(found.class_scores, expected.class_scores)
        assert (found.evidence.ids == expected.evidence.ids).all()
        assert found.without_strongest == expected.without_strongest
        assert each.digest == never.digest
    assert not torch.equal(found.class_scores, before)


def test_without_the_strongest_is_without_it_in_every_hop(tmp_path: Path) -> None:
    """Not only in the last read, from whose masses its weight alone could be taken."""
    store = tables(600)
    memory = make(
        tmp_path / "memory", store, hops={**USUAL, "values": "label", "hops": 4}, similarity=Euclidean(scale=2)
    )
    hops = memory._model.hops
    assert hops is not None
    hops.hops.class_values.data *= 6
    memory.relabel([0], "ape")  # opens it anew
    answer = memory.predict(store.inputs)
    strongest = torch.from_numpy(answer.evidence.ids[:, 0].copy())
    expected = memory._view.class_scores(answer.queries, strongest).argmax(-1)
    assert answer.without_strongest == [answer.classes[label] for label in expected.tolist()]
    left = torch.from_numpy(answer.probabilities.copy())
    left[torch.arange(600), answer.strongest.labels[:, 0]] -= answer.strongest.weights[:, 0].double()
    sure = left.sort().values.diff()[:, -1] > 0.02
    assert (left.argmax(-1) != expected)[sure].any()


def test_a_class_that_was_not_trained_has_no_value_of_its_own() -> None:
    named = NamedHops(drawn_hops(USUAL, torch.float32), USUAL, NAMES)
    values = named.of(("cat", "dog", "ape")).class_values
    assert torch.equal(values[[0, 2]], named.hops.class_values[[2, 0]])
    assert values[1].eq(0).all()


def test_audit_and_condensation_read_with_hops(tmp_path: Path) -> None:
    memory = make(tmp_path / "memory", tables(), hops=USUAL)
    assert len(memory.audit().margin) == 48
    memory.condense(0.5, into=tmp_path / "small")
    assert load(tmp_path / "small").info["hops"] == 2
    assert load(tmp_path / "small").info["objects"] == 24


@pytest.mark.parametrize("index", [None, "exact"])
def test_evidence_tells_of_each_hop(tmp_path: Path, index: str | None) -> None:
    store = tables()
    memory = make(tmp_path / "memory", store, dtype=torch.float64, hops=USUAL, index=index, batch_size=5)
    answer = memory.predict(store.inputs[48:], k=3)
    first, second = answer.hops
    keys, similarity = memory._view.content.keys, memory._model.similarity
    with torch.no_grad():
        scores = similarity(answer.queries, keys)
    read = scores if index is None else scores.topk(8).values
    weights = scores.topk(3).values.sub(read.logsumexp(1, keepdim=True)).exp()
    torch.testing.assert_close(torch.from_numpy(first.weights), weights, rtol=1e-10, atol=1e-12)
    assert (first.weights != second.weights).any()
    rows = list(answer.rows())
    assert rows[2]["hops"] == [first.pieces(2), second.pieces(2)]
    assert contract.Read(**{name: rows[2][name] for name in contract.Read.model_fields}).hops is not None
    shown = explain_page(memory, answer, [None] * 12, [str(number) for number in range(12)])
    assert shown.count(">Hop 2<") == 12
    plain = make(tmp_path / "plain", store).predict(store.inputs[48:])
    assert plain.hops == ()
    assert "hops" not in next(plain.rows())


def test_is_not_exported(tmp_path: Path) -> None:
    memory = make(tmp_path / "memory", tables(), hops=USUAL)
    with pytest.raises(ValueError, match="export: a memory with hops is read by memlab alone"):
        described(memory._view)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hops": 0}, r"hops: are described in no known way \(hops=0: must be a whole number"),
        ({"values": "code"}, r"hops: are described in no known way \(values=code: must be one of"),
        ({"answer": "layer"}, "hops: have tensors of "),
        ({"hop_keys": "apart"}, "hops: have tensors of "),
        ({"classes": ["ape"]}, "hops: have tensors of "),
        ({"more": 1}, r"hops: are described in no known way \(.*unexpected keyword argument 'more'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    named = NamedHops(drawn_hops(USUAL, torch.float32), USUAL, NAMES)
    shapes = {name: tuple(tensor.shape) for name, tensor in named.hops.state_dict().items()}
    described_hops = json.loads(json.dumps(named.described()))
    assert NamedHops.read(described_hops, shapes).classes == NAMES
    with pytest.raises(RefusedMemoryError, match=message):
        NamedHops.read({**described_hops, **change}, shapes)
