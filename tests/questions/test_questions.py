"""Stories as batches, and end-to-end memory networks over them: by plain loops over questions and sentences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from memlab.data.stories import Question, Story, words
from memlab.data.vocabulary import UNKNOWN
from memlab.questions import ItemNetwork, MemN2N, StoryEncoder
from memlab.questions.items import TwoLayers

STORIES = [
    Story(
        ("Mary moved to the bathroom.", "John took the milk.", "Mary took it.", "John went."),
        (
            Question("Where is Mary?", "bathroom", 1, (0,)),
            Question("What does Mary hold now?", "milk", 3, (2, 1)),
            Question("Who moved?", "mary,john", 4, (0, 3)),
        ),
    ),
    Story(("It is a swan.", "It is white."), (Question("What is it?", "swan", 2, (0,)),)),
    Story(("John went.", "John took the milk."), (Question("Where is the milk?", "hall", 2),)),
]
LONGEST = 6
KINDS = [
    {"tying": tying, "encoding": encoding, "hops": hops}
    for tying in ("adjacent", "layerwise")
    for encoding in ("bag", "position", "centred")
    for hops in (1, 3)
]


def encoder(most_cells: int | None = None) -> StoryEncoder:
    return StoryEncoder.of(STORIES[:2], most_cells=most_cells)


def network(made: StoryEncoder, **words: Any) -> MemN2N:
    torch.manual_seed(0)
    given: dict[str, Any] = {
        "tying": "adjacent",
        "encoding": "position",
        "hops": 2,
        "filled_up": False,
        "random_noise": 0.0,
        "linear_start": 0,
        "most_cells": made.most_cells or 50,
        **words,
    }
    return MemN2N(words=len(made.vocabulary), answer_words=made.answer_words, longest=LONGEST, size=4, **given).double()


class TestBatch:
    @pytest.mark.parametrize("most_cells", [None, 1, 2, 3])
    def test_a_question_may_read_what_was_told_before_it(self, most_cells: int | None) -> None:
        batch = encoder(most_cells).batch(STORIES)
        told = [text for story in STORIES for text in story.sentences]
        distinct = list(dict.fromkeys(told))
        number, first = 0, 0
        for story in STORIES:
            for question in story.questions:
                own = (batch.asker == number).nonzero().flatten()
                expected = list(range(first, first + question.before))[-(most_cells or 99) :]
                assert batch.cells[own].tolist() == expected
                assert batch.age[own].tolist() == list(range(len(expected)))[::-1]
                assert batch.told[number] == len(expected)
                assert [distinct[at] for at in batch.sentences[batch.cells[own]]] == [told[at] for at in expected]
                supports = [first + place for place in question.supporting if first + place in expected]
                found = [each for each in batch.supports[number].tolist() if each >= 0]
                assert batch.cells[found].tolist() == supports
                assert set(batch.asker[found].tolist()) <= {number}
                number += 1
            first += len(story.sentences)
        assert number == len(batch)

    def test_each_distinct_sentence_is_there_once_and_unseen_words_are_unknown(self) -> None:
        made = encoder()
        batch = made.batch(STORIES)
        assert len(batch.words) == len({text for story in STORIES for text in story.sentences})
        answers = [made.answers[each] if each >= 0 else None for each in batch.answers.tolist()]
        assert answers == ["bathroom", "milk", "mary,john", "swan", None]
        strange = made.batch([Story(("Zebras moved.",), (Question("Where is Mary?", "milk", 1),))])
        assert strange.words[0].tolist() == [UNKNOWN, *made.vocabulary.numbers(["moved"])]

    def test_state_makes_it_again(self) -> None:
        made = encoder(3)
        again = StoryEncoder.from_state(made.state())
        for name, tensor in vars(made.batch(STORIES)).items():
            assert torch.equal(tensor, getattr(again.batch(STORIES), name))


def by_plain_loop(net: MemN2N, made: StoryEncoder, story: Story, question: Question) -> tuple[list[float], list[Any]]:
    """Scores of the answers and weights of each hop, by the equations."""
    d, weights_of_hops = 4, []

    def vector(table: Any, text: str) -> list[float]:
        numbers, total = made.vocabulary.numbers(words(text)), [0.0] * d
        for j, number in enumerate(numbers, 1):
            for k in range(1, d + 1):
                length = len(numbers)
                place = {
                    "bag": 1.0,
                    "position": (1 - j / length) - (k / d) * (1 - 2 * j / length),
                    "centred": 1 + 4 * (k - (d + 1) / 2) * (j - (LONGEST + 1) / 2) / (d * LONGEST),
                }[net.encoding]
                total[k - 1] += place * table[number][k - 1].item()
        return total

    def held(matrix: int) -> list[list[float]]:
        told = story.sentences[: question.before]
        made_of = [vector(net.embeddings[matrix], text) for text in told]
        ages = [min(len(told) - 1 - place, net.times.shape[1] - 1) for place in range(len(told))]
        return [
            [x + t.item() for x, t in zip(each, net.times[matrix][age], strict=True)]
            for each, age in zip(made_of, ages, strict=True)
        ]

    u = vector(net.embeddings[0] if net.is_adjacent else net.of_question, question.text)
    for hop in range(net.hops):
        keys, values = (held(hop), held(hop + 1)) if net.is_adjacent else (held(0), held(1))
        scores = [math.fsum(a * b for a, b in zip(u, key, strict=True)) for key in keys]
        cells = scores + [0.0] * max(net.times.shape[1] - len(scores), 0) * net.filled_up
        shares = [math.exp(score - max(cells)) for score in cells]
        p = scores if net.is_linear else [share / math.fsum(shares) for share in shares[: len(scores)]]
        o = [math.fsum(share * value[k] for share, value in zip(p, values, strict=True)) for k in range(d)]
        kept = (
            u if net.is_adjacent else [math.fsum(net.between[k][e].item() * u[e] for e in range(d)) for k in range(d)]
        )
        u = [a + b for a, b in zip(kept, o, strict=True)]
        weights_of_hops.append(p)
    table = net.embeddings[-1] if net.is_adjacent else net.of_answer
    return [
        math.fsum(table[number][k].item() * u[k] for k in range(d)) for number in made.answer_words
    ], weights_of_hops


@pytest.mark.parametrize("hop", ["softmax", "filled up", "linear"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(map(str, kind.values())))
def test_memn2n_is_the_plain_loop_over_questions(kind: dict[str, Any], hop: str) -> None:
    made = encoder()
    net = network(made, **kind, filled_up=hop == "filled up", linear_start=0.5 * (hop == "linear"), most_cells=3)
    batch = made.batch(STORIES)
    read, number = net.read(batch), 0
    for story in STORIES:
        for question in story.questions:
            scores, weights = by_plain_loop(net, made, story, question)
            assert read.scores[number].tolist() == pytest.approx(scores, rel=1e-12, abs=1e-14)
            own = batch.asker == number
            for found, expected in zip(read.weights, weights, strict=True):
                assert found[own].tolist() == pytest.approx(expected, rel=1e-12, abs=1e-14)
            number += 1


def test_a_story_is_answered_alone_as_among_others() -> None:
    made = encoder()
    net = network(made)
    together = net.read(made.batch(STORIES)).scores
    alone = torch.cat([net.read(made.batch([story])).scores for story in STORIES])
    torch.testing.assert_close(alone, together, rtol=1e-12, atol=1e-14)


def test_an_answer_that_training_has_not_seen_teaches_nothing() -> None:
    made = encoder()
    net = network(made)
    losses = net.losses(made.batch(STORIES))
    assert losses[-1] == 0


def test_the_loss_is_of_the_true_answer_among_all_words() -> None:
    made = encoder()
    net = network(made)
    batch = made.batch(STORIES[1:2])
    answers = [made.answer_words[made.answers.index("swan")]]
    net.answer_words = torch.arange(len(made.vocabulary))
    expected = -net.read(batch).scores.log_softmax(1)[0, answers]
    torch.testing.assert_close(network(made).losses(batch), expected, rtol=1e-12, atol=0)


def test_random_noise_puts_empty_sentences_between_those_told() -> None:
    """Ages keep their order within a story, are the true ones without noise, and grow by a tenth with it."""
    told = tuple(f"John went {place}." for place in range(400))
    made = StoryEncoder.of(STORIES[:2], most_cells=None)
    batch = made.batch([*STORIES, Story(told, (Question("Where is John?", "milk", 400),))])
    net = network(made, random_noise=0.1)
    net.times = torch.nn.Parameter(torch.zeros(3, 10_000, 4).double())
    ages = net._ages(batch)
    for number in range(len(batch)):
        own = ages[batch.asker == number]
        assert (own.diff() < 0).all()
        assert (own >= batch.age[batch.asker == number]).all()
    assert 420 < int(ages[-400]) < 470
    assert torch.equal(net.eval()._ages(batch), batch.age)


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ({"hops": 0}, "hops=0"),
        ({"tying": "tied"}, "tying=tied"),
        ({"encoding": "words"}, "encoding=words"),
        ({"filled_up": "yes"}, "filled_up=yes"),
        ({"random_noise": 1.0}, "random_noise=1.0"),
        ({"linear_start": 1.0}, "linear_start=1.0"),
    ],
)
def test_values_out_of_range_are_refused(words: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        network(encoder(), **words)


class TestItems:
    def network(self, made: StoryEncoder) -> ItemNetwork:
        torch.manual_seed(0)
        sizes = {"longest": 4, "size": 5, "hidden": 6, "entity_size": 4, "relation_size": 3}
        net = ItemNetwork(words=len(made.vocabulary), answers=len(made.answers), **sizes).double()
        torch.nn.init.normal_(net.places)
        return net

    def longer(self) -> list[Story]:
        """Stories of lengths that are not read together."""
        told = tuple(f"John went {'on ' * (place % 5)}." for place in range(20))
        return [*STORIES, Story(told, (Question("Where is John?", "milk", 9), Question("Who moved?", "milk", 20)))]

    def test_is_the_recurrence_over_sentences(self) -> None:
        made = encoder()
        net, number = self.network(made), 0
        scores = net.read(made.batch(self.longer())).scores

        def vector(text: str) -> torch.Tensor:
            numbers = made.vocabulary.numbers(words(text))
            places = [min(place, len(net.places) - 1) for place in range(len(numbers))]
            total = [net.words.weight[each] * net.places[at] for each, at in zip(numbers, places, strict=True)]
            return torch.stack(total).sum(0)

        def made_by(networks: TwoLayers, x: torch.Tensor) -> list[torch.Tensor]:
            """What each network makes, of length 1."""
            found = []
            weights, biases = (each.chunk(len(networks.outer)) for each in networks.inner.parameters())
            inner = zip(weights, biases, strict=True)
            for (weight, bias), outer, outer_bias in zip(inner, networks.outer, networks.outer_bias, strict=True):
                made = (weight @ x + bias).tanh() @ outer + outer_bias[0]
                found.append(made / made.norm())
            return found

        for story in self.longer():
            for question in story.questions:
                memory = torch.zeros(4, 3, 4, dtype=torch.float64)
                for text in story.sentences[: question.before]:
                    (e1, e2), (r1, r2, r3) = (made_by(each, vector(text)) for each in (net.entities, net.relations))
                    w, m, b = (torch.einsum("d,r,drx->x", e, r, memory) for e, r in ((e1, r1), (e1, r2), (e2, r3)))
                    for e, r, v in ((e1, r1, e2 - w), (e1, r2, w - m), (e2, r3, e1 - b)):
                        memory = memory + torch.einsum("d,r,x->drx", e, r, v)
                (at,) = made_by(net.asked_entity, vector(question.text))
                total = torch.zeros(4, dtype=torch.float64)
                for along in made_by(net.asked_relations, vector(question.text)):
                    at = net.norm(torch.einsum("d,r,drx->x", at, along, memory))
                    total = total + at
                torch.testing.assert_close(scores[number], total @ net.answer.weight.mT, rtol=1e-9, atol=1e-11)
                number += 1

    def test_a_story_is_answered_alone_as_among_others(self) -> None:
        made = encoder()
        net = self.network(made)
        together = net.read(made.batch(self.longer())).scores
        alone = torch.cat([net.read(made.batch([story])).scores for story in self.longer()])
        torch.testing.assert_close(alone, together, rtol=1e-10, atol=1e-12)

    def test_all_that_is_learned_has_a_gradient(self) -> None:
        made = encoder()
        net = self.network(made)
        net.losses(made.batch(STORIES)).sum().backward()
        assert all(each.grad is not None and bool(each.grad.any()) for each in net.parameters())
