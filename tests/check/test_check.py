"""What stands in the way of a federation is named before anybody trains."""

import numpy as np
import pytest
from typer.testing import CliRunner

from fedscgen.check import check_sites, describe_check, expect_cost, write_check_page
from fedscgen.cli import app
from fedscgen.correction import NoSharedLabelError
from fedscgen.federation import FederationSettings, SiteError, SiteOptions, simulate
from fedscgen.prepare import PrepareOptions, prepare, read_label_map
from raw_counts import real_counts

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")


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


def test_columns_that_a_site_lacks_are_noted_with_those_that_it_has(hospitals):
    a, c = hospitals["a"].copy(), hospitals["c"].copy()
    a.obs["donor"] = "one"
    c.obs = c.obs[["cell_type"]].rename(columns={"cell_type": "annotation"})
    said = texts(check_sites({"a": a, "b": hospitals["b"], "c": c}, options=SiteOptions(batch_key="donor")), "note")
    assert "c: there is no column 'donor', so its cells are alike in it; there are 'annotation'" in said
    assert (
        "c: no cell has a label in 'cell_type', since there is no such column; there are 'annotation'; the classifier "
        "names its cells"
    ) in said
    assert not any(note.startswith("a: there is no column") for note in said)


def test_what_only_one_site_has_wrong_hides_nothing_of_the_others(hospitals):
    sites = {name: adata.copy() for name, adata in hospitals.items()}
    for adata in sites.values():
        adata.obs["donor"] = "one"
    sites["a"].obs.loc[sites["a"].obs_names[:3], "donor"] = None
    sites["b"].obs_names = [sites["b"].obs_names[0], *sites["b"].obs_names[:-1]]
    checked = check_sites(sites, options=SiteOptions(batch_key="donor"))
    assert [site.name for site in checked.sites] == ["b", "c"]
    first, second = texts(checked, "obstacle")
    assert first.startswith("a takes no part: obs['donor'] is missing for 3 cells")
    assert second.startswith(f"b: cell {sites['b'].obs_names[0]!r} is there twice")
    with pytest.raises(KeyError, match=r"obs\['lane'\] not found"):
        check_sites(sites, options=SiteOptions(batch_key="lane"))


def test_names_are_read_as_a_run_reads_them(hospitals):
    sites = {name: adata.copy() for name, adata in hospitals.items()}
    names = sites["a"].obs["cell_type"].astype(str)
    sites["a"].obs["cell_type"] = [f" {name}  " if i else " none " for i, name in enumerate(names)]
    checked = check_sites(sites, options=SiteOptions(unlabeled_category="none"))
    assert texts(checked, "obstacle") == []
    assert checked.common_types == check_sites(hospitals).common_types
    assert checked.sites[0].n_unlabeled == 1
    sites["a"].obs["cell_type"] = np.where(names == "CD19+ B", 1.0, 2.0)
    assert list(check_sites(sites).sites[0].counts.columns) == ["1", "2"]


def test_numbers_of_clusters_are_no_names(hospitals):
    sites = {name: adata.copy() for name, adata in hospitals.items()}
    sites["a"].obs["cell_type"] = sites["a"].obs["cell_type"].astype("category").cat.codes
    doubts = texts(check_sites(sites), "doubt")
    assert any(doubt.startswith("a: cell types are numbers ('0', '1', '2', '3', '4' and 5 more)") for doubt in doubts)
    sites["b"].obs["cell_type"] = sites["b"].obs["cell_type"].astype("category").cat.codes.astype(str)
    said = texts(check_sites(sites), "obstacle")
    assert {text[:28] for text in said} >= {"a: cell types are numbers ('", "b: cell types are numbers ('"}


def test_names_of_a_map_that_no_site_has_are_a_doubt(hospitals):
    label_map = {"CD19+ B": "B cell", "CD19+ Bb": "B cell"}
    (doubt,) = texts(check_sites(hospitals, label_map=label_map), "doubt")
    assert "a common name for 'CD19+ Bb', which no site calls a type" in doubt
    assert texts(check_sites({"a": hospitals["a"]}, label_map=label_map), "doubt") == [], "others may have it"


