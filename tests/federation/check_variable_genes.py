"""What a run costs at 33,000 genes, of which the sites choose 2,000 or none. Some minutes and 8 GB, so run by hand:

python -m pytest -s tests/federation/check_variable_genes.py
"""

import time

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

from fedscgen.federation import FederationSettings, simulate
from fedscgen.federation._variable_genes import measure_variability

pytest.importorskip("cryptography", reason="needs the extra fedscgen[masked]")

N_GENES, N_CHOSEN, N_CELLS, N_TYPES = 33_000, 2_000, 500, 5


def make_site(seed):
    """Log-normalised cells of which each expresses some 5 % of the genes, by type."""
    rng = np.random.default_rng(seed)
    means = np.random.default_rng(0).gamma(0.05, 1.0, (N_TYPES, N_GENES))  # the same at every site
    types = rng.integers(N_TYPES, size=N_CELLS)
    counts = sparse.csr_matrix(rng.poisson(means[types] * rng.gamma(5, 0.2, (N_CELLS, 1))).astype(np.float32))
    counts.data = np.log1p(counts.data * np.repeat(1e4 / counts.sum(axis=1).A1, np.diff(counts.indptr)))
    return AnnData(
        counts.astype(np.float32),
        obs=pd.DataFrame({"cell_type": [f"type{t}" for t in types]}, index=[f"{seed}-{i}" for i in range(N_CELLS)]),
        var=pd.DataFrame(index=[f"gene{i}" for i in range(N_GENES)]),
    )


def tell(capsys, text):
    with capsys.disabled():
        print(text)  # noqa: T201


@pytest.mark.parametrize(("n_sites", "n_top_genes"), [(3, N_CHOSEN), (20, N_CHOSEN), (3, None)])
def test_what_a_masked_run_of_one_round_costs(n_sites, n_top_genes, capsys):
    sites = {f"site{i}": make_site(i) for i in range(n_sites)}
    settings = FederationSettings(n_rounds=1, n_epochs=1, n_top_genes=n_top_genes, seed=0)
    began = time.monotonic()
    result = simulate(sites, settings=settings, secure="masked", accelerator="cpu", show_progress=False)
    seconds = time.monotonic() - began
    sent = result.ledger[result.ledger["sender"] == "site0"]
    to_choose = sent.loc[sent["kind"].str.endswith("sums about genes"), "bytes"].sum()
    names = sent.loc[sent["kind"] == "genes and cell types", "bytes"].sum()
    before = sent.loc[sent["kind"].str.endswith("sums before training"), "bytes"].sum()
    of_round = sent.loc[sent["kind"].str.endswith("model weights"), "bytes"].sum()
    tell(
        capsys,
        f"\n{n_sites} sites, {len(result.genes):,} of {N_GENES:,} genes: a site sends {len(sent)} messages, "
        f"{sent['bytes'].sum() / 1e6:.1f} MB (names {names / 1e6:.2f}, to choose {to_choose / 1e6:.2f}, components "
        f"{before / 1e6:.1f}, the round {of_round / 1e6:.1f}); {seconds:.0f} s for all sites on one computer",
    )
    assert len(result.genes) == (n_top_genes or N_GENES)
    assert (to_choose > 0) == (n_top_genes is not None)


def test_how_long_a_site_measures(capsys):
    site = make_site(0)
    seconds = []
    for _ in range(2):  # the first compiles
        began = time.monotonic()
        measure_variability(site.X, list(site.var_names), N_CHOSEN)
        seconds.append(time.monotonic() - began)
    tell(
        capsys,
        f"\na site of {N_CELLS} cells measures its {N_GENES:,} genes in {seconds[0]:.1f} s, then {seconds[1]:.1f} s",
    )
