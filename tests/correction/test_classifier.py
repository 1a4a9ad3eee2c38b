"""Which type a vector belongs to: against numpy, scipy and scikit-learn, and how sure the classifier may be."""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.linalg import sqrtm
from scipy.special import softmax
from scipy.stats import multivariate_normal, multivariate_t
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from fedscgen.correction import Classifier
from fedscgen.correction._classifier import _TEMPERATURES, label_moments, try_temperatures

N_TYPES, N_LATENT = 4, 3


def draw(n_cells, seed=0):
    """Cells of overlapping normal distributions with one covariance, in which directions differ and go together."""
    rng = np.random.default_rng(seed)
    types = rng.choice(N_TYPES, size=n_cells, p=[0.4, 0.3, 0.2, 0.1])
    spread = np.array([[1.0, 0.5, 0.0], [0.0, 2.0, 0.3], [0.0, 0.0, 0.4]])
    centres = np.random.default_rng(99).normal(size=(N_TYPES, N_LATENT)) @ spread
    return 1.5 * centres[types] + rng.normal(size=(n_cells, N_LATENT)) @ spread, types


def learn(vectors, types):
    return Classifier.from_sums(label_moments(vectors, np.eye(N_TYPES)[types], 0))


def right_where_sure(probabilities, types, least=0.7, most=0.9):
    """Of cells whose type is found this probable: the mean probability, and the share of them that is right."""
    named = probabilities[:, :-1]
    asked = (named.max(axis=1) > least) & (named.max(axis=1) < most)
    assert asked.sum() > 200
    return named.max(axis=1)[asked].mean(), (named.argmax(axis=1) == types)[asked].mean()


def test_what_is_learnt_of_sums_is_what_is_learnt_of_cells():
    vectors, types = draw(4000)
    others = np.arange(4000) % 10 == 0  # of a type that the federation doesn't know
    classifier = Classifier.from_sums(label_moments(vectors, np.eye(N_TYPES)[types] * ~others[:, None], others.sum()))
    known, known_types = vectors[~others], types[~others]
    means = np.stack([known[known_types == t].mean(axis=0) for t in range(N_TYPES)])
    np.testing.assert_allclose(classifier.means, means)
    within = (known - means[known_types]).T @ (known - means[known_types]) / (len(known) - N_TYPES)
    np.testing.assert_allclose(np.linalg.inv(classifier.precision), within, rtol=0.02, atol=0.01)
    np.testing.assert_allclose(classifier.center, vectors.mean(axis=0))
    np.testing.assert_allclose(np.linalg.inv(classifier.spread), np.cov(vectors.T, bias=True), rtol=0.02, atol=0.01)
    np.testing.assert_allclose(classifier.shares, [*0.9 * np.bincount(known_types) / len(known), 0.1])


def test_probabilities_are_those_of_t_distributions_and_a_wide_normal_one():
    classifier, (vectors, _) = learn(*draw(1000)), draw(500, seed=1)
    of_types = [multivariate_t(mean, 0.8 * np.linalg.inv(classifier.precision), df=10) for mean in classifier.means]
    of_none = multivariate_normal(classifier.center, np.linalg.inv(classifier.spread))
    densities = np.stack([density.logpdf(vectors) for density in (*of_types, of_none)], axis=1)
    for temperature in (1.0, 2.5):
        expected = softmax((densities + np.log(classifier.shares)) / temperature, axis=1)
        found = replace(classifier, temperature=temperature).predict(vectors)
        np.testing.assert_allclose(found, expected, atol=1e-9)


def test_types_are_found_as_by_linear_discriminant_analysis():
    (vectors, types), (others, _) = draw(4000), draw(1000, seed=1)
    expected = LinearDiscriminantAnalysis().fit(vectors, types).predict(others)
    found = learn(vectors, types).predict(others)[:, :-1].argmax(axis=1)
    assert (found == expected).mean() > 0.95


def test_cells_without_a_label_that_lie_far_from_all_types_are_of_none():
    vectors, types = draw(2000)
    beyond = np.random.default_rng(1).normal(size=(200, N_LATENT)) + 30
    evidence = np.concatenate([np.eye(N_TYPES)[types], np.zeros((200, N_TYPES))])
    classifier = Classifier.from_sums(label_moments(np.concatenate([vectors, beyond]), evidence, 0))
    assert (classifier.predict(beyond).argmax(axis=1) == N_TYPES).all()
    assert (classifier.predict(vectors).argmax(axis=1) == N_TYPES).mean() < 0.02