def test_a_layer_of_counts_is_for_the_sites_that_have_it(tmp_path):
    for i, name in enumerate("abc"):
        adata = real_counts()[i::3].copy()
        if name == "b":
            adata.layers["umis"], adata.X = adata.X, adata.X.toarray() - 0.5
        adata.write_h5ad(tmp_path / f"{name}.h5ad")
    files = [str(tmp_path / f"{name}.h5ad") for name in "abc"]
    prepared = ["--prepare", "--min-genes", "0", "--n-top-genes", "300"]
    assert "b takes no part: " in CliRunner().invoke(app, ["check", *prepared, *files]).output
    told = CliRunner().invoke(app, ["check", *prepared, "--layer", "umis", *files])
    assert told.exit_code == 0, told.output
    assert "counts from umis" in told.output
    none = CliRunner().invoke(app, ["check", *prepared, "--layer", "none", *files])
    assert none.exit_code == 2
    assert "no site has it" in none.output + (none.stderr or "")


def test_rare_and_lonely_types_go_with_their_batch(hospitals):
    a = hospitals["a"].copy()
    own = a.obs["cell_type"].astype(str)
    own.iloc[:2], own.iloc[2:30] = "rare", "only here"
    a.obs["cell_type"] = own
    fates = check_sites({**hospitals, "a": a}).fates.set_index(["site", "cell_type"])["corrected"]
    assert fates["a", "rare"] == "with its batch: too few cells to report it"
    assert fates["a", "only here"] == "with its batch: too few sites report it"


@pytest.mark.parametrize(
    ("secure", "options"),
    [("masked", {}), ("plain", {}), ("masked", {"n_top_genes": 40}), ("masked", {"n_top_genes": 100, "min_sites": 2})],
)
def test_cost_is_that_of_a_run(hospitals, secure, options):
    settings = FederationSettings(n_rounds=1, n_epochs=1, seed=0, **options)
    sites = {name: adata[:60, :200].copy() for name, adata in hospitals.items()}
    ledger = simulate(sites, settings=settings, secure=secure, show_progress=False, accelerator="cpu").ledger
    cost = expect_cost(settings, 200, secure)
    sent = ledger[ledger["sender"] == "a"]
    assert cost.n_messages == 1 + len(sent), "and it joins"
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
    monkeypatch.setattr("fedscgen.check._findings._MANY_GENES", 700)
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


@pytest.mark.parametrize("species", ["symbols", "ensembl"])
def test_genes_of_two_species_are_told_as_such(hospitals, species):
    sites = {name: hospitals[name].copy() for name in "ab"}
    if species == "symbols":
        sites["b"].var_names = [name.capitalize() for name in sites["b"].var_names]
    else:
        for name, prefix in (("a", "ENSG"), ("b", "ENSMUSG")):
            sites[name].var_names = [f"{prefix}{i:011}" for i in range(sites[name].n_vars)]
    said = "\n".join(texts(check_sites(sites), "obstacle"))
    assert "of their genes, which look like those of two species ('" in said


def test_fewer_genes_than_the_model_has_dimensions_are_an_obstacle(hospitals):
    sites = {name: adata[:, :15].copy() for name, adata in hospitals.items()}
    said = texts(check_sites(sites), "obstacle")
    assert any(text.startswith("15 genes are fewer than the model's 20 dimensions") for text in said)
    with pytest.raises(SiteError, match="n_latent=20: more dimensions than the 15 genes"):
        simulate(sites, settings="components", show_progress=False)


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


def test_genes_that_one_site_writes_in_other_case_are_a_doubt(hospitals):
    sites = {name: hospitals[name].copy() for name in "ab"}
    names = sites["b"].var_names.tolist()
    position = names.index("CD3D") if "CD3D" in names else 0
    names[position] = names[position].capitalize()
    sites["b"].var_names = names
    said = texts(check_sites(sites), "doubt")
    assert [text for text in said if f"a and b write 1 gene in other case, such as {names[position].upper()!r}" in text]
    assert said[0].endswith("prepare both with one gene table and --ignore-case")


def test_a_column_that_is_sought_itself_is_not_proposed_for_another(hospitals):
    sites = {name: hospitals[name].copy() for name in "ab"}
    sites["a"].obs["donor"] = sites["b"].obs["donor"] = "one"
    sites["b"].obs["lane"] = "1"
    checked = check_sites(sites, options=SiteOptions(batch_key=("donor", "lane")))
    assert "a: there is no column 'lane'" in "\n".join(texts(checked, "note"))
    assert texts(checked, "doubt") == []
