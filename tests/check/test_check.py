"""What stands in the way of a federation is named before anybody trains."""

import numpy as np
import pytest
from typer.testing import CliRunner

from fedscgen.check import check_sites, describe_check, expect_cost, write_check_page
from fedscgen.cli import app
from fedscgen.correction import NoSharedLabelError
from fedscgen.federation import FederationSettings, SiteOptions, simulate
from fedscgen.prepare import PrepareOptions, prepare, read_label_map
from raw_counts import real_counts

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")


@pytest.fixture(scope="module")
def hospitals():
    """Three sites of prepared cells that agree on everything."""
    prepared = prepare(real_counts(), PrepareOptions(min_genes=0, max_mito=None))
    return {name: prepared[i::3].copy() for i, name in enumerate("abc")}


def texts(checked, weight):
    return [one.text for one in checked.findings if one.weight == weight]


def test_nothing_is_said_of_sites_that_agree(hospitals):
    checked = check_sites(hospitals)
    assert texts(checked, "obstacle") == texts(checked, "doubt") == []
    assert "CD56+ NK" in checked.common_types
    assert set(checked.fates.loc[checked.fates["cell_type"] == "CD56+ NK", "corrected"]) == {"by its label"}


def test_types_that_are_reported_are_those_of_a_run(hospitals):
    checked = check_sites(hospitals)
    result = simulate(hospitals, settings="components", show_progress=False)
    assert list(result.references.labels) == checked.common_types


def test_every_obstacle_is_named(hospitals):
    a, b, c = (hospitals[name].copy() for name in "abc")
    a.X = a.layers["counts"]
    b = prepare(b, PrepareOptions(layer="counts", min_genes=0, max_mito=None, target_sum=1e5))
    b.obs["cell_type"] = b.obs["cell_type"].astype(str).replace("CD56+ NK", "cd56+ nk cells")
    c.var_names = [f"ENSG{i:011}" for i in range(c.n_vars)]
    del c.obs["cell_type"]
    said = "\n".join(texts(check_sites({"a": a, "b": b, "c": c}), "obstacle"))
    for part in (
        "a: raw counts",
        "b: normalised to 100,000 molecules per cell, and the federation to 10,000",
        "c: ensembl",
        "'cd56+ nk cells' looks like 'CD56+ NK'",
    ):
        assert part in said
    assert "c: no cell has a label" in "\n".join(texts(check_sites({"a": a, "b": b, "c": c}), "note"))


def test_site_without_labels_is_told_how_its_cells_are_named(hospitals):
    c = hospitals["c"].copy()
    c.obs["cell_type"] = None
    checked = check_sites({**hospitals, "c": c}, options=SiteOptions(unlabeled_category="none"))
    rows = checked.fates[checked.fates["site"] == "c"]
    assert rows[["cell_type", "cells", "corrected"]].to_numpy().tolist() == [
        ["(no label)", c.n_obs, "named by the classifier, and moved by that"]
    ]
    assert texts(checked, "obstacle") == []


def test_rare_and_lonely_types_go_with_their_batch(hospitals):
    a = hospitals["a"].copy()
    own = a.obs["cell_type"].astype(str)
    own.iloc[:2], own.iloc[2:30] = "rare", "only here"
    a.obs["cell_type"] = own
    fates = check_sites({**hospitals, "a": a}).fates.set_index(["site", "cell_type"])["corrected"]
    assert fates["a", "rare"] == "with its batch: too few cells to report it"
    assert fates["a", "only here"] == "with its batch: too few sites report it"


@pytest.mark.parametrize(("secure", "n_top_genes"), [("masked", None), ("plain", None), ("masked", 40)])
def test_cost_is_that_of_a_run(hospitals, secure, n_top_genes):
    settings = FederationSettings(n_rounds=1, n_epochs=1, seed=0, n_top_genes=n_top_genes)
    sites = {name: adata[:60, :200].copy() for name, adata in hospitals.items()}
    ledger = simulate(sites, settings=settings, secure=secure, show_progress=False, accelerator="cpu").ledger
    cost = expect_cost(settings, 200, secure)
    sent = ledger[ledger["sender"] == "a"]
    assert cost.n_messages == pytest.approx(len(sent), rel=0.15)
    assert cost.sent == pytest.approx(sent["bytes"].sum(), rel=0.1)
    assert cost.received == pytest.approx(ledger.loc[ledger["receiver"] == "a", "bytes"].sum(), rel=0.1)


def test_a_preparation_that_leaves_few_cells_is_a_doubt(hospitals):
    counts = real_counts()
    threshold = int(np.sort(np.ravel((counts.X > 0).sum(axis=1)))[-40])
    few = prepare(counts, PrepareOptions(min_genes=threshold, max_mito=None))
    doubts = texts(check_sites({**hospitals, "few": few}), "doubt")
    expected = f"few: {few.n_obs} of {counts.n_obs} cells are kept by the preparation ("
    assert any(doubt.startswith(expected) and f"with fewer than {threshold} genes" in doubt for doubt in doubts)
    assert not any(doubt.startswith(("a: ", "b: ", "c: ")) for doubt in doubts)


def test_many_genes_are_a_doubt_unless_some_are_chosen(hospitals, monkeypatch):
    monkeypatch.setattr("fedscgen.check._check._MANY_GENES", 700)
    (doubt,) = texts(check_sites(hospitals), "doubt")
    assert doubt.startswith("765 genes are many to train on: have the sites choose those that vary most, with n_top_ge")
    checked = check_sites(hospitals, settings=FederationSettings(n_top_genes=200))
    assert texts(checked, "doubt") == []
    assert "cost: 200 of 765 genes, " in describe_check(checked)
    listed = check_sites(hospitals, settings=FederationSettings(gene_list=tuple(hospitals["a"].var_names[:50])))
    assert listed.genes == list(hospitals["a"].var_names[:50])


