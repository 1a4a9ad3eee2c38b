"""A model of all genes that any site holds: where a site lacks some, it is as if its cells did not express them."""

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from cells import SMALL
from fedscgen.federation import FederationSettings, InProcessTransport, Server
from fedscgen.secure import PlainAggregator
from quick import QUICK, make_client, simulate

ORDER = [*(f"gene{i}" for i in range(8, 30)), *(f"gene{i}" for i in range(5)), "gene5", "gene6", "gene7"]


def three_sites(adata):
    """Sites a, b and c, each with other genes: together all 30, in ``ORDER``; c's are in an order of its own."""
    return {
        "a": adata[:60, [*range(8, 30), *range(5)]].copy(),
        "b": adata[60:110, range(25)].copy(),
        "c": adata[110:, range(27, 4, -1)].copy(),
    }


def run(parts, genes="union", **options):
    aggregator = PlainAggregator()
    clients = [
        make_client(site, cells, aggregator.contributor(site), seed=i, **options)
        for i, (site, cells) in enumerate(parts.items())
    ]
    settings = FederationSettings(n_rounds=2, n_epochs=1, model=SMALL, genes=genes)
    server = Server(InProcessTransport(clients), aggregator, settings)
    server.run()
    return server, clients


def padded_by_hand(cells):
    """The cells with every gene, all zero where they are missing."""
    values = cells.to_df().reindex(columns=ORDER, fill_value=0.0).to_numpy(np.float32)
    return AnnData(sparse.csr_matrix(values), obs=cells.obs, var=pd.DataFrame(index=ORDER))


@pytest.mark.parametrize("options", [{}, {"denoise": True}, {"reencode": True, "expression": "X"}])
def test_a_union_equals_cells_that_were_padded_with_zeros_by_hand(adata, options):
    parts = three_sites(adata)
    server, clients = run(parts, **options)
    _, padded = run({site: padded_by_hand(cells) for site, cells in parts.items()}, "intersection", **options)
    assert server.genes == ORDER
    for client, oracle in zip(clients, padded, strict=True):
        corrected, expected = client.corrected, oracle.corrected[:, client.corrected.var_names]
        assert set(corrected.obsm) - {"X_given"} == set(expected.obsm)
        for key in expected.obsm:
            np.testing.assert_array_equal(corrected.obsm[key], expected.obsm[key])
        layer = None if options.get("expression") == "X" else "fedscgen_corrected"
        np.testing.assert_array_equal(corrected.to_df(layer), expected.to_df(layer))


def test_a_site_gets_back_its_own_genes_in_its_own_order(adata):
    parts = three_sites(adata)
    _, clients = run(parts)
    for client in clients:
        cells = parts[client.site]
        assert list(client.corrected.var_names) == list(cells.var_names)
        assert list(client.corrected.obs_names) == list(cells.obs_names)
        pd.testing.assert_frame_equal(client.corrected.var, cells.var)
        predicted = ["fedscgen_cell_type", "fedscgen_confidence", "fedscgen_label_conflict", "fedscgen_moved"]
        pd.testing.assert_frame_equal(client.corrected.obs.drop(columns=predicted), cells.obs)
        assert (client.corrected.X != cells.X).nnz == 0
        assert sparse.issparse(client.corrected.layers["fedscgen_corrected"])


def test_padding_keeps_sparse_cells_sparse_and_leaves_the_input_alone(adata):
    parts = three_sites(adata)
    before = {site: cells.copy() for site, cells in parts.items()}
    _, clients = run(parts)
    for client in clients:
        working, own = client.model.adata.X, before[client.site].X
        assert sparse.issparse(working)
        assert working.shape == (own.shape[0], 30)
        assert working.nnz == own.nnz
        cells = parts[client.site]
        assert (own != cells.X).nnz == 0
        assert list(cells.obs.columns) == list(before[client.site].obs.columns)
        assert not cells.layers
        assert not cells.uns


