"""The equations of the classifier, and of what encodes sequences. Tensors in, tensors out.

Shape legend: B queries, M support objects, D embedding size, C classes.

Source: V. Nikolaev, "Differentiable metric methods based on memory models" (thesis, Moscow State University, 2017);
equation numbers are the thesis's.
"""

from memlab.functional.class_read import (
    LOG2_E,
    SAFE_SCORE,
    ClassRead,
    ClassSums,
    are_bounded,
    class_scores,
    class_scores_gradient,
    lowest_scores,
    read,
    read_cells,
)
from memlab.functional.loss import ABSENT_MASS, OwnRead, answers, class_log_mass, nll, own_nll, own_read
from memlab.functional.measures import balanced_accuracy, brier, macro_f1, own_margin, within_top
from memlab.functional.recurrent import cudnn_gru, elman, gru, jordan, lstm, peephole
from memlab.functional.runs import sums_by_class
from memlab.functional.scores import dot_scores, exclude_rows, root_scores, root_scores_, root_slopes
from memlab.functional.selection import class_turns, greedy_medoids
from memlab.functional.sequences import backwards, pool_attention, pool_last, pool_max, pool_mean, window
from memlab.functional.value_read import (
    ValueRead,
    Values,
    ValueSums,
    merged_value_reads,
    value_read,
    value_read_gradient,
    value_read_shares,
)

__all__ = [
    "ABSENT_MASS",
    "LOG2_E",
    "SAFE_SCORE",
    "ClassRead",
    "ClassSums",
    "OwnRead",
    "ValueRead",
    "ValueSums",
    "Values",
    "answers",
    "are_bounded",
    "backwards",
    "balanced_accuracy",
    "brier",
    "class_log_mass",
    "class_scores",
    "class_scores_gradient",
    "class_turns",
    "cudnn_gru",
    "dot_scores",
    "elman",
    "exclude_rows",
    "greedy_medoids",
    "gru",
    "jordan",
    "lowest_scores",
    "lstm",
    "macro_f1",
    "merged_value_reads",
    "nll",
    "own_margin",
    "own_nll",
    "own_read",
    "peephole",
    "pool_attention",
    "pool_last",
    "pool_max",
    "pool_mean",
    "read",
    "read_cells",
    "root_scores",
    "root_scores_",
    "root_slopes",
    "sums_by_class",
    "value_read",
    "value_read_gradient",
    "value_read_shares",
    "window",
    "within_top",
]
