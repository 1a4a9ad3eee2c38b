"""Names that differ by little more than spelling."""

import pytest

from fedscgen.correction import suggest_spelling


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("b cells", ["T cell", "B cell"], "B cell"),
        ("B", ["T cell", "B cell"], "B cell"),
        ("NK_cell ", ["NK cell"], "NK cell"),
        ("0.0", ["0", "1"], "0"),
        ("Monocites", ["Monocytes", "Dendritic"], "Monocytes"),
        ("CD4 T", ["CD8 T"], None),
        ("type1", ["type2", "type3"], None),
        ("alpha", ["beta"], None),
        ("+", ["-"], None),
    ],
)
def test_names_that_differ_in_spelling_are_found_and_others_not(name, known, expected):
    assert suggest_spelling(name, known) == expected
