from __future__ import annotations

import itertools
import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from memlab import functional
from memlab.data.datasets import LabelledData
from memlab.data.episodes import Episode
from memlab.data.objects import ObjectStore
from memlab.data.support import Support, SupportSampler, UniformSupport
from memlab.encoders import MLP, Linear
from memlab.memory import FullMemory
from memlab.memory.evidence import Evidence
from memlab.memory.prediction import Prediction
from memlab.memory.reading import ReadAll
from memlab.memory.similarity import Cosine, Distance, Dot, Euclidean, Similarity
from memlab.memory.stored_keys import StoredKeys
from memlab.training import forecast
from memlab.training.datamodule import EpisodeDataModule
from memlab.training.loss_weights import loss_weights
from memlab.training.module import MemoryClassifier
from memlab.training.schedules import CosineAnnealing
from memlab.training.trained_module import parameter_groups
from tests.conftest import quiet_trainer

N, C = 60, 3
SCHEDULER = {"scheduler": partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0)}


def data() -> LabelledData:
    """Three well separated clouds in the plane; 60 points to train on and 12 to test on."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(N + 12) % C
    centres = torch.tensor([[0.0, 4.0], [4.0, 0.0], [-4.0, -4.0]])
    store = ObjectStore(
        inputs=centres[labels] + torch.randn(N + 12, 2, generator=generator),
        labels=labels,
        class_names=("up", "right", "down"),
    )
    return LabelledData("clouds", store, torch.arange(N), torch.arange(N, N + 12))


def datamodule(support: SupportSampler | None = None) -> EpisodeDataModule:
    words: dict[str, Any] = {"split_seed": 0, "seed": 0, "num_workers": 0, "location": "device"}
    return EpisodeDataModule(
        data=data(),
        support=support or UniformSupport(size=20),
        batch_size=10,
        eval_batch_size=5,
        validation_fraction=0.2,
        **words,
    )


def classifier(**words: Any) -> MemoryClassifier:
    return MemoryClassifier(
        **{
            "encoder": Linear(input_shape=(2,), embedding_size=2),
            "embedding_size": 2,
            "memory": FullMemory(similarity=Euclidean(learn_scale=True)),
            "reading": ReadAll(),
            "class_names": ("up", "right", "down"),
            "optimizer": partial(torch.optim.Adam, lr=0.01),
            "scheduler": SCHEDULER,
            "evidence_k": 4,
            **words,
        }
    )


@pytest.mark.parametrize("kind", [Dot, Cosine, Euclidean, Distance])
def test_nearest_neighbours_among_embeddings_are_the_keys_of_the_highest_scores(kind: type[Similarity]) -> None:
    model, module = classifier(memory=FullMemory(similarity=kind())), datamodule()
    quiet_trainer().test(model, datamodule=module, verbose=False)
    test, train = module.plain_support(module.test_rows), module.plain_support(module.train_rows)
    query_points, key_points = model.embedded(queries=test, keys=train)
    found = torch.cdist(query_points.double(), key_points.double()).argsort()[:, :5]
    with torch.no_grad():
        scores = model.memory.similarity(*(model.encoder(part.inputs()) for part in (test, train)))
    assert torch.equal(found, scores.argsort(descending=True)[:, :5])


def test_measures_with_the_whole_training_set_as_memory_and_no_other_object() -> None:
    model, module = classifier(), datamodule()
    (measured,) = quiet_trainer().test(model, datamodule=module, verbose=False)
    with torch.no_grad():
        query, keys = (
            model.encoder(module.store.take(rows, dtype=torch.float32))
            for rows in (module.test_rows, module.train_rows)
        )
        weights = model.memory.similarity(query, keys).softmax(dim=1)
        labels = module.store.labels[module.train_rows]
        mass = torch.stack([weights[:, labels == c].sum(dim=1) for c in range(C)], dim=1)
    truth = module.store.labels[module.test_rows]
    assert measured["test/accuracy"] == pytest.approx((mass.argmax(1) == truth).float().mean().item())
    assert measured["test/nll"] == pytest.approx(-mass.gather(1, truth[:, None]).log().mean().item(), rel=1e-5)
    confidence, answer = mass.max(dim=1)
    bins = (confidence * 15).long().clamp(max=14)
    gaps = [
        (bins == b).float().mean() * (confidence[bins == b].mean() - (answer == truth)[bins == b].float().mean()).abs()
        for b in bins.unique()
    ]
    assert measured["test/ece"] == pytest.approx(float(sum(gaps)), abs=1e-5)


def test_prediction_tells_class_mass_and_evidence() -> None:
    model, module = classifier(), datamodule()
    parts: Any = quiet_trainer().predict(model, datamodule=module)
    found = Prediction.join(parts)
    assert torch.equal(found.ids, module.test_rows)
    torch.testing.assert_close(found.log_probs.exp().sum(dim=1), torch.ones(12))
    assert found.evidence.weights.shape == (12, 4)
    assert set(found.evidence.ids.flatten().tolist()) <= set(module.train_rows.tolist())


def test_one_pass_over_the_test_objects_tells_what_prediction_would(monkeypatch: pytest.MonkeyPatch) -> None:
    model, module = classifier(), datamodule()
    parts: Any = quiet_trainer().predict(model, datamodule=module)
    encodings: list[StoredKeys] = []
    encode = model._encoded

    def counted(support: Support) -> StoredKeys:
        encodings.append(encode(support))
        return encodings[-1]

    monkeypatch.setattr(model, "_encoded", counted)
    for _ in range(2):  # a second test begins anew
        quiet_trainer().test(model, datamodule=module, verbose=False)
    assert len(encodings) == 2
    for tested, predicted in zip(tree_leaves(model.tested), tree_leaves(Prediction.join(parts)), strict=True):
        assert torch.equal(tested, predicted)
    assert [len(batch.ids) for batch in parts] == [5, 5, 2]
    assert all(leaf.device.type == "cpu" for leaf in tree_leaves(model.tested))
    assert sum(leaf.numel() for leaf in tree_leaves(model.tested)) == 12 * (1 + 1 + C + 3 * 4)


def test_share_of_queries_whose_class_was_absent_is_logged() -> None:
    model, module, fitting = classifier(), datamodule(), quiet_trainer()
    rates: list[bool] = []
    step = model.training_step

    def watched(batch: Any, batch_idx: int) -> Any:
        present = set(batch.support.labels.tolist())
        rates.extend(label not in present for label in batch.labels.tolist())
        return step(batch, batch_idx)

    module._episodes._size = 2
    model.training_step = watched  # type: ignore[method-assign]
    fitting.fit(model, datamodule=module)
    assert 0.2 < sum(rates) / len(rates) < 0.8
    assert float(fitting.callback_metrics["train/absent_class_rate"]) == pytest.approx(sum(rates) / len(rates))
    assert fitting.callback_metrics["train/loss"].isfinite()


def test_training_lowers_the_loss_of_the_definition() -> None:
    model, module = classifier(), datamodule()

    def loss() -> float:
        with torch.no_grad():
            x = module.store.take(module.train_rows, dtype=torch.float32)
            u, labels, ids = model.encoder(x), module.store.labels[module.train_rows], torch.arange(len(x))
            scores = functional.exclude_rows(model.memory.similarity(u, u), ids, ids)
            return float(functional.nll(functional.class_scores(scores, labels, C), labels).mean())

    before = loss()
    quiet_trainer(epochs=10).fit(model, datamodule=module)
    assert loss() < 0.7 * before


def test_a_scale_is_not_rewarded_for_pushing_an_absent_class_away() -> None:
    """What stands in for the absent class is at a place, so that its score grows with the scale as all others do."""
    model = classifier(memory=FullMemory(similarity=Euclidean(scale=0.7, learn_scale=True)))
    store = data().store
    present = (store.labels[:N] != 0).nonzero().flatten()  # no object of the first class
    query = store.inputs[:3].float()
    episode = Episode(query, torch.zeros(3, dtype=torch.int64), torch.arange(3), Support(store, present), None, 3)
    log_scale: Any = model.memory.similarity.log_scale
    (gradient,) = torch.autograd.grad(model._step(episode).loss, [log_scale])
    with torch.no_grad():
        u, m = (model.encoder(x).double() for x in (query, store.inputs[present].float()))

    def loss(log_scale: float) -> float:
        scores = -math.exp(log_scale) * torch.cdist(u, m).square()
        every = torch.cat([scores, scores.amin(1, keepdim=True)], dim=1)  # far below a mass of 0.001 here
        return float((every.logsumexp(1) - every[:, -1]).mean())

    at, step = log_scale.item(), 1e-5
    assert gradient.item() == pytest.approx((loss(at + step) - loss(at - step)) / (2 * step), rel=1e-3)
    assert gradient.item() > 0  # descent makes the scale smaller


@pytest.mark.parametrize(
    ("given", "ratios"),
    [(None, [1, 1, 1]), ("balanced", [1 / 6, 1 / 3, 1]), ({"right": 5, "down": 0.5}, [1, 5, 0.5])],
)
def test_the_loss_of_a_query_weighs_as_its_class(given: object, ratios: list[float]) -> None:
    store = data().store
    train = torch.tensor([0] * 6 + [1] * 3 + [2])
    mean = sum(ratios[label] for label in train.tolist()) / len(train)
    model = classifier(class_weights=loss_weights(given, train, store.class_names))
    query, labels = store.inputs[:6].float(), store.labels[:6]
    episode = Episode(query, labels, torch.arange(6), Support(store, torch.arange(20, N)), None, 6)
    found = model._step(episode).loss.item()
    expected = 0.0
    with torch.no_grad():
        scores = model.memory.similarity(*(model.encoder(x) for x in (query, store.inputs[20:N].float())))
    for row, label in zip(scores.double().exp(), labels.tolist(), strict=True):
        mass = row[store.labels[20:N] == label].sum() / row.sum()
        expected -= ratios[label] / mean * math.log(mass) / 6
    assert found == pytest.approx(expected, rel=1e-5)
    assert "class_weights" not in model.state_dict()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("even", "class_weights=even: must be balanced, null, or numbers above 0 by name of a class, as {up: 5}"),
        ({"upp": 5}, "class_weights.upp: there is no such class; must be one of up, right, down"),
        ({"up": 0}, "class_weights.up=0: must be a number above 0"),
    ],
)
def test_class_weights_that_are_none(given: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        loss_weights(given, torch.arange(3), ("up", "right", "down"))


@pytest.mark.parametrize(
    ("seconds", "told"), [(100.0, ["training: about 5 min to come, for the 15 steps left"]), (1.0, [])]
)
def test_after_the_first_epoch_it_is_told_how_long_the_others_will_take(
    seconds: float, told: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 48 objects in batches of 10 an epoch has 5 steps; a clock that goes on whenever it is looked at."""
    clock = itertools.count(step=seconds)
    monkeypatch.setattr(forecast, "monotonic", lambda: next(clock))
    with caplog.at_level("INFO", logger="memlab"):
        quiet_trainer(epochs=4, callbacks=[forecast.Forecast()]).fit(classifier(), datamodule=datamodule())
    assert [record.getMessage() for record in caplog.records if record.name == forecast.log.name] == told


