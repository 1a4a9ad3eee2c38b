import json
import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from fedscgen import metrics
from fedscgen.metrics import ALL_METRICS, METRIC_GROUPS, SCIB_GROUPS, all_metrics, neighbors_and_distances

pytest.importorskip("scib_metrics")


@pytest.fixture(scope="module")
def measurement(pbmc, ideal_embedding):
    cells = ideal_embedding, np.asarray(pbmc.obs["batch"]), np.asarray(pbmc.obs["cell_type"])
    return *cells, all_metrics(*cells, before=pbmc.obsm["X_pca"], seed=3)


def test_each_number_is_that_of_its_metric(pbmc, measurement):
    embedding, batch, labels, values = measurement
    at = {n: neighbors_and_distances(embedding, n) for n in (15, 50, 90)}
    clusters = metrics.kmeans_clusters(embedding, len(set(labels)), seed=3)
    expected = {
        "NMI": metrics.nmi(labels, clusters),
        "ARI": metrics.ari(labels, clusters),
        "GC": metrics.graph_connectivity(at[15][0], labels),
        "ILF1": metrics.isolated_label_f1(*at[15], labels, batch, seed=3),
        "ASW_C": metrics.silhouette_label(embedding, labels),
        "ASW_B": metrics.silhouette_batch(embedding, labels, batch),
        "kBET": metrics.kbet(*at[50], labels, batch),
        "EBM": metrics.entropy_of_batch_mixing(metrics.nearest_neighbors(embedding, 51), batch),
        "iLISI": metrics.ilisi(*at[90], batch),
        "cLISI": metrics.clisi(*at[90], labels),
        "kNN": metrics.knn_accuracy(metrics.nearest_neighbors(embedding, 16), labels),
        "PCR": metrics.pcr_comparison(pbmc.obsm["X_pca"], embedding, batch),
        "ILASW": metrics.isolated_label_asw(embedding, labels, batch),
        "BRAS": metrics.bras(embedding, labels, batch),
        "TDI": metrics.type_distance_inflation(pbmc.obsm["X_pca"], embedding, batch, labels),
    }
    assert tuple(expected) == ALL_METRICS
    assert list(values) == [*ALL_METRICS, "bio", "batch", "total", "scib bio", "scib batch", "scib total"]
    assert {name: values[name] for name in ALL_METRICS} == pytest.approx(expected, abs=1e-12)
    assert all(type(value) is float for value in values.values())


def test_groups_are_plain_means_and_the_total_weighs_them(measurement):
    values = measurement[-1]
    for group, names in METRIC_GROUPS.items():
        assert values[group] == pytest.approx(np.mean([values[name] for name in names]))
    assert values["total"] == pytest.approx(0.6 * values["bio"] + 0.4 * values["batch"])
    for group, names in SCIB_GROUPS.items():
        assert values[group] == pytest.approx(np.mean([values[name] for name in names]))
    assert values["scib total"] == pytest.approx(0.6 * values["scib bio"] + 0.4 * values["scib batch"])


def test_the_second_total_takes_what_the_benchmarker_of_scib_metrics_takes():
    """By the names of its functions."""
    from dataclasses import asdict

    from scib_metrics.benchmark import BatchCorrection, BioConservation

    names = {"isolated_labels": ["ILASW"], "nmi_ari_cluster_labels_kmeans": ["NMI", "ARI"],
             "silhouette_label": ["ASW_C"], "clisi_knn": ["cLISI"],
             "bras": ["BRAS"], "ilisi_knn": ["iLISI"], "kbet_per_label": ["kBET"],
             "graph_connectivity": ["GC"], "pcr_comparison": ["PCR"]}  # fmt: skip
    for group, theirs in (("scib bio", BioConservation()), ("scib batch", BatchCorrection())):
        taken = [name for function, on in asdict(theirs).items() if on for name in names[function]]
        assert sorted(SCIB_GROUPS[group]) == sorted(taken)