@pytest.mark.parametrize("convert", [np.asarray, sparse.csc_matrix], ids=["dense", "by column"])
def test_other_kinds_of_matrices_are_padded_alike(adata, convert):
    parts = three_sites(adata)
    _, expected = run(parts)
    for cells in parts.values():
        cells.X = convert(cells.X.toarray())
    _, clients = run(parts)
    for client, oracle in zip(clients, expected, strict=True):
        np.testing.assert_allclose(client.corrected.obsm["X_fedscgen"], oracle.corrected.obsm["X_fedscgen"], atol=1e-5)
        np.testing.assert_allclose(
            client.corrected.to_df("fedscgen_corrected"), oracle.corrected.to_df("fedscgen_corrected"), atol=1e-5
        )


def test_expression_in_a_layer_is_padded_too(adata):
    parts = three_sites(adata)
    _, expected = run(parts)
    for cells in parts.values():
        cells.layers["log"], cells.X = cells.X, sparse.csr_matrix(cells.shape, dtype=np.float32)
    _, clients = run(parts, layer="log")
    for client, oracle in zip(clients, expected, strict=True):
        np.testing.assert_array_equal(client.corrected.obsm["X_fedscgen"], oracle.corrected.obsm["X_fedscgen"])
        assert client.corrected.X.nnz == 0


def test_predicted_types_come_back_to_a_site_that_lacks_genes(adata):
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.add_categories("unknown")
    adata.obs.iloc[::10, adata.obs.columns.get_loc("cell_type")] = "unknown"
    _, clients = run(three_sites(adata), unlabeled_category="unknown", min_confidence=0.0)
    for client in clients:
        obs = client.corrected.obs
        assert obs["fedscgen_cell_type"].notna().all()
        assert "unknown" not in set(obs["fedscgen_cell_type"])
        assert obs["fedscgen_confidence"].between(0, 1).all()
        assert obs["fedscgen_label_conflict"].dtype == bool


def test_genes_that_are_missing_somewhere_are_counted_in_the_log(adata, caplog):
    run(three_sites(adata))
    assert "13 genes are not held by every site and zero where they are missing (gene0, gene1, " in caplog.text


def test_a_simulation_takes_the_union_and_its_model_knows_every_gene(adata):
    parts = three_sites(adata)
    result = simulate(parts, "hospital", genes="union", **QUICK)
    assert result.genes == result.model.genes == ORDER
    own = parts["c"].to_df()
    of_model = result.model.adata[own.index].to_df()
    np.testing.assert_array_equal(of_model[own.columns], own)
    assert not of_model.drop(columns=own.columns).to_numpy().any()
    assert list(result.corrected.var_names) == ORDER
    of_result = result.corrected[own.index].to_df("fedscgen_corrected")
    assert not of_result.drop(columns=own.columns).to_numpy().any()
    assert ((of_result[own.columns] > 0) <= (own > 0)).all(axis=None)
    holders = [sum(gene in cells.var_names for cells in parts.values()) for gene in ORDER]
    assert list(result.corrected.var["n_sites"]) == holders
    whole = simulate({site: padded_by_hand(cells) for site, cells in parts.items()}, "hospital", **QUICK)
    np.testing.assert_allclose(result.corrected.obsm["X_fedscgen"], whole.corrected.obsm["X_fedscgen"], atol=1e-5)


def test_a_site_with_names_of_its_own_is_refused_also_from_a_union(adata):
    parts = three_sites(adata)
    parts["b"].var_names = [f"other{i}" for i in range(25)]
    with pytest.raises(
        ValueError, match=r"site 'b' shares no gene with others \(first of each: 'a': 'gene8', 'b': 'ot"
    ):
        run(parts)


@pytest.mark.filterwarnings("ignore:the sites have only 0 genes in common:UserWarning")
def test_genes_that_no_two_sites_hold_do_not_stop_a_union(adata):
    """No gene is held by all three, but each site shares some with another."""
    parts = {"a": adata[:60, :12].copy(), "b": adata[60:110, 10:22].copy(), "c": adata[110:, 20:].copy()}
    server, _ = run(parts)
    assert server.genes == list(adata.var_names)


def test_an_unknown_choice_of_genes_is_refused():
    with pytest.raises(ValueError, match="unknown genes 'all': choose one of 'intersection', 'union'"):
        FederationSettings(genes="all")
