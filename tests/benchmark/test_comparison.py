"""Methods against centralized scGen, over seeds."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import wilcoxon

from fedscgen.benchmark import compare


def results(values, *, kind="integration", dataset="d"):
    rows = [
        {"experiment": "e", "kind": kind, "dataset": dataset, "scenario": "all", "method": method, "seed": seed,
         "metric": "NMI", "value": value}
        for method, of_seeds in values.items() for seed, value in of_seeds.items()
    ]  # fmt: skip
    return pd.DataFrame(rows)


def test_seeds_are_paired_and_tested_as_scipy_does():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=8), rng.normal(0.5, size=8)
    table = results({"scgen": dict(enumerate(first)), "fedscgen": dict(enumerate(second))})
    (row,) = compare(table.sample(frac=1, random_state=0)).to_dict("records")
    assert (row["method"], row["baseline"], row["n_seeds"]) == ("fedscgen", "scgen", 8)
    assert row["median_difference"] == pytest.approx(np.median(second - first))
    assert row["p_value"] == pytest.approx(wilcoxon(second, first).pvalue)


def test_seeds_that_one_side_lacks_do_not_count():
    table = results({"scgen": {1: 0.1, 2: 0.2, 3: 0.3}, "fedscgen": {2: 0.5, 3: 0.9, 4: 0.0}})
    (row,) = compare(table).to_dict("records")
    assert row["n_seeds"] == 2
    assert row["median_difference"] == pytest.approx(0.45)


def test_no_test_where_fewer_than_two_seeds_differ():
    table = results({"scgen": {1: 0.1, 2: 0.2}, "fedscgen": {1: 0.1, 2: 0.3}})
    assert np.isnan(compare(table)["p_value"]).all()


def test_nothing_to_compare_gives_an_empty_table():
    assert not len(compare(results({"pca": {1: 0.1}})))
    assert not len(compare(results({"scgen": {1: 0.1}, "pca": {1: 0.1}}, kind="tuning")))
    assert "p_value" in compare(results({"pca": {1: 0.1}}))
