"""A page of objects and what weighed in their answers: one HTML file that needs nothing else, not even a network.

Its style and its script, ``page.css`` and ``page.js``, are written into it, and its content security policy names their
digests: nothing else is loaded or run, whatever classes and files are called.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from memlab.trained.album import Album

LISTED = 5
"""Classes whose probabilities are shown, the likeliest, besides those that a card is chosen by."""


class Witness(NamedTuple):
    """A stored object that weighed in an answer."""

    id: int
    label: str
    weight: float
    """Its share of all weight."""
    source: str


@dataclass(frozen=True)
class Card:
    """What a page shows of one object.

    Args:
        heading: what is said of it.
        source: what it is, as its id and file.
        picture: name of its picture, if there is one.
        classes: classes of it that cards can be chosen by, as the true one, by what they are.
        mistake: whether the answer is wrong.
        expected: the class that its evidence should be of.
        probabilities: of all classes.
        facts: what else is to be told.
        evidence: what weighed most, strongest first.
        hops: what weighed most in each hop before the read that answers.
    """

    heading: str
    source: str
    picture: str
    classes: Mapping[str, str]
    mistake: bool
    expected: str
    probabilities: Mapping[str, float]
    facts: Sequence[str]
    evidence: Sequence[Witness]
    hops: Sequence[Sequence[Witness]] = ()

    @property
    def read(self) -> list[Witness]:
        """What weighed most in any read."""
        return [each for read in (*self.hops, self.evidence) for each in read]


def witnesses(row: Mapping[str, Any]) -> list[Witness]:
    """The evidence of an answer; see `memlab.trained.Answer.rows`."""
    return [Witness(**piece) for piece in row["evidence"]]


def hops_of(row: Mapping[str, Any]) -> list[list[Witness]]:
    """Those of each hop."""
    return [[Witness(**piece) for piece in pieces] for pieces in row.get("hops", [])]


def page(
    title: str, words: str, section: str, cards: Sequence[Card], album: Album, *, expected: str, after: str = ""
) -> str:
    """The file.

    Args:
        title: its heading.
        words: what it shows.
        section: heading of the cards.
        cards: the objects.
        album: has their pictures.
        expected: which class their evidence should be of, in words.
        after: HTML after the cards.
    """
    choices = _choices(cards)
    shown = "".join(_card(card, place, choices, album) for place, card in enumerate(cards))
    mistakes, searched = any(card.mistake for card in cards), "id or source, of evidence too"
    above = form(choices, "objects", searched=searched, mistakes=mistakes) if len(cards) > 1 else ""
    if any(f"stored {each.id}" in album for card in cards for each in card.read):
        words += f" Blue frames are of {expected}, broken orange ones of another."
    return document(title, words, section, above + shown + after, of="objects")


def document(title: str, words: str, section: str, body: str, *, of: str) -> str:
    """A file with the style and the script of all pages.

    Args:
        title: its heading.
        words: what it shows.
        section: heading of the body.
        body: HTML, that has no style and no script of its own: the policy would not let them in.
        of: what the body shows, in a word.
    """
    style, script = (Path(__file__).with_name(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    policy = f"default-src 'none'; img-src data:; style-src {_digest(style)}; script-src {_digest(script)}"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<style>{style}</style></head><body><header><a class="skip" href="#main">Skip to the {of}</a>'
        f"<h1>{escape(title)}</h1><p>{escape(words)}</p></header>"
        f'<main id="main" tabindex="-1"><h2>{escape(section)}</h2>'
        f"{body}</main><script>{script}</script></body></html>\n"
    )


def figure(album: Album, name: str, label: str, source: str) -> str:
    """A picture with its class and source below.

    Args:
        album: has it.
        name: of the picture.
        label: its class; empty for none to be told.
        source: where it is from.
    """
    words = f'<span class="label">{escape(label)}</span>' if label else ""
    image = album.image(name, f"{label} {source}".strip())
    return f"<figure>{image}<figcaption>{words}{_source(source)}</figcaption></figure>"


def table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already, the first of each row its heading.

    Args:
        caption: what it is.
        columns: their headings, or none.
        rows: cells.
    """
    heads = "".join(f'<th scope="col">{name}</th>' for name in columns)
    lines = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for first, *cells in rows
    )
    head = f"<thead><tr>{heads}</tr></thead>" if heads else ""
    return f"<table><caption>{caption}</caption>{head}<tbody>{lines}</tbody></table>"


def _choices(cards: Sequence[Card]) -> dict[str, dict[str, int]]:
    """By what cards can be chosen: the classes that there are, in the order of all, each with its number."""
    if not cards:
        return {}
    order = [*cards[0].probabilities]
    return {
        what: {name: order.index(name) for name in order if any(card.classes[what] == name for card in cards)}
        for what in cards[0].classes
    }


