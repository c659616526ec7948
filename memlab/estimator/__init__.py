"""scikit-learn's contract over a training and the memory that it leaves."""

from memlab.estimator.classifier import MemoryClassifier

__all__ = ["MemoryClassifier"]
