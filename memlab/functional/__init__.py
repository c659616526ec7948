"""The equations of the classifier. Tensors in, tensors out.

Shape legend: B queries, M support objects, D embedding size, C classes.

Source: V. Nikolaev, "Differentiable metric methods based on memory models" (thesis, Moscow State University, 2017);
equation numbers are the thesis's.
"""

from memlab.functional.class_read import (
    ClassRead,
    ClassSums,
    class_scores,
    class_scores_gradient,
    class_sums,
    lowest_scores,
    merge_class_sums,
    read,
    read_cells,
    read_of_sums,
)
from memlab.functional.loss import ABSENT_MASS, absent_class, answers, class_log_mass, nll
from memlab.functional.measures import balanced_accuracy, brier, macro_f1, within_top
from memlab.functional.scores import dot_scores, exclude_rows

__all__ = [
    "ABSENT_MASS",
    "ClassRead",
    "ClassSums",
    "absent_class",
    "answers",
    "balanced_accuracy",
    "brier",
    "class_log_mass",
    "class_scores",
    "class_scores_gradient",
    "class_sums",
    "dot_scores",
    "exclude_rows",
    "lowest_scores",
    "macro_f1",
    "merge_class_sums",
    "nll",
    "read",
    "read_cells",
    "read_of_sums",
    "within_top",
]
