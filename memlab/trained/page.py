"""A page that shows answers with their evidence: one HTML file that needs nothing else, not even a network."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from memlab.trained.answer import Answer
from memlab.trained.audit import Audit
from memlab.trained.memory import TrainedMemory

LISTED = 10
"""Classes whose probabilities are shown, the likeliest."""
SHOWN_PAIRS = 50
"""Near duplicates that are shown."""
STYLE = """
body { font: 16px/1.4 system-ui, sans-serif; margin: 1.5rem auto; max-width: 60rem; padding: 0 1rem; }
article { border-top: 1px solid #bbb; padding: 1rem 0; }
figure { display: inline-block; margin: 0 .8rem .8rem 0; vertical-align: top; width: 8rem; overflow-wrap: anywhere; }
img { width: 6rem; height: 6rem; object-fit: contain; image-rendering: pixelated; border: 3px solid #999; }
figure.same img { border-color: #1f77b4; } figure.other img { border-color: #d95f02; }
figcaption small { color: #555; }
table { border-collapse: collapse; } td, th { padding: .1rem .8rem .1rem 0; text-align: left; }
meter { width: 12rem; }
"""


def page(memory: TrainedMemory, answer: Answer, given: Sequence[Tensor | None], names: Sequence[str]) -> str:
    """A page of answers, each with the objects that weighed most.

    Args:
        memory: has the pictures of the objects.
        answer: of n objects.
        given: (n,) raw inputs of the objects asked about, None where they are not to be shown.
        names: (n,) what they are called.
    """
    evidence = answer.evidence
    pictures = memory.pictures([each for each in evidence.ids.flatten().tolist() if each >= 0])
    parts = []
    for place, row in enumerate(answer.rows()):
        shares = sorted(row["probabilities"].items(), key=lambda pair: -pair[1])[:LISTED]
        table = "".join(
            f"<tr><td>{escape(name)}</td><td>{share:.1%}</td><td><meter value={share:.4f}></meter></td></tr>"
            for name, share in shares
        )
        facts = [f"novelty {row['novelty']:.2f} nats"]
        if row["credibility"] is not None:
            facts.append(f"credibility {row['credibility']:.3f}")
        if "set" in row:
            facts.append(f"{answer.coverage:.0%} set: {', '.join(map(escape, row['set'])) or 'no class fits'}")
        facts.append(f"without the strongest object: {escape(row['without_strongest'])}")
        parts.append(
            f"<article><h2>{escape(row['label'])}</h2>"
            f"{_figure(_picture(memory, given[place], names[place]), f'<small>{escape(names[place])}</small>')}"
            f"<table>{table}</table><p>{'; '.join(facts)}</p><h3>Evidence</h3>"
            f"{_evidence(memory, row, pictures)}</article>"
        )
    title = f"{len(answer)} answer{'s' if len(answer) != 1 else ''} of {memory.info.get('data', 'a memory')}"
    words = (
        "Each answer with the stored objects that weighed most in it: class, share of all weight, id and source. Blue"
        " frames are of the class answered, orange ones of another."
    )
    return _document(title, words, "".join(parts))


def audit_page(memory: TrainedMemory, found: Audit) -> str:
    """A page of labels that look wrong, each with the objects that say so, near duplicates, and classes.

    Args:
        memory: has the pictures of the objects.
        found: of the memory.
    """
    evidence, shown = found.evidence.evidence, []
    places = [place for place, label in enumerate(found.labels) if label != found.suggested[place]][
        : len(found.evidence)
    ]
    doubted = [int(found.ids[place]) for place in places]
    twins = [identity for pair in found.duplicates[:SHOWN_PAIRS] for identity in pair.ids]
    pictures = memory.pictures([*doubted, *twins, *(each for each in evidence.ids.flatten().tolist() if each >= 0)])
    for number, (row, place) in enumerate(zip(found.evidence.rows(), places, strict=True)):
        own = doubted[number]
        caption = f"<small>id {own}, {escape(found.sources[place])}</small>"
        shown.append(
            f"<article><h3>{escape(found.labels[place])}, or {escape(found.suggested[place])}?</h3>"
            f"{_figure(_picture(memory, pictures.get(own), f'object {own}'), caption)}"
            f"<p>mass of its label {found.own_mass[place]:.1%}, of {escape(found.suggested[place])}"
            f" {found.suggested_mass[place]:.1%}</p>{_evidence(memory, row, pictures)}</article>"
        )
    pairs = "".join(
        "<div>"
        + "".join(
            _figure(_picture(memory, pictures.get(own), f"object {own}"), f"{escape(label)}<br><small>id {own}</small>")
            for own, label in zip(pair.ids, pair.labels, strict=True)
        )
        + "</div>"
        for pair in found.duplicates[:SHOWN_PAIRS]
    )
    lines = "".join(
        f"<tr><td>{escape(each.name)}</td><td>{each.objects:,}</td><td>{each.own_mass:.1%}</td><td>{each.answered:.1%}"
        "</td></tr>"
        for each in found.classes
    )
    words = (
        f"Each of {len(found.ids):,} objects was read by all others. {found.suspicious:,} are answered with another"
        f" class than their label; {len(found.duplicates):,} pairs are nearly the same."
    )
    body = (
        f"<h2>Labels that look wrong</h2>{''.join(shown)}<h2>Near duplicates</h2>{pairs}<h2>Classes</h2>"
        f"<table><tr><th>class</th><th>objects</th><th>mean mass</th><th>answered so</th></tr>{lines}</table>"
    )
    return _document(f"Audit of {memory.info.get('data', 'a memory')}", words, body)


def png(image: Tensor) -> bytes:
    """A (channels, height, width) uint8 image as a PNG file."""
    pixels = image.cpu().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)).save(file, "PNG")
    return file.getvalue()


def _document(title: str, words: str, body: str) -> str:
    return (
        f'<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}</style><h1>{escape(title)}</h1><p>{words}</p>{body}</html>\n"
    )


def _evidence(memory: TrainedMemory, row: Mapping[str, Any], pictures: Mapping[int, Tensor]) -> str:
    return "".join(
        _figure(
            _picture(memory, pictures.get(piece["id"]), f"object {piece['id']}"),
            f"{escape(piece['label'])}: {piece['weight']:.1%}<br><small>id {piece['id']}, {escape(piece['source'])}"
            "</small>",
            kind="same" if piece["label"] == row["label"] else "other",
        )
        for piece in row["evidence"]
    )


def _figure(picture: str, caption: str, *, kind: str = "") -> str:
    return f'<figure class="{kind}">{picture}<figcaption>{caption}</figcaption></figure>'


def _picture(memory: TrainedMemory, raw: Tensor | None, name: str) -> str:
    if raw is None or not memory.kind.is_picture:
        return ""
    data = base64.b64encode(png(memory.kind.shown(raw))).decode()
    return f'<img alt="{escape(name)}" src="data:image/png;base64,{data}">'
