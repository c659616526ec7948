"""Where labelled objects come from: each loader gives all of them and the split into training and test."""

from memlab.datasets.labelled import LabelledData, stratified_split
from memlab.datasets.scikit_learn import digits, synthetic_table
from memlab.datasets.torchvision_images import torchvision_images

__all__ = ["LabelledData", "digits", "stratified_split", "synthetic_table", "torchvision_images"]
