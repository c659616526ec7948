"""The page of a run, ``evidence.html``: test objects, mistakes first, with the training objects that weighed most."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from memlab.data.datasets import LabelledData
from memlab.files import write_whole
from memlab.memory.evidence import Evidence
from memlab.memory.prediction import Prediction
from memlab.runs.figures import choose_objects
from memlab.trained.album import Album
from memlab.trained.objects import ObjectKind
from memlab.trained.page import Card, Witness, page


def write_evidence_page(prediction: Prediction, data: LabelledData, target: Path, *, title: str, objects: int) -> str:
    """Write the page; what it holds and how large it is, in a line.

    The objects are chosen as those of `memlab.runs.figures.draw_evidence`.

    Args:
        prediction: of all test objects.
        data: has names, sources and pictures.
        target: file to write.
        title: what was trained.
        objects: test objects to show; all if there are fewer.
    """
    rows = choose_objects(prediction, objects=objects).tolist()
    wrong = int((prediction.log_probs.argmax(dim=-1) != prediction.labels).sum())
    cards = list(_cards(prediction, data, rows))
    shown = sum(card.mistake for card in cards)
    words = (
        f"{len(rows):,} of {len(prediction.labels):,} test objects: {shown:,} of {wrong:,} mistakes, the surest first;"
        f" then {len(rows) - shown:,} right answers, the least sure first."
    )
    if any(card.evidence for card in cards):
        words += (
            " Beside each are the training objects that weighed most in the answer: class, share of all weight, id and"
            " source."
        )
    if prediction.earlier:
        words += " Each hop has its own, in order from left to right, and the read that answers comes last."
    write_whole(target, page(title, words, "Answers to test objects", cards, _album(data), expected="the true class"))
    size = target.stat().st_size / 2**20
    return f"evidence of {len(rows):,} test objects, {shown:,} of {wrong:,} mistakes first: {target} ({size:.1f} MiB)"


def _cards(prediction: Prediction, data: LabelledData, rows: list[int]) -> Iterator[Card]:
    names = data.store.class_names
    for row in rows:
        own, truth, mass = int(prediction.ids[row]), int(prediction.labels[row]), prediction.log_probs[row].exp()
        answer = int(mass.argmax())
        *hops, evidence = ([*_witnesses(each, row, data)] for each in (*prediction.earlier, prediction.evidence))
        verdict = (
            f"Right: {names[truth]}" if answer == truth else f"Mistake: answered {names[answer]}, is {names[truth]}"
        )
        yield Card(
            heading=verdict,
            source=f"id {own}, {data.source(own)}",
            picture=f"stored {own}",
            classes={"true class": names[truth], "answer": names[answer]},
            mistake=answer != truth,
            expected=names[truth],
            probabilities=dict(zip(names, mass.tolist(), strict=True)),
            facts=[],
            evidence=evidence,
            hops=hops,
        )


def _witnesses(evidence: Evidence, row: int, data: LabelledData) -> Iterator[Witness]:
    for identity, label, weight in zip(*(column[row].tolist() for column in evidence), strict=True):
        if identity >= 0:  # an approximate search may have found fewer
            yield Witness(identity, data.store.class_names[label], weight, data.source(identity))


def _album(data: LabelledData) -> Album:
    """Pictures or cells of test and training objects alike, ``stored ROW``; none of objects that have neither."""
    store = data.store
    if not isinstance(store.inputs, Tensor):
        return Album(lambda _: None)
    if (columns := store.columns) is not None:
        return Album(
            lambda _: None,
            columns=columns.names,
            cells=lambda name: columns.cells(store.inputs[int(name.removeprefix("stored "))]),
        )
    inputs, kind = store.inputs, ObjectKind(store.input_shape, store.inputs.dtype, data.levels)

    def picture(name: str) -> Tensor | None:
        return kind.shown(inputs[int(name.removeprefix("stored "))].cpu()) if kind.is_picture else None

    return Album(picture)
