import re
import xml.etree.ElementTree as ET

import pandas as pd
import pytest
from matplotlib.image import imread

from benchmark_results import METHODS, SCORES, write_results
from fedscgen.benchmark.report import write_benchmark_report
from page import Page

SECTIONS = [
    "Integration", "Corrected expression", "Differences to the baseline", "How well cells mix", "Length of training",
    "A batch left out of training", "Classification of a batch left out", "Cost", "Failures", "Metrics explained",
    "Settings and versions",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A benchmark of everything, with its report."""
    folder = tmp_path_factory.mktemp("results")
    write_results(folder, datasets=("Lung", "Kidney"))
    write_benchmark_report(folder)
    return folder


@pytest.fixture(scope="module")
def scores(folder):
    return pd.read_csv(folder / "results.csv", keep_default_na=False, na_values={"value": [""]})


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_report_stands_alone(folder, page):
    content = (folder / "report.html").read_text(encoding="utf-8")
    assert not page.all("script")
    assert not page.all("link")
    for _, attributes in page.elements:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
        assert not any(name.startswith("on") for name in attributes)
    (policy,) = (meta["content"] for meta in page.all("meta") if meta.get("http-equiv"))
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert "http" not in content.replace("http-equiv", "")
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", content))


def test_ids_are_unique_and_every_reference_finds_its_own(page):
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    targets = {value[1:] for _, attributes in page.elements for name, value in attributes.items() if "href" in name}
    clips = {attributes["clip-path"][5:-1] for _, attributes in page.elements if "clip-path" in attributes}
    assert targets | clips <= set(ids)
    assert len(clips) > 20


def test_report_says_what_was_run(page):
    assert "A benchmark Made-up numbers." in page.text
    for fact in ("experiments 5", "data sets 2", "methods 3", "seeds 3", "tasks failed 1"):
        assert fact in page.text
    assert "Data: Lung, Kidney." in page.text
    assert page.headings == SECTIONS


def test_report_counts_each_task_once(scores, page):
    tasks = scores.drop_duplicates("task")
    assert f"tasks done {len(tasks)}" in page.text
    minutes = tasks["seconds"].sum() / 60
    hours, rest = re.search(r"of computing (\d+) h (\d+) min", page.text).groups()
    assert 60 * int(hours) + int(rest) == pytest.approx(minutes, abs=1)


def test_tables_hold_means_and_standard_deviations_over_seeds(scores, page):
    integrated = scores[(scores["kind"] == "integration") & (scores["dataset"] == "Lung")]
    wanted = integrated.groupby(["method", "metric"])["value"].agg(["mean", "std"])
    table = page.tables("Method", "total", "bio", "batch", "NMI")[0]
    names = table[None][:-1]
    assert sorted(names) == sorted(SCORES)
    for method in METHODS:
        for name, shown in zip(names, table[method], strict=False):
            mean, sd = wanted.loc[(method, name)]
            assert shown.replace("★", "") == f"{mean:.3f} ± {sd:.3f}"
        assert table[method][-1] == "3"
    best = wanted["mean"].unstack()["NMI"].idxmax()
    assert [method for method in METHODS if "★" in table[method][names.index("NMI")]] == [best]
    assert list(table)[1:] == list(wanted["mean"].unstack().sort_values("total", ascending=False).index)


def test_overview_compares_totals_over_all_data(scores, page):
    (table,) = page.tables("Method", "mean of all")
    totals = scores[(scores["kind"] == "integration") & (scores["metric"] == "total")]
    of_seeds = totals.groupby(["method", "seed"])["value"].mean().groupby("method")
    for method in METHODS:
        shown = table[method][0].replace("★", "")
        assert shown == f"{of_seeds.mean()[method]:.3f} ± {of_seeds.std()[method]:.3f}"
        assert len(table[method]) == 4  # mean of all, two data sets, seeds


def test_a_panel_a_data_set_shows_the_totals_of_all_methods(folder, scores, page):
    totals = scores[(scores["kind"] == "integration") & (scores["metric"] == "total")]
    for name in ("Lung", "Kidney"):
        values = totals[totals["dataset"] == name].groupby("method")["value"]
        said = [f"{method} {values.mean()[method]:.3f} ± {values.std()[method]:.3f}" for method in METHODS]
        assert page.charts(f"{name}: ") == [f"{name}: {'; '.join(said)}"]
    assert {path.name for path in (folder / "figures").glob("summary*")} == {"summary.svg", "summary.png"}


def test_corrected_expression_is_tabled_and_drawn(scores, page):
    values = scores[scores["metric"] == "marker_overlap"].groupby("method")["value"]
    (table,) = page.tables("Method", "expression_spearman")
    for method in METHODS:
        assert table[method][1].replace("★", "") == f"{values.mean()[method]:.3f} ± {values.std()[method]:.3f}"
    assert len(page.charts("marker_overlap: ")) == 1
    assert "the 20 genes that mark a type" in page.text


def test_differences_are_paired_by_seed(scores, page):
    integrated = scores[(scores["kind"] == "integration") & (scores["metric"] == "NMI")]
    values = integrated.pivot(index=["dataset", "seed"], columns="method", values="value")
    gaps = (values["fedscgen"] - values["scgen"]).loc["Lung"]
    alts = [alt for alt in page.charts("NMI: ") if "Lung, fedscgen" in alt]
    assert f"Lung, fedscgen {gaps.mean():.3f} ± {gaps.std():.3f}" in alts[0]
    assert not any("pca" in alt for alt in alts)


def test_report_lists_the_tests_and_what_they_can_show(folder, page):
    tests = pd.read_csv(folder / "comparisons.csv")
    first = tests[(tests["method"] == "fedscgen") & (tests["dataset"] == "Lung")]
    total = first[first["metric"] == "total"].iloc[0]
    table = page.tables("Method", "Data", "Baseline")[0]
    mark = "*" if total["p_value"] < 0.05 else ""
    row = next(row for row in page.rows if row[:3] == ["fedscgen", "Lung", "scgen"])
    assert row[3:5] == ["3", f"{total['median_difference']:+.3f}{mark}p {total['p_value']:.3f}"]
    assert set(table) == {None, "fedscgen"}
    assert "the smallest that the test can give is 0.25 with 3 seeds, so that nothing here can fall below" in page.text


def test_boxes_tell_the_median_over_cells(folder, page):
    known = pd.read_csv(folder / "distributions.csv", keep_default_na=False)
    chosen = known[(known["kind"] == "integration") & (known["dataset"] == "Kidney") & (known["metric"] == "iLISI")]
    median = chosen[chosen["method"] == "pca"]["q50"].mean()
    assert any(f"pca {median:.2f}" in alt for alt in page.charts("Kidney, iLISI, medians: "))


def test_heat_maps_name_the_best_length_of_training(scores, page):
    tuned = scores[(scores["kind"] == "tuning") & (scores["metric"] == "kBET")]
    tuned = tuned.astype({"n_rounds": float, "n_epochs": float})
    means = tuned.groupby(["n_rounds", "n_epochs"])["value"].mean()
    rounds, epochs = means.idxmax()
    assert "Lung, fedscgen" in page.text
    (alt,) = page.charts("kBET by rounds and epochs per round")
    assert alt == (
        f"kBET by rounds and epochs per round: from {means.min():.3f} to {means.max():.3f}, best with {rounds:.0f} "
        f"rounds of {epochs:.0f} epochs"
    )


def test_pictures_name_the_batch_left_out_and_the_types(page):
    alts = [image["alt"] for image in page.all("img")]
    assert len(alts) == 2 * len(METHODS) * 2  # batches x methods x colourings
    assert alts[0] == "UMAP of 60 cells, pca, by batch: north (held out), south"
    assert alts[1] == "UMAP of 60 cells, pca, by cell type: B, T, NK"
    assert "Lung, south held out" in page.text


def test_classifiers_are_compared_on_the_batch_left_out(scores, page):
    asked = scores[(scores["kind"] == "classification") & (scores["classifier"] == "MLP")]
    asked = asked[asked["metric"] == "accuracy"]
    of_seeds = asked.groupby(["method", "seed"])["value"].mean().groupby("method")
    both, north, south = page.tables("Method", "MLP accuracy")
    assert both["pca"][0].replace("★", "") == f"{of_seeds.mean()['pca']:.3f} ± {of_seeds.std()['pca']:.3f}"
    of_north = asked[(asked["held_out"] == "north") & (asked["method"] == "pca")]["value"]
    assert north["pca"][0].replace("★", "") == f"{of_north.mean():.3f} ± {of_north.std():.3f}"
    assert north != south
    assert not page.charts("k-means AUC")  # NaN throughout
    assert "the labels of the batch left out take part in its own correction" in page.text


def test_report_tells_cost_failures_settings_and_versions(page):
    assert page.row("seeds") == ["seeds", "[1, 2, 3]"]
    assert page.row("torch") == ["torch", "2.13.0"]
    cost = next(row for row in page.rows if row[0] == "scgen" and row[1] == "1 min 17 s900 MB")
    assert len(cost) == 3
    lost = next(row for row in page.rows if row[-1] == "logs/lost.log")
    assert lost == ["fedscgen", "Lung", "integration", "9",
                    "RuntimeError: the party 'north' closed the connection", "logs/lost.log"]  # fmt: skip


def test_every_figure_is_a_whole_svg_and_png(folder):
    figures = folder / "figures"
    names = {path.stem for path in figures.iterdir()}
    assert {f"{name}{suffix}" for name in names for suffix in (".svg", ".png")} == {p.name for p in figures.iterdir()}
    kinds = ("integration", "summary", "expression", "difference", "lisi", "tuning", "umap", "classification")
    assert {name.split("_")[0] for name in names} == set(kinds)
    for name in names:
        assert ET.parse(figures / f"{name}.svg").getroot().tag.endswith("svg")  # noqa: S314
        assert min(imread(figures / f"{name}.png").shape[:2]) > 100
    assert "Lung" in next(name for name in names if name.startswith("umap"))
