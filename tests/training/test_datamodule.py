from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from memlab.data.augmentation import CropFlip, RandomAffine
from memlab.data.datasets import LabelledData, digits
from memlab.data.episodes import Episode, EpisodeDataset, EpisodeOrder, EpisodeRows, Queries
from memlab.data.objects import ObjectStore
from memlab.data.support import AllSupport, BalancedSupport, SupportSampler, UniformSupport, WholeSupport
from memlab.index import Places
from memlab.training.datamodule import EpisodeDataModule
from tests.conftest import quiet_trainer

N, B = 53, 8
ROWS = torch.arange(100, 100 + N)
LABELS = torch.arange(N) % 4


def episodes(*, seed: int = 0, support: SupportSampler | None = None) -> EpisodeDataset:
    return EpisodeDataset(rows=ROWS, labels=LABELS, batch_size=B, support=support or UniformSupport(size=20), seed=seed)


class Drawn(NamedTuple):
    """An episode whose support was drawn."""

    query: Tensor
    support: Tensor
    seed: int


def drawn(rows: EpisodeRows) -> Drawn:
    assert rows.support is not None
    return Drawn(rows.query, rows.support, rows.seed)


def epoch_of(dataset: EpisodeDataset, epoch: int) -> list[Drawn]:
    return [drawn(dataset[epoch, step]) for step in range(dataset.steps)]


@pytest.mark.parametrize("support", [UniformSupport(size=20), BalancedSupport(size=20), AllSupport()])
class TestEpisodes:
    def test_an_epoch_asks_every_object_once_and_never_reads_the_batch_itself(self, support: SupportSampler) -> None:
        for epoch in range(3):
            found = epoch_of(episodes(support=support), epoch)
            assert sorted(torch.cat([rows.query for rows in found]).tolist()) == ROWS.tolist()
            for rows in found:
                assert not set(rows.query.tolist()) & set(rows.support.tolist())
                assert len(set(rows.support.tolist())) == len(rows.support)
                assert set(rows.support.tolist()) <= set(ROWS.tolist())


def test_every_step_of_every_epoch_and_seed_has_a_draw_of_its_own() -> None:
    draws = {
        tuple(rows.support.tolist()) for seed in range(2) for e in range(3) for rows in epoch_of(episodes(seed=seed), e)
    }
    assert len(draws) == 2 * 3 * episodes().steps
    seeds = {rows.seed for seed in range(2) for e in range(3) for rows in epoch_of(episodes(seed=seed), e)}
    assert len(seeds) == len(draws)


def test_an_episode_depends_on_seed_epoch_and_step_alone() -> None:
    first, second = episodes(), episodes()
    epoch_of(second, 7)  # having drawn others before changes nothing
    for a, b in zip(
        epoch_of(first, 2), reversed([drawn(second[2, s]) for s in reversed(range(second.steps))]), strict=True
    ):
        assert torch.equal(a.query, b.query)
        assert torch.equal(a.support, b.support)
        assert a.seed == b.seed


def test_order_starts_where_an_interrupted_epoch_stopped_and_the_next_epoch_at_its_start() -> None:
    order = EpisodeOrder(5)
    order.set_epoch(3)
    order.resume_at(2, 2)
    assert list(order) == [(2, 2), (2, 3), (2, 4)]
    assert list(order) == [(3, step) for step in range(5)]
    order.resume_at(2, 5)
    assert list(order) == [(3, step) for step in range(5)]
    assert len(order) == 5


