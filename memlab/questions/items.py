"""A network whose memory holds items of two roles and their filler (TPR-RNN, Schlag and Schmidhuber 2018)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from memlab.checks import check_whole_number
from memlab.data.vocabulary import PADDING
from memlab.functional.items import items_of, read_items
from memlab.questions.batch import StoryBatch
from memlab.questions.network import StoryNetwork, StoryRead

READS = 3
SHORTEST = 8
"""Stories of up to so many sentences are read together, of up to twice as many, and so on: half is padding at most."""


class ItemNetwork(StoryNetwork):
    """Sentences write items, questions follow them in three reads, each of which begins where the one before has ended.

    ``i_1 = N(read(e, r_1))``, ``i_2 = N(read(i_1, r_2))``, ``i_3 = N(read(i_2, r_3))``, scores ``Z (i_1 + i_2 + i_3)``,
    with a layer norm N. Sentences and questions are the sum of their words, each times a learned vector of its place;
    entities and relations are made of it by networks of two layers, and have length 1. See `memlab.functional.items`.

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
        self.places = nn.Parameter(torch.ones(longest, size) / longest)
        self.entities = nn.ModuleList(_two_layers(size, hidden, entity_size) for _ in range(2))
        self.relations = nn.ModuleList(_two_layers(size, hidden, relation_size) for _ in range(3))
        self.asked_entity = _two_layers(size, hidden, entity_size)
        self.asked_relations = nn.ModuleList(_two_layers(size, hidden, relation_size) for _ in range(READS))
        self.norm = nn.LayerNorm(entity_size)
        self.answer = nn.Linear(entity_size, answers, bias=False)

    def read(self, batch: StoryBatch) -> StoryRead:
        """See `StoryNetwork.read`; without weights, as items are no sentences."""
        sentences, questions = self._vectors(batch.words), self._vectors(batch.questions)
        entities, relations = _apart(self.entities, sentences), _apart(self.relations, sentences)
        asked, along = _unit(self.asked_entity(questions)), _apart(self.asked_relations, questions)
        scores = questions.new_empty(len(batch), self.answer.out_features)
        for part in _alike(batch):
            told = part.rows(entities[batch.sentences], part.sentences)
            items = items_of(told, part.rows(relations[batch.sentences], part.sentences))
            at, found = part.rows(asked, part.questions), []
            by_question, count = part.rows(along, part.questions), part.rows(batch.told, part.questions)
            for number in range(READS):
                at = self.norm(read_items(items, at, by_question[:, :, number], count))
                found.append(at)
            there = part.questions >= 0
            scores = scores.index_put((part.questions[there],), self.answer(torch.stack(found).sum(0)[there]))
        return StoryRead(scores, ())

    def _vectors(self, words: Tensor) -> Tensor:
        """(n, size) of (n, J) words; those behind the last place have its vector."""
        place = torch.arange(words.shape[1], device=words.device).clamp(max=len(self.places) - 1)
        vectors: Tensor = self.words(words)
        return (vectors * self.places[place]).sum(1)


class _Alike:
    """Some stories of a batch as a rectangle.

    Args:
        sentences: (S, N) places in the batch; -1 for none.
        questions: (S, Q) places in the batch; -1 for none.
    """

    def __init__(self, sentences: Tensor, questions: Tensor) -> None:
        self.sentences, self.questions = sentences, questions

    @staticmethod
    def rows(values: Tensor, places: Tensor) -> Tensor:
        """(S, n, ...) the values at some places; 0 where there is none."""
        there = (places >= 0).view(*places.shape, *[1] * (values.dim() - 1))
        return values[places.clamp(min=0)] * there.to(values.dtype)


def _alike(batch: StoryBatch) -> Iterator[_Alike]:
    """The stories of a batch by their length."""
    lengths = batch.story_of_sentence.bincount()
    doublings = (lengths / SHORTEST).log2().ceil().clamp(min=0)
    for doubling in doublings.unique().tolist():
        stories = (doublings == doubling).nonzero().flatten()
        sides = (batch.story_of_sentence, batch.story_of_question)
        yield _Alike(*(_rectangle(side, stories, len(lengths)) for side in sides))


def _rectangle(story_of: Tensor, stories: Tensor, count: int) -> Tensor:
    """(S, n) where what belongs to some stories lies, of (m,) to which story each belongs, ascending."""
    lengths = story_of.bincount(minlength=count)
    firsts = lengths.cumsum(0) - lengths
    across = torch.arange(int(lengths[stories].max()), device=story_of.device)
    return torch.where(across < lengths[stories, None], firsts[stories, None] + across, -1)


def _two_layers(size: int, hidden: int, made: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, hidden), nn.Tanh(), nn.Linear(hidden, made))


def _unit(vectors: Tensor) -> Tensor:
    return F.normalize(vectors, dim=-1)


def _apart(networks: nn.ModuleList, vectors: Tensor) -> Tensor:
    """(n, networks, size) of unit length."""
    return torch.stack([_unit(each(vectors)) for each in networks], dim=1)
