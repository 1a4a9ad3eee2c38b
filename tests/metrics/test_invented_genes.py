import numpy as np
import pytest
from scipy import sparse
from scipy.stats import false_discovery_control, mannwhitneyu

from fedscgen.metrics import UndefinedMetricError, count_invented_genes

N_GENES = 40


@pytest.fixture(scope="module")
def cells():
    """Counts with many ties of two batches; the types differ in the first five genes."""
    rng = np.random.default_rng(0)
    batch, labels = np.repeat(["a", "b"], [80, 60]), np.resize(["x", "y"], 140)
    expression = rng.poisson(1.0, size=(140, N_GENES)).astype(np.float32)
    expression[:, :5] += 3 * (labels == "x")[:, None]
    return expression, batch, labels


def by_loops(expression, batch, labels):
    """Sign of each gene's difference, where there is one; one row for each batch and type."""
    rows = []
    for site in np.unique(batch):
        for name in np.unique(labels):
            own, others = (batch == site) & (labels == name), (batch == site) & (labels != name)
            test = mannwhitneyu(expression[own], expression[others], use_continuity=False, method="asymptotic")
            higher = np.sign(test.statistic - own.sum() * others.sum() / 2)
            rows.append(higher * (false_discovery_control(np.nan_to_num(test.pvalue, nan=1.0)) < 0.05))
    return np.array(rows)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix, sparse.csc_matrix], ids=["dense", "csr", "csc"])
def test_genes_are_those_that_scipy_calls_different(cells, make):
    before, batch, labels = cells
    after = before.copy()
    after[:, 5:8] += 2 * (labels == "x")[:, None]  # made by the correction
    after[:, 0] -= 6 * (labels == "x")  # turned round
    after[:, 1] = 0
    first, second = (by_loops(each, batch, labels) for each in (before, after))
    counts = count_invented_genes(make(before), make(after), batch, labels)
    assert counts == {
        "comparisons": 4,
        "tested": 4 * N_GENES,
        "before": np.count_nonzero(first),
        "after": np.count_nonzero(second),
        "invented": np.count_nonzero((second != 0) & (second != first)),
    }
    assert counts["invented"] >= 16  # four genes in each of four comparisons


def test_what_all_cells_of_a_batch_share_invents_nothing(cells):
    before, batch, labels = cells
    counts = count_invented_genes(before, before + 5 * (batch == "b")[:, None], batch, labels)
    assert counts["invented"] == 0
    assert counts["before"] == counts["after"] >= 20


def test_without_two_types_in_any_batch_there_is_no_value(cells):
    before, batch, _ = cells
    with pytest.raises(UndefinedMetricError, match="no batch holds 10 cells of a type and 10 others"):
        count_invented_genes(before, before, batch, batch)


def test_other_cells_are_refused(cells):
    before, batch, labels = cells
    with pytest.raises(ValueError, match="after \\(139, 40\\): pass the same cells"):
        count_invented_genes(before, before[1:], batch, labels)
