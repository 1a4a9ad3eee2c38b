"""Values that travel as JSON: what goes in comes out, and nothing else is read."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedscgen._types import References


@given(st.integers(0, 4), st.booleans())
def test_references_survive_json(n_labels, counted):
    rng = np.random.default_rng(n_labels)
    labels = tuple(f"type{i}" for i in range(n_labels))
    counts = rng.integers(1, 9, n_labels) if counted else None
    references = References(labels, rng.normal(size=(n_labels, 3)), counts, "mean")
    read = References.from_json(json.loads(json.dumps(references.to_json())))
    assert (read.labels, read.kind) == (labels, "mean")
    np.testing.assert_array_equal(read.means.ravel(), references.means.ravel())
    assert (read.n_cells is None) == (counts is None)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"labels": 5}, "references: 'labels' is int: expected a list of at most 10000"),
        ({"labels": ["a", "a"]}, "texts that all differ"),
        ({"labels": ["a"]}, "'means' has 2 rows for 1 cell types"),
        ({"means": [[0.0, 1.0], [2.0]]}, "rows of one length"),
        ({"means": [[0.0], [float("inf")]]}, "expected a list of"),
        ({"means": [[0.0], [10**400]]}, "expected a list of"),
        ({"n_cells": [1]}, "'n_cells' has 1 rows for 2 cell types"),
        ({"n_cells": [1, True]}, "a whole number from 0"),
        ({"kind": "best"}, "expected one of dominant, mean"),
        ({"more": 1}, "unknown entry 'more': there are kind, labels, means, n_cells"),
    ],
)
def test_other_references_are_refused_by_name(change, fault):
    content = {"kind": "mean", "labels": ["a", "b"], "means": [[0.0], [1.0]], "n_cells": None}
    assert References.from_json(content).labels == ("a", "b")
    with pytest.raises(ValueError, match=fault):
        References.from_json({**content, **change})
    del content["n_cells"]
    with pytest.raises(ValueError, match="references: 'n_cells' is missing"):
        References.from_json(content)
