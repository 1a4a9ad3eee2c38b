"""From latent vectors to where cells belong: pure numpy, vectorised, without AnnData and without a network.

References and shifts move each cell type of a batch to a common place. Landmarks (:func:`find_landmarks`) separate what
is common to all sites from what a batch adds, also where labels are missing; see ``docs/design/landmarks.md``.
"""

from fedscgen.correction._classifier import Classifier
from fedscgen.correction._effects import BatchFit, LandmarkSums, Moved, move_to_landmarks, weigh_labels
from fedscgen.correction._landmarks import Landmarks, Question, find_landmarks
from fedscgen.correction._references import (
    NoSharedLabelError,
    ReferenceKind,
    Unlabeled,
    align_labels,
    apply_shifts,
    choose_references,
    include_batches,
    label_stats,
    latent_shifts,
    mean_shifts,
    merge_references,
    predict_labels,
)

__all__ = [
    "BatchFit",
    "Classifier",
    "LandmarkSums",
    "Landmarks",
    "Moved",
    "NoSharedLabelError",
    "Question",
    "ReferenceKind",
    "Unlabeled",
    "align_labels",
    "apply_shifts",
    "choose_references",
    "find_landmarks",
    "include_batches",
    "label_stats",
    "latent_shifts",
    "mean_shifts",
    "merge_references",
    "move_to_landmarks",
    "predict_labels",
    "weigh_labels",
]
