"""Memory networks that are taught which facts to pick (Weston et al. 2014; eqs. 1-5 of the thesis)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from memlab.checks import check_number, check_switch, check_whole_number
from memlab.questions.answer_scores import AnswerScores
from memlab.questions.batch import StoryBatch
from memlab.questions.fact_scores import Asked, Candidates, FactScores, Texts
from memlab.questions.network import StoryNetwork, StoryRead


class MemNN(StoryNetwork):
    """A question picks facts of its story, one after the other, and they give the answer, as one word.

    ``o_h = argmax_i s_O([x, m_o1 .. m_o(h-1)], m_i)``, ``r = argmax_w s_R([x, m_o1 ..], w)`` (eqs. 1-3), with the
    scores of `FactScores` and `AnswerScores`. As one fact may be newer than another, the maximum is found as in the
    paper: fact after fact in the order told, the better of two goes on. What has been picked is not picked again. One
    more fact says that nothing more is needed and ends the picking (Weston et al. 2015, adaptive memory), so that one
    network serves questions that need one fact and questions that need ten.

    *Taught* are the facts that the data names, in its order: the first ``hops`` of them, and the end behind them if
    they are fewer. So a question for which no fact is named is taught to pick none, and of one with more facts those
    behind the first ``hops`` are not read, neither in training nor later: take as many hops as most questions need.

    The loss of eq. 5, of each hop until the end, with margin g:
    ``mean_f [g - s_O(x, m_o, f)]+ + [g - s_O(x, m_o, end)]+``, and ``mean_w [g - s_R(x, r) + s_R(x, w)]+``. f and w
    are drawn anew in each step, the true one costs nothing; means in place of the sums of the paper, so that their
    size does not depend on how many are drawn. In evaluation they are all facts and all words.

    Args:
        words: V, numbers of words, those of answers among them.
        answer_words: (C,) the number of each answer.
        longest: places of words told apart.
        size: d of the vectors.
        hops: facts picked at most.
        ngrams: words of the longest run that is a feature; 1 for a bag of words.
        matches: whether words that question and facts share are features.
        nonlinear: whether a layer is between the facts and the answer.
        margin: g.
        negatives: f, and w, drawn for each question.

    Raises:
        ValueError: for a value out of range.
    """

    def __init__(
        self,
        *,
        words: int,
        answer_words: Sequence[int],
        longest: int,
        size: int,
        hops: int,
        ngrams: int,
        matches: bool,
        nonlinear: bool,
        margin: float,
        negatives: int,
    ) -> None:
        super().__init__()
        self.hops = check_whole_number("hops", hops)
        self.margin = check_number("margin", margin, above=0)
        self.negatives = check_whole_number("negatives", negatives)
        features = {"longest": check_whole_number("longest", longest), "size": check_whole_number("size", size)}
        features["ngrams"] = check_whole_number("ngrams", ngrams)
        check_switch("matches", matches)
        self.facts = FactScores(words=words, hops=hops, matches=matches, **features)
        self.response = AnswerScores(
            words=words,
            answer_words=answer_words,
            hops=hops,
            matches=matches,
            nonlinear=check_switch("nonlinear", nonlinear),
            **features,
        )

    def read(self, batch: StoryBatch) -> StoryRead:
        """See `StoryNetwork.read`; weights are 1 for the fact that is picked in a hop, and 0 where there is none.

        Scores have been taught a margin, so that their softmax is no more than a ranking.
        """
        picked = self.picks(batch)
        weights = [F.one_hot(cells + 1, len(batch.cells) + 1)[:, 1:].sum(0) for cells in picked.mT]
        scores = self.response(batch, picked)
        return StoryRead(scores, tuple(each.to(scores.dtype) for each in weights))

    def losses(self, batch: StoryBatch) -> Tensor:
        """See `StoryNetwork.losses`; a margin in place of nats."""
        texts, taught = self.facts.texts(batch), self._taught(batch)
        losses = self._answer_losses(self.response(batch, taught), batch.answers)
        for hop in range(self.hops):
            who = (taught[:, hop - 1] >= 0).nonzero().flatten() if hop else torch.arange(len(batch)).to(taught)
            asked = Asked(who, taught[who, :hop])
            losses = losses.index_add(0, who, self._pick_losses(batch, texts, asked, taught[who, hop]))
        return losses * (batch.answers >= 0)

    def _taught(self, batch: StoryBatch) -> Tensor:
        """(Q, hops) cells to be picked; -1 for none."""
        return F.pad(batch.supports, (0, self.hops), value=-1)[:, : self.hops]

    def _pick_losses(self, batch: StoryBatch, texts: Texts, asked: Asked, true: Tensor) -> Tensor:
        """(n,) of one hop, with (n,) the true cells; -1 for the end."""
        candidates = self._drawn(batch, asked) if self.training else _readable(batch, asked)
        row, cells = candidates.row, candidates.cells
        queries, is_fact = self.facts.queries(batch, texts, asked), true >= 0
        end, newer = queries @ self.facts.nothing, queries @ self.facts.newer
        rows = torch.arange(len(true), device=true.device)
        best = torch.where(is_fact, self._scores(batch, texts, asked, queries, rows, true.clamp(min=0)), end)
        is_newer = torch.where(is_fact[row], (batch.cells[true[row]] - batch.cells[cells]).sign(), 0)
        gaps = best[row] + is_newer * newer[row] - self._scores(batch, texts, asked, queries, row, cells)
        is_wrong = (cells != true[row]) & _is_new(asked, row, cells)
        costs = (self.margin - gaps).relu() * is_wrong / candidates.number
        return ((self.margin - best + end).relu() * is_fact).index_add(0, row, costs)

    def _answer_losses(self, scores: Tensor, answers: Tensor) -> Tensor:
        """(Q,)."""
        true = answers.clamp(min=0)[:, None]
        costs = (self.margin - scores.gather(1, true) + scores).relu().scatter(1, true, 0)
        if self.training:
            drawn = torch.randint(costs.shape[1], (len(costs), self.negatives), device=costs.device)
            costs = costs.gather(1, drawn)
        return costs.mean(1)

    def _drawn(self, batch: StoryBatch, asked: Asked) -> Candidates:
        """Some facts that each question may read, each as likely."""
        shares = torch.rand(len(asked.who), self.negatives, device=asked.who.device)
        cells = _firsts(batch)[asked.who, None] + (shares * batch.told[asked.who, None]).long()
        row = torch.arange(len(cells), device=cells.device).repeat_interleave(self.negatives)
        return Candidates(row, cells.flatten(), torch.full_like(row, self.negatives))

    def _scores(
        self, batch: StoryBatch, texts: Texts, asked: Asked, queries: Tensor, row: Tensor, cells: Tensor
    ) -> Tensor:
        """(m,) ``e(x)^T e(y)``."""
        return (queries[row] * self.facts.candidates(batch, texts, asked, row, cells)).sum(1)

    def picks(self, batch: StoryBatch) -> Tensor:
        """(Q, hops) the cells that questions pick; -1 for none."""
        texts = self.facts.texts(batch)
        picked = batch.cells.new_full((len(batch), self.hops), -1)
        who = torch.arange(len(batch), device=picked.device)
        for hop in range(self.hops):
            picked[who, hop] = self._next(batch, texts, Asked(who, picked[who, :hop]))
            who = who[picked[who, hop] >= 0]
        return picked

    def _next(self, batch: StoryBatch, texts: Texts, asked: Asked) -> Tensor:
        """(n,) the cell that each question picks next; -1 for none."""
        row, cells, _ = _readable(batch, asked)
        queries = self.facts.queries(batch, texts, asked)
        scores = self._scores(batch, texts, asked, queries, row, cells)
        scores = scores.masked_fill(~_is_new(asked, row, cells), -torch.inf)
        place = cells - _firsts(batch)[asked.who][row]
        told = scores.new_full((len(asked.who), int(batch.told.max())), -torch.inf).index_put((row, place), scores)
        best, at = _tournament(told, queries @ self.facts.newer)
        return torch.where(best > queries @ self.facts.nothing, _firsts(batch)[asked.who] + at, -1)


def _firsts(batch: StoryBatch) -> Tensor:
    """(Q,) the oldest cell of each question."""
    return batch.told.cumsum(0) - batch.told


def _readable(batch: StoryBatch, asked: Asked) -> Candidates:
    """All facts that each question may read."""
    rows = torch.arange(len(asked.who), device=asked.who.device)
    row_of = torch.full_like(batch.told, -1).index_put((asked.who,), rows)
    cells = (row_of[batch.asker] >= 0).nonzero().flatten()
    row = row_of[batch.asker[cells]]
    return Candidates(row, cells, batch.told[asked.who[row]])


def _is_new(asked: Asked, row: Tensor, cells: Tensor) -> Tensor:
    """(m,) whether cells have not been picked before."""
    return (cells[:, None] != asked.picked[row]).all(1)


def _tournament(scores: Tensor, newer: Tensor) -> tuple[Tensor, Tensor]:
    """The best score of each row and where it is: from the left, one that is better by more than ``-newer`` goes on.

    Args:
        scores: (n, N), -inf for none.
        newer: (n,).

    >>> _tournament(torch.tensor([[1.0, 0.9, 0.7]]), torch.tensor([0.15]))
    (tensor([0.9000]), tensor([1]))
    """
    best, at = scores[:, 0], torch.zeros_like(scores[:, 0], dtype=torch.int64)
    for place, score in enumerate(scores.unbind(1)[1:], start=1):
        wins = score + newer > best
        best, at = torch.where(wins, score, best), torch.where(wins, place, at)
    return best, at
