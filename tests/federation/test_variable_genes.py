"""Genes that the sites choose together by sums are those that scanpy chooses on all cells in one place."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from anndata import AnnData
from scipy import sparse

from attackers import SETTINGS, agreed, ask, make_clients, run
from cells import SMALL
from fedscgen._types import Message
from fedscgen.federation import FederationSettings, InProcessTransport, Server, SiteError
from fedscgen.federation._padding import padded_copy
from fedscgen.federation._program import NO_REFERENCES
from fedscgen.federation._variable_genes import choose_variable_genes, measure_variability
from fedscgen.model import FedSCGEN
from fedscgen.secure import PlainAggregator
from quick import QUICK, make_client, propose, simulate
from raw_counts import real_counts

KIND = "sums about genes"
pytestmark = pytest.mark.filterwarnings("ignore:`n_top_genes` > number of normalized:UserWarning")


@pytest.fixture(scope="module")
def blood():
    """700 measured cells, log-normalised, at three unequal sites, of which one lacks the cells of a type."""
    adata = real_counts()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    del adata.uns["log1p"]
    site = np.random.default_rng(0).choice(["a", "b", "c"], adata.n_obs, p=[0.6, 0.3, 0.1])
    site[adata.obs["cell_type"] == "CD56+ NK"] = "a"
    adata.obs["batch"] = pd.Categorical(site)
    return adata


def of_scanpy(adata, n_top):
    """Names that scanpy finds on the pooled cells, in their order."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`n_top_genes` \\(=\\d+\\) > number of normalized dispersions")
        found = sc.pp.highly_variable_genes(adata, n_top_genes=n_top, flavor="seurat", batch_key="batch", inplace=False)
    return list(adata.var_names[found["highly_variable"].to_numpy()])


def by_sums(adata, n_top):
    """The same by what each site measures of its own cells."""
    genes = list(adata.var_names)
    sites = adata.obs["batch"].unique()
    parts = [measure_variability(adata[adata.obs["batch"] == site].X, genes, n_top) for site in sites]
    sums = {name: sum(part[name] for part in parts) for name in parts[0]}
    return choose_variable_genes(genes, sums, len(sites), n_top)


@pytest.mark.parametrize("n_top", [2, 50, 200, 700, 764])
@pytest.mark.parametrize("convert", [sparse.csr_matrix, sparse.csc_matrix, lambda x: x.toarray()])
def test_the_choice_is_scanpy_s(blood, n_top, convert):
    adata = AnnData(convert(blood.X), obs=blood.obs, var=blood.var)
    before = adata.X.copy()
    expected = of_scanpy(adata, n_top)
    assert by_sums(adata, n_top) == expected
    assert len(expected) == n_top
    assert abs(adata.X - before).sum() == 0


def test_the_choice_is_scanpy_s_among_genes_without_expression_or_variation(blood):
    """Some are expressed nowhere, some at one site alone, some alike in all cells; some are copies of others."""
    values = blood.X.toarray()[:, :300]
    values[:, :20] = 0
    values[(blood.obs["batch"] != "b").to_numpy(), 20:60] = 0
    values[:, 60:80] = 1.5
    values[:, 100:200] = values[:, 200:300]
    adata = AnnData(values, obs=blood.obs[["batch"]], var=pd.DataFrame(index=[f"gene{i}" for i in range(300)]))
    for n_top in (10, 75, 120, 250, 290):
        assert by_sums(adata, n_top) == of_scanpy(adata, n_top), n_top


@pytest.mark.parametrize("secure", ["plain", "masked"])
def test_a_federation_works_on_scanpy_s_genes(blood, secure):
    if secure == "masked":
        pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")
    expected = of_scanpy(blood, 120)
    result = simulate(blood, n_top_genes=120, secure=secure, **{**QUICK, "n_rounds": 1})
    assert result.genes == result.model.genes == list(result.corrected.var_names) == expected
    assert list(result.corrected.obs_names) == list(blood.obs_names)
    sent = result.ledger[(result.ledger["sender"] != "server") & result.ledger["kind"].str.endswith(KIND)]
    assert sent["sender"].tolist() == ["a", "b", "c"]
    assert set(sent["protection"]) == {"none" if secure == "plain" else "masked"}
    weights = result.ledger[result.ledger["kind"].str.endswith("sums before training")]
    assert weights["bytes"].max() < 120 * 30 * 8 + 5000, "what comes after is of the chosen genes alone"


def test_genes_that_were_not_chosen_stay_as_they_are_where_a_site_keeps_them(blood):
    result = simulate(blood, n_top_genes=120, keep_genes=True, **{**QUICK, "n_rounds": 0})
    assert list(result.corrected.var_names) == list(blood.var_names)
    chosen = result.corrected.var["fedscgen_corrected"].to_numpy()
    assert list(blood.var_names[chosen]) == result.genes == of_scanpy(blood, 120)
    others = blood.var_names[~chosen]
    np.testing.assert_array_equal(result.corrected[:, others].to_df("fedscgen_corrected"), blood[:, others].to_df())


