"""A trained memory without a trainer: encoder, statistics, keys, labels, ids and names, in a folder.

It predicts with its evidence, takes new objects and classes without training, and takes them out again. Neither
Lightning nor Hydra is needed, and nothing in the folder is executed.
"""

from memlab.trained.answer import Answer, AnswerEvidence
from memlab.trained.audit import Audit
from memlab.trained.changes import Receipt
from memlab.trained.condensation import Condensed, Measured
from memlab.trained.export import Comparison
from memlab.trained.memory import TrainedMemory, load
from memlab.trained.refusal import RefusedMemoryError

__all__ = [
    "Answer",
    "AnswerEvidence",
    "Audit",
    "Comparison",
    "Condensed",
    "Measured",
    "Receipt",
    "RefusedMemoryError",
    "TrainedMemory",
    "load",
]
