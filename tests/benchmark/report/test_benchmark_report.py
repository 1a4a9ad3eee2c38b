import json
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from benchmark_results import METHODS, SCORES, write_results
from fedscgen.benchmark.report import _benchmark_report, _benchmark_training, write_benchmark_report
from page import Page

BAD = "<b onclick='x()'>&\"$title</b><script>"
SECTIONS = [
    "Integration", "Differences to the baseline", "How well cells mix", "Length of training",
    "A batch left out of training", "Classification of a batch left out", "Cost", "Failures", "Metrics explained",
    "Settings and versions",
]  # fmt: skip


@pytest.fixture(scope="module")
def quick():
    """Leave UMAP out where a test is not about pictures."""

    def two_dimensions(embedding, *, seed=0):
        plane = embedding[:, :2] - embedding[:, :2].min(axis=0)
        return plane / plane.max()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_benchmark_training, "umap_layout", two_dimensions)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory, quick):
    """A benchmark of everything, with its report."""
    folder = tmp_path_factory.mktemp("results")
    write_results(folder, datasets=("Lung", "Kidney"), scenarios=("all", "dropped"))
    write_benchmark_report(folder)
    return folder


@pytest.fixture(scope="module")
def scores(folder):
    return pd.read_csv(folder / "results.csv", keep_default_na=False, na_values={"value": [""]})


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def report(folder, **options):
    """Write results and their report; return its page."""
    write_results(folder, **options)
    return rewritten(folder)


def rewritten(folder):
    return Page(write_benchmark_report(folder).read_text(encoding="utf-8"))


def tables_of(page, *heads):
    """Rows by their first cell, of each table whose header begins with ``heads``."""
    found, rows = [], [[" ".join(cell.split()) for cell in row] for row in page.rows]
    for row in rows:
        if row[0] in ("Method", "total") or row[0] not in METHODS:
            inside = row[: len(heads)] == list(heads)
            if inside:
                found.append({})
        elif inside:
            found[-1][row[0]] = row[1:]
    return found


def charts(page, start):
    return [each["aria-label"] for each in page.all("div") if each.get("aria-label", "").startswith(start)]


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
    assert len(clips) > 100


def test_report_says_what_was_run(page):
    assert "A benchmark Made-up numbers." in page.text
    for fact in ("experiments 4", "data sets 2", "methods 3", "seeds 3", "tasks failed 1"):
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
    integrated = scores[(scores["kind"] == "integration") & (scores["scenario"] == "all")]
    wanted = integrated[integrated["dataset"] == "Lung"].groupby(["method", "metric"])["value"].agg(["mean", "std"])
    table = tables_of(page, "Method", "total", "bio", "batch", "NMI")[0]
    names = next(row for row in page.rows if row[:2] == ["Method", "total"])[1:-1]
    assert sorted(names) == sorted(SCORES)
    for method in METHODS:
        for name, shown in zip(names, table[method], strict=False):
            mean, sd = wanted.loc[(method, name)]
            assert shown.replace("★", "") == f"{mean:.3f} ± {sd:.3f}"
        assert table[method][-1] == "3"
    best = wanted["mean"].unstack()["NMI"].idxmax()
    assert [method for method in METHODS if "★" in table[method][names.index("NMI")]] == [best]
    assert list(table) == list(wanted["mean"].unstack().sort_values("total", ascending=False).index)


def test_overview_compares_totals_over_all_data(scores, page):
    (table,) = tables_of(page, "Method", "mean of all")
    totals = scores[(scores["kind"] == "integration") & (scores["metric"] == "total")]
    of_seeds = totals.groupby(["method", "seed"])["value"].mean().groupby("method")
    for method in METHODS:
        shown = table[method][0].replace("★", "")
        assert shown == f"{of_seeds.mean()[method]:.3f} ± {of_seeds.std()[method]:.3f}"
        assert len(table[method]) == 6  # mean of all, two data sets in two scenarios, seeds


