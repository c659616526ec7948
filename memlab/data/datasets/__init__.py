"""Where labelled objects come from: each loader gives all of them and the split into training and test."""

from memlab.data.datasets.babi import babi
from memlab.data.datasets.image_folder import image_folder
from memlab.data.datasets.labelled import LabelledData, stratified_split
from memlab.data.datasets.options import varied
from memlab.data.datasets.scikit_learn import digits, synthetic_table
from memlab.data.datasets.sequence_file import sequences
from memlab.data.datasets.story_file import StoryData, story_file
from memlab.data.datasets.table import table
from memlab.data.datasets.tensor_file import tensor_file
from memlab.data.datasets.text_file import text
from memlab.data.datasets.torchvision_images import torchvision_images

__all__ = [
    "LabelledData",
    "StoryData",
    "babi",
    "digits",
    "image_folder",
    "sequences",
    "story_file",
    "stratified_split",
    "synthetic_table",
    "table",
    "tensor_file",
    "text",
    "torchvision_images",
    "varied",
]
