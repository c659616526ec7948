"""How a support is read: one read at different cost; full and chunked give equal results, topk at K = M.

Beside them stand two that have one key for each class, to be compared with: linear and prototypes. What they have in
common is in `memlab.memory.memory`, how keys are read in evaluation in `memlab.memory.reading`, what queries take up
before the class is read in `memlab.memory.hops`; `memlab.memory.shards` shares the work out over processes.
"""

from memlab.memory.chunked import ChunkedMemory
from memlab.memory.class_keys import LinearMemory, PrototypeMemory
from memlab.memory.full import FullMemory
from memlab.memory.hops import Hops
from memlab.memory.memory import Memory
from memlab.memory.reading import ReadAll, ReadTopK
from memlab.memory.shards import sharded
from memlab.memory.similarity import Cosine, Distance, Dot, Euclidean, Similarity
from memlab.memory.stored_keys import StoredKeys
from memlab.memory.topk import TopKMemory

__all__ = [
    "ChunkedMemory",
    "Cosine",
    "Distance",
    "Dot",
    "Euclidean",
    "FullMemory",
    "Hops",
    "LinearMemory",
    "Memory",
    "PrototypeMemory",
    "ReadAll",
    "ReadTopK",
    "Similarity",
    "StoredKeys",
    "TopKMemory",
    "sharded",
]