def test_differences_are_paired_by_seed(scores, page):
    integrated = scores[(scores["kind"] == "integration") & (scores["metric"] == "NMI")]
    values = integrated.pivot(index=["scenario", "dataset", "seed"], columns="method", values="value")
    gaps = (values["fedscgen"] - values["scgen"]).loc["all", "Lung"]
    alts = [alt for alt in charts(page, "NMI: ") if "Lung, fedscgen" in alt]
    assert f"Lung, fedscgen {gaps.mean():.3f} ± {gaps.std():.3f}" in alts[0]
    assert not any("pca" in alt for alt in alts)


def test_report_lists_the_tests_and_what_they_can_show(folder, page):
    tests = pd.read_csv(folder / "comparisons.csv")
    first = tests[(tests["method"] == "fedscgen") & (tests["dataset"] == "Lung") & (tests["scenario"] == "all")]
    total = first[first["metric"] == "total"].iloc[0]
    table = tables_of(page, "Method", "Data", "Baseline")[0]
    rows = [row for row in page.rows if row[:2] == ["fedscgen", "Lung"] and row[2] == "scgen"]
    assert rows[0][3:5] == ["3", f"{total['median_difference']:+.3f}{'*' * (total['p_value'] < 0.05)}p "
                                 f"{total['p_value']:.3f}"]  # fmt: skip
    assert set(table) == {"fedscgen"}
    assert "the smallest that the test can give is 0.25 with 3 seeds, so that nothing here can fall below" in page.text


def test_boxes_tell_the_median_over_cells(folder, page):
    known = pd.read_csv(folder / "distributions.csv", keep_default_na=False)
    chosen = known[(known["kind"] == "integration") & (known["dataset"] == "Kidney") & (known["metric"] == "iLISI")]
    median = chosen[(chosen["method"] == "pca") & (chosen["scenario"] == "dropped")]["q50"].mean()
    assert any(f"pca {median:.2f}" in alt for alt in charts(page, "Kidney, iLISI, medians: "))


def test_heat_maps_name_the_best_length_of_training(scores, page):
    tuned = scores[(scores["kind"] == "tuning") & (scores["method"] == "scgen") & (scores["metric"] == "kBET")]
    tuned = tuned.astype({"n_rounds": float, "n_epochs": float})
    means = tuned.groupby(["n_rounds", "n_epochs"])["value"].mean()
    rounds, epochs = means.idxmax()
    alts = charts(page, "kBET by rounds and epochs a round")
    assert len(alts) == len(METHODS)
    assert alts[1] == (
        f"kBET by rounds and epochs a round: from {means.min():.3f} to {means.max():.3f}, best with {rounds:.0f} "
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
    both, north, south = tables_of(page, "Method", "MLP accuracy")
    assert both["pca"][0].replace("★", "") == f"{of_seeds.mean()['pca']:.3f} ± {of_seeds.std()['pca']:.3f}"
    of_north = asked[(asked["held_out"] == "north") & (asked["method"] == "pca")]["value"]
    assert north["pca"][0].replace("★", "") == f"{of_north.mean():.3f} ± {of_north.std():.3f}"
    assert north != south
    assert not charts(page, "k-means AUC")  # NaN throughout
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
    kinds = ("integration", "difference", "lisi", "tuning", "umap", "classification")
    assert {name.split("_")[0] for name in names} == set(kinds)
    for name in names:
        assert ET.parse(figures / f"{name}.svg").getroot().tag.endswith("svg")  # noqa: S314
        assert min(imread(figures / f"{name}.png").shape[:2]) > 100
    assert "Lung" in next(name for name in names if name.startswith("umap"))


def test_smallest_benchmark_has_no_standard_deviations(tmp_path, quick):
    small = {"methods": ("scgen", "fedscgen"), "seeds": (42,), "n_rounds": 1, "n_epochs": 1}
    page = report(tmp_path / "small", **small)
    tables = tables_of(page, "Method", "total")
    assert all("±" not in cell for table in tables for row in table.values() for cell in row)
    assert not any("±" in alt for alt in charts(page, "NMI"))
    assert "seed 1 " in page.text.replace("1 seed", "seed 1 ")
    assert "mean of all" not in page.text
    assert page.headings == SECTIONS


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("integration", SECTIONS[:3]),
        ("tuning", [SECTIONS[3]]),
        ("batch_out", [SECTIONS[2], SECTIONS[4]]),
        ("classification", [SECTIONS[5]]),
    ],
)
def test_sections_without_data_are_left_out(tmp_path, quick, kind, shown):
    page = report(tmp_path / "one", kinds=(kind,), batches=("north",), seeds=(1, 2))
    assert page.headings == [*shown, *SECTIONS[6:]]