def test_undoing_the_batch_effect_raises_every_score_of_mixing(pbmc, measurement):
    _, batch, labels, after = measurement
    before = all_metrics(pbmc.obsm["X_pca"], batch, labels, before=pbmc.obsm["X_pca"], seed=3)
    assert before["PCR"] == 0
    for name in ("EBM", "kNN", "total", *METRIC_GROUPS["batch"]):
        assert after[name] > before[name]


def test_numbers_repeat_to_the_last_bit_here_and_in_another_process(pbmc, measurement, tmp_path):
    embedding, batch, labels, values = measurement
    assert all_metrics(embedding, batch, labels, before=pbmc.obsm["X_pca"], seed=3) == values
    cells = {"embedding": embedding, "batch": batch.astype(str), "labels": labels.astype(str)}
    np.savez(tmp_path / "cells.npz", **cells, before=pbmc.obsm["X_pca"])
    script = (
        "import json, sys, numpy; from fedscgen.metrics import all_metrics;"
        "print(json.dumps(all_metrics(**numpy.load(sys.argv[1]), seed=3)))"
    )
    run = [sys.executable, "-W", "error", "-c", script, tmp_path / "cells.npz"]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # as these tests have
    output = subprocess.run(run, check=True, capture_output=True, text=True, env=one_thread)  # noqa: S603
    assert json.loads(output.stdout) == values
    assert output.stderr == ""


def test_a_metric_without_a_value_is_nan_and_says_why(caplog):
    """Each batch holds types of its own, and batches have one mean before: nothing to compare for three metrics."""
    rng = np.random.default_rng(0)
    labels, batch = np.repeat(["a", "b", "c", "d"], 30), np.repeat(["x", "y"], 60)
    embedding = rng.normal(size=(120, 4)) + 10 * np.eye(4)[np.repeat(np.arange(4), 30)]
    before = np.tile([[-1.0], [1.0]], (60, 1))
    with caplog.at_level(logging.WARNING, logger="fedscgen"):
        values = all_metrics(embedding, batch, labels, before=before)
    assert [name for name in values if np.isnan(values[name])] == ["ASW_B", "kBET", "PCR", "BRAS"]
    assert [record.getMessage().partition(" has no value")[0] for record in caplog.records] == [
        "ASW_B", "kBET", "PCR", "BRAS",
    ]  # fmt: skip
    assert "no label has cells in two batches" in caplog.text
    assert values["batch"] == pytest.approx((values["GC"] + values["iLISI"]) / 2)
    assert values["bio"] > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": ["x"] * 12}, "all 12 cells have the batch 'x'"),
        ({"labels": ["a"] * 12}, "all 12 cells have the label 'a'"),
        ({"labels": ["a"] * 6 + ["b"] * 5}, r"label has shape \(11,\), but there are 12 cells"),
        ({"before": np.eye(11)}, "before has 11 cells and the one after 12"),
        ({"before": np.full((12, 1), np.nan)}, "of 12 of 12 cells is not finite"),
        ({"embedding": np.full((12, 1), np.inf)}, "of 12 of 12 cells is not finite"),
    ],
)
def test_broken_input_is_refused(change, message):
    cells = {"embedding": np.eye(12), "batch": ["x", "y"] * 6, "labels": ["a"] * 6 + ["b"] * 6, "before": np.eye(12)}
    with pytest.raises(ValueError, match=message):
        all_metrics(**(cells | change))


def test_memory_stays_far_below_a_matrix_of_all_pairs():
    """6,000 cells: all pairs in float64 would take 288 MB."""
    import tracemalloc

    rng = np.random.default_rng(0)
    n_cells = 6_000
    labels, batch = rng.integers(0, 4, n_cells), rng.integers(0, 2, n_cells)
    embedding = rng.normal(size=(n_cells, 4)) + 3 * labels[:, None]
    all_metrics(embedding[:200], batch[:200], labels[:200], before=embedding[:200])
    tracemalloc.start()
    try:
        all_metrics(embedding, batch, labels, before=embedding + batch[:, None])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200e6
