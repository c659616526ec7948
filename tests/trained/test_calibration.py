"""Conformal p-values, sets and the temperature, against plain loops and against what they promise."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from memlab.trained import load
from memlab.trained.calibration import calibration_error, fit_temperature, nonconformity, p_values
from tests.trained.memories import NAMES, make, tables


def test_p_values_equal_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    of_calibration = torch.randint(0, 6, (20,), generator=generator).double()
    of_calibration[3] = torch.inf
    of_classes = torch.randint(0, 7, (9, 4), generator=generator).double()
    of_classes[0, 0] = torch.inf
    found = p_values(of_classes, of_calibration)
    for place in range(9):
        for label in range(4):
            as_bad = sum(value >= of_classes[place, label] for value in of_calibration.tolist())
            assert float(found[place, label]) == pytest.approx((1 + as_bad) / 21)


def test_nonconformity_is_minus_the_log_mass_where_the_mass_is_all_but_one() -> None:
    found = nonconformity(torch.tensor([[30.0, 0.0, -torch.inf]]))
    assert float(found[0, 0]) == pytest.approx(math.log1p(math.exp(-30)), rel=1e-6)
    assert float(found[0, 1]) == pytest.approx(30)
    assert float(found[0, 2]) == math.inf


@pytest.mark.parametrize("coverage", [0.8, 0.95])
def test_sets_hold_the_truth_as_often_as_asked(coverage: float) -> None:
    """Over many draws of calibration and query objects from one distribution."""
    generator = torch.Generator().manual_seed(0)
    held = []
    for _ in range(200):
        scores = torch.randn(140, 5, generator=generator)
        labels = torch.multinomial((1.5 * scores).softmax(-1), 1, generator=generator)[:, 0]
        own = nonconformity(scores).gather(1, labels[:, None])[:, 0]
        values = p_values(nonconformity(scores[100:]), own[:100])
        held.append((values.gather(1, labels[100:, None])[:, 0] > 1 - coverage).double().mean())
    assert coverage - 0.01 <= float(torch.stack(held).mean()) <= coverage + 0.02


def test_the_temperature_has_the_least_loss_of_a_fine_grid() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = 3 * torch.randn(400, 4, generator=generator)
    labels = torch.multinomial((scores / 2.2).softmax(-1), 1, generator=generator)[:, 0]
    scores[:50, 1] = -torch.inf
    labels[50:60] = -1
    usable = (labels >= 0) & scores.gather(1, labels.clamp(min=0)[:, None])[:, 0].isfinite()

    def loss(temperature: float) -> float:
        log_mass = (scores[usable].double() / temperature).log_softmax(-1)
        return -float(log_mass.gather(1, labels[usable, None]).mean())

    found = fit_temperature(scores, labels)
    assert 1.8 < found < 2.7
    assert loss(found) <= min(loss(0.5 + step / 100) for step in range(400)) + 1e-9


def test_a_temperature_that_cannot_be_told() -> None:
    assert fit_temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)) == 1
    assert fit_temperature(torch.zeros(4, 3), torch.full((4,), -1)) == 1
    certain = fit_temperature(torch.tensor([[5.0, 0.0], [0.0, 5.0]]), torch.tensor([0, 1]))
    assert certain == pytest.approx(0.01)


def test_calibration_error_is_torchmetrics() -> None:
    mass = torch.rand(500, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)
    labels = torch.arange(500) % 4
    theirs = multiclass_calibration_error(mass, labels, num_classes=4, n_bins=15)
    assert calibration_error(mass, mass.argmax(-1) == labels) == pytest.approx(float(theirs), abs=1e-6)


def test_calibrating_changes_probabilities_and_nothing_else(tmp_path: Path) -> None:
    memory = make(tmp_path / "m", tables(200))
    queries = tables(30, seed=3).inputs
    before = memory.predict(queries, coverage=0.9)
    found = memory.calibrate()
    after = memory.predict(queries, coverage=0.9)
    assert found["temperature"] != 1
    assert found["nll_after"] <= found["nll_before"]
    assert after.labels == before.labels
    assert after.sets == before.sets
    assert (after.credibility == before.credibility).all()
    wanted = (before.class_scores / found["temperature"]).softmax(-1).double().numpy()
    assert after.probabilities == pytest.approx(wanted, abs=1e-6)
    again = load(tmp_path / "m").predict(queries, coverage=0.9)
    assert (again.probabilities == after.probabilities).all()


def test_credibility_follows_the_memory_as_it_is(tmp_path: Path) -> None:
    """What was measured in training holds for the memory of then; after a change it is measured anew."""
    store, queries = tables(200), tables(30, seed=3).inputs
    memory = make(tmp_path / "m", store)
    memory.forget(range(0, 90))
    never = make(tmp_path / "never", store, without=range(0, 90))
    assert (memory.predict(queries).p_values == never.predict(queries).p_values).all()
    held_out = store.inputs[-40:]
    names = [NAMES[label] for label in store.labels[-40:].tolist()]
    values = memory.predict(held_out).p_values
    own = [
        -math.log(mass[NAMES.index(name)])
        for mass, name in zip(memory.predict(held_out).probabilities, names, strict=True)
    ]
    for place, name in enumerate(names):  # a calibration object is as bad as itself
        as_bad = sum(each >= own[place] - 1e-9 for each in own)
        assert values[place, NAMES.index(name)] == pytest.approx((1 + as_bad) / 41)


def test_calibration_objects_of_ones_own(tmp_path: Path) -> None:
    memory = make(tmp_path / "m", tables())
    memory.add(torch.full((3, 5), 9.0), "new")
    others = tables(25, seed=8)
    names = [NAMES[label] for label in others.labels.tolist()]
    with pytest.raises(ValueError, match="labels: 24 of them for 25 objects"):
        memory.calibrate(others.inputs, names[1:])
    memory.calibrate(torch.cat([others.inputs, torch.full((1, 5), 9.0)]), [*names, "unheard of"])
    assert memory.info["calibration_objects"] == 26
    values = load(tmp_path / "m").predict(others.inputs).p_values
    assert values.min() >= 2 / 27  # of which one conforms with nothing
