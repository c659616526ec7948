"""A network whose memory holds items of two roles and their filler (TPR-RNN, Schlag and Schmidhuber 2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlab.checks import check_whole_number
from memlab.data.vocabulary import PADDING
from memlab.functional.items import items_of, read_items, relation_weights
from memlab.questions.batch import StoryBatch
from memlab.questions.network import StoryNetwork, StoryRead
from memlab.questions.sentences import centred_weights

READS = 3
DEVIATION = 0.1
"""Of the vectors of words at the start: small ones turn sooner at the same learning rate."""
SHORTEST = 8
"""Stories of up to so many sentences are read together, of up to twice as many, and so on: half is padding at most."""


class ItemNetwork(StoryNetwork):
    """Sentences write items, questions follow them in three reads, each of which begins where the one before has ended.

    ``i_1 = N(read(e, r_1))``, ``i_2 = N(read(i_1, r_2))``, ``i_3 = N(read(i_2, r_3))``, scores ``Z (i_1 + i_2 + i_3)``,
    with a layer norm N. Sentences and questions are the sum of their words, each times a learned vector of its place;
    entities and relations are made of it by networks of two layers, and have length 1. See `memlab.functional.items`.

    The vectors of places start at the centred position encoding (`memlab.questions.sentences`): alike, as in the paper,
    they tell the places of words apart only once training has made them differ.

    Every question reads all that was told before it: batches must be made with ``most_cells=None``.

    Args:
        words: V.
        answers: C.
        longest: places of words told apart.
        size: of the vectors of words.
        hidden: of the networks.
        entity_size: d.
        relation_size: d'.

    Raises:
        ValueError: for a value below 1.
    """

    reads_all_cells = True

    def __init__(
        self, *, words: int, answers: int, longest: int, size: int, hidden: int, entity_size: int, relation_size: int
    ) -> None:
        super().__init__()
        sizes = {"longest": longest, "size": size, "hidden": hidden}
        for name, value in {**sizes, "entity_size": entity_size, "relation_size": relation_size}.items():
            check_whole_number(name, value)
        self.words = nn.Embedding(words, size, padding_idx=PADDING)
        with torch.no_grad():
            self.words.weight.mul_(DEVIATION)  # which nn.Embedding draws with 1; that of padding stays 0
        self.places = nn.Parameter(centred_weights(longest, size) / longest)
        self.entities = TwoLayers(size, hidden, entity_size, networks=2)
        self.relations = TwoLayers(size, hidden, relation_size, networks=3)
        self.asked_entity = TwoLayers(size, hidden, entity_size, networks=1)
        self.asked_relations = TwoLayers(size, hidden, relation_size, networks=READS)
        self.norm = nn.LayerNorm(entity_size)
        self.answer = nn.Linear(entity_size, answers, bias=False)

    def read(self, batch: StoryBatch) -> StoryRead:
        """See `StoryNetwork.read`; without weights, as items are no sentences."""
        sentences, questions = self._vectors(batch.words), self._vectors(batch.questions)
        parts = _alike(batch)
        told = _laid_out([self.entities(sentences), self.relations(sentences)], [part.texts for part in parts])
        asked = _laid_out(
            [self.asked_entity(questions), self.asked_relations(questions)], [part.questions for part in parts]
        )
        found = []
        for part, (entities, relations), (entity, along) in zip(parts, told, asked, strict=True):
            items, at, reads = items_of(entities, relations), entity[:, :, 0], []
            weights = relation_weights(items, along, part.told)
            for weights_of_read in weights.unbind(2):
                at = self.norm(read_items(items, at, weights_of_read))
                reads.append(at)
            found.append(torch.stack(reads).sum(0).flatten(0, 1))
        places = torch.cat([part.questions.flatten() for part in parts])
        there = places >= 0
        order = places.new_empty(len(batch)).index_put((places[there],), there.nonzero().flatten())
        return StoryRead(self.answer(F.embedding(order, torch.cat(found))), ())

    def _vectors(self, words: Tensor) -> Tensor:
        """(n, size) of (n, J) words; those behind the last place have its vector."""
        place = torch.arange(words.shape[1], device=words.device).clamp(max=len(self.places) - 1)
        vectors: Tensor = self.words(words)
        return (vectors * self.places[place]).sum(1)


class TwoLayers(nn.Module):
    """Networks side by side, ``N(W' tanh(W x + b) + b')`` with a layer of its own each, and N that makes length 1.

    One product serves the inner layers of all, and one the outer ones. Weights start as Glorot and Bengio have it
    (2010, eq. 16), and biases at 0: of small vectors the direction alone tells what is made of them.

    Args:
        size: of x.
        hidden: of what lies between.
        made: of what is made.
        networks: how many.
    """

    def __init__(self, size: int, hidden: int, made: int, *, networks: int) -> None:
        super().__init__()
        self.inner = nn.Linear(size, networks * hidden)
        self.outer = nn.Parameter(torch.empty(networks, hidden, made))
        self.outer_bias = nn.Parameter(torch.zeros(networks, 1, made))
        for weights, joined in ((self.inner.weight, size + hidden), (self.outer, hidden + made)):
            bound = math.sqrt(6 / joined)
            nn.init.uniform_(weights, -bound, bound)
        nn.init.zeros_(self.inner.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """(n, networks, made) of (n, size)."""
        between = self.inner(vectors).tanh().view(len(vectors), len(self.outer), -1).transpose(0, 1)
        return F.normalize(torch.baddbmm(self.outer_bias, between, self.outer), dim=-1).transpose(0, 1)


class _Alike(NamedTuple):
    """Some stories of a batch as a rectangle."""

    texts: Tensor
    """(S, N) which of the distinct sentences is told; -1 for none."""
    questions: Tensor
    """(S, Q) places in the batch; -1 for none."""
    told: Tensor
    """(S, Q) sentences that each question may read."""


def _alike(batch: StoryBatch) -> list[_Alike]:
    """The stories of a batch by their length."""
    lengths = batch.story_of_sentence.bincount()
    doublings = (lengths / SHORTEST).log2().ceil().clamp(min=0)
    parts = []
    for doubling in doublings.unique().tolist():
        stories = (doublings == doubling).nonzero().flatten()
        sentences, questions = (
            _rectangle(side, stories, len(lengths)) for side in (batch.story_of_sentence, batch.story_of_question)
        )
        texts = torch.where(sentences < 0, -1, batch.sentences[sentences])
        parts.append(_Alike(texts, questions, torch.where(questions < 0, 0, batch.told[questions])))
    return parts


def _rectangle(story_of: Tensor, stories: Tensor, count: int) -> Tensor:
    """(S, n) where what belongs to some stories lies, of (m,) to which story each belongs, ascending; -1 for none."""
    lengths = story_of.bincount(minlength=count)
    firsts = lengths.cumsum(0) - lengths
    across = torch.arange(int(lengths[stories].max()), device=story_of.device)
    return torch.where(across < lengths[stories, None], firsts[stories, None] + across, -1)


def _laid_out(vectors: Sequence[Tensor], rectangles: Sequence[Tensor]) -> list[list[Tensor]]:
    """Of each rectangle of rows (S, n) and each kind of vectors (m, k, d) those at these rows: (S, n, k, d).

    All are taken out at once: what comes back to a row is then added up in one go. -1 has zeros.
    """
    rows = F.pad(torch.cat([each.flatten(1) for each in vectors], dim=1), (0, 0, 0, 1))
    places = torch.cat([rectangle.flatten() for rectangle in rectangles])
    taken = F.embedding(torch.where(places < 0, len(rows) - 1, places), rows)
    sizes = [each[0].numel() for each in vectors]
    return [
        [
            kind.view(*rectangle.shape, *each.shape[1:])
            for kind, each in zip(part.split(sizes, dim=1), vectors, strict=True)
        ]
        for part, rectangle in zip(taken.split([each.numel() for each in rectangles]), rectangles, strict=True)
    ]