def test_what_sites_would_refuse_for_its_target_sum_is_an_obstacle(hospitals):
    a = hospitals["a"].copy()
    a.X = a.X * 1.3
    assert "isn't 10,000 for all" in texts(check_sites({"a": a}), "doubt")[0]
    checked = check_sites({"a": a}, settings=FederationSettings(target_sum=1e4))
    assert "isn't 10,000 for all" in texts(checked, "obstacle")[0]
    checked = check_sites(hospitals, settings=FederationSettings(target_sum=1e5))
    assert len(texts(checked, "obstacle")) == 3


def test_page_and_text_escape_what_sites_call_things(hospitals, tmp_path):
    a = hospitals["a"].copy()
    a.obs["cell_type"] = a.obs["cell_type"].astype(str).replace("CD56+ NK", "<NK> & co")
    checked = check_sites({"<a>": a, "b": hospitals["b"]})
    write_check_page(tmp_path / "check.html", checked)
    page = (tmp_path / "check.html").read_text()
    assert "&lt;NK&gt; &amp; co" in page
    assert "<NK>" not in page
    assert "<a>" not in page
    assert "Before 2 sites train" in page
    assert "each site sends" in describe_check(checked)


def test_command_checks_files_and_proposes_a_map_that_it_accepts(hospitals, tmp_path):
    for name, adata in hospitals.items():
        adata = adata.copy()
        if name == "b":
            adata.obs["cell_type"] = adata.obs["cell_type"].astype(str).replace("CD56+ NK", "cd56+ nk cells")
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
    files = [str(tmp_path / f"{name}.h5ad") for name in hospitals]
    labels = str(tmp_path / "labels.toml")
    result = CliRunner().invoke(app, ["check", *files, "--propose", labels, "--html", str(tmp_path / "check.html")])
    assert result.exit_code == 1
    assert "obstacle: 'cd56+ nk cells' looks like 'CD56+ NK'" in result.output
    assert read_label_map(labels) == {"cd56+ nk cells": "CD56+ NK"}
    assert (tmp_path / "check.html").exists()
    assert CliRunner().invoke(app, ["check", *files, "--label-map", labels]).exit_code == 0
    assert CliRunner().invoke(app, ["check", *files, "--propose", labels]).exit_code == 2


def test_an_id_that_no_synonym_is_known_of_is_a_doubt(hospitals):
    a = hospitals["a"].copy()
    a.obs["cell_type"] = a.obs["cell_type"].astype(str).replace("CD56+ NK", "CL:9999999")
    (doubt,) = texts(check_sites({**hospitals, "a": a}), "doubt")
    assert doubt.startswith("'CL:9999999' is an id of the Cell Ontology that the table of synonyms lacks")
    assert texts(check_sites({"a": a}), "doubt") == []


def test_a_site_that_shares_no_type_is_an_obstacle_as_it_is_to_a_training(hospitals):
    a = hospitals["a"].copy()
    a.obs["cell_type"] = [f"kind {i % 2}" for i in range(a.n_obs)]
    sites = {**hospitals, "a": a}
    said = texts(check_sites(sites), "obstacle")
    assert said == [
        "a: no other site shares any of its types ('kind 0', 'kind 1'): name them alike in labels.toml, or "
        "have it take part as it is (--unaligned-site a)"
    ]
    with pytest.raises(NoSharedLabelError, match="'a': no other site shares any of its types"):
        simulate(sites, settings="components", show_progress=False)
    assert texts(check_sites(sites, settings=FederationSettings(unaligned_sites=("a",))), "obstacle") == []


def test_without_a_common_gene_no_cost_is_told(hospitals):
    a = hospitals["a"].copy()
    a.var_names = [f"other {name}" for name in a.var_names]
    assert describe_check(check_sites({**hospitals, "a": a})).endswith("there is no gene in common to train on")


@pytest.mark.parametrize("word", ["Unknown", "nan", " "])
def test_words_for_no_label_are_a_doubt_unless_they_are_named(hospitals, word):
    a = hospitals["a"].copy()
    a.obs["cell_type"] = [word if i < 20 else kind for i, kind in enumerate(a.obs["cell_type"])]
    (doubt,) = texts(check_sites({**hospitals, "a": a}), "doubt")
    assert doubt.startswith(f"a: 20 cells are {word!r}, which counts as a type")
    assert texts(check_sites({**hospitals, "a": a}, options=SiteOptions(unlabeled_category=word)), "doubt") == []


def test_a_site_that_cannot_be_prepared_hides_nothing_of_the_others(tmp_path):
    counts = real_counts()
    for i, name in enumerate("ab"):
        counts[i::3].copy().write_h5ad(tmp_path / f"{name}.h5ad")
    scaled = counts[2::3].copy()
    scaled.X = scaled.X.toarray() - 1
    scaled.write_h5ad(tmp_path / "c.h5ad")
    files = [str(tmp_path / f"{name}.h5ad") for name in "abc"]
    told = CliRunner().invoke(app, ["check", "--prepare", "--min-genes", "0", "--n-top-genes", "300", *files])
    assert told.exit_code == 1, told.output
    output = " ".join(told.output.split())
    assert "c takes no part: " in output
    assert "a: 234 of 234 cells are kept" in output
    assert "b: 233 of 233 cells are kept" in output
    alone = CliRunner().invoke(app, ["check", "--prepare", files[2]])
    assert alone.exit_code == 2
    assert "c: " in alone.output + (alone.stderr or "")