def test_training_goes_as_on_cells_that_have_the_chosen_genes_alone(blood):
    chosen = of_scanpy(blood, 100)
    result = simulate(blood, n_top_genes=100, seed=3, **QUICK)
    expected = simulate(blood[:, chosen].copy(), seed=3, **QUICK)
    np.testing.assert_array_equal(result.corrected.obsm["X_fedscgen"], expected.corrected.obsm["X_fedscgen"])
    np.testing.assert_array_equal(
        result.corrected.to_df("fedscgen_corrected"), expected.corrected.to_df("fedscgen_corrected")
    )


def test_nothing_is_asked_where_there_are_no_more_genes_than_wanted(adata):
    result = simulate(adata, n_top_genes=30, **QUICK)
    assert result.genes == list(adata.var_names)
    assert KIND not in set(result.ledger["kind"])


def test_of_a_union_the_genes_that_a_site_lacks_count_as_not_expressed(blood):
    """As scanpy finds on cells that were padded with zeros."""
    parts = {site: blood[blood.obs["batch"] == site].copy() for site in "abc"}
    parts["b"] = parts["b"][:, 100:].copy()
    parts["c"] = parts["c"][:, ::-1][:, 50:].copy()
    genes = list(blood.var_names)
    client = make_client("a", parts["a"], PlainAggregator().contributor("a"))
    padded = sc.concat([padded_copy(cells, client._keys, genes) for cells in parts.values()])
    padded.obs["batch"] = pd.Categorical(np.repeat(list("abc"), [cells.n_obs for cells in parts.values()]))
    result = simulate(parts, "hospital", genes="union", n_top_genes=200, **{**QUICK, "n_rounds": 1})
    assert result.genes == of_scanpy(padded, 200)
    assert set(result.corrected.var_names) == set(result.genes)


def test_a_list_of_genes_is_all_that_sites_tell_and_use(blood):
    wanted = [*blood.var_names[40:0:-1], "no such gene"]
    parts = {site: blood[blood.obs["batch"] == site].copy() for site in "abc"}
    parts["b"] = parts["b"][:, 11:].copy()
    result = simulate(parts, "hospital", gene_list=tuple(wanted), **QUICK)
    assert result.genes == list(blood.var_names[11:41])
    longest = result.ledger.loc[result.ledger["kind"] == "genes and cell types"].query("sender == 'a'")["bytes"].item()
    assert longest < 1500, "it names 40 genes, not 765"
    result = simulate(parts, "hospital", gene_list=tuple(wanted), n_top_genes=10, **QUICK)
    assert result.genes == of_scanpy(blood[:, blood.var_names[11:41]], 10)


def test_a_site_that_holds_no_gene_of_the_list_refuses(adata):
    with pytest.raises(SiteError, match=r"gene_list: of its 1 genes \(first: 'ENSG1'\) none is here \(first: 'gene0'"):
        simulate(adata, gene_list=("ENSG1",), **QUICK)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"n_top_genes": 1}, "n_top_genes=1: from 2 to 200000"),
        ({"n_top_genes": 2.5}, "n_top_genes=2.5: expected a whole number"),
        ({"gene_list": ("a", "b", "a")}, "gene_list names 'a' twice: name each gene once"),
        ({"target_sum": 0.5}, "target_sum=0.5: from 1 to 1e"),
        ({"target_sum": float("nan")}, "target_sum=nan: expected a finite number"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong, match):
    with pytest.raises(ValueError, match=match):
        FederationSettings(**wrong)


def test_a_model_to_begin_with_has_its_own_genes():
    with pytest.raises(ValueError, match="n_top_genes=5, and training begins with a model, which has its own genes"):
        replace(propose(n_top_genes=5), init_model="0" * 64)


def test_too_few_cells_are_told(adata):
    with pytest.raises(ValueError, match="n_top_genes=5: 2 cells don't tell which genes vary"):
        measure_variability(adata.X[:2], list(adata.var_names), 5)


@pytest.mark.parametrize("spoil", ["more sites than there are", "half a site", "a gene less"])
def test_sums_that_cannot_be_are_refused(adata, spoil):
    genes = list(adata.var_names)
    sums = measure_variability(adata.X, genes, 5)
    if spoil == "a gene less":
        sums["dispersion"] = sums["dispersion"][1:]
    else:
        sums["n_among_top"][3] = 4 if spoil.startswith("more") else 0.5
    with pytest.raises(ValueError, match=r"lacks 'dispersion'|n_among_top of a gene is (4|0.5), of 3 sites"):
        choose_variable_genes(genes, sums, 3, 5)


