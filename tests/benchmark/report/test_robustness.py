import json
import re
import xml.etree.ElementTree as ET

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from benchmark_results import write_results
from fedscgen.benchmark.report import _report, write_benchmark_report
from page import Page

BAD = "<b onclick='x()'>&\"$title</b><script>"
SECTIONS = [
    "Integration", "Corrected expression", "Differences to the baseline", "How well cells mix", "Length of training",
    "A batch left out of training", "Classification of a batch left out", "Cost", "Failures", "Metrics explained",
    "Settings and versions",
]  # fmt: skip


def report(folder, **options):
    """Write results and their report; return its page."""
    write_results(folder, **options)
    return rewritten(folder)


def rewritten(folder):
    return Page(write_benchmark_report(folder).read_text(encoding="utf-8"))


def test_smallest_benchmark_has_no_standard_deviations(tmp_path):
    small = {"methods": ("scgen", "fedscgen"), "seeds": (42,), "n_rounds": 1, "n_epochs": 1, "scores": ("total", "NMI")}
    page = report(tmp_path / "small", **small)
    tables = page.tables("Method", "total")
    assert all("±" not in cell for table in tables for row in table.values() for cell in row)
    assert not any("±" in alt for alt in page.charts("NMI"))
    assert "seed 1 " in page.text.replace("1 seed", "seed 1 ")
    assert "mean of all" not in page.text
    assert page.headings == SECTIONS


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ("integration", [SECTIONS[0], *SECTIONS[2:4]]),
        ("expression", [SECTIONS[1]]),
        ("tuning", [SECTIONS[4]]),
        ("batch_out", [SECTIONS[3], SECTIONS[5]]),
        ("classification", [SECTIONS[6]]),
    ],
)
def test_sections_without_data_are_left_out(tmp_path, kind, shown):
    page = report(tmp_path / "one", kinds=(kind,), batches=("north",), seeds=(1, 2), scores=("total",))
    assert page.headings == [*shown, *SECTIONS[7:]]


def test_results_alone_make_a_report(tmp_path):
    folder = tmp_path / "bare"
    write_results(folder, kinds=("integration",))
    for name in ("distributions", "comparisons", "failures"):
        (folder / f"{name}.csv").unlink()
    page = rewritten(folder)
    assert page.headings == [SECTIONS[0], SECTIONS[2], SECTIONS[7], *SECTIONS[9:]]
    assert "tasks failed 0" in page.text
    assert "Wilcoxon" not in page.text


def test_tests_without_their_scores_are_listed(tmp_path):
    folder = tmp_path / "tests"
    scores = write_results(folder, kinds=("integration",), scores=("total",))
    scores[scores["method"] != "fedscgen"].to_csv(folder / "results.csv", index=False)
    page = rewritten(folder)
    (table,) = page.tables("Method", "Data", "Baseline")
    assert set(table) == {None, "fedscgen"}
    assert not page.charts("total: Lung")


def test_benchmark_in_which_all_failed_is_reported(tmp_path):
    folder = tmp_path / "failed"
    write_results(folder, kinds=("integration",))
    for name in ("results", "distributions", "comparisons"):
        table = pd.read_csv(folder / f"{name}.csv")
        table.iloc[:0].to_csv(folder / f"{name}.csv", index=False)
    page = rewritten(folder)
    assert page.headings == ["Failures", "Settings and versions"]
    assert "Data: Lung." in page.text


def test_values_that_are_undefined_are_shown_as_such(tmp_path):
    folder = tmp_path / "nan"
    scores = write_results(folder, seeds=(1, 2), kinds=("integration", "tuning"))
    scores.loc[scores["metric"] == "kBET", "value"] = np.nan
    scores.loc[(scores["method"] == "scgen") & (scores["metric"] == "total"), "value"] = np.nan
    scores.loc[(scores["method"] == "pca") & (scores["metric"] == "NMI") & (scores["seed"] == 1), "value"] = np.nan
    scores.loc[:, "seconds"] = np.nan
    scores.to_csv(folder / "results.csv", index=False)
    page = rewritten(folder)
    table = page.tables("Method", "total", "bio", "batch", "NMI")[0]
    names = table[None][:-1]
    assert list(table)[-1] == "scgen"
    assert table["scgen"][0] == "–"
    assert table["fedscgen"][names.index("kBET")] == "–"
    assert re.fullmatch(r"0\.\d{3}", table["pca"][names.index("NMI")])  # one seed is left
    assert not page.charts("kBET")


