"""The LightningModule: wiring and logging; the maths is in `memlab.functional`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

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
from memlab.training.datamodule import EpisodeDataModule
from memlab.training.metrics import EvaluationMetrics
from memlab.training.processes import check_alike
from memlab.training.trained_module import TrainedModule


class MemoryClassifier(TrainedModule):
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
        optimizer: see `TrainedModule.prepare_training`.
        scheduler: see `TrainedModule.prepare_training`.
        evidence_k: support objects that `predict_step` and the test give for each query.
        class_weights: (C,) what the loss of a query is multiplied by, by its class; None for 1.
        compile: run the encoder through torch.compile; it is where the time goes, and has no logging to trip over.

    Raises:
        ValueError: if there is nothing to train, or the optimizer refuses its arguments.
    """

    class_weights: Tensor | None
    tested: Prediction
    """Of all objects of the last test, in host memory: (T, C) class mass and (T, k) evidence."""
    tested_keys: StoredKeys
    """What was read in the last test; of several processes the first has it."""

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
        class_weights: Tensor | None = None,
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
        self._evidence_k = evidence_k
        self.register_buffer("class_weights", class_weights, persistent=False)
        self._reading = reading
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ValueError(
                "encoder: has no parameters to train; must have some, or be read by a similarity with learn_scale=true"
            )
        self.prepare_training(optimizer, scheduler)
        self.validation_metrics = EvaluationMetrics(len(class_names), "validation")
        self.test_metrics = EvaluationMetrics(len(class_names), "test")

    def training_step(self, batch: Episode, batch_idx: int) -> Tensor:
        """Mean loss of the queries given their support; computed again in smaller chunks when memory runs out."""
        loss, right, absent = until_it_fits(
            partial(self._step, batch),
            shrink=self.memory.shrink,
            parameters=self.trained,
            device=self.device,
        )
        size = len(batch.labels)
        for name, total in {
            "loss": loss.detach() * batch.batch_size,  # it is a part of the mean over the queries of all processes
            "accuracy": right.sum(),
            "absent_class_rate": absent.sum(),
        }.items():
            self.steps.take(name, total / max(size, 1), weight=size)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.trainer.global_step + 1) % every == 0:
            self.tell_step(self.added_up(loss.detach()), batch_size=batch.batch_size)
        return loss

    def _step(self, episode: Episode) -> Step:
        with draws.of_objects(episode.ids, purpose=draws.ENCODED_QUERIES):
            query = self.encoder(episode.inputs)[: len(episode.labels)]
        own = self.memory.read_own(self.encoder, query, episode.support, episode.labels, episode.exclude)
        losses = functional.own_nll(own, num_classes=len(self.class_names))
        if self.class_weights is not None:
            losses = losses * self.class_weights[episode.labels]
        loss = losses.sum() / episode.batch_size
        return Step(loss, own.right, own.log_mass.isneginf())

    def on_train_batch_end(self, outputs: Any, batch: Episode, batch_idx: int) -> None:
        """Let the memory take note that the step is over, and take what it tells of it."""
        for name, value in self.memory.after_step().items():
            self.steps.take(name, value, weight=1 / self.trainer.world_size)

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

    @property
    def marks(self) -> dict[str, Any]:
        """See `TrainedModule.marks`."""
        return {
            "class_names": list(self.class_names),
            "encoder": type(self.encoder).__name__,
            "similarity": type(self.memory.similarity).__name__,
        }

    def support_ids(self, batch: Episode) -> list[int]:
        """See `TrainedModule.support_ids`."""
        ids: list[int] = batch.support.ids.tolist()
        return ids

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what the memory has stored."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["memory"] = self.memory.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Have the memory go on with what was stored."""
        super().on_load_checkpoint(checkpoint)
        self.memory.restore(checkpoint["memory"])
