"""The LightningDataModule: episodes for training, query batches for evaluation, on the device that computes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from memlab import draws
from memlab.checks import check_choice, check_number, check_whole_number, parameters_of
from memlab.data.datasets import LabelledData, stratified_split
from memlab.data.episodes import Episode, EpisodeDataset, EpisodeOrder, EpisodeRows, Queries
from memlab.data.objects import to_device
from memlab.data.parts import part_of
from memlab.data.support import Support, SupportSampler
from memlab.signals import leave_to_parent
from memlab.training.places import begin_step, place_of_next_step
from memlab.training.trial import try_augmentation

USUAL_VALIDATION, WORTH_VALIDATING = 0.1, 100
"""Share held out if it is ``auto``, and the least training objects of which it is: of fewer, what it says is chance."""
ENOUGH, MOST = 30, 3
"""Objects held out at least if it is ``enough``, and one of how many at most."""


class EpisodeDataModule(pl.LightningDataModule):
    """Training episodes, and query batches for validation, test and prediction.

    Workers and collation handle row numbers only. Inputs become float on the computing device, for the queries when a
    batch is handed over and for the support chunk by chunk when the memory asks (`memlab.data.support.Support`).

    Dropout and augmentation are those of each object at each step (`memlab.draws`), and torch's global generators, for
    layers that know no better, are seeded from (seed, epoch, step): nothing depends on the number of workers or on
    where a run was interrupted.

    Args:
        data: all objects, and which are for the test.
        support: draws the support of a training batch.
        batch_size: B, queries in a training step, of all its processes together; ``auto`` for 64, or 256 of vectors,
            which cost little to encode, and at most a quarter of the training set.
        eval_batch_size: queries, or objects to be encoded, at a time in evaluation.
        validation_fraction: share of the training rows held out for validation, class by class; 0 for none, and
            ``auto`` for a tenth where that tells something: of 100 objects or more, and one of every class; ``enough``
            for a tenth, and more where that would be fewer than 30 objects or than classes, a third at most.
        split_seed: seed of that split, apart from ``seed``, so that all runs validate on the same objects.
        seed: seed of the run.
        num_workers: processes that draw episodes; 0 draws in the main process, which is enough for most sets.
        location: where the raw inputs are kept, ``device`` or ``host`` memory.
        augmentation: random change of training inputs, queries and support alike, that keeps their shape and type; none
            if None or the identity.

    Raises:
        ValueError: for a value out of range, sizes that do not fit the training set, or an augmentation that does not
            fit its objects.
    """

    def __init__(
        self,
        *,
        data: LabelledData,
        support: SupportSampler,
        batch_size: int | str,
        eval_batch_size: int,
        validation_fraction: float | str,
        split_seed: int,
        seed: int,
        num_workers: int,
        location: str,
        augmentation: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.eval_batch_size = check_whole_number("eval_batch_size", eval_batch_size)
        self._num_workers = check_whole_number("num_workers", num_workers, minimum=0)
        self._location = check_choice("location", location, ["device", "host"])
        self.augmentation = None if isinstance(augmentation, nn.Identity) else augmentation
        """Random change of training inputs, or None."""
        self.data = data
        self.store = data.store
        if validation_fraction == "auto":
            validation_fraction = _validation_fraction(data.store.labels[data.train_rows])
        elif validation_fraction == "enough":
            validation_fraction = _fraction_of_enough(data.store.labels[data.train_rows])
        elif isinstance(validation_fraction, str):
            raise ValueError(f"validation_fraction={validation_fraction}: must be auto, enough, or from 0 up to 1")
        self.train_rows, self.validation_rows = data.train_rows, data.train_rows[:0]
        if check_number("validation_fraction", validation_fraction, at_least=0, below=1):
            self.train_rows, self.validation_rows = stratified_split(
                data.train_rows, data.store.labels, held_out=float(validation_fraction), seed=split_seed
            )
        self.test_rows = data.test_rows
        self.store.normalise_by(self.train_rows)
        if self.augmentation is not None:
            try_augmentation(self.augmentation, self.store, self.train_rows)
        if batch_size == "auto":
            batch_size = _batch_size(self.store.input_shape, train_size=len(self.train_rows))
        batch_size = check_whole_number("batch_size", batch_size, or_else="auto")
        train_labels = self.store.labels[self.train_rows]
        self._train_rows_by_class = self.train_rows[train_labels.argsort(stable=True)]
        if len(train_labels) <= batch_size and not support.is_whole:
            raise ValueError(
                f"batch_size={batch_size}: must be below {len(train_labels)}, the size of the training set, so that"
                " something is left to read"
            )
        with parameters_of("support"):
            support.check_fit(labels=train_labels, batch_size=batch_size)
        self._episodes = EpisodeDataset(
            rows=self.train_rows, labels=train_labels, batch_size=batch_size, support=support, seed=seed
        )
        self._order = EpisodeOrder(self._episodes.steps)
        self.sizes = {
            "train": len(self.train_rows),
            "validation": len(self.validation_rows),
            "test": len(self.test_rows),
            "batch": batch_size,
            "support": support.count(train_size=len(self.train_rows), batch_size=batch_size),
        }
        """Objects for training, validation and test; queries in a batch; M."""
        parts = [-(-len(rows) // eval_batch_size) for rows in self._validated]
        test = -(-len(self.test_rows) // eval_batch_size)
        self.batches = {
            "train": self._episodes.steps,
            **({"val": min(parts)} if len(self.validation_rows) else {}),
            **({"test": test} if test else {}),
        }
        """Batches of an epoch, of the smaller part of a validation and of a test, where there are any."""
        self.reads_whole_training_set = support.is_whole

    def setup(self, stage: str) -> None:
        """Put the store where it is to be kept."""
        assert self.trainer is not None
        self.place(self.trainer.strategy.root_device)

    def place(self, device: torch.device) -> None:
        """Put the store where it is to be kept for a device that computes."""
        self.store.place(inputs_on=device if self._location == "device" else torch.device("cpu"), compute_on=device)

    def train_dataloader(self) -> DataLoader[EpisodeRows]:
        """Episodes of the epoch."""
        return DataLoader(
            self._episodes,
            sampler=self._order,
            batch_size=None,
            num_workers=self._num_workers,
            collate_fn=_as_it_is,
            worker_init_fn=leave_to_parent,
        )

    def val_dataloader(self) -> list[DataLoader[Tensor]]:
        """Validation queries, then test queries: both are followed by epoch, only validation is ever selected on."""
        return [self._queries(rows) for rows in self._validated]

    def test_dataloader(self) -> DataLoader[Tensor]:
        """Test queries."""
        return self._queries(self.test_rows)

    def predict_dataloader(self) -> DataLoader[Tensor]:
        """Test queries."""
        return self._queries(self.test_rows)

    @property
    def _validated(self) -> list[Tensor]:
        """Rows that are followed by epoch: for validation and, if there are any, for the test."""
        if not len(self.validation_rows):
            return []
        return [self.validation_rows, self.test_rows] if len(self.test_rows) else [self.validation_rows]

    def _queries(self, rows: Tensor) -> DataLoader[Tensor]:
        batches: Any = rows.split(self.eval_batch_size)
        return DataLoader(batches, batch_size=None, collate_fn=_as_it_is)

    def stored_support(self) -> Support:
        """The whole training set, as it is and sorted by class, for evaluation; of several processes the part of this.

        Parts are next to one another, by rank.
        """
        rows = self._train_rows_by_class
        return self.plain_support(rows[part_of(len(rows), rank=self._rank, world=self._world)])

    def plain_support(self, rows: Tensor) -> Support:
        """The objects at some rows of the store, as they are."""
        return Support(self.store, self._near_inputs(rows), self._dtype)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Episode | Queries:
        """Turn rows into inputs on the computing device."""
        if isinstance(batch, EpisodeRows):
            begin_step(batch.seed, device, rank=self._rank)
            mine = batch.query[part_of(len(batch.query), rank=self._rank, world=self._world)]
            queries = self._augmented(mine)
            support = self._whole_training_support if batch.support is None else self._augmented(batch.support)
            exclude = queries.ids if batch.support is None else None
            encoded = queries if len(mine) else self._augmented(batch.query[:1])
            with draws.of_objects(encoded.ids, purpose=draws.AUGMENTED_QUERIES):
                inputs = encoded.inputs()
            return Episode(inputs, queries.labels, queries.ids, support, exclude, batch_size=len(batch.query))
        ids = to_device(batch, device)
        mine = batch[part_of(len(batch), rank=self._rank, world=self._world)]
        inputs = self.store.take(mine if len(mine) else batch[:1], dtype=self._dtype)
        return Queries(inputs, self.store.labels[ids], ids)

    @property
    def _rank(self) -> int:
        assert self.trainer is not None
        return self.trainer.global_rank

    @property
    def _world(self) -> int:
        assert self.trainer is not None
        return self.trainer.world_size

    def _augmented(self, rows: Tensor) -> Support:
        return Support(self.store, self._near_inputs(rows), self._dtype, self.augmentation)

    @cached_property
    def _whole_training_support(self) -> Support:
        """One object for all steps, by which a memory knows that it has stored this support.

        In an order that tells nothing of the classes: what is encoded again in turn would else be of one class at a
        time, and queries find the classes whose keys are fresh.
        """
        order = torch.randperm(len(self.train_rows), generator=torch.Generator().manual_seed(0))
        return self._augmented(self.train_rows[order])

    def _near_inputs(self, rows: Tensor) -> Tensor:
        return to_device(rows, self.store.inputs_device)

    @property
    def _dtype(self) -> torch.dtype:
        """The floating type the model is kept in: float64 for ``64-true``, and so on."""
        assert self.trainer is not None
        dtype = self.trainer.lightning_module.dtype
        assert isinstance(dtype, torch.dtype)
        return dtype

    def state_dict(self) -> dict[str, int]:
        """The place of the next step: epochs done, and steps done of the epoch under way."""
        return place_of_next_step(self.trainer)

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on from there."""
        self._order.resume_at(state_dict["epoch"], state_dict["step"])


def _batch_size(shape: Any, *, train_size: int) -> int:
    usual = 256 if isinstance(shape, tuple) and len(shape) == 1 else 64
    return max(min(usual, train_size // 4), 1)


def _validation_fraction(labels: Tensor) -> float:
    counts = labels.bincount()
    counts = counts[counts > 0]
    held_out = math.ceil(USUAL_VALIDATION * len(labels))
    enough = len(labels) >= WORTH_VALIDATING and held_out >= len(counts) and int(counts.min()) > 1
    return USUAL_VALIDATION if enough else 0.0


def _fraction_of_enough(labels: Tensor) -> float:
    count = len(labels)
    wanted = max(ENOUGH, len(labels.unique()))
    if wanted <= USUAL_VALIDATION * count:
        return USUAL_VALIDATION
    return max(min(wanted, count // MOST) - 0.5, 0) / count  # so many of them, as the split rounds up


def _as_it_is(rows: Any) -> Any:
    return rows
