"""What a run's page says of types, predictions, corrected expression, warnings and input."""

import anndata
import numpy as np
import pandas as pd
import pytest

from fedscgen.metrics import count_invented_genes, expression_conservation
from fedscgen.report import _run_report, write_report
from page import Page

KEYS = {"batch_key": "batch", "labels_key": "cell_type"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Leave UMAP and the metrics out: no test is about them."""
    monkeypatch.setattr(
        _run_report, "umap_layout", lambda embedding, *, seed=0: np.resize([0.2, 0.8], (len(embedding), 2))
    )
    monkeypatch.setattr(_run_report, "_measure", lambda cells: "")


@pytest.fixture
def cells():
    """Two sites, one of which alone has type C; the correction has invented five genes of B."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {"batch": np.repeat(["x", "y"], 20), "cell_type": [*np.repeat(["B", "T"], 10), *np.repeat(["B", "C"], 10)]},
        index=[f"cell{i}" for i in range(40)],
    )
    adata = anndata.AnnData(rng.poisson(2.0, size=(40, 30)).astype(np.float32), obs=obs)
    adata.obsm["X_fedscgen"] = rng.random((40, 3)).astype(np.float32)
    corrected = adata.X.copy()
    corrected[obs["cell_type"] == "B", :5] += 9
    adata.layers["fedscgen_corrected"] = corrected
    return adata


def report(tmp_path, adata, **options):
    history = pd.DataFrame(columns=["site", "round", "epoch", "train_loss", "validation_loss"])
    write_report(tmp_path / "report.html", adata, history=history, **{**KEYS, **options})
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def files(page):
    return {link["download"] for link in page.all("a") if "download" in link}


def with_confidence(adata, conflicts=()):
    adata.obs["fedscgen_cell_type"] = pd.Categorical(adata.obs["cell_type"])
    adata.obs["fedscgen_confidence"] = 0.9
    adata.obs["fedscgen_label_conflict"] = np.isin(np.arange(40), conflicts)
    return adata


def test_page_draws_types_by_site_and_says_which_one_site_alone_has(tmp_path, cells):
    page = report(tmp_path, cells)
    assert page.charts("Shares of") == ["Shares of 3 cell types at each of 2 sites"]
    assert "One site alone has C and T." in page.text
    assert "composition.svg" in files(page)


def test_types_at_all_sites_and_cells_without_a_label_are_said(tmp_path, cells):
    obs = cells.obs.assign(cell_type=np.where(np.arange(40) % 20 < 7, None, "B"))
    page = report(tmp_path, cells, obs=obs)
    assert "Every type is at more than one site. 14 cells of 40 have no label." in page.text


def test_types_have_one_colour_in_all_figures(tmp_path, cells):
    cells.uns["cell_type_colors"] = ["#112233", "#445566", "#778899"]
    report(tmp_path, with_confidence(cells))
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "fill='#112233'" in html  # the legend
    for chart in ("Shares of", "Probability of"):
        drawn = html[html.index(f"aria-label='{chart}") :]
        assert "#112233" in drawn[: drawn.index("</figure>")]


def test_page_draws_confidence_and_counts_labels_in_doubt(tmp_path, cells):
    page = report(tmp_path, with_confidence(cells, conflicts=(0, 1, 10)))
    (chart,) = page.charts("Probability of the cells' types")
    assert chart.endswith("3 labels are contradicted, of 40 cells")
    assert "The labels of 3 of 40 cells are contradicted" in page.text
    (table,) = page.tables("Label", "In doubt")
    assert table == {None: ["In doubt", "Cells", "Share"], "B": ["2", "20", "10%"], "T": ["1", "10", "10%"]}
    assert "confidence.svg" in files(page)


def test_page_of_all_cells_tells_predictions_of_those_without_a_label(tmp_path, cells):
    obs = with_confidence(cells).obs
    page = report(tmp_path, cells[:20].copy(), obs=obs)
    assert page.charts("Probability of the cells' types")[0].endswith("of 40 cells")
    assert "No label is contradicted" in page.text


def test_page_without_a_classifier_says_so_and_draws_nothing(tmp_path, cells):
    page = report(tmp_path, cells)
    assert "No cell was given a type with a probability" in page.text
    assert not page.charts("Probability")
    with_confidence(cells).obs["fedscgen_confidence"] = np.nan
    assert "No cell was given a type with a probability" in report(tmp_path, cells).text


def test_page_checks_corrected_expression(tmp_path, cells):
    arrays = cells.X, cells.layers["fedscgen_corrected"], cells.obs["batch"], cells.obs["cell_type"]
    kept, counts = expression_conservation(*arrays), count_invented_genes(*arrays)
    assert counts["invented"] >= 15
    page = report(tmp_path, cells)
    assert page.row("Markers kept")[1] == f"{kept['marker_overlap']:.2f}"
    assert page.row("Order of genes kept")[1] == f"{kept['expression_spearman']:.3f}"
    assert page.row("Invented")[1] == str(counts["invented"])
    assert page.row("Genes that differ, before")[1] == str(counts["before"])
    assert page.row("Genes that differ, after")[1] == str(counts["after"])
    assert "of 120 tests" in page.row("Genes that differ, before")[0]


def test_page_checks_only_genes_that_were_corrected(tmp_path, cells):
    cells.var["fedscgen_corrected"] = np.arange(30) < 25
    page = report(tmp_path, cells)
    assert "of 100 tests" in page.row("Genes that differ, before")[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda adata: adata.layers.pop("fedscgen_corrected"), "there is no corrected expression to check"),
        (lambda adata: adata.obs.__setitem__("cell_type", "B"), "no batch holds 10 cells of a type and 10 others"),
    ],
    ids=["latent only", "one type"],
)
def test_what_cannot_be_checked_is_said(tmp_path, cells, change, said):
    change(cells)
    page = report(tmp_path, cells)
    assert said in page.text
    assert not page.tables("Check")


def test_page_without_labels_says_it_instead_of_drawing(tmp_path, cells):
    page = report(tmp_path, cells, labels_key=None)
    assert "of which types the sites' cells are isn't known" in page.text
    assert "whether types keep the genes that mark them can't be checked" in page.text
    assert not page.charts("Shares of")


@pytest.mark.parametrize(
    ("warnings", "said"),
    [(None, "Nobody kept what was warned of"), ([], "gave no warning"), (["mind <the> gap"], "mind <the> gap")],
)
def test_page_lists_warnings(tmp_path, cells, warnings, said):
    page = report(tmp_path, cells, warnings=warnings)
    assert said in page.text
    assert "Warnings" in page.headings


def test_page_names_its_input(tmp_path, cells):
    assert "It wasn't recorded from what file the cells come." in report(tmp_path, cells).text
    page = report(tmp_path, cells, inputs=["north=a<b>.h5ad", "south.h5ad"])
    assert "north=a<b>.h5ad south.h5ad" in page.text


def test_files_of_cells_hold_both_panels_with_their_names(tmp_path, cells):
    assert {"cells_by_site.svg", "cells_by_cell_type.svg"} <= files(report(tmp_path, cells))
