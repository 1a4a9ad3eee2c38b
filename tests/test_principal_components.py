"""Principal components from sums over sites: what they equal, and what goes into them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from fedscgen.aggregation import weighted_sum
from fedscgen.principal_components import MEAN, PRODUCT, find_principal_components, list_widths, second_moments


def make_cells(n_cells=200, n_genes=40, n_directions=5, seed=0):
    """Cells that vary along few directions, and a little along all."""
    rng = np.random.default_rng(seed)
    strength = np.geomspace(8, 2, n_directions)
    signal = rng.normal(size=(n_cells, n_directions)) * strength @ rng.normal(size=(n_directions, n_genes))
    return 3 + signal + rng.normal(0, 0.5, (n_cells, n_genes))


def mean_over(sites):
    def mean_over_sites(basis):
        n_cells = [len(cells) for cells in sites]
        sums = weighted_sum(zip((second_moments([cells], basis) for cells in sites), n_cells, strict=True))
        return {name: array / sum(n_cells) for name, array in sums.items()}

    return mean_over_sites


def numpy_components(cells, n_components):
    _, singular_values, axes = np.linalg.svd(cells - cells.mean(axis=0), full_matrices=False)
    return singular_values[:n_components], axes[:n_components]


def test_components_over_sites_equal_those_of_all_cells_together():
    cells = make_cells()
    found = find_principal_components(mean_over(np.split(cells, [20, 110])), 40, 5)
    _, axes = numpy_components(cells, 5)
    np.testing.assert_allclose(found.center, cells.mean(axis=0))
    np.testing.assert_allclose(np.abs(found.axes @ axes.T), np.eye(5), atol=1e-5)


def test_components_explain_what_exact_ones_do_on_real_cells(pbmc):
    cells = pbmc.X.toarray().astype(np.float64)
    sites = [cells[pbmc.obs["batch"] == batch] for batch in pbmc.obs["batch"].cat.categories]
    found = find_principal_components(mean_over(sites), cells.shape[1], 10)
    explained = ((cells - found.center) @ found.axes.T).var(axis=0).sum()
    exact = (numpy_components(cells, 10)[0] ** 2).sum() / len(cells)
    assert 0.999 * exact < explained <= exact * (1 + 1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 12), st.integers(1, 15), st.integers(0, 2**16))
def test_axes_are_orthonormal_with_zeros_where_genes_run_out(n_genes, n_components, seed):
    cells = np.random.default_rng(seed).normal(size=(30, n_genes))
    _, axes = find_principal_components(mean_over([cells]), n_genes, n_components)
    assert axes.shape == (n_components, n_genes)
    expected = np.diag((np.arange(n_components) < n_genes).astype(float))
    np.testing.assert_allclose(axes @ axes.T, expected, atol=1e-8)


def test_cells_that_are_all_alike_give_finite_axes():
    components = find_principal_components(mean_over([np.ones((5, 8))]), 8, 3)
    assert np.isfinite(components.axes).all()


@pytest.mark.parametrize("as_matrix", [np.asarray, sparse.csr_matrix, sparse.csr_array])
def test_moments_of_pieces_equal_those_of_the_whole(as_matrix):
    cells, basis = make_cells(), np.random.default_rng(1).normal(size=(40, 3))
    pieces = [as_matrix(piece.astype(np.float32)) for piece in np.split(cells, [7, 60])]
    moments = second_moments(pieces, basis)
    np.testing.assert_allclose(moments[MEAN], cells.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(moments[PRODUCT], cells.T @ cells @ basis / len(cells), rtol=1e-4, atol=1e-3)


def record_bases(cells, n_components):
    bases = []

    def mean_over_sites(basis):
        bases.append(basis)
        return second_moments([cells], basis)

    return find_principal_components(mean_over_sites, cells.shape[1], n_components), bases


@pytest.mark.parametrize(("n_genes", "widths"), [(300, [25] * 4), (60, [25, 25, 10]), (25, [25]), (3, [3])])
def test_no_direction_is_asked_twice(n_genes, widths):
    _, bases = record_bases(np.random.default_rng(0).normal(size=(200, n_genes)), 5)
    assert [basis.shape[1] for basis in bases] == widths == list_widths(n_genes, 5)
    together = np.hstack(bases)
    np.testing.assert_allclose(together.T @ together, np.eye(sum(widths)), atol=1e-12)


def test_what_rounding_alone_tells_is_not_asked_along():
    """Few cells vary along few directions: which others are asked along is the same on every machine."""
    cells = np.random.default_rng(0).normal(size=(6, 300))
    rounded = cells * (1 + 1e-14 * np.random.default_rng(1).normal(size=cells.shape))
    (found, bases), (_, others) = record_bases(cells, 10), record_bases(rounded, 10)
    for basis, other in zip(bases, others, strict=True):
        np.testing.assert_allclose(basis, other, atol=1e-4)
    np.testing.assert_allclose(np.abs(found.axes[:5] @ numpy_components(cells, 5)[1].T), np.eye(5), atol=1e-6)
