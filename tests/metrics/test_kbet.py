import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from fedscgen.metrics import kbet, neighbors_and_distances

pytest.importorskip("scib_metrics")


def reference(neighbors, distances, labels, batch):
    """scib-metrics' value, but for two things.

    Its largest eigenvalue misses 1 by single precision on some processors: then it is 1. And neighbours among the
    eigenvectors are those of an exact search: its own takes numba a minute to compile.
    """
    import scib_metrics
    from scib_metrics.nearest_neighbors import NeighborsResults
    from scib_metrics.utils import _diffusion_nn

    compute = _diffusion_nn._compute_eigen

    def search(embedding, n_neighbors):
        lengths, indices = NearestNeighbors(n_neighbors=n_neighbors, algorithm="brute").fit(embedding).kneighbors()
        itself = np.arange(len(embedding))[:, None]
        return NeighborsResults(
            indices=np.hstack([itself, indices[:, :-1]]), distances=np.hstack([0 * lengths[:, :1], lengths[:, :-1]])
        )

    def with_ones(*args, **kwargs):
        values, vectors = compute(*args, **kwargs)
        return np.where(np.abs(values - 1) < 1e-6, np.float32(1), values), vectors

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_diffusion_nn, "_compute_eigen", with_ones)
        patch.setattr(_diffusion_nn.nearest_neighbors, "pynndescent", search)
        return scib_metrics.kbet_per_label(NeighborsResults(indices=neighbors, distances=distances), batch, labels)


def name_by_size(labels):
    """Rename types so that large ones come first: the reference then gives each its own number of components."""
    names, sizes = np.unique(labels, return_counts=True)
    ranks = {name: f"{rank:02d} {name}" for rank, name in enumerate(names[np.argsort(-sizes)])}
    return np.array([ranks[name] for name in labels])


@pytest.fixture(scope="module")
def two_types():
    """Types a, whose batches lie on top of each other, and b, whose batches lie apart but hang together."""
    rng = np.random.default_rng(0)
    labels, batch = np.repeat(["a", "b"], 80), np.tile(["x", "y"], 80)
    embedding = rng.normal(size=(160, 2)) + 30.0 * (labels == "b")[:, None]
    embedding[:, 0] += 5.0 * ((labels == "b") & (batch == "y"))
    return *neighbors_and_distances(embedding, 50), labels, batch


def test_kbet_equals_scib_metrics_where_types_are_named_by_size(pbmc, ideal_embedding):
    """Of three sizes, for each of which JAX compiles the reference anew: 599 (the sparse eigenvectors), 172 and 28."""
    lineages = np.array([name.split("_")[0] for name in pbmc.obs["cell_type"]])
    chosen = np.isin(lineages, ["T", "B", "DC"])
    batch, labels = np.asarray(pbmc.obs["batch"])[chosen], name_by_size(lineages[chosen])
    neighbors, distances = neighbors_and_distances(ideal_embedding[chosen], 50)
    expected = reference(neighbors, distances, labels, batch)
    assert 0.5 < expected < 1
    assert kbet(neighbors, distances, labels, batch) == pytest.approx(expected, abs=1e-6)


def test_kbet_equals_scib_metrics_on_types_of_one_size(equal_types):
    batch, labels = np.asarray(equal_types.obs["batch"]), np.asarray(equal_types.obs["cell_type"])
    neighbors, distances = neighbors_and_distances(equal_types.obsm["X_pca"], 50)
    expected = reference(neighbors, distances, labels, batch)
    assert 0 < expected < 1
    assert kbet(neighbors, distances, labels, batch) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("sizes", "tested"), [((120, 120), True), ((140, 20), True), ((60, 25, 25), False)])
def test_a_type_in_pieces_counts_as_in_scib_metrics(sizes, tested):
    """Pieces of fewer than 3 * 10 cells are left out; where they hold over a quarter of the type it counts as 0."""
    rng = np.random.default_rng(1)
    piece, batch = np.repeat(np.arange(len(sizes)), sizes), rng.choice(["x", "y"], sum(sizes))
    embedding = rng.normal(size=(sum(sizes), 3)) + 100.0 * piece[:, None]
    neighbors, distances = neighbors_and_distances(embedding, 15)
    score = kbet(neighbors, distances, ["a"] * sum(sizes), batch)
    assert score == pytest.approx(reference(neighbors, distances, np.array(["a"] * sum(sizes)), batch), abs=1e-6)
    assert (score > 0.8) if tested else (score == 0)


def test_a_batch_left_out_in_a_small_piece_is_not_mixed():
    rng = np.random.default_rng(2)
    embedding = rng.normal(size=(120, 3)) + 100.0 * np.repeat([0, 1], [100, 20])[:, None]
    neighbors, distances = neighbors_and_distances(embedding, 15)
    assert kbet(neighbors, distances, ["a"] * 120, np.repeat(["x", "y"], [100, 20])) == 0


def test_mixed_types_are_accepted_and_torn_ones_rejected(two_types):
    neighbors, distances, labels, batch = two_types
    only_a = np.where(labels == "a", batch, "x")  # type b then doesn't take part
    assert kbet(neighbors, distances, labels, only_a) > 0.85
    assert kbet(neighbors, distances, labels, np.where(labels == "b", batch, "x")) < 0.2


def test_every_type_weighs_alike(two_types):
    neighbors, distances, labels, batch = two_types
    of_each = [kbet(neighbors, distances, labels, np.where(labels == name, batch, "x")) for name in ("a", "b")]
    assert kbet(neighbors, distances, labels, batch) == pytest.approx(np.mean(of_each))


def test_neither_names_nor_repetition_change_the_score(pbmc, ideal_embedding):
    batch, types = np.asarray(pbmc.obs["batch"]), np.asarray(pbmc.obs["cell_type"])
    lineages = np.array([name.split("_")[0] for name in types])
    neighbors, distances = neighbors_and_distances(ideal_embedding, 50)
    score = kbet(neighbors, distances, lineages, batch)
    assert kbet(neighbors, distances, lineages, batch) == score
    assert kbet(neighbors, distances, name_by_size(lineages), batch) == pytest.approx(score, abs=1e-12)


def test_labels_of_one_batch_each_are_refused():
    neighbors, distances = neighbors_and_distances(np.random.default_rng(0).normal(size=(40, 2)), 15)
    with pytest.raises(ValueError, match="no label has at least 10 cells and two batches"):
        kbet(neighbors, distances, np.repeat(["a", "b"], 20), np.repeat(["x", "y"], 20))
