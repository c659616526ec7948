"""Memory networks that are taught their facts: by plain loops over questions, facts, and words; and on stories."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from memlab.data.stories import Question, Story, words
from memlab.data.vocabulary import UNKNOWN
from memlab.questions import MemNN, StoryEncoder
from memlab.questions.ngrams import ngram_count, ngram_numbers

STORIES = [
    Story(
        ("Mary moved to the bathroom.", "John took the milk.", "Mary took it.", "John went.", "Mary took it."),
        (
            Question("Where is Mary?", "bathroom", 1, (0,)),
            Question("What does Mary hold now?", "milk", 3, (2, 1)),
            Question("Who moved and took it?", "mary,john", 5, (0, 3, 4, 1)),
            Question("Who is there?", "milk", 4),
        ),
    ),
    Story(("It is a swan.", "It is white."), (Question("What is it?", "swan", 2, (0,)),)),
    Story(("John went.", "John took the zebra."), (Question("Where is the zebra?", "milk", 2, (1, 0)),)),
]
KINDS: list[dict[str, Any]] = [
    {"hops": 1, "ngrams": 1, "matches": False, "nonlinear": False},
    {"hops": 2, "ngrams": 2, "matches": True, "nonlinear": False},
    {"hops": 3, "ngrams": 3, "matches": True, "nonlinear": True},
    {"hops": 6, "ngrams": 1, "matches": False, "nonlinear": True},
]
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: " ".join(map(str, kind.values())))


def encoder() -> StoryEncoder:
    return StoryEncoder.of(STORIES[:2], most_cells=None)


def network(made: StoryEncoder, **given: Any) -> MemNN:
    torch.manual_seed(1)
    values: dict[str, Any] = {**KINDS[2], "longest": 3, "size": 4, "margin": 0.7, "negatives": 5, **given}
    net = MemNN(words=len(made.vocabulary), answer_words=made.answer_words, **values).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return net


class Loops:
    """The network by its equations, one question, fact, and word at a time."""

    def __init__(self, net: MemNN, made: StoryEncoder, story: Story, question: Question) -> None:
        self.net, self.made = net, made
        self.asked = self.numbers(question.text)
        self.told = [self.numbers(text) for text in story.sentences[: question.before]]
        self.taught = list(question.supporting)[: net.hops]
        self.answer = made.answers.index(question.answer)

    def numbers(self, text: str) -> list[int]:
        return self.made.vocabulary.numbers(words(text))

    def bag(self, bags: Any, dictionary: str, text: list[int]) -> Tensor:
        total = torch.zeros(4, dtype=torch.float64)
        for length in range(1, bags.ngrams + 1):
            for start in range(len(text) - length + 1):
                run = text[start : start + length]
                if UNKNOWN not in run:
                    number = ngram_numbers(torch.tensor([run]), words=bags.words, longest=length)[0, -1]
                    total = total + bags.tables[dictionary][number]
        return total

    def matches(self, vectors: Any, left: list[int], right: list[int]) -> Tensor:
        total = torch.zeros(4, dtype=torch.float64)
        for j, one in enumerate(left):
            for i, other in enumerate(right):
                if one == other != UNKNOWN:
                    total = total + vectors.vectors[min(j, 2), min(i, 2)]
        return total

    def e_x(self, picked: list[int]) -> Tensor:
        facts = self.net.facts
        total = self.bag(facts.bags, "question", self.asked) + facts.count[len(picked)]
        for hop, place in enumerate(picked):
            total = total + facts.gates[hop] * self.bag(facts.bags, "fact", self.told[place])
        return total

    def e_y(self, picked: list[int], place: int | None) -> Tensor:
        facts = self.net.facts
        if place is None:
            return facts.nothing
        total = self.bag(facts.bags, "candidate", self.told[place])
        for hop, other in enumerate(picked):
            total = total + facts.older[hop] * (place < other)
        if facts.like_question is not None:
            total = total + self.matches(facts.like_question, self.told[place], self.asked)
            if picked:
                total = total + self.matches(facts.like_last, self.told[place], self.told[picked[-1]])
        return total

    def s_o(self, picked: list[int], y: int | None, other: int | None) -> Tensor:
        between = self.e_y(picked, y) - self.e_y(picked, other)
        if y is not None and other is not None:
            between = between + self.net.facts.newer * (1 if y > other else -1)
        return self.e_x(picked) @ between

    def s_r(self, picked: list[int]) -> Tensor:
        net = self.net.response
        z = self.bag(net.bags, "question", self.asked)
        for hop, place in enumerate(picked):
            fact = self.bag(net.bags, "fact", self.told[place])
            if net.has_matches:
                fact = fact + self.matches(net.like_question, self.told[place], self.asked)
                if hop:
                    fact = fact + self.matches(net.like_before, self.told[place], self.told[picked[hop - 1]])
            z = z + net.gates[hop] * fact
        if isinstance(net.layer, torch.nn.Sequential):
            linear = net.layer[1]
            assert isinstance(linear, torch.nn.Linear)
            z = linear.weight @ z.tanh() + linear.bias
        scores = []
        for number, word in enumerate(self.made.answer_words):
            e_w = net.answers[number]
            if net.has_matches:
                for j, other in enumerate(self.asked):
                    e_w = e_w + net.in_question[min(j, 2)] * (other == word)
                for hop, place in enumerate(picked):
                    for j, other in enumerate(self.told[place]):
                        e_w = e_w + net.in_fact[hop, min(j, 2)] * (other == word)
            scores.append(z @ e_w)
        return torch.stack(scores)

    def picks(self) -> list[int]:
        picked: list[int] = []
        while len(picked) < self.net.hops:
            best: int | None = None
            for place in range(len(self.told)):
                if place not in picked and (best is None or self.s_o(picked, place, best) > 0):
                    best = place
            if best is None or self.s_o(picked, best, None) <= 0:
                break
            picked.append(best)
        return picked

    def loss(self) -> Tensor:
        g = self.net.margin
        total = torch.zeros((), dtype=torch.float64)
        for hop in range(min(len(self.taught) + 1, self.net.hops)):
            picked = self.taught[:hop]
            true = self.taught[hop] if hop < len(self.taught) else None
            for place in range(len(self.told)):
                if place != true and place not in picked:
                    total = total + (g - self.s_o(picked, true, place)).relu() / len(self.told)
            if true is not None:
                total = total + (g - self.s_o(picked, true, None)).relu()
        scores = self.s_r(self.taught)
        for number in range(len(scores)):
            if number != self.answer:
                total = total + (g - scores[self.answer] + scores[number]).relu() / len(scores)
        return total


def loops(net: MemNN, made: StoryEncoder) -> list[Loops]:
    return [Loops(net, made, story, question) for story in STORIES for question in story.questions]


@every_kind
def test_picks_and_scores_are_those_of_plain_loops(kind: dict[str, Any]) -> None:
    made = encoder()
    batch = made.batch(STORIES)
    seen = set()
    for seed in range(8):
        net = network(made, **kind)
        torch.manual_seed(seed)
        torch.nn.init.normal_(net.facts.newer)
        torch.nn.init.normal_(net.facts.nothing)
        read = net.read(batch)
        for number, each in enumerate(loops(net, made)):
            own, picked = batch.asker == number, each.picks()
            for hop, weights in enumerate(read.weights):
                expected = [
                    float(place == picked[hop]) if hop < len(picked) else 0.0 for place in range(int(own.sum()))
                ]
                assert weights[own].tolist() == expected
            torch.testing.assert_close(read.scores[number], each.s_r(picked), rtol=1e-11, atol=1e-12)
            seen.add(len(picked))
    assert {0, 1} <= seen
    assert kind["hops"] in seen or kind["hops"] > 5


@every_kind
def test_loss_of_all_facts_and_words_is_that_of_plain_loops(kind: dict[str, Any]) -> None:
    """In value and gradient."""
    made = encoder()
    net = network(made, **kind).eval()
    losses = net.losses(made.batch(STORIES))
    expected = torch.stack([each.loss() for each in loops(net, made)])
    torch.testing.assert_close(losses, expected, rtol=1e-11, atol=1e-12)
    weights = torch.rand(len(losses), dtype=torch.float64)
    parameters = list(net.parameters())
    found = torch.autograd.grad(losses @ weights, parameters, allow_unused=True, materialize_grads=True)
    wanted = torch.autograd.grad(expected @ weights, parameters, allow_unused=True, materialize_grads=True)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_drawn_facts_and_words_cost_in_the_mean_what_all_cost() -> None:
    made = encoder()
    net = network(made, negatives=20_000)
    batch = made.batch(STORIES)
    torch.testing.assert_close(net.losses(batch), net.eval().losses(batch), rtol=0.05, atol=0.05)
    few = network(made, negatives=2)
    torch.manual_seed(3)
    first, second = few.losses(batch), few.losses(batch)
    torch.manual_seed(3)
    assert torch.equal(few.losses(batch), first)
    assert not torch.equal(first, second)


def test_a_story_is_answered_and_taught_alone_as_among_others() -> None:
    made = encoder()
    net = network(made).eval()
    for order in ([0, 1, 2], [2, 0, 1]):
        stories = [STORIES[place] for place in order]
        together, alone = made.batch(stories), [made.batch([story]) for story in stories]
        scores = torch.cat([net.read(batch).scores for batch in alone])
        torch.testing.assert_close(net.read(together).scores, scores, rtol=1e-11, atol=1e-12)
        losses = torch.cat([net.losses(batch) for batch in alone])
        torch.testing.assert_close(net.losses(together), losses, rtol=1e-11, atol=1e-12)


def test_an_answer_that_training_has_not_seen_costs_nothing() -> None:
    made = encoder()
    story = Story(
        ("John went.",), (Question("Where is John?", "hall", 1, (0,)), Question("Who went?", "milk", 1, (0,)))
    )
    losses = network(made).losses(made.batch([story]))
    assert losses[0] == 0
    assert losses[1] > 0


def test_words_that_training_has_not_seen_say_nothing() -> None:
    made = encoder()
    net = network(made)
    asked = (Question("Where is Mary?", "milk", 1, (0,)),)
    scores = [net.read(made.batch([Story((told,), asked)])).scores for told in ("Zebras.", "Giraffes fly.")]
    assert torch.equal(*scores)
    assert scores[0].isfinite().all()


def test_runs_of_words_have_numbers_of_their_own() -> None:
    """With 40 words, no more of 1,600 pairs share a number than by chance; none has that of a word or of a triple."""
    pairs = torch.cartesian_prod(torch.arange(2, 42), torch.arange(2, 42))
    numbers = ngram_numbers(pairs, words=42, longest=3)
    assert numbers.shape == (1600, 3)
    assert torch.equal(numbers[:, :2], pairs)
    longer = ngram_numbers(torch.cat([pairs, pairs[:, :1]], dim=1), words=42, longest=3)
    assert torch.equal(longer[:, 3], numbers[:, 2])
    assert int(longer[:, 3:5].min()) >= 42
    assert int(longer[:, 3:5].max()) < ngram_count(42, 2) <= int(longer[:, 5].min())
    assert int(longer[:, 5].max()) < ngram_count(42, 3)
    assert len(numbers[:, 2].unique()) > 1200
    assert len(longer[:, 5].unique()) > 1200


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ({"hops": 0}, "hops=0"),
        ({"size": 0}, "size=0"),
        ({"longest": 0}, "longest=0"),
        ({"ngrams": 0}, "ngrams=0"),
        ({"matches": "yes"}, "matches=yes"),
        ({"nonlinear": 1}, "nonlinear=1"),
        ({"margin": 0.0}, "margin=0.0"),
        ({"negatives": 0}, "negatives=0"),
    ],
)
def test_values_out_of_range_are_refused(given: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        network(encoder(), **given)


def test_learns_to_follow_a_thing_to_who_has_it() -> None:
    """Two facts: who took it last, and where they went last; people and places of the test are told anew."""
    people, places, things = ("Mary", "John", "Ann", "Bob"), ("garden", "hall", "kitchen"), ("milk", "apple")

    def told(seed: int) -> Story:
        draw = torch.Generator().manual_seed(seed)
        sentences: list[str] = []
        supporting: dict[str, tuple[int, str]] = {}
        last: dict[str, tuple[int, str]] = {}
        for person in (*people, *people, *people[:2]):
            at = len(sentences)
            place = places[int(torch.randint(3, (), generator=draw))]
            sentences.append(f"{person} went to the {place}.")
            last[person] = (at, place)
            if torch.rand((), generator=draw) < 0.5 or at < 2:
                thing = things[int(torch.randint(2, (), generator=draw))]
                supporting[thing] = (len(sentences), person)
                sentences.append(f"{person} took the {thing}.")
        asked = [
            Question(f"Where is the {thing}?", last[person][1], len(sentences), (at, last[person][0]))
            for thing, (at, person) in sorted(supporting.items())
        ]
        return Story(tuple(sentences), tuple(asked))

    train, test = [told(seed) for seed in range(200)], [told(seed) for seed in range(1000, 1050)]
    made = StoryEncoder.of(train, most_cells=None)
    torch.manual_seed(0)
    features: dict[str, Any] = {"longest": 5, "size": 16, "hops": 3, "ngrams": 1, "matches": True, "nonlinear": False}
    net = MemNN(words=len(made.vocabulary), answer_words=made.answer_words, margin=1.0, negatives=10, **features)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    batches = [made.batch(train[start : start + 20]) for start in range(0, len(train), 20)]
    for _ in range(12):
        for batch in batches:
            optimizer.zero_grad()
            net.losses(batch).mean().backward()
            optimizer.step()
    batch = made.batch(test)
    net.eval()
    assert (net.read(batch).scores.argmax(1) == batch.answers).float().mean() > 0.97
    assert (net.picks(batch)[:, :2] == batch.supports).float().mean() > 0.97
    assert (net.picks(batch)[:, 2] == -1).float().mean() > 0.97
