"""The LSTM over stories: by one question at a time, and on words that must be kept in mind."""

from __future__ import annotations

import pytest
import torch

from memlab.data.stories import Question, Story, words
from memlab.questions import LSTMReader, StoryEncoder

STORIES = [
    Story(
        ("Mary moved to the bathroom.", "John took the milk.", "Mary took it.", "John went."),
        (Question("Where is Mary?", "bathroom", 1), Question("What does Mary hold now?", "milk", 3)),
    ),
    Story(("It is a swan.",), (Question("What?", "swan", 1),)),
    Story(
        tuple(f"John went {'on ' * (place % 4)}." for place in range(30)),
        (Question("Where is John now?", "milk", 7), Question("Who moved?", "swan", 30), Question("Who?", "hall", 30)),
    ),
]


def network(made: StoryEncoder) -> LSTMReader:
    torch.manual_seed(0)
    return LSTMReader(words=len(made.vocabulary), answers=len(made.answers), size=5, hidden=4).double()


@pytest.mark.parametrize("most_cells", [None, 2])
def test_is_the_recurrence_over_all_words_told_and_asked(most_cells: int | None) -> None:
    """In scores, and in the gradient of the loss."""
    made = StoryEncoder.of(STORIES[:2], most_cells=most_cells)
    net, expected = network(made), []
    w_i, w_h, b_i, b_h = net.lstm.parameters()
    for story in STORIES:
        for question in story.questions:
            told = story.sentences[: question.before][-(most_cells or 99) :]
            h, c = torch.zeros(2, 4, dtype=torch.float64)
            for number in made.vocabulary.numbers([word for text in (*told, question.text) for word in words(text)]):
                i, f, g, o = (w_i @ net.words.weight[number] + b_i + w_h @ h + b_h).chunk(4)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            expected.append(net.answer(h))
    batch = made.batch(STORIES)
    read = net.read(batch)
    torch.testing.assert_close(read.scores, torch.stack(expected), rtol=1e-12, atol=1e-14)
    assert read.weights == ()
    losses = torch.nn.functional.cross_entropy(torch.stack(expected)[:-1], batch.answers[:-1])
    parameters = list(net.parameters())
    wanted = torch.autograd.grad(losses, parameters)
    for found, other in zip(torch.autograd.grad(net.losses(batch)[:-1].mean(), parameters), wanted, strict=True):
        torch.testing.assert_close(found, other, rtol=1e-9, atol=1e-12)


def test_a_story_is_answered_alone_as_among_others() -> None:
    made = StoryEncoder.of(STORIES[:2], most_cells=None)
    net = network(made)
    alone = torch.cat([net.read(made.batch([story])).scores for story in STORIES])
    torch.testing.assert_close(net.read(made.batch(STORIES)).scores, alone, rtol=1e-12, atol=1e-14)


def test_learns_what_was_told_last() -> None:
    places = ("hall", "garden", "kitchen")

    def told(seed: int) -> Story:
        draw = torch.Generator().manual_seed(seed)
        drawn = torch.randint(3, (int(torch.randint(2, 6, (), generator=draw)),), generator=draw).tolist()
        sentences = tuple(f"Mary went to the {places[place]}." for place in drawn)
        return Story(sentences, (Question("Where is Mary?", places[drawn[-1]], len(sentences)),))

    train, test = [told(seed) for seed in range(100)], [told(seed) for seed in range(1000, 1050)]
    made = StoryEncoder.of(train, most_cells=None)
    torch.manual_seed(0)
    net = LSTMReader(words=len(made.vocabulary), answers=3, size=16, hidden=16)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    batch = made.batch(train)
    for _ in range(60):
        optimizer.zero_grad()
        net.losses(batch).mean().backward()
        optimizer.step()
    batch = made.batch(test)
    assert (net.read(batch).scores.argmax(1) == batch.answers).float().mean() > 0.95


@pytest.mark.parametrize("given", [{"size": 0, "hidden": 4}, {"size": 4, "hidden": 0.5}])
def test_values_out_of_range_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must be a whole number of at least 1"):
        LSTMReader(words=9, answers=3, **given)