def test_results_alone_make_a_report(tmp_path):
    folder = tmp_path / "bare"
    write_results(folder, kinds=("integration",))
    for name in ("distributions", "comparisons", "failures"):
        (folder / f"{name}.csv").unlink()
    page = rewritten(folder)
    assert page.headings == [SECTIONS[0], SECTIONS[1], SECTIONS[6], *SECTIONS[8:]]
    assert "tasks failed 0" in page.text
    assert "Wilcoxon" not in page.text


def test_benchmark_in_which_all_failed_is_reported(tmp_path):
    folder = tmp_path / "failed"
    write_results(folder, kinds=("integration",))
    for name in ("results", "distributions", "comparisons"):
        table = pd.read_csv(folder / f"{name}.csv")
        table.iloc[:0].to_csv(folder / f"{name}.csv", index=False)
    page = rewritten(folder)
    assert page.headings == ["Failures", "Settings and versions"]
    assert "Data: Lung." in page.text


def test_values_that_are_undefined_are_shown_as_such(tmp_path, quick):
    folder = tmp_path / "nan"
    scores = write_results(folder, seeds=(1, 2))
    scores.loc[scores["metric"] == "kBET", "value"] = np.nan
    scores.loc[(scores["method"] == "scgen") & (scores["metric"] == "total"), "value"] = np.nan
    scores.loc[(scores["method"] == "pca") & (scores["metric"] == "NMI") & (scores["seed"] == 1), "value"] = np.nan
    scores.loc[:, "seconds"] = np.nan
    scores.to_csv(folder / "results.csv", index=False)
    page = rewritten(folder)
    table = tables_of(page, "Method", "total", "bio", "batch", "NMI")[0]
    names = next(row for row in page.rows if row[:2] == ["Method", "total"])[1:-1]
    assert list(table)[-1] == "scgen"
    assert table["scgen"][0] == "–"
    assert table["fedscgen"][names.index("kBET")] == "–"
    assert re.fullmatch(r"0\.\d{3}", table["pca"][names.index("NMI")])  # one seed is left
    assert not charts(page, "kBET")


def test_report_makes_all_names_harmless(tmp_path, quick):
    folder = tmp_path / "bad"
    names = {"methods": ("scgen", f"method {BAD}"), "datasets": (f"data {BAD}",), "scenarios": (f"scene {BAD}",)}
    groups = {"batches": (f"batch {BAD}", "NA"), "types": (f"type {BAD}", "细胞")}
    spec = {"name": f"name {BAD}", "description": f"said {BAD}", f"key {BAD}": {"value": BAD}}
    page = report(folder, **names, **groups, seeds=(1, 2), spec=spec)
    assert not page.all("script")
    assert not any("onclick" in attributes for _, attributes in page.elements)
    for shown in ("method", "data", "batch", "type", "name", "said", "key"):
        assert f"{shown} {BAD}" in page.text
    assert "NA held out" in page.text
    for path in (folder / "figures").glob("*.svg"):
        ET.parse(path)  # noqa: S314


