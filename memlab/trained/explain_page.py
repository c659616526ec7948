"""The page of ``memlab explain``: answers with the stored objects that weighed most in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from memlab.trained.album import Album
from memlab.trained.answer import Answer
from memlab.trained.memory import TrainedMemory
from memlab.trained.page import Card, hops_of, page, witnesses


def explain_page(memory: TrainedMemory, answer: Answer, given: Sequence[Tensor | None], names: Sequence[str]) -> str:
    """A page of answers, each with the objects that weighed most.

    Args:
        memory: has the pictures of the objects.
        answer: of n objects.
        given: (n,) raw inputs of the objects asked about, None where they are not to be shown.
        names: (n,) what they are called.
    """
    rows = list(answer.rows())
    cards = [
        Card(
            heading=row["label"],
            source=names[place],
            picture=f"given {place}",
            classes={"answer": row["label"]},
            mistake=False,
            expected=row["label"],
            probabilities=row["probabilities"],
            facts=_facts(row, answer.coverage),
            evidence=witnesses(row),
            hops=hops_of(row),
        )
        for place, row in enumerate(rows)
    ]
    title = f"{len(answer)} answer{'s' if len(answer) != 1 else ''} of {memory.info.get('data', 'a memory')}"
    words = "Each answer with the stored objects that weighed most in it: class, share of all weight, id and source."
    if answer.hops:
        words += " Each hop has its own, in order from left to right, and the read that answers comes last."
    stored = [each.id for card in cards for each in card.read]
    more = {f"given {place}": raw for place, raw in enumerate(given) if raw is not None}
    return page(title, words, "Answers", cards, Album.of(memory, stored, more), expected="the class answered")


def _facts(row: Mapping[str, Any], coverage: float | None) -> list[str]:
    """What else an answer tells; see `Answer.rows`."""
    told = [f"novelty {row['novelty']:.2f} nats"]
    if row["credibility"] is not None:
        told.append(f"credibility {row['credibility']:.3f}")
    if "set" in row:
        told.append(f"{coverage:.0%} set: {', '.join(row['set']) or 'no class fits'}")
    return [*told, f"without the strongest object: {row['without_strongest']}"]
