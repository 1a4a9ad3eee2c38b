import numpy as np
import pytest
from scipy import sparse
from scipy.stats import spearmanr

from fedscgen.metrics import expression_conservation

N_GENES = 60


@pytest.fixture(scope="module")
def expression():
    """Expression with many ties before and after, of two batches and three types; b holds three cells of z."""
    rng = np.random.default_rng(0)
    batch = np.repeat(["a", "b"], [90, 53])
    labels = np.concatenate([np.repeat(["x", "y", "z"], 30), np.repeat(["x", "y", "z"], [30, 20, 3])])
    programs = {name: rng.gamma(1.0, size=N_GENES) for name in "xyz"}
    before = rng.poisson(np.stack([programs[name] for name in labels])).astype(np.float32)
    after = before + rng.normal(scale=0.5, size=before.shape).round(1)
    return before, after, batch, labels


def by_group(before, after, batch, labels, min_cells, n_markers):
    """The same by loops over the groups, with scipy's correlation."""
    correlations, overlaps = [], []
    for site in np.unique(batch):
        for name in np.unique(labels):
            own, others = (batch == site) & (labels == name), (batch == site) & (labels != name)
            if own.sum() < min_cells:
                continue
            correlations.append(spearmanr(before[own].mean(axis=0), after[own].mean(axis=0)).statistic)
            tops = []
            for expression in (before, after):
                excess = expression[own].mean(axis=0) - expression[others].mean(axis=0)
                tops.append(set(np.argsort(-excess, kind="stable")[:n_markers]))
            overlaps.append(len(tops[0] & tops[1]) / n_markers)
    return correlations, overlaps


@pytest.mark.parametrize(("min_cells", "n_groups"), [(10, 5), (1, 6)])
def test_all_groups_at_once_equal_one_at_a_time(expression, min_cells, n_groups):
    before, after, batch, labels = expression
    before, after = before.astype(float), after.astype(float)
    values = expression_conservation(before, after, batch, labels, min_cells=min_cells, n_markers=7)
    correlations, overlaps = by_group(before, after, batch, labels, min_cells, 7)
    assert len(correlations) == n_groups
    assert values["expression_spearman"] == pytest.approx(np.mean(correlations), abs=1e-12)
    assert values["expression_spearman_min"] == pytest.approx(np.min(correlations), abs=1e-12)
    assert values["marker_overlap"] == pytest.approx(np.mean(overlaps), abs=1e-12)
    assert 0 < values["expression_spearman_min"] < values["expression_spearman"] < 1
    assert 0 < values["marker_overlap"] < 1


def test_expression_that_has_not_changed_scores_one_and_reversed_minus_one(expression):
    before, _, batch, labels = expression
    same = expression_conservation(before, before, batch, labels)
    assert list(same.values()) == pytest.approx([1, 1, 1])
    reversed_ = expression_conservation(before, -before, batch, labels)
    assert reversed_["expression_spearman"] == pytest.approx(-1)
    assert reversed_["marker_overlap"] == 0


def test_a_uniform_shift_of_a_site_changes_nothing(expression):
    """What a batch effect of the same size in all genes would need."""
    before, _, batch, labels = expression
    moved = before + np.where(batch == "a", 5.0, 0.0)[:, None]
    values = expression_conservation(before, moved, batch, labels)
    assert list(values.values()) == pytest.approx([1, 1, 1])


def test_sparse_and_dense_give_the_same(expression):
    before, after, batch, labels = expression
    dense = expression_conservation(before, after, batch, labels)
    mixed = expression_conservation(sparse.csc_matrix(before), after, batch, labels)
    assert mixed == pytest.approx(dense)
    assert expression_conservation(sparse.csr_matrix(before), sparse.coo_matrix(after), batch, labels) == dense


def test_collapsed_expression_keeps_nothing(expression):
    before, _, batch, labels = expression
    values = expression_conservation(before, np.ones_like(before), batch, labels)
    assert values["expression_spearman"] == values["expression_spearman_min"] == 0


def test_a_single_type_has_no_markers(expression):
    before, after, batch, _ = expression
    values = expression_conservation(before, after, batch, np.full(len(batch), "x"))
    assert np.isnan(values["marker_overlap"])
    assert values["expression_spearman"] > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"after": np.ones((5, N_GENES))}, r"shape \(143, 60\), after \(5, 60\)"),
        ({"after": np.full((143, N_GENES), np.nan)}, "expression after is not finite"),
        ({"before": np.ones(143)}, r"expression before has shape \(143,\)"),
        ({"min_cells": 31}, "no cell type has 31 cells in a batch: lower min_cells"),
        ({"n_markers": 60}, "60 genes: more than n_markers=60"),
        ({"batch": ["a"]}, r"batch has shape \(1,\)"),
    ],
)
def test_what_cannot_be_compared_is_refused(expression, change, message):
    arguments = dict(zip(("before", "after", "batch", "labels"), expression, strict=True)) | change
    with pytest.raises(ValueError, match=message):
        expression_conservation(**arguments)
