"""What a user would take instead of a trained memory, on the same split."""

from memlab.baselines.baseline import Baseline
from memlab.baselines.nearest_neighbours import PCAKNN, EmbeddingKNN, PixelKNN
from memlab.baselines.tangent_distance import TangentDistanceKNN

__all__ = ["PCAKNN", "Baseline", "EmbeddingKNN", "PixelKNN", "TangentDistanceKNN"]