def test_scaling_is_the_root_of_the_precision_and_keeps_volumes():
    classifier = learn(*draw(2000))
    root = np.real(sqrtm(classifier.precision))
    expected = root / np.linalg.det(root) ** (1 / N_LATENT)
    scale = classifier.scale(np.eye(N_LATENT))
    np.testing.assert_allclose(scale, expected, atol=1e-9)
    assert np.linalg.det(scale) == pytest.approx(1)
    assert np.abs(scale - np.eye(N_LATENT)).max() > 0.1


def test_scaled_cells_of_a_type_vary_alike_in_all_directions():
    vectors, types = draw(4000)
    scaled = learn(vectors, types).scale(vectors)
    within = np.cov((scaled - np.stack([scaled[types == t].mean(axis=0) for t in range(N_TYPES)])[types]).T)
    np.testing.assert_allclose(within, within[0, 0] * np.eye(N_LATENT), atol=0.05 * within[0, 0])


def test_without_types_nothing_is_scaled_and_all_cells_are_of_none():
    vectors, _ = draw(200)
    classifier = Classifier.from_sums(label_moments(vectors, np.empty((200, 0)), 0))
    np.testing.assert_array_equal(classifier.scale(vectors), vectors)
    np.testing.assert_array_equal(classifier.predict(vectors), np.ones((200, 1)))


def test_the_temperature_is_the_one_with_which_labels_are_most_likely():
    vectors, types = draw(1000)
    classifier = replace(learn(*draw(300, seed=1)), temperature=7.0)  # what it was before does not matter
    densities = classifier.log_densities(vectors)
    expected = [
        np.log(softmax(densities / t, axis=1)[np.arange(len(types)), types]).sum() for t in np.geomspace(0.5, 32, 25)
    ]
    found = try_temperatures(classifier, vectors, types)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert classifier.calibrate(found).temperature == _TEMPERATURES[np.argmax(expected)]
    for name in ("means", "precision", "center", "spread", "shares"):
        assert getattr(classifier.calibrate(found), name) is getattr(classifier, name)


def test_no_single_label_decides_on_the_temperature():
    """One that lies far away would outweigh thousands of others."""
    vectors, types = draw(500)
    classifier = learn(vectors, types)
    lost = np.full((1, N_LATENT), 1e6)
    likelihoods = try_temperatures(classifier, lost, np.zeros(1, dtype=int))
    assert np.isfinite(likelihoods).all()
    assert likelihoods.min() >= -1e4


def test_too_sure_a_classifier_is_cooled_down():
    known, others = draw(4000), draw(4000, seed=1)
    honest = learn(*known)
    boasting = replace(honest, precision=4 * honest.precision, spread=4 * honest.spread)
    calibrated = boasting.calibrate(try_temperatures(boasting, *known))
    assert 1.5 < calibrated.temperature < 6
    gaps, likelihoods = [], []
    for classifier in (boasting, calibrated):
        probabilities = classifier.predict(others[0])
        sure, right = right_where_sure(probabilities, others[1])
        gaps.append(sure - right)
        likelihoods.append(np.log(probabilities[np.arange(4000), others[1]]).mean())
    assert gaps[0] > 0.1
    assert abs(gaps[1]) < gaps[0]
    assert likelihoods[1] > likelihoods[0] + 0.05


def test_of_cells_that_are_80_percent_sure_about_80_percent_are_right():
    known, others = draw(4000), draw(4000, seed=1)
    classifier = learn(*known)
    classifier = classifier.calibrate(try_temperatures(classifier, *known))
    sure, right = right_where_sure(classifier.predict(others[0]), others[1])
    assert right == pytest.approx(sure, abs=0.07)


def test_without_any_answer_the_temperature_stays():
    classifier = learn(*draw(200))
    assert classifier.calibrate(np.zeros(25)).temperature == 1


def test_a_classifier_is_the_same_once_written_and_read():
    classifier = replace(learn(*draw(200)), temperature=2.5)
    again = Classifier.from_json(json.loads(json.dumps(classifier.to_json())))
    assert again.temperature == 2.5
    np.testing.assert_array_equal(again.predict(draw(50)[0]), classifier.predict(draw(50)[0]))