def test_a_coordinator_cannot_choose_the_genes():
    """It publishes a sum in which others are among the top; no site computes with it."""
    pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")
    settings = replace(SETTINGS, n_top_genes=10)
    server, _ = agreed(settings=settings)
    assert server._perform(KIND)
    opened = Message.from_bytes(bytes(server._published._opened[1]))
    words = opened.arrays["words"].copy()
    words[:30] = words[:30][::-1]
    server._published._opened[1] = Message(opened.kind, opened.meta, {"words": words}).to_buffer()
    with pytest.raises(SiteError, match="published as sum 1 is not the sum of what the sites contributed"):
        server._perform("sums before training")


def test_a_site_refuses_genes_that_the_plan_does_not_list():
    settings = replace(SETTINGS, gene_list=tuple(f"gene{i}" for i in range(20)))

    def add_a_gene(site, message):
        return replace(message, meta={**message.meta, "genes": [*message.meta["genes"], "gene25"]})

    with pytest.raises(SiteError, match=r"1 genes aren't in the plan's gene_list \(first: 'gene25'\)"):
        run(make_clients(), "settings", add_a_gene, settings=settings)


def test_genes_are_asked_for_once_and_first(adata):
    server, _ = agreed(settings=replace(SETTINGS, n_top_genes=10))
    with pytest.raises(SiteError, match=f"its plan for '{KIND}' for sum 1"):
        ask(server, "model weights", number=1, round=1)


def test_an_interrupted_run_goes_on_with_the_genes_that_were_chosen(blood, tmp_path):
    class Interrupted(Exception):
        pass

    def make(where):
        aggregator = PlainAggregator()
        clients = [
            make_client(
                site, blood[blood.obs["batch"] == site].copy(), aggregator.contributor(site), seed=i,
                memory=None if where is None else where / site,
            )
            for i, site in enumerate("abc")
        ]  # fmt: skip
        settings = FederationSettings(n_rounds=2, n_epochs=1, model=SMALL, n_top_genes=60, seed=0)
        return Server(InProcessTransport(clients), aggregator, settings), clients

    def interrupt(round_, weights):
        raise Interrupted

    whole, expected = make(None)
    whole.run()
    server, _ = make(tmp_path)
    with pytest.raises(Interrupted):
        server.run(on_round=interrupt, memory=tmp_path / "run")
    server, clients = make(tmp_path)
    server.run(memory=tmp_path / "run")
    assert server.genes == whole.genes == of_scanpy(blood, 60)
    for client, other in zip(clients, expected, strict=True):
        np.testing.assert_allclose(client.corrected.obsm["X_fedscgen"], other.corrected.obsm["X_fedscgen"], atol=0.2)


def test_a_site_that_comes_later_is_corrected_on_the_chosen_genes(blood, tmp_path):
    early, late = blood[blood.obs["batch"] != "c"].copy(), blood[blood.obs["batch"] == "c"].copy()
    result = simulate(early, n_top_genes=80, **QUICK)
    result.model.save(tmp_path / "model")
    corrected = FedSCGEN.load(tmp_path / "model", late).correct()
    assert list(corrected.var_names) == result.genes
    aggregator = PlainAggregator()
    client = make_client("c", late, aggregator.contributor("c"))
    settings = FederationSettings(model=SMALL, n_top_genes=80)
    Server(InProcessTransport([client]), aggregator, replace(settings, min_sites=1)).serve(
        result.genes, result.model.get_weights(), result.references
    )
    assert list(client.corrected.var_names) == result.genes


@pytest.mark.parametrize(("target_sum", "fits"), [(1e4, True), (1e5, False), (5e3, False), (None, True)])
def test_a_site_refuses_another_target_sum_than_its_cells_have(blood, target_sum, fits):
    options = {"target_sum": target_sum, **QUICK, "n_rounds": 0}
    if fits:
        assert simulate(blood[:, :300].copy() if target_sum else blood, **options).genes
        assert simulate(blood, **options).genes
    else:
        with pytest.raises(SiteError, match=r"sum to 10,000 here, from 10,000 to 10,000: normalise the counts to "):
            simulate(blood, **options)


def test_a_target_sum_is_checked_at_newcomers_too(blood):
    settings = FederationSettings(model=SMALL, target_sum=1e5, min_sites=1)
    aggregator = PlainAggregator()
    client = make_client("c", blood.copy(), aggregator.contributor("c"))
    server = Server(InProcessTransport([client]), aggregator, settings)
    with pytest.raises(SiteError, match="target_sum=100,000"):
        server.serve(list(blood.var_names), {}, NO_REFERENCES)
