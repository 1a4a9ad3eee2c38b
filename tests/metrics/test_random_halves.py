import numpy as np
import pytest
from scipy import sparse, stats

from fedscgen.metrics import halves_accuracy, n_different_genes


def test_halves_that_nothing_tells_apart_are_guessed_and_others_are_not():
    rng = np.random.default_rng(0)
    halves = rng.permutation(np.repeat(["a", "b"], 200))
    cells = rng.normal(size=(400, 5))
    assert halves_accuracy(cells, halves) == pytest.approx(0.5, abs=0.08)
    assert halves_accuracy(cells + 9 * (halves == "a")[:, None], halves) == 1


def test_accuracy_is_balanced():
    """A classifier that always says the commoner half is right in half of the cases."""
    rng = np.random.default_rng(0)
    halves = rng.permutation(np.repeat(["a", "b"], [380, 20]))
    assert halves_accuracy(rng.normal(size=(400, 5)), halves) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix])
def test_genes_that_differ_are_counted_as_scipy_does_one_by_one(make):
    rng = np.random.default_rng(0)
    halves = np.repeat(["a", "b"], 40)
    expression = rng.poisson(1.0, size=(80, 300)).astype(float)
    expression[:40, :12] += 2
    expression[:, 299] = 0
    p = [stats.mannwhitneyu(gene[:40], gene[40:]).pvalue for gene in expression.T[:299]]
    expected = (stats.false_discovery_control([*p, 1.0]) < 0.05).sum()
    assert n_different_genes(make(expression), halves) == expected
    assert 12 <= expected <= 14


def test_what_can_not_be_compared_is_said():
    with pytest.raises(ValueError, match="there are 3 halves: two are compared"):
        halves_accuracy(np.eye(30), ["a", "b", "c"] * 10)
    with pytest.raises(ValueError, match="halves of 26 and 4 cells: at least 5 each and 19 in all"):
        halves_accuracy(np.eye(30), ["a"] * 26 + ["b"] * 4)
