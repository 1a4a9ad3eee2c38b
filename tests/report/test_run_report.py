import base64
import io
import re
import sys
from importlib.metadata import version
from xml.etree import ElementTree as ET

import anndata
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from fedscgen.metrics import metrics_table
from fedscgen.report import _run_report, write_report
from fedscgen.secure import Protection
from page import Page

KEYS = {"batch_key": "batch", "labels_key": "cell_type"}


@pytest.fixture(scope="module")
def html(ideal_demo, history, ledger, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, ideal_demo, history=history, ledger=ledger, settings={"secure": "masked", "n_rounds": 3}, **KEYS)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


@pytest.fixture
def quick(monkeypatch):
    """Leave UMAP out where a test is not about pictures."""

    def two_dimensions(embedding, *, seed=0):
        plane = np.column_stack([embedding, embedding])[:, :2]
        return (plane - plane.min(axis=0)) / (np.ptp(plane, axis=0) + 1e-12)

    monkeypatch.setattr(_run_report, "umap_layout", two_dimensions)


def small(n_cells=30, sites=("x", "y"), labels=("B", "T")):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {"batch": np.resize(np.repeat(sites, len(labels)), n_cells), "cell_type": np.resize(labels, n_cells)},
        index=[f"cell{i}" for i in range(n_cells)],
    )
    adata = anndata.AnnData(rng.random((n_cells, 8)).astype(np.float32), obs=obs)
    adata.obsm["X_fedscgen"] = rng.random((n_cells, 3)).astype(np.float32)
    return adata


def losses(*sites, rounds=(1, 2), epochs=(1, 2), validation=0.5):
    rows = [(site, n_round, epoch, 1.0, validation) for site in sites for n_round in rounds for epoch in epochs]
    return pd.DataFrame(rows, columns=["site", "round", "epoch", "train_loss", "validation_loss"])


def report(tmp_path, adata, history, **options):
    write_report(tmp_path / "report.html", adata, history=history, **KEYS, **options)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_report_stands_alone(html, page):
    assert not page.all("script")
    assert not page.all("link")
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,", "data:image/svg+xml;base64,"))
        assert not any(name.startswith("on") for name in attributes)
    assert "http" not in re.sub(r"http-equiv", "", html)
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))


def test_report_shows_four_pictures_with_a_text_for_each(ideal_demo, page):
    images = page.all("img")
    assert [re.match(r"UMAP of 700 cells (\w+) correction, coloured by ([\w ]+):", image["alt"]).groups()
            for image in images] == [("before", "site"), ("after", "site"),
                                     ("before", "cell type"), ("after", "cell type")]  # fmt: skip
    assert "Hospital C" in images[0]["alt"]
    assert "CD56+ NK" in images[3]["alt"]
    pictures = [imread(io.BytesIO(base64.b64decode(image["src"].split(",")[1]))) for image in images]
    drawn = [picture[..., 3] > 0 for picture in pictures]
    for shown in drawn:
        assert 0.01 < shown.mean() < 0.5
    assert (drawn[0] == drawn[2]).mean() > 0.99  # the same layout in other colours
    assert (drawn[0] == drawn[1]).mean() < 0.99


def test_report_names_sites_and_types_with_their_cells(ideal_demo, page):
    for key in KEYS.values():
        for name, n_cells in ideal_demo.obs[key].value_counts().items():
            assert f"{name} {n_cells}" in page.text


def test_report_says_what_was_done(page):
    assert "3 sites trained one model together over 3 rounds" in page.text
    assert "How to read this page." in page.text
    assert "the site effects are simulated" in page.text
    assert "first 20 principal components" in page.text
    assert "chosen at random" not in page.text


@pytest.mark.parametrize(("uses_labels", "said"), [(None, False), (True, False), (False, True)])
def test_report_says_that_cells_moved_without_labels(tmp_path, quick, uses_labels, said):
    report(tmp_path, small(), losses("x", "y"), uses_labels=uses_labels)
    assert ("Cells moved without labels" in (tmp_path / "report.html").read_text(encoding="utf-8")) == said