def test_a_model_that_diverged_is_not_drawn(tmp_path, quick):
    folder = tmp_path / "diverged"
    write_results(folder, kinds=("batch_out",))
    for path in (folder / "embeddings").iterdir():
        with np.load(path) as arrays:
            np.savez(path, **dict(arrays) | {"embedding": np.full_like(arrays["embedding"], np.nan)})
    page = rewritten(folder)
    assert not page.all("img")
    assert len(tables_of(page, "Method", "total")) == 2


def test_long_settings_are_counted(tmp_path):
    page = report(tmp_path / "long", kinds=("integration",), spec={"runs": [{"task": i} for i in range(500)]})
    assert page.row("runs") == ["runs", "500 entries, see spec.json"]


def test_runs_of_several_experiments_stay_apart(tmp_path):
    folder = tmp_path / "two"
    scores = write_results(folder, kinds=("integration",))
    other = scores.assign(experiment="ablation", value=scores["value"] / 2, task=scores["task"] + "b")
    pd.concat([scores, other]).to_csv(folder / "results.csv", index=False)
    page = rewritten(folder)
    first, second = tables_of(page, "Method", "total", "bio")
    assert float(first["pca"][0][:5]) == pytest.approx(2 * float(second["pca"][0][:5]), abs=2e-3)
    assert "experiment ablation, Lung" in page.text


def test_nothing_is_replaced_when_drawing_fails(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    report(folder, kinds=("integration",))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def fail(*_):
        raise RuntimeError("no ink")

    monkeypatch.setattr(_benchmark_report.runs, "settings", fail)
    with pytest.raises(RuntimeError, match="no ink"):
        write_benchmark_report(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_report_replaces_an_earlier_one_and_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "results"
    report(folder, kinds=("integration",))
    files = sorted(folder.rglob("*"))
    (folder / "figures" / "old.svg").write_text("old")
    rewritten(folder)
    assert sorted(folder.rglob("*")) == files


def test_report_leaves_matplotlib_alone(tmp_path):
    import matplotlib.pyplot as plt

    state = (mpl.get_backend(), plt.get_fignums())
    plain = tmp_path / "plain"
    report(plain, kinds=("integration",))
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "text.parse_math": True, "savefig.bbox": "tight"}):
        before = dict(mpl.rcParams)
        figures = {path.name: path.read_bytes() for path in (plain / "figures").iterdir()}
        rewritten(plain)
        assert dict(mpl.rcParams) == before
    assert {path.name: path.read_bytes() for path in (plain / "figures").iterdir()} == figures
    assert (mpl.get_backend(), plt.get_fignums()) == state


def test_folders_without_results_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no spec\.json: name a folder that a benchmark wrote"):
        write_benchmark_report(tmp_path)
    (tmp_path / "spec.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"holds no results\.csv"):
        write_benchmark_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("spec.json", "{", "must be a JSON object with a name and a description"),
        ("spec.json", json.dumps({"name": "x"}), "KeyError\\('description'\\)"),
        ("results.csv", "", "results.csv can't be read as a table"),
        ("comparisons.csv", "metric,method\n", "comparisons.csv has no column 'experiment', 'dataset'"),
    ],
)
def test_files_that_are_broken_are_refused_by_name(tmp_path, name, content, message):
    write_results(tmp_path, kinds=("integration",))
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        write_benchmark_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def test_words_among_numbers_are_refused_with_their_place(tmp_path):
    scores = write_results(tmp_path, kinds=("integration",)).astype({"value": object})
    scores.loc[0, "value"] = "good"
    scores.to_csv(tmp_path / "results.csv", index=False)
    with pytest.raises(ValueError, match=r"results\.csv, column 'value': could not convert string to float: 'good'"):
        write_benchmark_report(tmp_path)


def test_embeddings_that_are_broken_are_refused_by_name(tmp_path):
    write_results(tmp_path, kinds=("batch_out",))
    path = next((tmp_path / "embeddings").iterdir())
    path.write_bytes(b"PK")
    with pytest.raises(ValueError, match=f"{path.name} can't be read as an embedding .*: delete it and run"):
        write_benchmark_report(tmp_path)
