"""An object read by all others: against a plain loop, and flipped labels are found."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from memlab.trained import load
from tests.trained.memories import NAMES, SIMILARITIES, make, pictures, scores, tables


@pytest.mark.parametrize("kind", SIMILARITIES)
@pytest.mark.parametrize("index", [None, "exact"])
def test_equals_a_plain_loop(kind: str, index: str | None, tmp_path: Path) -> None:
    memory = make(tmp_path / "m", tables(), similarity=SIMILARITIES[kind](), dtype=torch.float64, index=index)
    found = memory.audit(k=2)
    content, scale = memory._content, memory.info["scale"]
    keys, labels, ids = content.keys.tolist(), content.labels.tolist(), content.ids.tolist()
    wanted = {}
    for place, key in enumerate(keys):
        z = sorted(((scores(kind, scale, key, other), n) for n, other in enumerate(keys) if n != place), reverse=True)
        read = z if index is None else z[:8]
        total = math.fsum(math.exp(score) for score, _ in read)
        wanted[ids[place]] = [math.fsum(math.exp(s) for s, n in read if labels[n] == c) / total for c in range(3)]
    assert sorted(found.ids.tolist()) == sorted(ids)
    assert found.margin.tolist() == sorted(found.margin.tolist())
    for place, identity in enumerate(found.ids.tolist()):
        mass = wanted[identity]
        assert found.labels[place] == NAMES[identity % 3]
        assert found.own_mass[place] == pytest.approx(mass[identity % 3], abs=1e-6)
        own, others = mass[identity % 3], mass[: identity % 3] + mass[identity % 3 + 1 :]
        odds = math.inf if max(others) == 0 else own / max(others)
        assert math.exp(found.margin[place]) == pytest.approx(odds, rel=1e-6)
        assert found.suggested[place] == NAMES[mass.index(max(mass))]
        assert found.suggested_mass[place] == pytest.approx(max(mass), abs=1e-6)
        assert found.sources[place] == f"row {identity}"
    doubted = [
        n for n, own, other in zip(found.ids.tolist(), found.labels, found.suggested, strict=True) if own != other
    ]
    assert len(found.evidence) == len(doubted) == found.suspicious
    assert all(n not in row for n, row in zip(doubted, found.evidence.evidence.ids.tolist(), strict=True))
    summary = {each.name: each for each in found.classes}
    for label, name in enumerate(NAMES):
        own = [mass[label] for n, mass in wanted.items() if n % 3 == label]
        assert summary[name].objects == len(own)
        assert summary[name].own_mass == pytest.approx(sum(own) / len(own), abs=1e-6)


def test_a_margin_does_not_depend_on_the_temperature(tmp_path: Path) -> None:
    memory = make(tmp_path / "m", tables())
    before = memory.audit()
    memory.calibrate()
    assert memory.info["temperature"] != 1
    assert memory.audit().margin.tolist() == before.margin.tolist()


def test_flipped_labels_come_first(tmp_path: Path) -> None:
    store = tables(600)
    store.inputs = store.inputs + 8 * torch.nn.functional.one_hot(store.labels, 5)
    memory = make(tmp_path / "m", store)
    memory.relabel([0, 33, 99], "cat")
    found = memory.audit(limit=2)
    assert sorted(found.ids[:3].tolist()) == [0, 33, 99]
    assert found.suggested[:3] == ["ape"] * 3
    assert len(found.evidence) == 2


def test_objects_held_twice_are_found(tmp_path: Path) -> None:
    store = pictures()
    memory = make(tmp_path / "m", store)
    assert memory.audit().duplicates == []
    (twin,) = memory.add(store.inputs[7][None], "other")
    (pair,) = load(tmp_path / "m").audit().duplicates
    assert pair.ids == (7, twin)
    assert pair.labels == ("bear", "other")
    assert pair.distance < 0.05


def test_values_out_of_range_are_told(tmp_path: Path) -> None:
    memory = make(tmp_path / "m", tables())
    with pytest.raises(ValueError, match="k=48: must be at most 47"):
        memory.audit(k=48)
    with pytest.raises(ValueError, match="limit=-1"):
        memory.audit(limit=-1)
    memory.forget(range(1, 48))
    with pytest.raises(ValueError, match="has one object"):
        memory.audit()
