"""What a trained memory says of some objects, and why."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from memlab.data.parts import parts
from memlab.functional import class_log_mass
from memlab.memory import StoredKeys
from memlab.memory.evidence import Evidence
from memlab.trained.calibration import CalibrationObjects, nonconformity, numbers_of, own_nonconformity, p_values
from memlab.trained.content import Content
from memlab.trained.model import Model

USUAL = 200
"""Stored objects whose novelty tells what is usual."""

SURE = 0.01
"""A difference of two masses that is no matter of rounding."""


class View:
    """A memory as it is at one moment, opened for reading; later changes make another.

    Args:
        model: encodes, and says how keys are read.
        content: the objects.
        reads_objects: False for keys that are of classes and not of objects.
        calibration: objects held out, or None.
        temperature: class scores are divided by it.
        digest: of the memory at this moment.
    """

    def __init__(
        self,
        model: Model,
        content: Content,
        *,
        reads_objects: bool,
        calibration: CalibrationObjects | None,
        temperature: float,
        digest: str,
    ) -> None:
        self.model = model
        self.content = content
        self.reads_objects = reads_objects
        self.calibration = calibration
        self.temperature = temperature
        self.digest = digest
        ids = content.ids if reads_objects else torch.full_like(content.ids, -1)
        self._reading = copy.copy(model.reading)
        hops = None if model.hops is None else model.hops.of(content.classes)
        self._reading.open(StoredKeys(content.keys, content.labels, ids, len(content.classes), model.similarity, hops))

    @torch.no_grad()
    def class_scores(self, queries: Tensor, exclude: Tensor | None = None) -> Tensor:
        """(B, C) class scores of encoded queries, of which each must not read one object."""
        read = [
            self._reading.class_scores(queries[part], None if exclude is None else exclude[part])
            for part in parts(len(queries), self.model.batch_size)
        ]
        return torch.cat(read) if read else queries.new_empty(0, len(self.content.classes))

    @torch.no_grad()
    def answer(self, queries: Tensor, *, k: int, coverage: float | None, exclude: Tensor | None = None) -> Answer:
        """What is said of some encoded queries, of which each must not read one object; see `Answer`."""
        if not len(queries):
            return Answer(self, queries, queries.new_empty(0, len(self.content.classes)), _nothing(0, k), coverage)
        if self.reads_objects:
            read, evidence = self._reading.read_with_evidence(queries, k=k, exclude=exclude)
        else:
            read, evidence = self._reading.read(queries, exclude), _nothing(len(queries), 0)
        return Answer(self, queries, read.class_scores, evidence, coverage, exclude)

    @torch.no_grad()
    def evidence_of_hops(self, queries: Tensor, *, k: int, exclude: Tensor | None) -> tuple[Evidence, ...]:
        """What weighed most in each hop before the read that answers; of no queries nothing."""
        if self.model.hops is None or not k:
            return ()
        found = [
            self._reading.evidence_of_hops(queries[part], k=k, exclude=None if exclude is None else exclude[part])
            for part in parts(len(queries), self.model.batch_size)
        ]
        return tuple(Evidence(*map(torch.cat, zip(*hop, strict=True))) for hop in zip(*found, strict=True))

    @torch.no_grad()
    def without(self, queries: Tensor, class_scores: Tensor, strongest: Evidence) -> list[int]:
        """(B,) the class with the largest mass for each query, had it not read the object that weighed most.

        Where all objects are read, its weight is taken from the mass of its class; where rounding might decide then,
        and where another object would be read in its place, or in hops before, the query reads once more.
        """
        left = class_log_mass(class_scores).exp().double()
        left.scatter_add_(1, strongest.labels[:, :1].clamp(min=0), -strongest.weights[:, :1].double())
        best = left.topk(min(2, left.shape[1])).values
        is_enough = self.cells() == len(self.content) and self.model.hops is None
        again = best[:, 0] - best[:, -1] < (SURE if is_enough else torch.inf)
        answers = left.argmax(-1)
        if again.any():
            answers[again] = self.class_scores(queries[again], strongest.ids[again, 0].contiguous()).argmax(-1)
        return list(answers.tolist())

    def cells(self) -> int:
        """Keys that a query reads."""
        return self._reading.cells(len(self.content))

    @property
    def is_measured(self) -> bool:
        """Whether `conformity` is at hand; if not, all calibration objects are read when it is asked for."""
        return "conformity" in vars(self) or (
            self.calibration is not None and self.calibration.measured_on == self.digest
        )

    @cached_property
    def conformity(self) -> Tensor:
        """(n,) nonconformity of the calibration objects that they have with the memory as it is now.

        Raises:
            ValueError: if there are no calibration objects.
        """
        if self.calibration is None:
            raise ValueError("the memory has no calibration objects; give it some with calibrate(inputs, labels)")
        if self.calibration.measured_on == self.digest:
            return self.calibration.nonconformity
        labels = numbers_of(self.calibration.labels, self.content.classes)
        return own_nonconformity(self.class_scores(self.calibration.queries.to(self.model.device)), labels)

    @cached_property
    def usual_novelty(self) -> list[float]:
        """(n,) novelty that stored objects have for all others, ascending: what that of an answer is compared with.

        Of all objects, or of 200 that are drawn by a seed; of none if there are no others, or objects are not read.
        """
        ids = self.content.ids
        if not self.reads_objects or len(ids) < 2:
            return []
        drawn = torch.randperm(len(ids), generator=torch.Generator().manual_seed(0))[:USUAL].to(ids.device)
        answer = self.answer(self.content.keys[drawn], k=1, coverage=None, exclude=ids[drawn])
        return sorted(answer.novelty.tolist())


@dataclass(frozen=True)
class AnswerEvidence:
    """The k objects that weighed most in each answer, strongest first."""

    ids: NDArray[np.int64]
    """(n, k) which object; -1 where fewer were read."""
    labels: list[list[str]]
    """(n, k) its class; empty for none."""
    weights: NDArray[np.float64]
    """(n, k) its share of the read; the weights of all objects of the memory sum to 1."""
    sources: list[list[str]]
    """(n, k) where it is from."""

    def pieces(self, place: int) -> list[dict[str, Any]]:
        """What weighed most in one answer, as plain values."""
        columns = (self.ids[place].tolist(), self.labels[place], self.weights[place].tolist(), self.sources[place])
        rows = zip(*columns, strict=True)
        return [dict(zip(("id", "label", "weight", "source"), row, strict=True)) for row in rows if row[0] >= 0]


@dataclass(frozen=True)
class Answer:
    """What the memory says of n objects, and why.

    What is not in the fields is computed when it is asked for, from the memory as it was at the time of the answer.

    Args:
        view: the memory that was read.
        queries: (n, D) encoded objects.
        class_scores: (n, C) what they read.
        strongest: (n, k) evidence.
        coverage: of the sets of classes, or None.
        exclude: (n,) id of the object that each query did not read, or None if all were read.
    """

    view: View
    queries: Tensor
    class_scores: Tensor
    strongest: Evidence
    coverage: float | None
    exclude: Tensor | None = None

    def __len__(self) -> int:
        return len(self.queries)

    @classmethod
    def join(cls, answers: Sequence[Answer]) -> Answer:
        """Several answers of the same memory as one."""
        first = answers[0]
        evidence = Evidence(*map(torch.cat, zip(*(each.strongest for each in answers), strict=True)))
        queries, scores = (torch.cat([getattr(each, name) for each in answers]) for name in ("queries", "class_scores"))
        return cls(first.view, queries, scores, evidence, first.coverage)

    @property
    def classes(self) -> tuple[str, ...]:
        """(C,) names of the classes, in the order of the probabilities."""
        return self.view.content.classes

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """(n, C) class mass: softmax(s / T) of class scores s, at the temperature T, which is 1 until it is fit."""
        temperature = self.view.temperature
        scores = self.class_scores if temperature == 1 else self.class_scores / temperature
        return class_log_mass(scores).exp().cpu().double().numpy()

    @cached_property
    def labels(self) -> list[str]:
        """(n,) the class with the largest mass."""
        return self._best(self.class_scores)

    @cached_property
    def without_strongest(self) -> list[str]:
        """(n,) what the answer would be if the memory did not hold the strongest object of the evidence.

        Of a memory that reads no objects, the answer as it is.

        Raises:
            ValueError: if each query did not read an object anyway, as stored objects do not read themselves.
        """
        if self.exclude is not None:
            raise ValueError("without_strongest: is not known of queries that did not read an object")
        if not self.strongest.ids.shape[1]:
            return self.labels
        return [self.classes[label] for label in self.view.without(self.queries, self.class_scores, self.strongest)]

    @cached_property
    def evidence(self) -> AnswerEvidence:
        """The objects that weighed most."""
        return self._told(self.strongest)

    @cached_property
    def hops(self) -> tuple[AnswerEvidence, ...]:
        """The objects that weighed most in each hop before the class was read, as many as in the evidence."""
        k = self.strongest.ids.shape[1]
        return tuple(map(self._told, self.view.evidence_of_hops(self.queries, k=k, exclude=self.exclude)))

    def _told(self, strongest: Evidence) -> AnswerEvidence:
        ids, content = strongest.ids.tolist(), self.view.content
        names = [
            [content.classes[label] if identity >= 0 else "" for identity, label in zip(*row, strict=True)]
            for row in zip(ids, strongest.labels.tolist(), strict=True)
        ]
        sources = [[content.sources.get(identity, "") for identity in row] for row in ids]
        return AnswerEvidence(strongest.ids.cpu().numpy(), names, strongest.weights.cpu().double().numpy(), sources)

    @cached_property
    def novelty(self) -> NDArray[np.float64]:
        """(n,) how far an object is from everything in the memory, in nats: ``-log mean_i exp(z_i)``.

        Over all M objects of the memory, of which those not read count as nothing. That is, but for a constant, minus
        the log of the density of a kernel estimate with the similarity as its kernel.
        """
        total = self.class_scores.double().logsumexp(-1)
        novelty: NDArray[np.float64] = (math.log(len(self.view.content)) - total).cpu().numpy()
        return novelty

    @cached_property
    def p_values(self) -> NDArray[np.float64]:
        """(n, C) conformal p-values of the classes; see `memlab.trained.calibration`.

        Raises:
            ValueError: if the memory has no calibration objects.
        """
        return p_values(nonconformity(self.class_scores).cpu(), self.view.conformity).numpy()

    @cached_property
    def credibility(self) -> NDArray[np.float64]:
        """(n,) the largest p-value: small, if no class fits as well as true classes do.

        Raises:
            ValueError: if the memory has no calibration objects.
        """
        largest: NDArray[np.float64] = self.p_values.max(axis=1, initial=0)
        return largest

    @cached_property
    def sets(self) -> list[tuple[str, ...]]:
        """(n,) the classes with a p-value above 1 - coverage, likeliest first: they hold the truth that often.

        A set may be empty, where no class fits.

        Raises:
            ValueError: if no coverage was asked for, or the memory has no calibration objects.
        """
        if self.coverage is None:
            raise ValueError("coverage=None: must be given to predict, as coverage=0.95, to have sets of classes")
        order = np.argsort(-self.p_values, axis=1, kind="stable")
        return [
            tuple(self.classes[label] for label in row if values[label] > 1 - self.coverage)
            for row, values in zip(order, self.p_values, strict=True)
        ]

    def rows(self, *, wait: bool = True) -> Iterator[dict[str, Any]]:
        """Each answer as plain values, all that is known: for JSON.

        Args:
            wait: for the credibility, if a change has made it necessary to read the calibration objects anew; without,
                it is None until somebody has waited.
        """
        evidence = self.evidence
        known = self.view.calibration is not None and (wait or self.view.is_measured)
        for place in range(len(self)):
            yield {
                "label": self.labels[place],
                "probabilities": dict(zip(self.classes, self.probabilities[place].tolist(), strict=True)),
                "evidence": evidence.pieces(place),
                **({"hops": [hop.pieces(place) for hop in self.hops]} if self.hops else {}),
                **({"without_strongest": self.without_strongest[place]} if self.exclude is None else {}),
                "novelty": float(self.novelty[place]),
                "credibility": float(self.credibility[place]) if known else None,
                **({"set": list(self.sets[place])} if self.coverage is not None else {}),
            }

    def _best(self, class_scores: Tensor) -> list[str]:
        return [self.classes[label] for label in class_scores.argmax(-1).tolist()]


def _nothing(queries: int, k: int) -> Evidence:
    """Evidence of no objects."""
    none = torch.full((queries, k), -1)
    return Evidence(none, none, none.double())