def test_nothing_to_train_is_refused() -> None:
    with pytest.raises(ValueError, match=r"encoder: has no parameters to train; must have some, or .*learn_scale=true"):
        classifier(encoder=nn.Flatten(), memory=FullMemory(similarity=Dot()))


@pytest.mark.parametrize(("words", "message"), [({"lr": "fast"}, "lr=fast"), ({"lr": -1.0}, "Invalid learning rate")])
def test_bad_optimizer_arguments_are_refused_at_once(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier(optimizer=partial(torch.optim.Adam, **words))


def test_confusion_counts_true_classes_by_answers() -> None:
    labels, answers = torch.tensor([0, 0, 2, 1, 2]), torch.tensor([1, 0, 1, 1, 2])
    nothing = Evidence(*(torch.zeros(5, 0) for _ in range(3)))
    prediction = Prediction(torch.arange(5), labels, nn.functional.one_hot(answers, 3).float().log(), nothing)
    assert prediction.confusion().tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 1]]


class TestOptimizer:
    def test_weights_of_layers_alone_decay(self) -> None:
        """A step without any gradient: what changes has decayed."""
        encoder = MLP(input_shape=(2,), embedding_size=2, hidden_sizes=[4], normalisation="layer")
        model = classifier(
            encoder=encoder,
            memory=FullMemory(similarity=Euclidean(scale=0.1, learn_scale=True)),
            optimizer=partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5),
        )
        before = {name: parameter.clone() for name, parameter in model.named_parameters()}
        optimizer = model.configure_optimizers()["optimizer"]
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        assert changed == {"encoder.trunk.1.weight", "encoder.projection.weight"}
        assert model.memory.similarity.scale.item() == pytest.approx(0.1)  # type: ignore[union-attr]

    def test_every_parameter_to_be_trained_is_in_one_group(self) -> None:
        model = classifier(encoder=MLP(input_shape=(2,), embedding_size=2, hidden_sizes=[4]))
        model.encoder.trunk.requires_grad_(False)
        grouped = [parameter for group in parameter_groups(model) for parameter in group["params"]]
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        assert sorted(map(id, grouped)) == sorted(map(id, trained))

    @pytest.mark.parametrize("epochs", [1, 3])
    @pytest.mark.parametrize("accumulate", [1, 2])
    def test_a_rate_given_by_progress_comes_down_within_the_steps_there_are(self, epochs: int, accumulate: int) -> None:
        model, fitting = classifier(scheduler={"factor": CosineAnnealing(warmup=0)}), quiet_trainer(epochs)
        fitting.accumulate_grad_batches = accumulate
        rates: list[float] = []
        step = model.optimizer_step

        def watched(*arguments: Any, **words: Any) -> None:
            rates.append(fitting.optimizers[0].param_groups[0]["lr"])
            step(*arguments, **words)

        model.optimizer_step = watched  # type: ignore[method-assign]
        fitting.fit(model, datamodule=datamodule())
        steps = epochs * -(-5 // accumulate)  # 48 objects in batches of 10
        assert rates == pytest.approx([0.01 * CosineAnnealing(warmup=0)(done / steps) for done in range(steps)])
        assert fitting.optimizers[0].param_groups[0]["lr"] == pytest.approx(0)