def test_report_holds_the_metrics_before_and_after(ideal_demo, page):
    import scanpy as sc

    before = sc.pp.pca(ideal_demo.X, n_comps=20, random_state=0)
    embeddings = {"before": before, "after": ideal_demo.obsm["X_fedscgen"]}
    table = metrics_table(embeddings, ideal_demo.obs["batch"], ideal_demo.obs["cell_type"])
    shown = {
        "Silhouette, batch": "ASW_B",
        "Graph connectivity": "GC",
        "NMI": "NMI",
        "ARI": "ARI",
        "Silhouette, cell type": "ASW_C",
    }
    for title, column in shown.items():
        _, first, second, change = page.row(title)
        assert float(first) == pytest.approx(table.loc["before", column], abs=6e-4)
        assert float(second) == pytest.approx(table.loc["after", column], abs=6e-4)
        assert float(change.strip("▲▼ ")) == pytest.approx(float(second) - float(first), abs=1e-9)
        assert ("▲" in change) == (float(second) > float(first))
    batch, bio = ["Silhouette, batch", "Graph", "kBET", "iLISI"], ["NMI", "ARI", "Silhouette, cell", "cLISI"]
    for title, members in (("Batch correction", batch), ("Bio conservation", bio)):
        assert "plain mean of the 4 below" in page.row(title)[0]
        for column in (1, 2):
            mean = np.mean([float(page.row(name)[column]) for name in members])
            assert float(page.row(title)[column]) == pytest.approx(mean, abs=1e-3)
    assert "▲" in page.row("Batch correction")[3]


def test_report_says_what_neighbourhoods_were_scored_on(ideal_demo, page):
    from fedscgen.metrics import ilisi, neighbors_and_distances

    neighbors, distances = neighbors_and_distances(ideal_demo.obsm["X_fedscgen"], 90)
    expected = ilisi(neighbors, distances, ideal_demo.obs["batch"])
    assert float(page.row("iLISI")[2]) == pytest.approx(expected, abs=6e-4)
    assert page.row("iLISI")[0].endswith("scored on 90 nearest cells")
    assert page.row("kBET")[0].endswith("scored on 50 nearest cells, within types")
    assert "Scored on 700 cells with a label" in page.text
    assert page.charts("Scores before and after")[0].endswith("ASW_B, GC, kBET, iLISI, NMI, ARI, ASW_C, cLISI")


def test_report_without_the_extra_names_what_is_missing(tmp_path, quick, monkeypatch):
    monkeypatch.setitem(sys.modules, "scib_metrics", None)
    page = report(tmp_path, small(), losses("x", "y"))
    assert "kBET, iLISI, cLISI are not here" in page.text
    assert "benchmark" in page.text
    assert "plain mean of the 2 below" in page.row("Batch correction")[0]


def test_report_draws_both_losses_and_says_them(page):
    charts = [attributes["aria-label"] for attributes in page.all("div") if attributes.get("role") == "img"]
    charts = [chart for chart in charts if "loss by" in chart]
    assert len(charts) == 2
    assert charts[0].startswith("Training loss by round: Hospital A from 0.15 to 0.1; ")  # exp(-3) and exp(-8) on top
    assert "Hospital C from 0.27 to 0.22" in charts[1]


def test_report_draws_and_says_the_federation_s_loss(tmp_path, quick):
    history = losses("x", "y").assign(federation_loss=[0.9, 0.9, 0.7, 0.7] * 2)
    page = report(tmp_path, small(), history)
    chart = page.charts("Validation loss by round")[0]
    assert chart == "Validation loss by round: x from 0.5 to 0.5; y from 0.5 to 0.5; federation from 0.9 to 0.7"
    assert "of the weights that a round began with" in page.text


def test_each_figure_has_a_file_to_keep(page):
    files = {link["download"]: link["href"] for link in page.all("a") if "download" in link}
    assert {"train_loss.svg", "validation_loss.svg", "ledger.svg"} <= set(files)
    for name, href in files.items():
        kind, content = href.split(";base64,")
        content = base64.b64decode(content)
        assert kind == ("data:image/svg+xml" if name.endswith(".svg") else "data:image/png")
        if name.endswith(".svg"):
            ET.fromstring(content)  # noqa: S314  (our own)
            assert b"currentColor" not in content


def test_report_never_says_none_of_a_setting(tmp_path, quick):
    page = report(tmp_path, small(), losses("x", "y"), settings={"reference": None, "gene_list": (), "zero": 0})
    assert page.row("reference") == ["reference", "not set"]
    assert page.row("gene_list") == ["gene_list", "not set"]
    assert page.row("zero") == ["zero", "0"]


