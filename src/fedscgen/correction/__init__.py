"""From latent vectors to where cells belong: pure numpy, vectorised, without AnnData and without a network.

References and shifts move each cell type of a batch to a common place. Landmarks (:func:`find_landmarks`) separate what
is common to all sites from what a batch adds, also where labels are missing; see ``docs/design/landmarks.md``.
"""

from fedscgen._types import ReferenceKind
from fedscgen.correction._classifier import Classifier
from fedscgen.correction._correct import (
    UNKNOWN,
    correct_latent,
    find_own_references,
    label_positions,
    name_cells,
    name_no_type,
    read_references,
    refuse_options_by_type,
    shift_latent,
    warn_of_lost_labels,
)
from fedscgen.correction._effects import BatchFit, Moved, move_to_landmarks
from fedscgen.correction._landmarks import (
    FEWEST_HOLDERS,
    LABEL_NOISE,
    Landmarks,
    NoMoreSumsError,
    Question,
    find_landmarks,
    seek_landmarks,
)
from fedscgen.correction._moved import NO_REFERENCE, Correction, check_moves, suggest_spelling, tabulate_moves
from fedscgen.correction._references import (
    NoSharedLabelError,
    Unlabeled,
    align_labels,
    apply_shifts,
    choose_references,
    include_batches,
    label_stats,
    label_stats_of,
    latent_shifts,
    mean_shifts,
    merge_references,
    predict_labels,
)
from fedscgen.correction._sums import LandmarkSums, expect_cells, find_few, sum_answers, weigh_labels

__all__ = [
    "FEWEST_HOLDERS",
    "LABEL_NOISE",
    "NO_REFERENCE",
    "UNKNOWN",
    "BatchFit",
    "Classifier",
    "Correction",
    "LandmarkSums",
    "Landmarks",
    "Moved",
    "NoMoreSumsError",
    "NoSharedLabelError",
    "Question",
    "ReferenceKind",
    "Unlabeled",
    "align_labels",
    "apply_shifts",
    "check_moves",
    "choose_references",
    "correct_latent",
    "expect_cells",
    "find_few",
    "find_landmarks",
    "find_own_references",
    "include_batches",
    "label_positions",
    "label_stats",
    "label_stats_of",
    "latent_shifts",
    "mean_shifts",
    "merge_references",
    "move_to_landmarks",
    "name_cells",
    "name_no_type",
    "predict_labels",
    "read_references",
    "refuse_options_by_type",
    "seek_landmarks",
    "shift_latent",
    "suggest_spelling",
    "sum_answers",
    "tabulate_moves",
    "warn_of_lost_labels",
    "weigh_labels",
]
