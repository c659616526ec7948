"""The LightningModule: wiring and logging; the maths is in `memlab.functional`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from memlab import draws, functional
from memlab.checks import check_switch
from memlab.data.episodes import Episode, Queries
from memlab.data.support import Support
from memlab.memory import Memory
from memlab.memory.exchange import Processes
from memlab.memory.out_of_memory import Step, until_it_fits
from memlab.memory.prediction import Prediction
from memlab.memory.reading import ReadAll
from memlab.memory.stored_keys import StoredKeys
from memlab.training.checkpoint_files import CHECKPOINT_FORMAT
from memlab.training.datamodule import EpisodeDataModule
from memlab.training.metrics import EvaluationMetrics, StepFigures
from memlab.training.processes import added_up, check_alike, largest


class MemoryClassifier(pl.LightningModule):
    """Trains an encoder so that attention over a memory of labelled objects gives the class.

    Logs ``train/loss``, ``train/accuracy`` and ``train/absent_class_rate`` (share of queries whose class the support
    lacked) by epoch, over the supports drawn; as ``validation/*`` and ``test/*`` the figures of
    `memlab.training.metrics.EvaluationMetrics` with the whole training set as memory. A memory that searches adds what
    `memlab.memory.Memory.after_step` tells, as ``train/*`` by epoch, and ``validation/recall`` of its search.

    Args:
        encoder: f, of objects to (B, D) embeddings.
        embedding_size: D.
        memory: reads a support in training.
        reading: reads the whole training set in evaluation.
        class_names: name of each class, by class id.
        optimizer: makes the optimizer from the parameters.
        scheduler: learning rate over the training: its ``factor`` as a function of progress
            (`memlab.training.schedules`), or Lightning's configuration of a scheduler (``interval``, ``monitor``, ...)
            whose ``scheduler`` makes it from the optimizer.
        evidence_k: support objects that `predict_step` and the test give for each query.
        compile: run the encoder through torch.compile; it is where the time goes, and has no logging to trip over.

    Raises:
        ValueError: if there is nothing to train, or the optimizer refuses its arguments.
    """

    tested: Prediction
    """Of all objects of the last test, in host memory: (T, C) class mass and (T, k) evidence."""
    tested_keys: StoredKeys
    """What was read in the last test; of several processes the first has it."""
    train_figures: dict[str, float]
    """Of the last epoch."""
    validated_epoch: int
    """The epoch of the last validation, counted from 0."""

    def __init__(
        self,
        *,
        encoder: nn.Module,
        embedding_size: int,
        memory: Memory,
        reading: ReadAll,
        class_names: tuple[str, ...],
        optimizer: partial[Optimizer],
        scheduler: Mapping[str, Any],
        evidence_k: int,
        compile: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        if check_switch("compile", compile):
            draws.leave_uncompiled()
            encoder.compile()
        self.memory = memory
        memory.prepare(embedding_size=embedding_size, num_classes=len(class_names))
        self.class_names = class_names
        self._make_optimizer = optimizer
        self._scheduler = scheduler
        self._evidence_k = evidence_k
        self._reading = reading
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ValueError(
                "encoder: has no parameters to train; must have some, or be read by a similarity with learn_scale=true"
            )
        for name, value in optimizer.keywords.items():
            if isinstance(value, str):
                raise ValueError(f"optimizer.{name}={value}: must be a number")
        try:
            self._make_optimizer([nn.Parameter(torch.zeros(1))])
        except (ValueError, TypeError) as error:
            raise ValueError(f"optimizer: {error}") from error
        self._steps = StepFigures()
        self._resumed: dict[str, Any] = {}
        self.train_figures = {}
        self.validated_epoch = 0
        self.validation_metrics = EvaluationMetrics(len(class_names), "validation")
        self.test_metrics = EvaluationMetrics(len(class_names), "test")

    def on_train_epoch_start(self) -> None:
        """Note what is trained: to ask all modules at every step takes as long as a small encoder does."""
        self._trained = [parameter for parameter in self.parameters() if parameter.requires_grad]

    def training_step(self, batch: Episode, batch_idx: int) -> Tensor:
        """Mean loss of the queries given their support; computed again in smaller chunks when memory runs out."""
        loss, right, absent = until_it_fits(
            partial(self._step, batch),
            shrink=self.memory.shrink,
            parameters=self._trained,
            device=self.device,
        )
        size = len(batch.labels)
        for name, total in {
            "loss": loss.detach() * batch.batch_size,  # it is a part of the mean over the queries of all processes
            "accuracy": right.sum(),
            "absent_class_rate": absent.sum(),
        }.items():
            self._steps.take(name, total / max(size, 1), weight=size)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.trainer.global_step + 1) % every == 0:
            self._tell_step(self._added_up(loss.detach()), batch_size=batch.batch_size)
        return loss

    def _tell_step(self, loss: Tensor, *, batch_size: int) -> None:
        """Show the loss of a step, and give it to the loggers.

        Lightning would give what it was last told once more at the last step, which a run that has gone on was not.
        """
        words: dict[str, Any] = {"on_step": True, "on_epoch": False, "batch_size": batch_size}
        self.log("train/step_loss", loss, prog_bar=True, logger=False, **words)
        if not self.trainer.fit_loop._should_accumulate():
            for logger in self.trainer.loggers:
                figures = {"train/step_loss": float(loss), "epoch": self.current_epoch}
                logger.log_metrics(figures, step=self.trainer.global_step)

    def _step(self, episode: Episode) -> Step:
        with draws.of_objects(episode.ids, purpose=draws.ENCODED_QUERIES):
            query = self.encoder(episode.inputs)[: len(episode.labels)]
        own = self.memory.read_own(self.encoder, query, episode.support, episode.labels, episode.exclude)
        loss = functional.own_nll(own, num_classes=len(self.class_names)).sum() / episode.batch_size
        return Step(loss, own.right, own.log_mass.isneginf())

    def step_begins(self) -> None:
        """What is measured from now on is of a step that may yet be left out."""
        self._steps.mark()

    def step_is_left_out(self) -> None:
        """What was measured of it does not count."""
        self._steps.back()

    def on_train_batch_end(self, outputs: Any, batch: Episode, batch_idx: int) -> None:
        """Let the memory take note that the step is over, and take what it tells of it."""
        for name, value in self.memory.after_step().items():
            self._steps.take(name, value, weight=1 / self.trainer.world_size)

    def on_train_epoch_end(self) -> None:
        """Log what the steps were like."""
        self.close_epoch()
        self.log_dict(self.train_figures, logger=False)

    def close_epoch(self) -> None:
        """Give the figures of the steps to the loggers.

        At once, not when all hooks are through: the checkpoint of the end of an epoch is to have them behind it.
        """
        figures = self._steps.close(self._added_up, self._largest)
        self.train_figures = {f"train/{name}": float(value) for name, value in figures.items()}
        for logger in self.trainer.loggers:
            logger.log_metrics({**self.train_figures, "epoch": self.current_epoch}, step=self.trainer.global_step - 1)

    def on_train_start(self) -> None:
        """Let a run that goes on from a checkpoint follow its own schedule at once, not the rate the other left."""
        self.on_train_epoch_start()  # which within an epoch Lightning does not call
        if self._resumed:
            self._steps.restore(self._resumed["steps"], self.device, counts=self.trainer.is_global_zero)
            self.trainer.callback_metrics.update(
                {name: torch.tensor(value) for name, value in self._resumed["figures"].items()}
            )
            self._resumed = {}
        for config in self.trainer.lr_scheduler_configs:
            scheduler = config.scheduler
            if isinstance(scheduler, LambdaLR):
                groups = zip(scheduler.optimizer.param_groups, scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
                for group, first_rate, factor in groups:
                    group["lr"] = first_rate * factor(scheduler.last_epoch)

    def on_validation_epoch_start(self) -> None:
        """Encode the whole training set, once for all evaluation batches."""
        check_alike(self.trainer, self)
        self._encode_memory()

    on_predict_epoch_start = on_validation_epoch_start

    def on_test_epoch_start(self) -> None:
        """Encode the whole training set, and begin to collect what is answered."""
        self._encode_memory()
        self._tested_batches: list[Prediction] = []

    def on_validation_epoch_end(self) -> None:
        """Log what was measured, and let the encoded memory go: the encoder is about to change."""
        self._reading.close()
        self.validated_epoch = self.current_epoch

    def on_predict_epoch_end(self) -> None:
        """Let the encoded memory go."""
        self._reading.close()

    def on_test_epoch_end(self) -> None:
        """Put together what was answered, and let the encoded memory go."""
        self.tested = Prediction.join(self._tested_batches)
        del self._tested_batches
        if (keys := self._reading.whole()) is not None:
            self.tested_keys = keys
        self._reading.close()

    def validation_step(self, batch: Queries, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure on validation objects, and on test objects for the learning curve."""
        query = self._queries(batch)
        read = self._reading.read(query)
        self._measure(self.validation_metrics if dataloader_idx == 0 else self.test_metrics, read, batch)
        if dataloader_idx == 0 and batch_idx == 0:
            stored = self._reading.stored
            recall = self.memory.recall(query, stored.keys, stored.ids)
            if recall is not None:
                words: dict[str, Any] = {"add_dataloader_idx": False, "batch_size": len(batch.labels)}
                self.log("validation/recall", recall, on_step=False, on_epoch=True, **words)

    def test_step(self, batch: Queries, batch_idx: int) -> None:
        """Measure on test objects, and keep what was answered."""
        read, prediction = self._predicted(batch)
        self._measure(self.test_metrics, read, batch)
        self._tested_batches.append(prediction.cpu())

    def predict_step(self, batch: Queries, batch_idx: int) -> Prediction:
        """Class mass and evidence of each query."""
        return self._predicted(batch)[1]

    def embedded(self, *, queries: Support, keys: Support) -> tuple[Tensor, Tensor]:
        """(Q, D') and (M, D') points of some objects: the nearest by Euclidean distance is that by the similarity.

        They are the embeddings but for what `memlab.memory.similarity.Similarity.points` adds.
        """
        self.to(keys.store.device).eval()
        return self.memory.similarity.points(self._encoded(queries).keys, self._encoded(keys).keys)

    def _measure(self, metrics: EvaluationMetrics, read: functional.ClassRead, batch: Queries) -> None:
        metrics.measure(read, batch.labels)
        self.log_dict(metrics, on_step=False, on_epoch=True, add_dataloader_idx=False, batch_size=len(batch.labels))

    def _predicted(self, batch: Queries) -> tuple[functional.ClassRead, Prediction]:
        """What queries have read, and what that says of them."""
        k = min(self._evidence_k, self._reading.cells(len(self._reading.ids)))
        queries = self._queries(batch)
        read, evidence = self._reading.read_with_evidence(queries, k=k)
        earlier = self._reading.evidence_of_hops(queries, k=k)
        log_mass = functional.class_log_mass(read.class_scores)
        return read, Prediction(batch.ids, batch.labels, log_mass, evidence, earlier)

    def _queries(self, batch: Queries) -> Tensor:
        """(B, D) the encoded queries of a batch: of several processes each encodes a part of them."""
        query: Tensor = self.encoder(batch.inputs)
        if self.trainer.world_size == 1:
            return query
        everyone = Processes.of().sharing(len(batch.labels))
        return everyone.gathered(query[: everyone.sizes[everyone.rank]])

    def _added_up(self, tensor: Tensor) -> Tensor:
        return added_up(self.trainer, tensor)

    def _largest(self, tensor: Tensor) -> Tensor:
        return largest(self.trainer, tensor)

    def _encode_memory(self) -> None:
        self._reading.open(self.memory.stored_keys(lambda: self._encoded(self._datamodule.stored_support())))

    @property
    def reading(self) -> ReadAll:
        """How keys are read in evaluation, by one process."""
        return self._reading.alone

    @property
    def _datamodule(self) -> EpisodeDataModule:
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(datamodule, EpisodeDataModule)
        return datamodule

    def _encoded(self, support: Support) -> StoredKeys:
        with self.trainer.precision_plugin.forward_context():
            return StoredKeys.encode(
                encoder=self.encoder,
                similarity=self.memory.similarity,
                hops=self.memory.hops,
                support=support,
                batch_size=self._datamodule.eval_batch_size,
            )

    def configure_optimizers(self) -> Any:
        """The optimizer and its learning-rate schedule."""
        optimizer = self._make_optimizer(parameter_groups(self))
        if "factor" in self._scheduler:
            factor, steps = self._scheduler["factor"], self.trainer.estimated_stepping_batches
            scheduler: LRScheduler = LambdaLR(optimizer, lambda step: factor(step / steps))
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
        followed = {"frequency": self.trainer.check_val_every_n_epoch} if "monitor" in self._scheduler else {}
        config = {**followed, **self._scheduler, "scheduler": self._scheduler["scheduler"](optimizer)}
        return {"optimizer": optimizer, "lr_scheduler": config}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the memory has stored, the figures of the last validation, and what a start from it is checked by.

        Tensors and plain values only.
        """
        logged = self.trainer.callback_metrics
        checkpoint["memory"] = self.memory.state()
        checkpoint["memlab"] = {
            "format": CHECKPOINT_FORMAT,
            "class_names": list(self.class_names),
            "encoder": type(self.encoder).__name__,
            "similarity": type(self.memory.similarity).__name__,
            "epoch": self.validated_epoch,
            "figures": {name: float(logged[name]) for name in logged if name.startswith("validation/")},
            "train_figures": self.train_figures,
            "steps": self._steps.state(self._added_up, self._largest),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Have the memory and the figures go on with what was stored."""
        self.memory.restore(checkpoint["memory"])
        self._resumed = checkpoint["memlab"]
        self.validated_epoch, self.train_figures = self._resumed["epoch"], self._resumed["train_figures"]


def parameter_groups(module: nn.Module) -> list[dict[str, Any]]:
    """The parameters to be trained, with weight decay for weights of layers alone.

    Weights are matrices or larger. Biases, factors of normalisations and the logarithm of a scale are vectors or
    numbers that have no reason to be near 0.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    weights = [parameter for parameter in trained if parameter.dim() >= 2]
    others = [parameter for parameter in trained if parameter.dim() < 2]
    groups: list[dict[str, Any]] = [
        {"name": "weights", "params": weights},
        {"name": "others", "params": others, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]
