import numpy as np
import pytest

from fedscgen.metrics import pcr_comparison

BATCH = np.array(["x", "x", "y", "y"])


def test_comparison_equals_the_one_by_hand():
    """Between batches: 4 of 5 (means -2 and 2, one off within) before, 1 of 2 (means -1 and 1) after."""
    before, after = [[-3.0], [-1.0], [1.0], [3.0]], [[-2.0], [0.0], [0.0], [2.0]]
    assert pcr_comparison(before, after, BATCH) == pytest.approx(1 - (1 / 2) / (4 / 5))


def test_batches_that_no_longer_differ_score_one():
    assert pcr_comparison([[0.0], [0.0], [1.0], [1.0]], [[0.0], [1.0], [0.0], [1.0]], BATCH) == 1


def test_a_batch_effect_that_grew_scores_zero():
    assert pcr_comparison([[-2.0], [0.0], [0.0], [2.0]], [[-3.0], [-1.0], [1.0], [3.0]], BATCH) == 0


def test_comparison_equals_scib_metrics_in_double_precision(pbmc, ideal_embedding):
    scib_metrics = pytest.importorskip("scib_metrics")
    import jax

    before, batch = pbmc.obsm["X_pca"].astype(np.float64), np.asarray(pbmc.obs["batch"])
    for after in (before[:, 5:], ideal_embedding):
        with jax.enable_x64(True):
            expected = scib_metrics.pcr_comparison(before, after, batch, categorical=True)
        assert 0.1 < expected < 1
        assert pcr_comparison(before, after, batch) == pytest.approx(expected, abs=1e-9)


def test_comparison_equals_a_regression_of_every_component(pbmc, ideal_embedding):
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LinearRegression

    batch = np.asarray(pbmc.obs["batch"])
    dummies = (batch[:, None] == np.unique(batch)).astype(float)

    def share_explained(embedding):
        pca = PCA().fit(embedding)
        components = pca.transform(embedding).T
        shares = [LinearRegression().fit(dummies, component).score(dummies, component) for component in components]
        return np.average(shares, weights=pca.explained_variance_)

    before = pbmc.obsm["X_pca"].astype(np.float64)
    expected = 1 - share_explained(ideal_embedding) / share_explained(before)
    assert pcr_comparison(before, ideal_embedding, batch) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (np.eye(3), np.eye(4), "before has 3 cells and the one after 4"),
        ([[0.0], [1.0], [0.0], [1.0]], np.eye(4), "batches explain none of the variance before"),
        (np.ones((4, 1)), np.eye(4), "all 4 cells lie on one spot"),
        ([[0.0], [0.0], [1.0], [1.0]], np.ones((4, 1)), "all 4 cells lie on one spot"),
    ],
)
def test_embeddings_that_cannot_be_compared_are_refused(before, after, message):
    with pytest.raises(ValueError, match=message):
        pcr_comparison(before, after, BATCH)