def test_report_draws_what_moved(tmp_path, quick):
    types = pd.DataFrame(
        {"site": ["x", "y"], "cell_type": "B", "n_cells": [4, 5], "n_moved": [4, 0], "why": "", "like": ""}
    )
    page = report(tmp_path, small(), losses("x", "y"), types=types)
    assert page.charts("Numbers of cells by site")[0].endswith("4 of 9 in all")
    assert "moves.svg" in [link.get("download") for link in page.all("a")]


def test_report_sums_up_what_left_the_sites(page):
    assert "The sites sent 18 messages, 72 MB in all. 24 B of it had no protection" in page.text
    assert page.row("fit")[1:4] == ["site → coordinator", "9", "72 MB"]
    assert page.row("fit")[4].startswith("masked")
    assert page.row("keys")[1:4] == ["site → coordinator", "3", "96 B"]
    assert page.row("shares")[1:4] == ["site → site", "3", "1.5 kB"]
    assert page.row("global")[1:4] == ["coordinator → site", "9", "36 MB"]
    kinds = [row[0] for row in page.rows if len(row) == 5]
    assert kinds[-1] == "global"  # what left the sites comes first
    assert "72 MB left the sites" in page.text or "left the sites 72 MB" in page.text


def test_report_lists_settings_and_versions(page):
    assert page.row("secure") == ["secure", "masked"]
    assert page.row("n_rounds") == ["n_rounds", "3"]
    assert page.row("scanpy") == ["scanpy", version("scanpy")]


def test_report_changes_neither_the_data_nor_any_setting(ideal_demo, history, tmp_path, quick):
    import scanpy as sc

    def state():
        settings = (sc.settings.verbosity, sc.settings.n_jobs, mpl.get_backend(), dict(mpl.rcParams))
        return (*settings, np.random.get_state()[1].tolist())  # noqa: NPY002

    adata = ideal_demo.copy()
    before, expression, latent = state(), adata.X.copy(), adata.obsm["X_fedscgen"].copy()
    keys = [
        list(store) for store in (adata.obs, adata.obsm, adata.obsp, adata.uns, adata.var, adata.varm, adata.layers)
    ]
    report(tmp_path, adata, history)
    assert state() == before
    assert (expression != adata.X).nnz == 0
    np.testing.assert_array_equal(adata.obsm["X_fedscgen"], latent)
    assert keys == [
        list(store) for store in (adata.obs, adata.obsm, adata.obsp, adata.uns, adata.var, adata.varm, adata.layers)
    ]


def test_report_makes_all_names_harmless(tmp_path, quick):
    bad = "<b onclick='x()'>&\"$title</b><script>"
    adata = small(sites=(f"site {bad}", "y"), labels=(f"type {bad}", "T"))
    adata.obsm[bad] = adata.obsm["X_fedscgen"]
    ledger = pd.DataFrame(
        {"sender": [bad], "receiver": ["server"], "kind": [f"kind {bad}"], "bytes": [1], "protection": [f"lock {bad}"]}
    )
    page = report(
        tmp_path, adata, losses(f"site {bad}", "y"), ledger=ledger, settings={f"key {bad}": bad}, embedding=bad
    )
    assert not page.all("script")
    assert not any("onclick" in attributes for _, attributes in page.elements)
    for shown in ("site", "type", "kind", "lock", "key"):
        assert f"{shown} {bad}" in page.text
    assert any(bad in image["alt"] for image in page.all("img"))


def test_report_of_many_cells_shows_a_subset_and_says_so(tmp_path, quick, monkeypatch):
    monkeypatch.setattr(_run_report, "_MAX_CELLS", 20)
    page = report(tmp_path, small(n_cells=32), losses("x", "y"))
    assert "Of the 32 cells, 20 chosen at random are shown" in page.text
    assert all(image["alt"].startswith("UMAP of 20 cells") for image in page.all("img"))
    shown = re.search(r"x (\d+) y (\d+)", page.text)
    assert int(shown[1]) + int(shown[2]) == 20


def test_report_of_a_single_site_is_written_without_metrics(tmp_path, quick):
    page = report(tmp_path, small(sites=("x",)), losses("x", rounds=(0,), epochs=(0, 1, 2)))
    assert "1 site, 30 cells" in page.text
    assert "The metrics can't be computed" in page.text
    assert "all 30 cells have the batch 'x'" in page.text
    assert len(page.charts("Training loss by epoch")) == 1
    assert "No ledger of messages was recorded" in page.text
    assert "one model was trained in one place" in page.text


