"""What was scored on labels that no method had seen leads the page, and the rest is marked."""

import numpy as np
import pandas as pd
import pytest

from benchmark_results import write_results
from fedscgen.benchmark.report import write_benchmark_report
from page import Page

METHODS = ("pca", "Harmony, 10 PCs", "Harmony, 20 PCs", "fedscgen")
LIKE = {"Harmony, 10 PCs": "harmony", "Harmony, 20 PCs": "harmony"}
SCORES = ("total", "accuracy", "k-NN accuracy", "split_accuracy", "invented_genes", "TDI")
UNSEEN, ALTERED = "Scored on labels that no method had seen", "Controls and faults: other labels given than scored with"


@pytest.fixture(scope="module")
def scores(folder):
    return pd.read_csv(folder / "results.csv", keep_default_na=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two conditions of hidden labels, a random split, and an experiment with all labels given."""
    folder = tmp_path_factory.mktemp("protocols")
    runs = [{"method": name, "task": {"method": {"like": LIKE.get(name, name)}}} for name in METHODS]
    kinds = ("integration", "hidden_labels", "random_split")
    table = write_results(folder, methods=METHODS, kinds=kinds, scores=SCORES, spec={"runs": runs})
    hidden = table["kind"] == "hidden_labels"
    rng = np.random.default_rng(1)
    more = table[hidden].assign(condition="95 % hidden", value=rng.uniform(size=hidden.sum()))
    pd.concat([table.assign(condition=np.where(hidden, "50 % hidden", "")), more]).to_csv(
        folder / "results.csv", index=False
    )
    write_benchmark_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_unseen_labels_lead_and_the_page_says_so(page):
    assert page.headings[:3] == [UNSEEN, ALTERED, "Integration"]
    assert "This page begins with what was scored on labels that no method had seen (labels hidden)." in page.text
    given = "Scored with the labels that the methods were given, which flatters those that use them."
    assert page.text.index("A random share of each site's cells has no label") < page.text.index(given)
    marked = {"Integration", "Differences to the baseline", "How well cells mix"} & set(page.headings)
    assert page.text.count(given) == len(marked)


def test_conditions_stand_side_by_side_with_the_mean_of_all(page, scores):
    totals = scores[(scores["kind"] == "hidden_labels") & (scores["metric"] == "total")]
    table, *_ = [each for each in page.tables("Method", "mean of all") if "Lung, 95 % hidden" in each[None]]
    mean = totals[totals["method"] == "fedscgen"].groupby("seed")["value"].mean()
    assert table["fedscgen"][0].replace("★", "") == f"{mean.mean():.3f} ± {mean.std():.3f}"
    assert table[None] == ["mean of all", "Lung, 50 % hidden", "Lung, 95 % hidden", "Seeds"]


def test_the_best_of_several_settings_of_a_competitor_is_a_row_that_says_so(page, scores):
    hidden = scores[(scores["kind"] == "hidden_labels") & (scores["metric"] == "total")]
    means = hidden.groupby(["method", "condition"])["value"].mean().unstack()
    table, *_ = [each for each in page.tables("Method", "mean of all") if "Lung, 95 % hidden" in each[None]]
    for column, condition in ((1, "50 % hidden"), (2, "95 % hidden")):
        best = means.loc[list(LIKE), condition].max()
        assert table["harmony, best of 2"][column].replace("★", "").startswith(f"{best:.3f}")
    assert "Nobody could choose it without the labels that count" in page.text
    assert "methods 4" in page.text


def test_a_score_of_which_less_is_better_is_marked_and_sorted_so(page, scores):
    split = scores[(scores["kind"] == "random_split") & (scores["metric"] == "split_accuracy")]
    means = split.groupby("method")["value"].mean()
    tables = [each for each in page.tables("Method", "Lung") if "★" in "".join(map(str, each.get(means.idxmin(), [])))]
    assert any(next(iter(list(each)[1:])) == means.idxmin() for each in tables)
    assert "split_accuracy (lower is better)" in page.text


def test_a_page_without_unseen_labels_says_that(tmp_path):
    write_results(tmp_path, kinds=("integration",))
    page = Page(write_benchmark_report(tmp_path).read_text(encoding="utf-8"))
    assert "Nothing here was scored on labels that the methods hadn't seen." in page.text
    assert UNSEEN not in page.headings
