"""How sure names of cells without a label will be is tried before anybody trains."""

import numpy as np
import pandas as pd
import pytest
from anndata import read_h5ad

from cells import REAL_CELLS
from fedscgen.check import check_sites, describe_check, write_check_page
from fedscgen.check._rehearsal import Rehearsal
from fedscgen.federation import SiteOptions, simulate

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")


def texts(checked, weight):
    return [one.text for one in checked.findings if one.weight == weight]


@pytest.mark.filterwarnings("ignore:site 'c'. no cell has a label:UserWarning")
def test_names_are_tried_on_labels_that_are_hidden_site_by_site(hospitals):
    c = hospitals["c"].copy()
    truth = c.obs["cell_type"].astype(str)
    c.obs["cell_type"] = None
    sites = {**hospitals, "c": c}
    options = SiteOptions(unlabeled_category="none")
    rehearsal = check_sites(sites, options=options).rehearsal
    assert rehearsal.whole_sites
    tried = rehearsal.count("site")
    assert tried["cells"].to_dict() == {name: hospitals[name].n_obs for name in "ab"}

    run = simulate(sites, settings="components", site=options, show_progress=False, accelerator="cpu").corrected
    run = run[run.obs["batch"] == "c"]
    name = run.obs["fedscgen_cell_type"].astype(str)
    named = (name != "unknown").to_numpy()
    (expected,) = rehearsal.unlabeled.itertuples()
    assert (expected.site, expected.cells) == ("c", c.n_obs)
    assert expected.named / c.n_obs == pytest.approx(named.mean(), abs=0.1)
    assert expected.fewest <= expected.named <= expected.most
    assert expected.sure == pytest.approx(run.obs["fedscgen_confidence"][named].mean(), abs=0.05)
    right = (name.to_numpy() == truth.loc[run.obs_names].to_numpy())[named].mean()
    assert (tried["right"] / tried["named"]).mean() == pytest.approx(right, abs=0.1)


def test_types_that_hidden_labels_contradict_are_doubted(hospitals):
    """One type is two to the sites, at random: no classifier can tell which."""
    sites = {name: adata.copy() for name, adata in hospitals.items()}
    for i, adata in enumerate(sites.values()):
        coin = np.random.default_rng(i).random(adata.n_obs) < 0.5
        adata.obs["cell_type"] = [
            f"{kind} {side}" if kind == "CD19+ B" else kind
            for kind, side in zip(adata.obs["cell_type"], np.where(coin, "heads", "tails"), strict=True)
        ]
    sites["c"].obs["cell_type"] = None
    checked = check_sites(sites, options=SiteOptions(unlabeled_category="none"), min_confidence=0.0)
    doubted = [doubt for doubt in texts(checked, "doubt") if "where labels were hidden" in doubt]
    assert any("'CD19+ B heads'" in doubt or "'CD19+ B tails'" in doubt for doubt in doubted)
    told = describe_check(checked)
    assert "c: of the cells without a label, 100% will get a name" in told
    assert "a: 100% of" in told


def test_a_fifth_of_the_labels_is_hidden_where_every_site_has_some(hospitals, tmp_path):
    c = hospitals["c"].copy()
    c.obs["cell_type"] = [kind if i % 2 else "none" for i, kind in enumerate(c.obs["cell_type"])]
    checked = check_sites({**hospitals, "c": c}, options=SiteOptions(unlabeled_category="none"))
    rehearsal = checked.rehearsal
    assert not rehearsal.whole_sites
    assert set(rehearsal.hidden["site"]) == {"c"}
    assert rehearsal.hidden["cells"].sum() == pytest.approx(0.2 * c.n_obs / 2, rel=0.5)
    assert rehearsal.by_type["called"].sum() == rehearsal.by_type["named"].sum()
    write_check_page(tmp_path / "check.html", checked)
    page = (tmp_path / "check.html").read_text()
    assert "How sure names will be" in page
    assert "Where a fifth of a site" in page
    assert "<th scope='col'>cells called so</th>" in page


def test_few_labels_of_which_none_is_hidden_do_no_harm(hospitals):
    c = hospitals["c"].copy()
    c.obs["cell_type"] = ["CD19+ B" if i == 0 else "none" for i in range(c.n_obs)]
    checked = check_sites({**hospitals, "c": c}, options=SiteOptions(unlabeled_category="none"))
    assert checked.rehearsal.hidden.empty
    assert "c: of the cells without a label, " in describe_check(checked)


def test_it_is_said_why_names_are_not_tried(hospitals):
    c = hospitals["c"].copy()
    del c.obs["cell_type"]
    assert "how sure names will be" not in describe_check(check_sites(hospitals))
    assert "check the files of several together" in describe_check(check_sites({"c": c}))
    raw = hospitals["a"].copy()
    raw.X = raw.layers["counts"]
    assert "tried once nothing stands in the way" in describe_check(check_sites({**hospitals, "a": raw, "c": c}))
    alone = check_sites({"b": hospitals["b"], "c": c})
    assert alone.rehearsal is None
    assert "No cell gets a name" in describe_check(alone)


@pytest.mark.filterwarnings("ignore:site '3pv1'. no cell has a label:UserWarning")
def test_as_many_names_are_expected_as_a_run_without_training_gives_real_cells():
    if not REAL_CELLS.exists():
        pytest.skip(f"needs the real cells of {REAL_CELLS}")
    adata = read_h5ad(REAL_CELLS)
    sites = {str(name): adata[adata.obs["batch"] == name].copy() for name in adata.obs["batch"].cat.categories}
    sites["3pv1"].obs["cell_type"] = None  # others have types of one and two cells, which nobody tells of
    options = SiteOptions(unlabeled_category="none")
    checked = check_sites(sites, options=options)
    (expected,) = checked.rehearsal.unlabeled.itertuples()
    run = simulate(sites, settings="components", site=options, show_progress=False, accelerator="cpu").corrected
    named = (run.obs["fedscgen_cell_type"].astype(str) != "unknown")[(run.obs["batch"] == "3pv1").to_numpy()]
    assert expected.named / expected.cells == pytest.approx(named.mean(), abs=0.03)


def test_a_known_type_that_hardly_any_cell_is_called_is_doubted():
    hidden = pd.DataFrame(
        [("a", "B", "B", 20), ("a", "mono", "unknown", 12), ("a", "mono", "mono", 5), ("a", "rare", "unknown", 4)],
        columns=["site", "cell_type", "name", "cells"],
    )
    rehearsal = Rehearsal(hidden, pd.DataFrame(), ("B", "mono", "rare"), whole_sites=True)
    (doubtful,) = rehearsal.find_nameless().itertuples()
    assert (doubtful.cell_type, doubtful.cells, doubtful.named) == ("mono", 17, 5)
