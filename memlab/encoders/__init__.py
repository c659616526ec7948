"""Encoders ``f: x -> u``, one for queries and support objects alike (eqs. 11, 12 and 14).

Every encoder takes the shape of one object, so that data and encoder are chosen apart, and gives embeddings (B, D).
None made here looks across the batch: an object's embedding does not depend on what it is encoded with. Backbones of
torchvision may, by their BatchNorm.
"""

from memlab.encoders.backbones import TorchvisionBackbone
from memlab.encoders.dropout import Dropout
from memlab.encoders.images import Conv, LeNet, ResNet
from memlab.encoders.projection import Projected
from memlab.encoders.recurrent import GRU, LSTM, Elman, Jordan, PeepholeLSTM
from memlab.encoders.sequences import SequenceEncoder
from memlab.encoders.step_convolutions import FCN
from memlab.encoders.tables import TableEncoder
from memlab.encoders.texts import Bag, TextConv, TextEncoder
from memlab.encoders.transformers import Transformer
from memlab.encoders.vectors import MLP, Linear

__all__ = [
    "FCN",
    "GRU",
    "LSTM",
    "MLP",
    "Bag",
    "Conv",
    "Dropout",
    "Elman",
    "Jordan",
    "LeNet",
    "Linear",
    "PeepholeLSTM",
    "Projected",
    "ResNet",
    "SequenceEncoder",
    "TableEncoder",
    "TextConv",
    "TextEncoder",
    "TorchvisionBackbone",
    "Transformer",
]
