"""Memory networks that answer questions over a story: each query has a support of its own."""

from memlab.questions.batch import StoryBatch
from memlab.questions.encoded import EncodedStories, StoryEncoder
from memlab.questions.items import ItemNetwork
from memlab.questions.lstm import LSTMReader
from memlab.questions.memn2n import MemN2N
from memlab.questions.memnn import MemNN
from memlab.questions.network import StoryNetwork, StoryRead

__all__ = [
    "EncodedStories",
    "ItemNetwork",
    "LSTMReader",
    "MemN2N",
    "MemNN",
    "StoryBatch",
    "StoryEncoder",
    "StoryNetwork",
    "StoryRead",
]
