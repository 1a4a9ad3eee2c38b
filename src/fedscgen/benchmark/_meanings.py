"""What the numbers of a benchmark say that aren't metrics of an embedding."""

from __future__ import annotations

from collections.abc import Mapping

from fedscgen.metrics import list_metrics

MEANINGS: Mapping[str, str] = {
    "expression_spearman": "genes of a type at a site rank by mean expression as they did before correction (Spearman)",
    "expression_spearman_min": "so they do in the type and site where it is worst",
    "marker_overlap": "the 20 genes that mark a type at a site still mark it (share)",
    "accuracy": "share of cells whose type is named correctly, of those whose type is asked for: by the method itself "
    "or, if it names none, by the more accurate of two classifiers on its embedding, k-NN and logistic",
    "macro-F1": "F1 score of the names of each type, mean over the types, by the same",
    "k-NN accuracy": "of 15 nearest neighbours in the embedding, trained on the cells of all sites that have a label",
    "k-NN macro-F1": "of the same",
    "logistic accuracy": "of a logistic regression on the embedding, trained on the cells that have a label",
    "logistic macro-F1": "of the same",
    "split_accuracy": "balanced accuracy of 15 nearest neighbours for one random half of a type against the other; "
    "0.5 says that nothing was invented, and lower is better",
    "split_accuracy_gain": "the same less that in the uncorrected components; lower is better",
    "split_genes": "genes of corrected expression that differ between the random halves at a false discovery rate of "
    "5 % (Wilcoxon); lower is better",
    "invented_genes": "the same less those that differ in uncorrected expression; lower is better",
    "AUC": "how far the classifier ranks a cell's own type above the others; guessing gives 0.5",
}
_LOWER_IS_BETTER = frozenset({"split_accuracy", "split_accuracy_gain", "split_genes", "invented_genes"})


def is_lower_better(metric: str) -> bool:
    """Whether less of it is better."""
    known = list_metrics().get(metric)
    return metric in _LOWER_IS_BETTER or (known is not None and known.lower_is_better)
