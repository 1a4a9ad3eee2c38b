"""A metric of another package, as the documentation shows it."""

import logging

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from fedscgen.metrics import (
    ALL_METRICS,
    EmbeddedCells,
    Metric,
    _all,
    _metric,
    all_metrics,
    list_metrics,
    register_metric,
)
from pages import read_blocks

PAGE = "docs/extending.md"


@pytest.fixture(autouse=True)
def forget_additions(monkeypatch):
    """Leave the registry as it was."""
    monkeypatch.setattr(_metric._METRICS, "_values", list_metrics())


def test_a_metric_that_is_added_is_measured_and_counts_for_no_mean(equal_types):
    pytest.importorskip("scib_metrics")
    embedding = equal_types.obsm["X_pca"]
    arguments = embedding, equal_types.obs["batch"], equal_types.obs["cell_type"]
    before = all_metrics(*arguments, before=embedding)
    exec(read_blocks(PAGE, "python", "A new metric")[0], {})  # noqa: S102  (our own page)
    after = all_metrics(*arguments, before=embedding)
    assert list(after) == [*ALL_METRICS, "reach", "bio", "batch", "total", "scib bio", "scib batch", "scib total"]
    np.testing.assert_equal({name: after[name] for name in before}, before)
    nearest = cdist(embedding, embedding).argsort(axis=1)[:, 1:16]
    codes = equal_types.obs["batch"].cat.codes.to_numpy()
    assert after["reach"] == np.mean([len({codes[cell], *codes[near]}) > 1 for cell, near in enumerate(nearest)])


def test_a_metric_is_given_codes_neighbours_and_clusters():
    """Two types far apart, whose cells alternate between two batches."""
    labels, batch = np.repeat([0, 1], 4), np.tile([0, 1], 4)
    embedding = np.arange(8.0)[:, None] + 100 * labels[:, None]
    cells = EmbeddedCells(embedding, embedding, batch, labels)
    assert cells.neighbors.shape == cells.distances.shape == (8, 8)
    assert (cells.neighbors[:, 0] == np.arange(8)).all()
    assert cells.distances[0].tolist() == [0, 1, 2, 3, 104, 105, 106, 107]
    assert len(set(zip(cells.clusters, labels, strict=True))) == 2


@pytest.mark.parametrize("name", ["mine", "NMI"])
def test_a_metric_of_another_package_that_fails_is_nan_and_named_in_the_log(equal_types, caplog, name):
    pytest.importorskip("scib_metrics")
    embedding = equal_types.obsm["X_pca"]
    arguments = embedding, equal_types.obs["batch"], equal_types.obs["cell_type"]
    before = all_metrics(*arguments, before=embedding)
    register_metric(name, Metric(lambda cells: cells.no_such_thing, "bio conservation"), overwrite=True)
    with caplog.at_level(logging.WARNING, logger="fedscgen"):
        after = all_metrics(*arguments, before=embedding)
    assert np.isnan(after[name])
    others = before.keys() - {name, "bio", "total", "scib bio", "scib total"}
    np.testing.assert_equal({other: after[other] for other in others}, {other: before[other] for other in others})
    (message,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith(name)]
    assert "failed: AttributeError: " in message
    assert "no_such_thing" in message


def test_an_error_of_the_package_s_own_metric_is_raised(equal_types, monkeypatch):
    pytest.importorskip("scib_metrics")

    def fail(*_):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(_all, "nmi", fail)
    embedding = equal_types.obsm["X_pca"]
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        all_metrics(embedding, equal_types.obs["batch"], equal_types.obs["cell_type"], before=embedding)


def test_a_function_alone_is_no_metric():
    with pytest.raises(TypeError, match=r"metric 'mine' is a function, not a Metric: pass Metric\(function, group="):
        register_metric("mine", lambda cells: 0.0)
    assert tuple(list_metrics()) == ALL_METRICS


@pytest.mark.parametrize(
    ("name", "group", "message"),
    [
        ("total", "bio conservation", "'total' is the name of a mean of metrics: choose another name"),
        ("NMI", "bio conservation", "there is metric 'NMI' already"),
        ("mine", "bio", "unknown group of metrics 'bio': choose one of 'bio conservation', 'batch correction'"),
    ],
)
def test_a_metric_that_does_not_fit_is_refused(name, group, message):
    with pytest.raises(ValueError, match=message):
        register_metric(name, Metric(lambda cells: 0.0, group))
    assert tuple(list_metrics()) == ALL_METRICS