def form(choices: Mapping[str, Mapping[str, int]], of: str, *, searched: str, mistakes: bool) -> str:
    """What chooses among the articles of a page; hidden until the script runs, which it is of no use without.

    Articles that are mistakes have the class ``mistake``, and what is searched in them the class ``source``.

    Args:
        choices: by what they can be chosen: of each the values with their numbers, which an article has as ``data-0``
            for the first choice, and so on.
        of: what they are, in a word.
        searched: what is searched in them, in words.
        mistakes: whether there are any.
    """
    selects = "".join(
        f'<label>{escape(what)}<select name="data-{place}"><option value="">all</option>'
        + "".join(f'<option value="{number}">{escape(name)}</option>' for name, number in classes.items())
        + "</select></label>"
        for place, (what, classes) in enumerate(choices.items())
    )
    only = '<label class="check"><input type="checkbox"> mistakes only</label>' if mistakes else ""
    keys = {"j": "next", "k": "previous", "/": "search", "Esc": "show all"} | (
        {"m": "mistakes only"} if mistakes else {}
    )
    told = ", ".join(f"<kbd>{key}</kbd> {what}" for key, what in keys.items())
    return (
        f'<form role="search" aria-label="Choose {of}" hidden>{selects}'
        f'<label>{searched}<input type="search" autocomplete="off"></label>{only}'
        f'<button type="reset">Show all</button><p role="status"></p><details><summary>Keys</summary>{told}</details>'
        "</form>"
    )


def _card(card: Card, place: int, choices: Mapping[str, Mapping[str, int]], album: Album) -> str:
    numbers = "".join(
        f' data-{which}="{choices[what][name]}"' for which, (what, name) in enumerate(card.classes.items())
    )
    kind = ' class="mistake"' if card.mistake else ""
    facts = f'<p class="facts">{"; ".join(map(escape, card.facts))}</p>' if card.facts else ""
    return (
        f'<article{kind}{numbers} tabindex="-1" aria-labelledby="h{place}">'
        f'<h3 id="h{place}">{escape(card.heading)}</h3>'
        f'<div class="parts"><div><div class="object">{figure(album, card.picture, "", card.source)}'
        f"{_probabilities(card)}</div>"
        f"{facts}</div><div>{_evidence(card, album)}</div></div></article>"
    )


def _probabilities(card: Card) -> str:
    """The likeliest classes, those that the card is about, and all others together."""
    likeliest = sorted(card.probabilities, key=lambda name: -card.probabilities[name])
    listed = [name for place, name in enumerate(likeliest) if place < LISTED or name in card.classes.values()]
    rows = [(escape(name), _share(card.probabilities[name])) for name in listed]
    if others := len(likeliest) - len(listed):
        rows.append(
            (f"{others}&nbsp;other{'s' * (others > 1)}", _share(1 - sum(card.probabilities[name] for name in listed)))
        )
    return table("Probabilities", (), rows)


def _evidence(card: Card, album: Album) -> str:
    """What weighed in the answer; with hops that of each read, side by side."""
    if not card.evidence:
        return "<p>No evidence: this memory reads no objects.</p>"
    if not card.hops:
        return _read(card.evidence, "Evidence, strongest first", card.expected, album) + _values(card, album)
    reads = {f"Hop {number}": each for number, each in enumerate(card.hops, 1)} | {"Answer": card.evidence}
    shown = "".join(f"<div>{_read(each, name, card.expected, album)}</div>" for name, each in reads.items())
    return f'<div class="reads">{shown}</div>' + _values(card, album)


def _read(evidence: Sequence[Witness], name: str, expected: str, album: Album) -> str:
    """Pictures with what they are, or a table where there are none."""
    images = [album.image(f"stored {each.id}", f"{each.label}, id {each.id}") for each in evidence]
    if not any(images):
        rows = [(escape(each.label), _share(each.weight), _source(f"id {each.id}, {each.source}")) for each in evidence]
        return table(name, ("class", "weight", "object"), rows)
    shown = "".join(
        f'<li class="{"same" if each.label == expected else "other"}">{image}<span class="label">'
        f"{escape(each.label)}</span> {each.weight:.1%}{_source(f'id {each.id}, {each.source}')}</li>"
        for each, image in zip(evidence, images, strict=True)
    )
    return f"<h4>{name}</h4><ul>{shown}</ul>"


def _values(card: Card, album: Album) -> str:
    """Of rows of a table the columns in which they differ, and which are the same in all."""
    given = album.cells(card.picture)
    stored = [(each.id, cells) for each in card.evidence if (cells := album.cells(f"stored {each.id}")) is not None]
    if given is None or not stored:
        return ""
    rows, same = [], []
    for place, (name, own) in enumerate(zip(album.columns, given, strict=True)):
        others = [cells[place] for _, cells in stored]
        if all(other == own for other in others):
            same.append(name)
            continue
        marked = [escape(other) if other == own else f"<mark>{escape(other) or 'missing'}</mark>" for other in others]
        rows.append((escape(name), escape(own), *marked))
    heads = ("column", "this", *(f"id {identity}" for identity, _ in stored))
    told = f"<p>The same in all: {escape(', '.join(same))}.</p>" if same else ""
    return (table("Where they differ", heads, rows) if rows else "") + told


def _share(share: float) -> str:
    """The number, and a bar for the eye alone."""
    return f'{share:.1%} <meter aria-hidden="true" value="{share:.4f}"></meter>'


def _source(text: str) -> str:
    return f'<small class="source">{escape(text)}</small>'


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