def test_report_draws_sites_that_hold_several_batches(tmp_path, quick):
    page = report(tmp_path, small(), losses("north", "south"))
    (chart,) = page.charts("Training loss")
    assert chart == "Training loss by round: north from 1 to 1; south from 1 to 1"
    assert "2 sites trained one model together over 2 rounds" in page.text


def test_report_without_validation_or_training_leaves_them_out(tmp_path, quick):
    page = report(tmp_path, small(), losses("x", "y", validation=np.nan))
    assert "Validation loss" not in page.text
    page = report(tmp_path, small(), losses())
    assert "No training was recorded" in page.text
    assert "a model that existed already" in page.text


def test_report_of_a_run_without_open_messages_says_so(tmp_path, quick):
    ledger = pd.DataFrame(
        {"sender": ["x"], "receiver": ["server"], "kind": ["fit"], "bytes": [2], "protection": ["masked"]}
    )
    page = report(tmp_path, small(), losses("x", "y"), ledger=ledger)
    assert "The sites sent 1 message, 2 B in all. None of it went unprotected." in page.text


@pytest.mark.parametrize("nothing", [None, "", np.nan])
def test_report_counts_what_is_not_known_to_be_protected_as_open(tmp_path, quick, nothing):
    ledger = pd.DataFrame(
        {
            "sender": ["x"] * 3,
            "receiver": ["server"] * 3,
            "kind": ["fit", "odd", "silent"],
            "bytes": [2, 30, 400],
            "protection": ["masked", "magic", nothing],
        }
    )
    page = report(tmp_path, small(), losses("x", "y"), ledger=ledger)
    assert "The sites sent 3 messages, 432 B in all. 430 B of it had no protection" in page.text
    assert "unknown" not in page.row("fit")[4]
    assert page.row("odd")[4] == "magic unknown word: count it as not protected"
    assert page.row("silent")[4] == f"none {Protection.NONE.explanation}"


def test_cells_without_a_type_are_shown_as_such(tmp_path, quick):
    adata = small()
    adata.obs.loc["cell0", "cell_type"] = None
    assert "(missing) 1" in report(tmp_path, adata, losses("x", "y")).text


def test_report_replaces_whole_or_not_at_all(tmp_path, quick, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")
    monkeypatch.setattr(_run_report.Path, "replace", _fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(path, small(), history=losses("x", "y"), **KEYS)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def _fail(*_):
    raise OSError("disk full")


def _without(**keys):
    adata = small()
    for store, key in keys.items():
        del getattr(adata, store)[key]
    return adata


def _with_nan():
    adata = small()
    adata.obsm["X_fedscgen"][3, 1] = np.nan
    return adata


@pytest.mark.parametrize(
    ("adata", "error", "message"),
    [
        (_without(obs="batch"), KeyError, "no column 'batch': it has 'cell_type'"),
        (_without(obsm="X_fedscgen"), KeyError, "no 'X_fedscgen'.*what correct\\(\\) returned"),
        (small(n_cells=2), ValueError, "2 cells x 8 genes are too few"),
        (_with_nan(), ValueError, "holds NaN or infinity"),
        (anndata.AnnData(obs=small().obs, obsm=dict(small().obsm), var=small().var), ValueError, "adata.X is empty"),
    ],
    ids=["no site", "no embedding", "two cells", "NaN", "no expression"],
)
def test_unusable_data_are_refused(tmp_path, adata, error, message):
    with pytest.raises(error, match=message):
        report(tmp_path, adata, losses("x", "y"))
    assert not list(tmp_path.iterdir())


def test_tables_that_lack_columns_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the history has no column 'validation_loss'"):
        report(tmp_path, small(), losses("x").drop(columns="validation_loss"))
    with pytest.raises(ValueError, match="the ledger has no column 'sender', 'receiver'"):
        report(tmp_path, small(), losses("x"), ledger=pd.DataFrame(columns=["kind", "bytes", "protection"]))


def test_a_folder_that_does_not_exist_is_refused_before_any_work(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere' for the report doesn't exist"):
        report(tmp_path / "nowhere", small(), losses("x"))


def test_importing_what_the_command_line_needs_is_cheap():
    import subprocess
    import sys

    code = "import sys, fedscgen.benchmark, fedscgen.datasets, fedscgen.metrics, fedscgen.report; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()  # noqa: S603
    assert {"fedscgen.benchmark", "fedscgen.report"} <= set(loaded)
    assert not {"scanpy", "matplotlib", "sklearn", "scvi", "torch", "anndata", "scib_metrics"} & set(loaded)
