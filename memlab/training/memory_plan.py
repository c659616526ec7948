"""What a training will take of memory, from a few steps of a few objects; and what to lower where there is not enough.

A plan is measured, not computed from a description of the encoder, which may be anybody's. A step, the encoding of a
batch and a read of stored keys are done with two numbers of queries and two of support objects, a handful each, and
every tensor that is made and let go is noted with its size (`memlab.training.allocations`). What a training takes is
then the peak of the same order of events with the sizes that B, M and the chunk give.

The peak of a step is that of one part of the support: all M objects of ``full``, a chunk of ``chunked``, the unique
cells of ``topk``, of which B K are counted, or a chunk of these. The gradients of the step before are still there in
its forward. In evaluation there are all N keys, the terms that they are multiplied with, and a batch that is encoded.

On a GPU the sum of that is what torch allocates at most. On a CPU a process holds more, what it has loaded above all:
this is measured when the plan is made, and `BROUGHT` added for what the first steps load late. Convolutions of oneDNN
work in memory that no tensor tells of, and what is freed is not all of use to the next tensors: the heap is `HEAP`
times the tensors, measured of small convolutional and residual networks, for which it was 1.4 to 1.8. Where steps are
of different sizes, as those of ``topk``, it grows from step to step until `memlab.device.KeptMemory` gives it back.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from memlab.data.episodes import Episode
from memlab.data.objects import ObjectStore, to_device
from memlab.data.sequences import Sequences
from memlab.data.support import Support
from memlab.device import GROWTH, SLACK, free_memory, give_back_freed_memory, peak_memory, resident_memory
from memlab.memory import FullMemory, Memory, StoredKeys
from memlab.memory.out_of_memory import OutOfMemoryError, until_it_fits
from memlab.memory.stored_keys import in_evaluation
from memlab.training.allocations import Allocations, Mark, Size, extrapolated, recorded
from memlab.training.datamodule import EpisodeDataModule
from memlab.training.module import MemoryClassifier
from memlab.training.trained_module import parameter_groups
from memlab.training.trainer import RaiseMallocThresholds

QUERIES, OBJECTS, KEYS = (2, 4), (4, 8), (128, 256)
"""Of how many everything is tried."""
PARTS = 3
"""More parts of a support than these are as these: a first, one between and a last."""
BROUGHT, HEAP, PIECES = 2**25, 1.6, 2.5
"""Of a process on a CPU: bytes that come besides tensors, bytes of the heap for each of a tensor, and steps that lie in
pieces of no use beside one whose size is another each time."""


class Sizes(NamedTuple):
    """What the memory of a training depends on, and can be made smaller."""

    queries: int
    """B."""
    support: int
    """M."""
    at_once: int
    """Support objects encoded at a time with gradient."""
    evaluated: int
    """Queries, or objects to be encoded, at a time in evaluation."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a training takes at most, and of what they are.

    Args:
        sizes: with which.
        loaded: held before training: on a CPU all of the process, on a GPU data and weights.
        learned: gradients and what the optimizer keeps.
        held: what the memory holds of a support from step to step.
        step: a training step, besides these.
        evaluation: an evaluation, besides these.
        loading: most that was held so far, while data were loaded.
        process: on a CPU, what it comes to hold besides.
        free: bytes that can still be had.
    """

    sizes: Sizes
    loaded: int
    learned: int
    held: int
    step: int
    evaluation: int
    loading: int
    process: int
    free: int

    @property
    def peak(self) -> int:
        """Bytes in use at most."""
        return max(self.loading, self.loaded + self.needed)

    @property
    def needed(self) -> int:
        """Bytes that are to be had yet."""
        return self.process + self.learned + self.held + max(self.step, self.evaluation)

    @property
    def fits(self) -> bool:
        """Whether they are free."""
        return self.needed <= self.free


class Planner:
    """Plans trainings of a model. Nothing of the model, of its data or of random states is changed.

    Args:
        model: before training.
        datamodule: its data, which are put where training puts them.
        trainer: knows the device, the precision, how the gradients of batches are added up and how many processes there
            are: what is planned is what each of them takes, which reads all queries, and of the objects its share.

    Raises:
        Exception: whatever the encoder, the memory or the optimizer raises.
    """

    def __init__(self, model: MemoryClassifier, datamodule: EpisodeDataModule, trainer: pl.Trainer) -> None:
        self.device = trainer.strategy.root_device
        datamodule.place(self.device)
        self._precision = trainer.precision_plugin
        self._adds_up = trainer.accumulate_grad_batches > 1
        self._keeps = any(isinstance(each, RaiseMallocThresholds) for each in trainer.callbacks)  # type: ignore[attr-defined]
        self._augmentation, self._reading = datamodule.augmentation, model.reading
        self.processes = trainer.world_size
        self.train_size = self._share(datamodule.sizes["train"])
        self._store = _of_one_class(datamodule.store)
        self._rows = to_device(_rows_to_try(datamodule), datamodule.store.inputs_device)
        weights = sum(each.nbytes for each in (*model.parameters(), *model.buffers()))
        self._loaded, self._loading, self.free = _loaded(self.device, weights)
        if self.device.type == "cpu":
            self.free //= trainer.num_devices
        self.memory = model.memory.alone
        self._model = copy.copy(model)
        self._model._modules = {**model._modules, "encoder": self._copied(model.encoder)}
        parameter = next((each for each in self._model.encoder.parameters() if each.is_floating_point()), None)
        self._dtype = torch.float32 if parameter is None else parameter.dtype
        self.sizes = self._sizes(self.memory, datamodule)

    def _share(self, objects: int) -> int:
        """Of so many those of one process, of which none has more."""
        return -(-objects // self.processes)

    def _copied(self, module: nn.Module) -> nn.Module:
        """One that is free to be used; not compiled, as that changes little and takes long."""
        made = copy.deepcopy(module)
        made._compiled_call_impl = None
        return self._precision.convert_module(made.to(self.device))

    def _sizes(self, memory: Memory, datamodule: EpisodeDataModule) -> Sizes:
        queries, support = datamodule.sizes["batch"], self._share(datamodule.sizes["support"])
        _, at_once = memory.encoded_with_graph(support=support, queries=queries)
        return Sizes(queries, support, at_once, datamodule.eval_batch_size)

    def of(self, memory: Memory, **sizes: int) -> Planner:
        """One of another memory, and of other sizes."""
        made = copy.copy(self)
        made.__dict__.pop("_tries", None)
        made.memory, made.sizes = memory, self.sizes._replace(**sizes)
        _, at_once = memory.encoded_with_graph(support=made.sizes.support, queries=made.sizes.queries)
        made.sizes = made.sizes._replace(at_once=at_once)
        return made

    def plan(self, **sizes: int) -> MemoryPlan:
        """What a training takes with the sizes that it has, but for those given."""
        wanted = self.sizes._replace(**sizes)
        gradients, state, update = self._learned
        of_support = {"support": wanted.support, "embedding_size": self._key_shape[0]}
        held = self.memory.held_bytes(**of_support)
        step = max(self._step(wanted, gradients) + self.memory.read_bytes(**of_support), update)
        evaluation = self._evaluation(wanted, held)
        plan = MemoryPlan(
            sizes=wanted,
            loaded=self._loaded,
            learned=gradients + state,
            held=held,
            step=round(step),
            evaluation=round(evaluation),
            loading=self._loading,
            process=0,
            free=self.free,
        )
        return plan if self.device.type == "cuda" else self._of_process(plan)

    def _of_process(self, plan: MemoryPlan) -> MemoryPlan:
        """What a process takes on a CPU where tensors take so much."""
        plan = replace(plan, step=round(HEAP * plan.step), evaluation=round(HEAP * plan.evaluation), process=BROUGHT)
        if not (self._keeps and self.memory.encodes_as_it_finds):
            return plan
        bound = (GROWTH - 1) * (plan.loaded + plan.needed) + SLACK + plan.step  # which is seen when the step is over
        return replace(plan, process=BROUGHT + round(min(bound, PIECES * plan.step)))

    def _step(self, sizes: Sizes, gradients: int) -> float:
        """Bytes of a step besides the gradients of the one before."""
        encoded, _ = self.memory.encoded_with_graph(support=sizes.support, queries=sizes.queries)
        at_once = max(min(sizes.at_once, encoded), 1)
        parts = max(math.ceil(encoded / at_once), 1)
        tried = self._tried(min(parts, PARTS))
        found = extrapolated(tried, Size(sizes.queries, at_once))
        made_before = gradients if self._adds_up else 0
        step = max(found.peak_before_mark(), found.peak() + made_before - gradients)
        # What goes with classes and the support itself: a handful of (B, C) matrices; ids, rows and labels.
        others = 32 * sizes.queries * len(self._model.class_names) + 32 * sizes.support
        if self.processes > 1:  # class sums of all, or what they have read in a hop, and all gradients in a row
            read = 0 if self.memory.hops is None else 2 * self._key_shape[0]
            others += 8 * self.processes * sizes.queries * max(len(self._model.class_names), read) + gradients
        return step + self._kept(sizes.queries, at_once, parts) + others

    def _kept(self, queries: int, at_once: int, parts: int) -> float:
        """Bytes of the graphs that are kept besides that of one part."""
        if parts == 1 or not self.memory.kept_graphs(parts=1, graph_bytes=1, free=self.free):
            return 0.0
        whole = self.of(FullMemory(similarity=self.memory.similarity))._tried(1)
        some, none = (extrapolated(whole, Size(queries, each)).peak_before_mark() for each in (at_once, 0))
        graph = some - none
        return graph * self.memory.kept_graphs(parts=parts - 1, graph_bytes=graph, free=self.free)

    @cached_property
    def _tries(self) -> dict[int, dict[Size, Allocations]]:
        return {}

    def _tried(self, parts: int) -> dict[Size, Allocations]:
        """Steps of few queries and of objects in so many parts."""
        if parts not in self._tries:
            sizes = [Size(*each) for each in product(QUERIES, OBJECTS)]
            self._tries[parts] = {size: self._recorded(partial(self._try_step, size, parts)) for size in sizes}
        return self._tries[parts]

    def _try_step(self, size: Size, parts: int, mark: Mark) -> None:
        self._model._modules["memory"] = self._small(objects=parts * size.objects, at_once=size.objects)
        rows = self._rows.repeat(math.ceil(PARTS * OBJECTS[1] / len(self._rows)))
        queries, support = self._support(rows[: size.queries]), self._support(rows[: parts * size.objects])
        episode = Episode(queries.inputs(), queries.labels, queries.ids, support, None, len(queries))
        parameters = [each for each in self._model.parameters() if each.requires_grad]
        with self._precision.train_step_context():
            step = until_it_fits(
                partial(self._model._step, episode), shrink=_give_up, parameters=parameters, device=self.device
            )
        mark()
        step.loss.backward()
        for parameter in parameters:
            parameter.grad = None

    def _small(self, *, objects: int, at_once: int) -> Memory:
        memory = self.memory.small(objects=objects, at_once=at_once).to(self.device)
        made = self._precision.convert_module(memory)
        assert isinstance(made, Memory)
        return made

    def _support(self, rows: Tensor) -> Support:
        return Support(self._store, rows, self._dtype, self._augmentation)

    def _recorded(self, compute: Callable[[Mark], object]) -> Allocations:
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            return recorded(compute)

    @cached_property
    def _learned(self) -> tuple[int, int, int]:
        """Bytes of the gradients, of what the optimizer keeps, and of what it needs while it moves."""
        groups = parameter_groups(self._model)
        gradients = [parameter.nbytes for group in groups for parameter in group["params"]]
        one = nn.Parameter(torch.zeros(64, 64, device=self.device))
        optimizer = self._model._make_optimizer([{**groups[0], "params": [one]}])
        one.grad = torch.zeros_like(one)
        move = recorded(lambda _: optimizer.step())
        kept = sum(each.nbytes for each in optimizer.state[one].values() if isinstance(each, Tensor) and each.dim())
        at_a_time = sum(gradients) if self.device.type == "cuda" else max(gradients)  # all in one call, or one by one
        return sum(gradients), sum(gradients) * kept // one.nbytes, round((move.peak() - kept) / one.nbytes * at_a_time)

    @cached_property
    def _key_shape(self) -> tuple[int, int]:
        """D, and bytes of a key."""
        with self._precision.forward_context(), torch.no_grad(), in_evaluation(self._model.encoder):
            key = self._model.encoder(self._support(self._rows[:2]).inputs_as_they_are())
        return key.shape[1], key[0].nbytes

    def _evaluation(self, sizes: Sizes, held: int) -> float:
        """Bytes of an evaluation besides what is there in training."""
        size, key_bytes = self._key_shape
        keys = self._stored_keys(128)
        number = self.train_size if len(keys) == 128 else len(keys)
        stored = number * (key_bytes + 16)
        batch = extrapolated(self._encoded, Size(1, sizes.evaluated)).peak()
        read = extrapolated(
            self._read,
            Size(sizes.evaluated, number),
            largest_product=max(self._reading.scores_at_a_time(self.device), 128 * sizes.evaluated),
        ).peak()
        # For the recall of a search all vectors are put into an index of their own; at the start they are copied once.
        return stored + max(batch, read) + (4 * number * size if held else 0)

    @cached_property
    def _encoded(self) -> dict[Size, Allocations]:
        """Batches encoded as in evaluation, of which the number of queries means nothing."""
        found = {objects: self._recorded(partial(self._encode, objects)) for objects in OBJECTS}
        return {Size(queries, objects): found[objects] for queries, objects in product(QUERIES, OBJECTS)}

    def _encode(self, objects: int, _: Mark) -> None:
        support = self._support(self._rows[:1].repeat(objects))
        with self._precision.forward_context(), torch.no_grad(), in_evaluation(self._model.encoder):
            self._model.encoder(support.inputs_as_they_are())

    @cached_property
    def _read(self) -> dict[Size, Allocations]:
        """Reads of stored keys."""
        sizes = [Size(*each) for each in product(QUERIES, KEYS)]
        stored = {keys: self._stored_keys(keys) for keys in KEYS}
        return {
            size: recorded(partial(self._try_read, copy.copy(stored[size.objects]), size.queries)) for size in sizes
        }

    def _try_read(self, stored: StoredKeys, queries: int, _: Mark) -> None:
        reading = self._reading.small()
        reading.open(stored)
        with torch.no_grad():
            reading.read(stored.keys[:1].repeat(queries, 1))

    def _stored_keys(self, number: int) -> StoredKeys:
        """What a memory stores of so many objects, all of one class."""
        size, key_bytes = self._key_shape
        dtype = {2: torch.bfloat16, 4: torch.float32, 8: torch.float64}[key_bytes // size]
        labels = torch.zeros(number, dtype=torch.int64, device=self.device)
        keys, ids = torch.zeros(number, size, dtype=dtype, device=self.device), torch.arange(number, device=self.device)
        memory = self._small(objects=number, at_once=number)
        with torch.no_grad():
            return memory.stored_keys(lambda: StoredKeys(keys, labels, ids, 1, memory.similarity, memory.hops))


def _rows_to_try(datamodule: EpisodeDataModule) -> Tensor:
    """A handful of training objects; of sequences one of the longest, as which all others of a part are padded."""
    inputs, rows = datamodule.store.inputs, datamodule.train_rows
    if isinstance(inputs, Sequences):
        return rows[inputs.lengths.cpu()[rows].argmax()][None]
    return rows[: PARTS * OBJECTS[1]]


def _of_one_class(store: ObjectStore) -> ObjectStore:
    """A store of the same objects. What a read makes of few objects shall not depend on how many classes they have."""
    made = copy.copy(store)
    made.labels = store.labels.new_zeros(1).expand(len(store))
    made.class_names = store.class_names[:1]
    return made


def _loaded(device: torch.device, weights: int) -> tuple[int, int, int]:
    """Bytes held before training, bytes held at most so far, and bytes that are free."""
    if device.type == "cuda":
        loaded = torch.cuda.memory_allocated(device) + weights
        return loaded, loaded, free_memory(device) - weights
    give_back_freed_memory()
    return resident_memory(), peak_memory(device), free_memory(device)


def _give_up() -> None:
    raise OutOfMemoryError("out of memory for a few objects")
