"""What is measured of the answers, against scikit-learn and the definitions."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch import Tensor

from memlab import functional
from memlab.data.datasets import LabelledData
from memlab.data.objects import ObjectStore
from memlab.data.support import UniformSupport
from memlab.encoders import Linear
from memlab.functional import ClassRead
from memlab.memory import FullMemory
from memlab.memory.reading import ReadAll
from memlab.memory.similarity import Euclidean
from memlab.runs.composition import BEST_IS
from memlab.training.datamodule import EpisodeDataModule
from memlab.training.metrics import ClassCounts, EvaluationMetrics, StepFigures
from memlab.training.module import MemoryClassifier
from tests.conftest import quiet_trainer
from tests.training.test_module import classifier

COUNTS = {2: [150, 40], 5: [90, 60, 40, 20, 10], 8: [90, 60, 40, 30, 25, 20, 15, 10]}
"""Number of classes to the objects of each: unbalanced."""


def datamodule(num_classes: int, *, absent: int | None) -> EpisodeDataModule:
    """Random points, whose classes nothing tells; every third is for the test, in batches of 7 that do not divide it.

    Args:
        num_classes: C.
        absent: class that the test does not have.
    """
    labels = torch.arange(num_classes).repeat_interleave(torch.tensor(COUNTS[num_classes]))
    inputs = torch.randn(len(labels), 3, generator=torch.Generator().manual_seed(0))
    store = ObjectStore(inputs=inputs, labels=labels, class_names=tuple(map(str, range(num_classes))))
    rows = torch.arange(len(labels))
    test = (rows % 3 == 0) & (labels != (-1 if absent is None else absent))
    assert int(test.sum()) % 7
    return EpisodeDataModule(
        data=LabelledData("random", store, rows[rows % 3 > 0], rows[test]),
        support=UniformSupport(size=20),
        batch_size=10,
        eval_batch_size=7,
        validation_fraction=0.2,
        split_seed=0,
        seed=0,
        num_workers=0,
        location="device",
    )


def model_for(module: EpisodeDataModule) -> MemoryClassifier:
    torch.manual_seed(1)
    encoder = Linear(input_shape=(3,), embedding_size=3)
    memory = FullMemory(similarity=Euclidean(scale=5.0, learn_scale=True))
    return classifier(encoder=encoder, memory=memory, reading=ReadAll(), class_names=module.store.class_names)


def expected(mass: Tensor, labels: Tensor) -> dict[str, float]:
    """The figures by scikit-learn, or by their definition where it has none."""
    p, y = mass.double().numpy(), labels.numpy()
    answers, num_classes = p.argmax(axis=1), p.shape[1]
    found = {
        "accuracy": sklearn.metrics.accuracy_score(y, answers),
        "balanced_accuracy": np.mean([(answers[y == c] == c).mean() for c in np.unique(y)]),
        "f1_macro": sklearn.metrics.f1_score(y, answers, average="macro"),
        "nll": sklearn.metrics.log_loss(y, p / p.sum(axis=1, keepdims=True), labels=range(num_classes)),
        "brier": np.mean([sum((p[t, c] - (y[t] == c)) ** 2 for c in range(num_classes)) for t in range(len(y))]),
    }
    if num_classes > 5:
        found["top5_accuracy"] = sklearn.metrics.top_k_accuracy_score(y, p, k=5, labels=range(num_classes))
    if num_classes == 2:
        found["auroc"] = sklearn.metrics.roc_auc_score(y, p[:, 1])
    return found


@pytest.mark.parametrize(("num_classes", "absent"), [(2, None), (5, None), (8, None), (5, 1), (8, 3)])
def test_figures_are_those_of_scikit_learn(num_classes: int, absent: int | None) -> None:
    module = datamodule(num_classes, absent=absent)
    model = model_for(module)
    (measured,) = quiet_trainer().test(model, datamodule=module, verbose=False)
    found = model.tested
    answers = found.log_probs.argmax(dim=1)
    assert absent is None or (answers == absent).any()  # else it would be left out of the mean in any case
    figures = expected(found.log_probs.exp(), found.labels)
    assert measured.keys() == {f"test/{name}" for name in [*figures, "ece"]}
    for name, value in figures.items():
        assert measured[f"test/{name}"] == pytest.approx(value, abs=2e-6), name


@pytest.mark.parametrize("num_classes", COUNTS)
def test_validation_measures_as_the_test_does_and_any_of_it_can_be_selected_by(num_classes: int) -> None:
    module = datamodule(num_classes, absent=None)
    model = model_for(module)
    module.validation_rows = module.test_rows
    (tested,) = quiet_trainer().test(model, datamodule=module, verbose=False)
    measured = quiet_trainer().validate(model, datamodule=module, verbose=False)[0]
    assert measured == {name.replace("test/", "validation/"): value for name, value in tested.items()}
    assert measured.keys() <= BEST_IS.keys()
    lower = {"validation/nll", "validation/brier", "validation/ece", "validation/error"}  # the last of questions
    assert {name for name, end in BEST_IS.items() if end == "min"} == lower


def test_what_is_held_does_not_grow_with_the_objects_but_for_auroc() -> None:
    for num_classes in (3, 7):
        metrics = EvaluationMetrics(num_classes, "test")
        sizes = []
        for _ in range(2):
            scores = torch.randn(50, num_classes)
            metrics.measure(ClassRead(scores, scores.amin(dim=1)), torch.arange(50) % num_classes)
            states = [getattr(metric, name) for metric in metrics.values() for name in metric._defaults]
            sizes.append(sum(state.numel() for state in states if isinstance(state, Tensor)))
        counts = 2 * 3 * num_classes
        assert sizes[0] == sizes[1] <= counts + 60


def test_a_class_that_nothing_read_is_of_is_not_among_the_five_likeliest() -> None:
    log_mass = functional.class_log_mass(torch.tensor([[0.0, 1.0, *[-torch.inf] * 5]] * 7))
    assert functional.within_top(log_mass, torch.arange(7), k=5).tolist() == [True, True, *[False] * 5]


def test_the_brier_score_of_certainty_is_zero_or_two() -> None:
    mass = torch.tensor([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1 / 3] * 3])
    torch.testing.assert_close(functional.brier(mass, torch.tensor([0, 1, 2])), torch.tensor([0.0, 2.0, 2 / 3]))


def test_a_query_that_has_read_nothing_is_a_mistake_and_no_answer() -> None:
    scores = torch.tensor([[-torch.inf] * 3, [0.0, -torch.inf, -1.0]])
    metrics = EvaluationMetrics(3, "test")
    metrics.measure(ClassRead(scores, torch.tensor([torch.inf, -1.0])), torch.tensor([0, 0]))
    found = {name: float(value) for name, value in metrics.compute().items()}
    assert found["test/accuracy"] == 0.5
    assert all(np.isfinite(value) for value in found.values())
    counts = metrics["balanced_accuracy"]
    assert isinstance(counts, ClassCounts)
    assert counts.answers.tolist() == [1, 0, 0]


def alone(figure: Tensor) -> Tensor:
    return figure


def test_figures_of_steps_are_means_by_weight_and_maxima_and_begin_anew() -> None:
    figures = StepFigures()
    for value, weight in ((1.0, 64), (torch.tensor(4.0), 16)):
        figures.take("loss", value, weight=weight)
        figures.take("key_age_mean", value)
        figures.take("key_age_max", value)
    found = {name: float(value) for name, value in figures.close(alone, alone).items()}
    assert found == {"loss": pytest.approx((64 + 4 * 16) / 80), "key_age_mean": 2.5, "key_age_max": 4.0}
    assert figures.close(alone, alone) == {}
    figures.take("key_age_max", 3)
    assert float(figures.close(alone, alone)["key_age_max"]) == 3
