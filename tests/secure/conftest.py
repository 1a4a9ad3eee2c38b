"""Detectors for what must not cross a wire; ``test_detectors.py`` shows that they fire."""

import re

import numpy as np
import pytest


def forms_of(values, precision):
    """Every way in which numbers could show in bytes, 5 bytes or more each, so that no chance hit is likely."""
    values = np.asarray(values, dtype=np.float64).reshape(-1)
    single = values.astype("<f4")
    return {
        # pairs in each dtype of 4 bytes, as one alone may come about by chance
        "float32": [single[i : i + 2].tobytes() for i in range(single.size - 1)],
        "float64": [value.tobytes() for value in values.astype("<f8")],
        "fixed point": [word.tobytes() for word in np.rint(values * 2.0**precision).astype("<i8")],
        "int64": [np.int64(value).tobytes() for value in values if value >= 1e4 and value.is_integer()],
        "decimal": [text.encode() for text in map(as_text, values) if len(text) >= 5],
    }


def as_text(value):
    """A number as JSON writes it, whole numbers without a fraction."""
    return str(int(value)) if value.is_integer() else repr(float(value))


def find_forms(wire, numbers, precision):
    """Names of the forms in which any of the arrays shows in the bytes."""
    found = set()
    for values in numbers:
        for form, patterns in forms_of(values, precision).items():
            if any(shows(pattern, wire, form) for pattern in patterns):
                found.add(form)
    return found


def shows(pattern, wire, form):
    """Whether the pattern is in the bytes; digits inside of a key or name in hexadecimal are none."""
    if pattern not in wire:
        return False
    alone = rb"(?<![0-9a-f])" + re.escape(pattern) + rb"(?![0-9a-f])"
    return form != "decimal" or re.search(alone, wire) is not None


def is_uniform(data):
    """Chi-square test of bytes: with 255 degrees of freedom, six standard deviations are 135."""
    observed = np.bincount(np.frombuffer(data, np.uint8), minlength=256)
    expected = len(data) / 256
    assert expected >= 5, f"{len(data)} bytes are too few for the test"
    return abs(((observed - expected) ** 2 / expected).sum() - 255) < 135


@pytest.fixture(scope="session")
def in_the_clear():
    return find_forms


@pytest.fixture(scope="session")
def forms():
    return forms_of


@pytest.fixture(scope="session")
def uniform():
    return is_uniform
