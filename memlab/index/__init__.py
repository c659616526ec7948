"""Who is near: indexes over vectors that find the k nearest of a query.

An index holds N vectors by their place, 0 to N - 1. It is made from tensors and never read from a file: a file of a
library's own format can run code or crash the process that loads it.

Metrics: ``inner product``, the nearest has the largest ``q . v``; ``L2``, the smallest ``|q - v|^2``.
"""

from memlab.index.approximate import HNSWIndex, IVFIndex
from memlab.index.exact import ExactIndex
from memlab.index.index import Index
from memlab.index.places import Places

__all__ = ["ExactIndex", "HNSWIndex", "IVFIndex", "Index", "Places"]
