"""The page of ``memlab audit``: labels that look wrong with the objects that say so, near duplicates, and classes."""

from __future__ import annotations

from html import escape

from memlab.trained.album import Album
from memlab.trained.audit import Audit
from memlab.trained.memory import TrainedMemory
from memlab.trained.page import Card, figure, hops_of, page, table, witnesses

SHOWN_PAIRS = 50
"""Near duplicates that are shown."""


def audit_page(memory: TrainedMemory, found: Audit) -> str:
    """A page of labels that look wrong, each with the objects that say so, near duplicates, and classes.

    Args:
        memory: has the pictures of the objects.
        found: of the memory.
    """
    doubted = [place for place, label in enumerate(found.labels) if label != found.suggested[place]]
    cards = [
        Card(
            heading=f"{found.labels[place]}, or {found.suggested[place]}?",
            source=f"id {found.ids[place]}, {found.sources[place]}",
            picture=f"stored {found.ids[place]}",
            classes={"label": found.labels[place], "suggested": found.suggested[place]},
            mistake=False,
            expected=found.suggested[place],
            probabilities=row["probabilities"],
            facts=[],
            evidence=witnesses(row),
            hops=hops_of(row),
        )
        for place, row in zip(doubted, found.evidence.rows(), strict=False)  # evidence is of the first alone
    ]
    pairs = found.duplicates[:SHOWN_PAIRS]
    shown = [int(found.ids[place]) for place in doubted[: len(cards)]]
    shown += [identity for pair in pairs for identity in pair.ids]
    shown += [each.id for card in cards for each in card.read]
    pictures = Album.of(memory, shown)
    words = (
        f"Each of {len(found.ids):,} objects was read by all others. {found.suspicious:,} are answered with another"
        f" class than their label, of which {len(cards):,} are shown; {len(found.duplicates):,} pairs are nearly the"
        " same."
    )
    title = f"Audit of {memory.info.get('data', 'a memory')}"
    after = _duplicates(found, pictures) + _classes(found)
    return page(title, words, "Labels that look wrong", cards, pictures, expected="the class suggested", after=after)


def _duplicates(found: Audit, pictures: Album) -> str:
    sources = dict(zip(found.ids.tolist(), found.sources, strict=True))
    shown = "".join(
        "<li>"
        + "".join(
            figure(pictures, f"stored {own}", label, f"id {own}, {sources[own]}")
            for own, label in zip(pair.ids, pair.labels, strict=True)
        )
        + "</li>"
        for pair in found.duplicates[:SHOWN_PAIRS]
    )
    return f'<h2>Near duplicates</h2><ul class="pairs">{shown}</ul>' if shown else ""


def _classes(found: Audit) -> str:
    rows = [
        (escape(each.name), f"{each.objects:,}", f"{each.own_mass:.1%}", f"{each.answered:.1%}")
        for each in found.classes
    ]
    return "<h2>Classes</h2>" + table(
        "What the others make of the objects of each",
        ("class", "objects", "mean mass of the class", "answered so"),
        rows,
    )
