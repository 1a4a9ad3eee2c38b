import numpy as np
import pytest
from scipy import sparse

from fedscgen.datasets import prepare, simulate_sites


@pytest.fixture(scope="module")
def raw():
    """Counts of 300 cells, two of which have too few genes."""
    adata = simulate_sites(n_sites=3, n_types=4, n_cells=300, n_genes=600)
    counts = adata.layers.pop("counts").toarray()
    counts[[7, 200], 150:] = 0
    adata.X = sparse.csr_matrix(counts.astype(np.float32))
    return adata


def test_raw_counts_are_log_normalised_and_reduced_to_dispersed_genes(raw):
    prepared = prepare(raw, scale=False)
    assert prepared.obs_names.tolist() == raw.obs_names.delete([7, 200]).tolist()
    assert 0 < prepared.n_vars < raw.n_vars
    counts = raw[prepared.obs_names].X
    expected = np.log1p(counts.multiply(1e4 / counts.sum(axis=1)).toarray())
    assert sparse.issparse(prepared.X)
    genes = raw.var_names.get_indexer(prepared.var_names)
    np.testing.assert_allclose(prepared.X.toarray(), expected[:, genes], rtol=1e-5)
    assert (prepared.layers["counts"] != counts[:, genes]).nnz == 0


def test_dispersed_genes_are_those_of_the_published_order_of_steps(raw):
    """By the dispersion of normalised counts before the logarithm, relative to genes of about the same mean."""
    counts = raw.X.toarray().astype(np.float64)
    counts = counts[(counts > 0).sum(axis=1) >= 200]
    normalised = 1e4 * counts / counts.sum(axis=1, keepdims=True)
    expressed = normalised.any(axis=0)
    mean, variance = normalised[:, expressed].mean(axis=0), normalised[:, expressed].var(axis=0, ddof=1)
    log_mean, log_dispersion = np.log1p(mean), np.log(variance / mean)
    lowest = log_mean.min() if expressed.all() else 0.0
    bins = np.ceil((log_mean - lowest) / (log_mean.max() - lowest) * 20)  # 20 alike, closed above
    chosen = []
    for gene, name in enumerate(raw.var_names[expressed]):
        peers = log_dispersion[bins == bins[gene]]
        normed = (log_dispersion[gene] - peers.mean()) / peers.std(ddof=1) if len(peers) > 1 else 1.0
        if normed > 0.5 and 0.0125 < log_mean[gene] < 3:
            chosen.append(name)
    kept = set(prepare(raw, scale=False).var_names)
    assert len(kept ^ set(chosen)) <= 0.02 * len(kept)  # genes at the edge of a bin


def test_scaling_gives_every_gene_mean_0_and_standard_deviation_1(raw):
    scaled, unscaled = prepare(raw), prepare(raw, scale=False)
    assert isinstance(scaled.X, np.ndarray)
    assert scaled.X.max() <= 10
    assert scaled.X.min() < 0
    values = unscaled.X.toarray()
    expected = ((values - values.mean(axis=0)) / values.std(axis=0, ddof=1)).clip(max=10)
    np.testing.assert_allclose(scaled.X, expected, atol=1e-4)
    assert (scaled.layers["counts"] != unscaled.layers["counts"]).nnz == 0


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_every_form_of_counts_gives_the_same(raw, form, dtype):
    same = raw.copy()
    same.X = form(raw.X.toarray().astype(dtype))
    one, other = prepare(same), prepare(raw)
    assert one.var_names.tolist() == other.var_names.tolist()
    np.testing.assert_allclose(one.X, other.X, atol=1e-5)


def test_raw_data_are_not_altered(raw):
    before = raw.copy()
    prepare(raw)
    assert (raw.X != before.X).nnz == 0
    assert not raw.layers
    assert raw.obs.equals(before.obs)
    assert raw.var.equals(before.var)


def test_prepared_data_are_left_as_they_are(raw, demo):
    assert prepare(demo) is demo
    scaled = prepare(raw)
    assert prepare(scaled) is scaled
    presence = raw.copy()
    presence.X = (raw.X > 0).astype(np.float32)
    assert prepare(presence) is presence


def test_unlogged_values_that_are_not_whole_are_prepared_without_counts(raw):
    per_million = raw.copy()
    per_million.X = sparse.csr_matrix(raw.X.multiply(1e6 / raw.X.sum(axis=1)))
    prepared = prepare(per_million, scale=False)
    assert "counts" not in prepared.layers
    np.testing.assert_allclose(prepared.X.toarray(), prepare(raw, scale=False).X.toarray(), rtol=1e-4)


def test_cells_with_too_few_genes_are_an_error_with_a_remedy(raw):
    small = raw[:, :150].copy()
    with pytest.raises(ValueError, match="none of 300 cells has 200 of 150 genes detected: lower min_genes"):
        prepare(small)
    assert prepare(small, min_genes=20).n_obs > 250


def test_genes_that_do_not_vary_are_an_error(raw):
    alike = raw[:50].copy()
    alike.X = np.full(alike.shape, 2.0, dtype=np.float32)
    with pytest.raises(ValueError, match="none of 600 genes is dispersed"):
        prepare(alike)
