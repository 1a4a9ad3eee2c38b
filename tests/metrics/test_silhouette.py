import numpy as np
import pytest

from fedscgen.metrics import bras, isolated_label_asw, silhouette_batch, silhouette_label

LINE = np.array([[0.0], [1.0], [10.0], [12.0]])
# Silhouettes of {0, 1} and {10, 12}: (b - a) / b with a = 1, 1, 2, 2 and b = 11, 10, 9.5, 11.5.
WIDTHS = np.array([10 / 11, 9 / 10, 7.5 / 9.5, 9.5 / 11.5])


def test_label_silhouette_equals_the_one_by_hand():
    assert silhouette_label(LINE, ["a", "a", "b", "b"]) == pytest.approx((WIDTHS.mean() + 1) / 2)


def test_batch_silhouette_equals_the_one_by_hand():
    """The second label is held by one batch alone and must not count."""
    embedding = np.concatenate([LINE, LINE + 100])
    labels, batch = ["x"] * 4 + ["y"] * 4, ["a", "a", "b", "b"] + ["a"] * 4
    assert silhouette_batch(embedding, labels, batch) == pytest.approx(1 - WIDTHS.mean())


def test_batch_silhouette_weighs_every_label_alike():
    rng = np.random.default_rng(0)
    mixed, apart = rng.normal(size=(200, 3)), np.repeat([[0.0], [50.0]], 5, axis=0) + rng.normal(size=(10, 3))
    labels = np.repeat(["mixed", "apart"], [200, 10])
    batch = np.concatenate([np.tile(["a", "b"], 100), np.repeat(["a", "b"], 5)])
    of_mixed = silhouette_batch(mixed, labels[:200], batch[:200])
    of_apart = silhouette_batch(apart, labels[200:], batch[200:])
    both = silhouette_batch(np.concatenate([mixed, apart]), labels, batch)
    assert both == pytest.approx((of_mixed + of_apart) / 2)
    assert of_mixed > 0.9
    assert of_apart < 0.1


def test_silhouettes_equal_scib_metrics(equal_types):
    scib_metrics = pytest.importorskip("scib_metrics")
    embedding = equal_types.obsm["X_pca"]
    labels, batch = np.asarray(equal_types.obs["cell_type"]), np.asarray(equal_types.obs["batch"])
    expected = scib_metrics.silhouette_label(embedding, labels)
    assert silhouette_label(embedding, labels) == pytest.approx(float(expected), abs=1e-5)
    expected = scib_metrics.silhouette_batch(embedding, labels, batch)
    assert silhouette_batch(embedding, labels, batch) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("change", ["as it is", "a type of one batch", "a batch of one cell"])
def test_bras_and_isolated_labels_equal_scib_metrics(equal_types, change):
    """In double precision, which the reference takes where JAX is told to."""
    scib_metrics = pytest.importorskip("scib_metrics")
    import jax

    embedding = equal_types.obsm["X_pca"].astype(np.float64)
    labels, batch = np.asarray(equal_types.obs["cell_type"]), np.asarray(equal_types.obs["batch"]).astype(object)
    first = np.flatnonzero(labels == labels[0])
    batch[first if change == "a type of one batch" else first[: change == "a batch of one cell"]] = "own"
    with jax.enable_x64(True):
        theirs = scib_metrics.bras, scib_metrics.isolated_labels
        expected = [float(metric(embedding, labels, batch)) for metric in theirs]
    found = [metric(embedding, labels, batch) for metric in (bras, isolated_label_asw)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_bras_equals_the_one_by_hand():
    """Along two axes. The second batches are spread: 1 to the cell of one's own batch, and 1/2 to all others."""
    apart = np.repeat(np.eye(2), 3, axis=0)
    assert bras(apart, ["t"] * 6, list("aaabbb")) == pytest.approx(0)
    assert bras(apart, ["t"] * 6, list("abcabc")) == pytest.approx(0.5)


def test_bras_sees_an_effect_that_pairs_of_batches_hide():
    rng = np.random.default_rng(0)
    batch = np.repeat(["a", "b", "c", "d"], 50)
    embedding = rng.normal(scale=0.1, size=(200, 3)) + np.where(batch < "c", 1.0, -1.0)[:, None]
    assert silhouette_batch(embedding, ["t"] * 200, batch) > 0.9
    assert bras(embedding, ["t"] * 200, batch) < 0.1


def test_isolated_label_asw_is_the_mean_over_the_types_that_fewest_batches_hold():
    batch = ["x", "y", "x", "x"]
    assert isolated_label_asw(LINE, ["a", "a", "b", "b"], batch) == pytest.approx((WIDTHS[2:].mean() + 1) / 2)


def test_labels_may_be_categories_numbers_or_names(pbmc):
    embedding, labels = pbmc.obsm["X_pca"], pbmc.obs["cell_type"]
    expected = silhouette_label(embedding, labels.astype(str).to_numpy())
    assert silhouette_label(embedding, labels) == expected
    assert silhouette_label(embedding, labels.cat.codes) == pytest.approx(expected, abs=1e-12)


def test_one_label_is_refused():
    with pytest.raises(ValueError, match="all 4 cells have the label 'T cell'"):
        silhouette_label(LINE, ["T cell"] * 4)


def test_a_label_for_every_cell_is_refused():
    with pytest.raises(ValueError, match="every one of the 4 cells has a label of its own"):
        silhouette_label(LINE, list("abcd"))


def test_one_batch_is_refused():
    with pytest.raises(ValueError, match="all 4 cells have the batch 'x'"):
        silhouette_batch(LINE, ["a", "a", "b", "b"], ["x"] * 4)


def test_batches_that_share_no_label_are_refused():
    with pytest.raises(ValueError, match="no label has cells in two batches"):
        silhouette_batch(LINE, ["a", "a", "b", "b"], ["x", "x", "y", "y"])


@pytest.mark.parametrize(
    ("embedding", "labels", "message"),
    [
        (LINE.ravel(), list("aabb"), r"not one of shape \(4,\)"),
        (LINE.astype(str), list("aabb"), "numeric array"),
        (np.where(LINE == 10, np.nan, LINE), list("aabb"), "of 1 of 4 cells is not finite, first that of cell 2"),
        (LINE, list("aab"), r"label has shape \(3,\), but there are 4 cells"),
        (LINE, ["a", "a", None, "b"], "1 of 4 cells have no label, first cell 2"),
        (LINE, ["a", "a", "b", float("nan")], "1 of 4 cells have no label, first cell 3"),
    ],
)
def test_broken_input_is_refused(embedding, labels, message):
    if any(not isinstance(name, str) for name in labels):
        labels = np.array(labels, dtype=object)
    with pytest.raises(ValueError, match=message):
        silhouette_label(embedding, labels)
