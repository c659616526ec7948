"""What a user would take instead of a trained memory, on the same split."""

from memlab.baselines.baseline import Baseline
from memlab.baselines.nearest_neighbours import PCAKNN, EmbeddingKNN, PixelKNN
from memlab.baselines.questions import AnswerPrior, NGrams, StoryBaseline
from memlab.baselines.tangent_distance import TangentDistanceKNN
from memlab.baselines.time_warping import SequenceKNN

__all__ = [
    "PCAKNN",
    "AnswerPrior",
    "Baseline",
    "EmbeddingKNN",
    "NGrams",
    "PixelKNN",
    "SequenceKNN",
    "StoryBaseline",
    "TangentDistanceKNN",
]