def test_report_makes_all_names_harmless(tmp_path):
    folder = tmp_path / "bad"
    names = {"methods": ("scgen", f"method {BAD}"), "datasets": (f"data {BAD}",), "scenarios": (f"scene {BAD}",)}
    groups = {"batches": (f"batch {BAD}", "NA"), "types": (f"type {BAD}", "细胞")}
    spec = {"name": f"name {BAD}", "description": f"said {BAD}", f"key {BAD}": {"value": BAD}}
    page = report(folder, **names, **groups, seeds=(1, 2), scores=("total",), spec=spec)
    assert not page.all("script")
    assert not any("onclick" in attributes for _, attributes in page.elements)
    for shown in ("method", "data", "batch", "type", "name", "said", "key"):
        assert f"{shown} {BAD}" in page.text
    assert "NA held out" in page.text
    for path in (folder / "figures").glob("*.svg"):
        ET.parse(path)  # noqa: S314


def test_a_model_that_diverged_has_no_picture(tmp_path):
    folder = tmp_path / "diverged"
    write_results(folder, kinds=("batch_out",))
    for path in (folder / "pictures").iterdir():
        path.unlink()
    page = rewritten(folder)
    assert not page.all("img")
    assert len(page.tables("Method", "total")) == 2


def test_long_settings_are_counted(tmp_path):
    page = report(
        tmp_path / "long", kinds=("tuning",), scores=("total",), spec={"runs": [{"task": i} for i in range(500)]}
    )
    assert page.row("runs") == ["runs", "500 entries, see plan.json"]


def test_experiments_and_scenarios_stay_apart(tmp_path):
    folder = tmp_path / "two"
    scores = write_results(folder, kinds=("integration",), methods=("pca", "scgen"), scores=("total",))
    others = [
        scores.assign(experiment="ablation", value=scores["value"] / 2, task=scores["task"] + "b"),
        scores.assign(scenario="dropped", value=scores["value"] / 4, task=scores["task"] + "c"),
    ]
    pd.concat([scores, *others]).to_csv(folder / "results.csv", index=False)
    page = rewritten(folder)
    full, half, quarter = (float(table["pca"][0][:5]) for table in page.tables("Method", "total"))
    assert (full / half, full / quarter) == (pytest.approx(2, abs=0.01), pytest.approx(4, abs=0.03))
    (overview,) = page.tables("Method", "mean of all")  # the other experiment has one scenario only
    assert overview[None] == ["mean of all", "Lung, all cell types", "Lung, minor types dropped", "Seeds"]
    for title in ("experiment integration, Lung, all cell types", "experiment ablation, Lung, all cell types",
                  "experiment integration, Lung, minor types dropped"):  # fmt: skip
        assert title in page.text


def test_nothing_is_replaced_when_drawing_fails(tmp_path, monkeypatch):
    folder = tmp_path / "results"
    report(folder, kinds=("tuning",), scores=("total",))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def fail(*_):
        raise RuntimeError("no ink")

    monkeypatch.setattr(_report.runs, "settings", fail)
    with pytest.raises(RuntimeError, match="no ink"):
        write_benchmark_report(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_report_replaces_an_earlier_one_and_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "results"
    report(folder, kinds=("tuning",), scores=("total",))
    files = sorted(folder.rglob("*"))
    (folder / "figures" / "old.svg").write_text("old")
    rewritten(folder)
    assert sorted(folder.rglob("*")) == files


def test_report_leaves_matplotlib_alone(tmp_path):
    import matplotlib.pyplot as plt

    state = (mpl.get_backend(), plt.get_fignums())
    plain = tmp_path / "plain"
    report(plain, kinds=("tuning",), scores=("total",))
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "text.parse_math": True, "savefig.bbox": "tight"}):
        before = dict(mpl.rcParams)
        figures = {path.name: path.read_bytes() for path in (plain / "figures").iterdir()}
        rewritten(plain)
        assert dict(mpl.rcParams) == before
    assert {path.name: path.read_bytes() for path in (plain / "figures").iterdir()} == figures
    assert (mpl.get_backend(), plt.get_fignums()) == state


def test_folders_without_results_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no plan\.json: name a folder that a benchmark wrote"):
        write_benchmark_report(tmp_path)
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"holds no results\.csv"):
        write_benchmark_report(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("plan.json", "{", "must be a JSON object with a name and a description"),
        ("plan.json", json.dumps({"name": "x"}), "KeyError\\('description'\\)"),
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


def test_pictures_that_are_broken_are_refused_by_name(tmp_path):
    write_results(tmp_path, kinds=("batch_out",))
    path = next((tmp_path / "pictures").iterdir())
    path.write_bytes(b"PK")
    with pytest.raises(ValueError, match=f"{path.name} isn't whole, or no picture .*: delete it"):
        write_benchmark_report(tmp_path)
