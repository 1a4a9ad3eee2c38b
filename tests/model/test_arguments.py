"""Arguments of a model's methods that are out of range are refused by name, before any cell is encoded."""

import numpy as np
import pytest

from fedscgen.model import FedSCGEN


@pytest.fixture
def model(trained, monkeypatch):
    """A trained model that encodes no cell."""
    monkeypatch.setattr(FedSCGEN, "_encode", None)
    return trained


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_confidence": 80}, "min_confidence=80.*: a probability, from 0 to 1"),
        ({"min_confidence": -0.1}, "min_confidence=-0.1: a probability, from 0 to 1"),
        ({"min_confidence": float("nan")}, "min_confidence=nan: expected a finite number"),
        ({"min_confidence": "high"}, "min_confidence='high': expected a number"),
        ({"batch_size": 0}, "batch_size=0: at least 1"),
        ({"batch_size": 2.5}, "batch_size=2.5: expected a whole number"),
    ],
)
@pytest.mark.parametrize("method", ["correct", "predict"])
def test_correct_and_predict_refuse_what_is_out_of_range(model, method, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shrink": "no"}, "shrink='no': expected true or false"),
        ({"unlabeled": "drop"}, "unknown unlabeled 'drop': choose one of 'knn', 'mean', 'leave'"),
        ({"expression": 3}, "expression=3: expected text"),
        ({"denoise": 1}, "denoise=1: expected true or false"),
        ({"reencode": None}, "reencode=None: expected true or false"),
    ],
)
def test_correct_checks_all_that_correction_options_check(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.correct(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_cells": 0}, "min_cells=0: at least 1"),
        ({"min_cells": 1.5}, "min_cells=1.5: expected a whole number"),
        ({"seed": -1}, "seed=-1: at least 0"),
        ({"label_noise": 1}, "label_noise=1: a share, from 0 to below 1"),
        ({"seed": None}, "seed=None: expected a whole number"),
    ],
)
def test_references_are_not_sought_with_what_is_out_of_range(model, options, message):
    with pytest.raises(ValueError, match=message):
        model.get_references(**options)


@pytest.mark.parametrize("method", ["get_latent_representation", "get_label_stats"])
def test_cells_are_encoded_one_at_a_time_at_least(model, method):
    with pytest.raises(ValueError, match="batch_size=0: at least 1"):
        getattr(model, method)(batch_size=0)


def test_a_seed_says_where_a_models_own_landmarks_begin(trained):
    first, again, other = (trained.get_references(seed=seed) for seed in (5, 5, np.int64(6)))
    assert first == again
    assert not np.allclose(first.positions, other.positions)
    assert trained.get_references() == trained.get_references(seed=0)
