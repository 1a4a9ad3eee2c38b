"""Kinds of experiment: what each asks, and whether a method had seen the labels with which it is scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "hidden_labels", "unlabelled_site", "unlabelled_newcomer", "finer_labels", "random_split", "label_noise",
    "renamed_type", "integration", "expression", "tuning", "batch_out",
]  # fmt: skip
Scoring = Literal["unseen labels", "altered labels", "given labels"]
"""What a method is scored with: labels that it wasn't given, the true ones where it was given others, or its own."""


@dataclass(frozen=True)
class KindOfExperiment:
    """What a kind of experiment asks.

    Parameters
    ----------
    title
        What pages call it.
    scoring
        Whether the method had seen the labels with which it is scored.
    meaning
        What is done and measured, in a sentence or two.
    summary
        The scores that count most; the first says most of all.
    keys
        What an experiment of this kind may set, besides what all have.
    shares
        Shares of cells that are tried, where an experiment says nothing.
    hides_labels
        Whether methods are given cells without a label.
    """

    title: str
    scoring: Scoring
    meaning: str
    summary: tuple[str, ...]
    keys: frozenset[str] = frozenset()
    shares: tuple[float, ...] = ()
    hides_labels: bool = False


KINDS: Mapping[str, KindOfExperiment] = {
    "hidden_labels": KindOfExperiment(
        "labels hidden",
        "unseen labels",
        "A random share of each site's cells has no label, and these cells alone are scored, with the labels that were "
        "hidden.",
        ("total", "scib total", "accuracy", "macro-F1"),
        frozenset({"shares"}),
        (0.5, 0.8, 0.95),
        hides_labels=True,
    ),
    "unlabelled_site": KindOfExperiment(
        "a site without labels",
        "unseen labels",
        "Each site in turn takes part without any label. Scores are of its cells together with those of the others, "
        "whose labels were given; accuracy is of its cells alone.",
        ("total", "scib total", "accuracy", "macro-F1"),
        hides_labels=True,
    ),
    "unlabelled_newcomer": KindOfExperiment(
        "a newcomer without labels",
        "unseen labels",
        "Each site in turn is left out of training, and is corrected afterwards without any label. Scores are of its "
        "cells together with those of the others, whose labels were given; accuracy is of its cells alone.",
        ("total", "scib total", "accuracy", "macro-F1"),
        hides_labels=True,
    ),
    "finer_labels": KindOfExperiment(
        "finer labels",
        "unseen labels",
        "Methods are given coarse labels, and are scored with finer ones: do differences within a type survive?",
        ("total", "scib total", "bio", "batch"),
    ),
    "random_split": KindOfExperiment(
        "a type split at random",
        "altered labels",
        "A control: one type is given as two, drawn at random, 70 to 30 at every other site and 30 to 70 at the rest. "
        "No biology tells the two apart, so that what separates them has been invented.",
        ("split_accuracy", "split_accuracy_gain", "split_genes", "invented_genes", "TDI", "total"),
        frozenset({"cell_type"}),
    ),
    "label_noise": KindOfExperiment(
        "wrong labels",
        "altered labels",
        "A share of a site's cells, or of all sites', is given the label of another type; all cells are scored with "
        "the true ones. Accuracy is of the cells with a wrong label: do they lie where they belong?",
        ("total", "scib total", "accuracy", "macro-F1"),
        frozenset({"shares", "noisy_sites"}),
        (0.2,),
    ),
    "renamed_type": KindOfExperiment(
        "a type with another name at one site",
        "altered labels",
        "One site calls a type otherwise; all cells are scored with the common name. Accuracy is of the cells with the "
        "other name: do they lie where they belong?",
        ("total", "scib total", "accuracy", "macro-F1"),
        frozenset({"cell_type"}),
    ),
    "integration": KindOfExperiment(
        "integration of all batches",
        "given labels",
        "All batches of a data set are integrated together.",
        ("total", "bio", "batch", "scib total", "TDI"),
    ),
    "expression": KindOfExperiment(
        "meaning of corrected expression",
        "given labels",
        "Does corrected expression say what it said of a type?",
        ("expression_spearman", "expression_spearman_min", "marker_overlap"),
    ),
    "tuning": KindOfExperiment(
        "length of training",
        "given labels",
        "A snapshot after each round, for several numbers of epochs per round.",
        (),
        frozenset({"n_rounds", "n_epochs"}),
    ),
    "batch_out": KindOfExperiment(
        "one batch left out",
        "given labels",
        "Each batch in turn is left out of training and corrected afterwards, with its own labels.",
        (),
        frozenset({"classifiers"}),
    ),
}
"""In the order in which pages show them: first what was scored on labels that no method had seen."""


def kinds_scored_with(*scorings: Scoring) -> tuple[str, ...]:
    """Names of the kinds that are scored so."""
    return tuple(name for name, kind in KINDS.items() if kind.scoring in scorings)
