import numpy as np
import pytest

from fedscgen.metrics import (
    ari,
    graph_connectivity,
    integration_metrics,
    kmeans_clusters,
    metrics_table,
    nearest_neighbors,
    nmi,
    silhouette_batch,
    silhouette_label,
)


@pytest.fixture(scope="module")
def cells():
    """Three types in two batches of which one is moved away; and the same with the move undone."""
    rng = np.random.default_rng(0)
    labels, batch = np.repeat(["B", "NK", "T"], 60), np.tile(["x", "y"], 90)
    clean = 8 * np.eye(3)[np.repeat(np.arange(3), 60)] + rng.normal(size=(180, 3))
    return {"moved": clean + 30 * (batch == "y")[:, None], "clean": clean}, batch, labels


def test_each_number_is_that_of_its_metric(pbmc):
    embedding, batch, labels = pbmc.obsm["X_pca"], pbmc.obs["batch"], pbmc.obs["cell_type"]
    clusters = kmeans_clusters(embedding, labels.nunique(), seed=4)
    assert integration_metrics(embedding, batch, labels, seed=4) == pytest.approx(
        {
            "NMI": nmi(labels, clusters),
            "ARI": ari(labels, clusters),
            "ASW_C": silhouette_label(embedding, labels),
            "ASW_B": silhouette_batch(embedding, labels, batch),
            "GC": graph_connectivity(nearest_neighbors(embedding, 15), labels),
        }
    )


def test_the_table_compares_embeddings_and_averages_groups(cells):
    embeddings, batch, labels = cells
    table = metrics_table(embeddings, batch, labels)
    assert table.index.tolist() == ["moved", "clean"]
    assert table.columns.tolist() == ["NMI", "ARI", "ASW_C", "ASW_B", "GC", "bio conservation", "batch correction"]
    for name, row in table.iterrows():
        expected = integration_metrics(embeddings[name], batch, labels)
        assert row[:5].to_dict() == expected
        assert row["bio conservation"] == pytest.approx((expected["NMI"] + expected["ARI"] + expected["ASW_C"]) / 3)
        assert row["batch correction"] == pytest.approx((expected["ASW_B"] + expected["GC"]) / 2)


def test_undoing_a_batch_effect_raises_both_groups(cells):
    table = metrics_table(*cells)
    assert table.loc["clean", "batch correction"] > 0.9
    assert table.loc["moved", "batch correction"] < 0.4
    assert table.loc["clean", "bio conservation"] > 0.9
    assert table.loc["moved", "bio conservation"] < 0.7


def test_numbers_do_not_depend_on_the_order_of_cells(cells):
    embeddings, batch, labels = cells
    order = np.random.default_rng(1).permutation(len(batch))
    straight = integration_metrics(embeddings["clean"], batch, labels)
    assert integration_metrics(embeddings["clean"][order], batch[order], labels[order]) == pytest.approx(straight)


def test_a_single_batch_is_refused_by_the_embedding_s_name(cells):
    embeddings, batch, labels = cells
    with pytest.raises(ValueError, match="embedding 'moved': all 180 cells have the batch 'only'"):
        metrics_table(embeddings, ["only"] * len(batch), labels)


def test_a_single_label_is_refused(cells):
    embeddings, batch, _ = cells
    with pytest.raises(ValueError, match="all 180 cells have the label 'T'"):
        integration_metrics(embeddings["clean"], batch, ["T"] * len(batch))


def test_no_embedding_is_refused(cells):
    with pytest.raises(ValueError, match="there is no embedding to measure"):
        metrics_table({}, cells[1], cells[2])


def test_memory_stays_far_below_a_matrix_of_all_pairs():
    """8,000 cells: all pairs in float64 would take 512 MB."""
    import tracemalloc

    rng = np.random.default_rng(0)
    n_cells = 8_000
    labels, batch = rng.integers(0, 4, n_cells), rng.integers(0, 2, n_cells)
    embedding = rng.normal(size=(n_cells, 4)) + 3 * labels[:, None]
    silhouette_label(embedding[:100], labels[:100])
    tracemalloc.start()
    try:
        silhouette_label(embedding, labels)
        silhouette_batch(embedding, labels, batch)
        graph_connectivity(nearest_neighbors(embedding), labels)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200e6