class Keeper(pl.LightningModule):
    """A model that only keeps the batches it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.episodes: list[Episode] = []
        self.queries: list[Queries] = []
        self.dropped: list[Tensor] = []

    def training_step(self, batch: Episode, batch_idx: int) -> Tensor:
        self.episodes.append(batch)
        self.dropped.append(torch.nn.functional.dropout(torch.ones(20), 0.5))
        return self.weight * 0.0

    def validation_step(self, batch: Queries, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.queries.append(batch)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fitted(**words: Any) -> Keeper:
    datamodule = EpisodeDataModule(
        **{
            "data": digits(test_fraction=0.2, split_seed=0),
            "support": UniformSupport(size=40),
            "batch_size": 500,
            "eval_batch_size": 100,
            "validation_fraction": 0.1,
            "split_seed": 0,
            "seed": 3,
            "num_workers": 0,
            "location": "device",
            **words,
        }
    )
    keeper = Keeper()
    quiet_trainer(epochs=2).fit(keeper, datamodule=datamodule)
    return keeper


def test_workers_and_location_change_nothing() -> None:
    plain = fitted()
    for other in (fitted(num_workers=2), fitted(location="host")):
        for a, b in zip(plain.episodes, other.episodes, strict=True):
            assert torch.equal(a.inputs, b.inputs)
            assert torch.equal(a.labels, b.labels)
            assert torch.equal(a.support.ids, b.support.ids)
            assert torch.equal(a.support.inputs(), b.support.inputs())
        assert all(torch.equal(a, b) for a, b in zip(plain.dropped, other.dropped, strict=True))


def test_the_whole_training_set_is_one_support_and_each_query_leaves_out_its_own_row() -> None:
    keeper = fitted(support=WholeSupport())
    assert len({id(episode.support) for episode in keeper.episodes}) == 1
    plain = fitted(support=UniformSupport(size=1))
    for episode, other in zip(keeper.episodes, plain.episodes, strict=True):
        assert len(episode.support) == 1293
        assert other.exclude is None
        assert episode.exclude is not None
        assert set(episode.exclude.tolist()) <= set(episode.support.ids.tolist())
        assert torch.equal(episode.support.store.labels[episode.exclude], episode.labels)
        own = episode.support.of(Places(episode.support.ids).of(episode.exclude))
        assert torch.equal(own.inputs(), episode.inputs)


def test_the_whole_training_set_is_in_no_order_of_classes_also_if_the_data_are() -> None:
    """Else what a memory encodes again in turn would be of one class at a time."""
    whole, rows = digits(test_fraction=0.2, split_seed=0).store, torch.arange(1797)
    order = whole.labels.argsort(stable=True)
    store = ObjectStore(inputs=whole.inputs[order], labels=whole.labels[order], class_names=whole.class_names)
    data = LabelledData("sorted", store, rows[rows % 5 > 0], rows[rows % 5 == 0])
    labels = fitted(support=WholeSupport(), data=data).episodes[0].support.labels
    for part in labels.split(200)[:-1]:
        assert int(part.bincount(minlength=10).min()) >= 5
        assert int(part.bincount(minlength=10).max()) <= 40  # 20 of each are expected


def made(augmentation: Any, *, inputs: Any = None) -> EpisodeDataModule:
    """A datamodule of 40 vectors, or other objects."""
    inputs = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) if inputs is None else inputs
    store = ObjectStore(inputs=inputs, labels=torch.arange(40) % 2, class_names=("a", "b"))
    return EpisodeDataModule(
        data=LabelledData("mine", store, torch.arange(30), torch.arange(30, 40)),
        support=UniformSupport(size=5),
        batch_size=4,
        eval_batch_size=10,
        validation_fraction=0.2,
        split_seed=0,
        seed=0,
        num_workers=0,
        location="device",
        augmentation=augmentation,
    )


def fails(inputs: Tensor) -> Tensor:
    raise RuntimeError(f"{inputs.dim()}\nlines")


class TestAugmentationIsTriedBeforehand:
    @pytest.mark.parametrize(
        ("augmentation", "message"),
        [
            (
                RandomAffine(degrees=10, translate=0.1, scale=0.1),
                r"RandomAffine: cannot take objects of shape \(5,\) \(ValueError: needs images \(B, .*\(4, 5\)\)",
            ),
            (
                CropFlip(padding=4, flip=True),
                r"CropFlip: cannot take objects of shape \(5,\) \(ValueError: needs images",
            ),
            (fails, r"fails: cannot take objects of shape \(5,\) \(RuntimeError: 2\)"),
            (5, r"int: cannot take objects of shape \(5,\) \(TypeError: 'int' object is not callable\)"),
            (lambda x: x[:, :4], r"makes \(4, 4\) float32 of \(4, 5\) float32; must keep shape and type"),
            (lambda x: x.double(), r"makes \(4, 5\) float64 of \(4, 5\) float32; must keep shape and type"),
            (lambda x: x.numpy(), r"makes ndarray of \(4, 5\) float32; must keep shape and type"),
            (lambda _: None, r"makes NoneType of \(4, 5\) float32; must keep shape and type"),
        ],
    )
    def test_what_does_not_fit_is_refused_in_one_line(self, augmentation: Any, message: str) -> None:
        with pytest.raises(ValueError, match=f"^augmentation=.*{message}.*, or none$"):
            made(augmentation)

    def test_it_sees_normalised_objects_and_leaves_them_and_the_random_state_alone(self) -> None:
        seen = []

        def change(inputs: Tensor) -> Tensor:
            seen.append(inputs.clone())
            return inputs.add_(torch.rand(()))

        before = torch.get_rng_state()
        datamodule = made(change)
        assert torch.equal(torch.get_rng_state(), before)
        (tried,) = seen
        rows = datamodule.train_rows[: len(tried)]
        assert torch.equal(tried, datamodule.store.take(rows, dtype=torch.float32))

    def test_objects_of_several_parts(self) -> None:
        parts = {"x": torch.randn(40, 1, 6, 6), "words": torch.arange(80).view(40, 2)}
        made(lambda tree: {**tree, "x": tree["x"].flip(-1)}, inputs=parts)
        with pytest.raises(ValueError, match=r"must keep shape and type"):
            made(lambda tree: {"x": tree["x"]}, inputs=parts)


@pytest.mark.parametrize("augmentation", [None, torch.nn.Identity()])
def test_the_identity_is_no_augmentation(augmentation: torch.nn.Module | None) -> None:
    assert fitted(augmentation=augmentation).episodes[0].support.augmentation is None


def test_epochs_differ_in_order_and_in_draws() -> None:
    keeper = fitted()
    first, second = keeper.episodes[0], keeper.episodes[3]
    assert not torch.equal(first.labels, second.labels)
    assert not torch.equal(first.support.ids, second.support.ids)
    assert not torch.equal(keeper.dropped[0], keeper.dropped[3])


def test_support_stays_rows_of_one_uint8_store_until_a_chunk_is_asked_for() -> None:
    support = fitted().episodes[0].support
    assert support.store.inputs.dtype is torch.uint8
    assert len(support.store) == 1797
    chunk = support.inputs(slice(5, 9))
    assert chunk.shape == (4, 1, 8, 8)
    assert chunk.dtype is torch.float32
    tensors = [value for value in vars(support).values() if isinstance(value, torch.Tensor)]
    assert all(tensor.shape == (40,) for tensor in tensors)


def test_validation_and_test_objects_are_each_asked_once_and_are_never_in_a_support() -> None:
    keeper = fitted()
    held_out = torch.cat([batch.ids for batch in keeper.queries])
    assert len(held_out) == 2 * (144 + 360)
    assert len(held_out.unique()) == 144 + 360
    assert not set(held_out.tolist()) & {i for e in keeper.episodes for i in e.support.ids.tolist()}


def test_batches_are_as_many_as_the_loaders_give() -> None:
    datamodule = fitted().trainer.datamodule  # type: ignore[attr-defined]
    train, test = len(datamodule.train_dataloader()), len(datamodule.test_dataloader())
    smaller = min(len(loader) for loader in datamodule.val_dataloader())
    assert (train, smaller, test) == (3, 2, 4)
    assert datamodule.batches == {"train": train, "val": smaller, "test": test}


@pytest.mark.parametrize(
    ("counts", "held_out"),
    [((99, 1), 0), ((50, 49), 0), ((50, 50), 10), ((98, 2), 10), ((10,) * 10, 10), ((10,) * 11, 11), ((6,) * 20, 0)],
)
def test_a_tenth_is_held_out_where_that_tells_something(counts: tuple[int, ...], held_out: int) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    rows = torch.arange(len(labels))
    store = ObjectStore(
        inputs=torch.randn(len(rows), 3), labels=labels, class_names=tuple(map(str, range(len(counts))))
    )
    data = LabelledData("mine", store, rows, rows[:0])
    keeper = fitted(data=data, validation_fraction="auto", batch_size=20, support=UniformSupport(size=5))
    datamodule = keeper.trainer.datamodule  # type: ignore[attr-defined]
    assert len(datamodule.validation_rows) == held_out
    assert len(datamodule.train_rows) == len(rows) - held_out
    assert datamodule.batches.keys() == ({"train", "val"} if held_out else {"train"})
    assert sum(len(batch.ids) for batch in keeper.queries) == 2 * held_out  # epochs


@pytest.mark.parametrize(
    ("counts", "held_out"),
    [
        ((20, 16), 12),  # a third
        ((50, 49), 30),
        ((98, 2), 30),
        ((5,) * 10, 16),
        ((4,) * 45, 45),  # one of every class
        ((150, 149), 30),
        ((150, 150), 30),
        ((200, 200), 40),  # a tenth
        ((15, 15, 11), 13),
    ],
)
def test_enough_is_held_out_of_few(counts: tuple[int, ...], held_out: int) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    rows = torch.arange(len(labels))
    store = ObjectStore(
        inputs=torch.randn(len(rows), 3), labels=labels, class_names=tuple(map(str, range(len(counts))))
    )
    made = EpisodeDataModule(
        data=LabelledData("mine", store, rows, rows[:0]),
        support=UniformSupport(size=5),
        batch_size=5,
        eval_batch_size=100,
        validation_fraction="enough",
        split_seed=0,
        seed=0,
        num_workers=0,
        location="host",
    )
    assert len(made.validation_rows) == held_out
    assert sorted([*made.train_rows.tolist(), *made.validation_rows.tolist()]) == rows.tolist()


def test_split_is_the_same_for_every_seed() -> None:
    first, second = fitted(seed=1), fitted(seed=2)
    for a, b in zip(first.queries, second.queries, strict=True):
        assert torch.equal(a.ids, b.ids)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: must be a whole number of at least 1"),
        ({"batch_size": 1293}, "batch_size=1293: must be below 1293"),
        ({"eval_batch_size": "abc"}, "eval_batch_size=abc"),
        ({"validation_fraction": 1}, "validation_fraction=1: must be a number of at least 0 and below 1"),
        ({"validation_fraction": 0.0001}, "held-out share 0.0001"),
        ({"validation_fraction": "enogh"}, "validation_fraction=enogh: must be auto, enough, or from 0 up to 1"),
        ({"num_workers": -1}, "num_workers=-1: must be a whole number of at least 0"),
        ({"location": "disk"}, "location=disk: must be one of device, host"),
        ({"split_seed": -1}, "split_seed=-1"),
        ({"support": UniformSupport(size=1000)}, "support.size=1000: must be at most 793"),
    ],
)
def test_refuses_what_does_not_fit(words: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fitted(**words)
