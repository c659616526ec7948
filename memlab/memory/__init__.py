"""The memory modes: one read of a support set, at different cost; full and chunked give equal results, topk at K = M.

Beside them stand two that have one key for each class, to be compared with: linear and prototypes.

A memory maps encoded queries and a support to class scores (B, C); their log_softmax is the log of the class mass
(eq. 13). Gradients reach the encoder through the queries and through the keys.
"""

from memlab.memory.chunked import ChunkedMemory
from memlab.memory.class_keys import LinearMemory, PrototypeMemory
from memlab.memory.full import FullMemory
from memlab.memory.topk import TopKMemory

__all__ = ["ChunkedMemory", "FullMemory", "LinearMemory", "PrototypeMemory", "TopKMemory"]
