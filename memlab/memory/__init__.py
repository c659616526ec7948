"""The memory modes: one read of a support set, equal results, different cost.

A memory maps encoded queries and a support to class scores (B, C); their log_softmax is the log of the class mass
(eq. 13). Gradients reach the encoder through the queries and through the keys.
"""

from memlab.memory.chunked import ChunkedMemory
from memlab.memory.full import FullMemory

__all__ = ["ChunkedMemory", "FullMemory"]
