"""The examples of docs/extending.md, run as they stand there."""

import numpy as np
import pytest

from cells import make_adata
from fedscgen.federation import PolicyError, SitePolicy
from fedscgen.secure import aggregator_names, find_aggregator, make_aggregator
from pages import read_blocks
from quick import QUICK, simulate


@pytest.fixture(scope="module")
def rounded():
    """The aggregator of the page, known from then on: its code, and the names in it."""
    code, names = read_blocks("docs/extending.md", "python", "A new aggregator")[0], {"__name__": "example"}
    exec(code, names)  # noqa: S102  (our own page)
    return code, names


def test_the_example_of_an_aggregator_is_short(rounded):
    code, names = rounded
    assert len(code.splitlines()) <= 25
    assert aggregator_names()[:3] == ["plain", "crypten", "masked"]
    assert find_aggregator("rounded") is names["kind"]
    assert isinstance(make_aggregator("rounded", 3), names["RoundedAggregator"])


@pytest.mark.parametrize("reference", ["mean", "dominant"])
def test_a_federation_uses_the_new_aggregator_by_its_name(rounded, reference):
    adata = make_adata()
    plain = simulate(adata, reference=reference, **QUICK)
    opened = simulate(adata, secure="rounded", reference=reference, **QUICK)
    assert opened.references.labels == plain.references.labels
    np.testing.assert_array_equal(opened.references.n_cells, plain.references.n_cells)
    np.testing.assert_allclose(opened.references.means, plain.references.means, atol=0.05)
    if reference == "dominant":
        np.testing.assert_array_equal(opened.references.means, np.round(opened.references.means, 4))
    assert (opened.ledger["protection"] == "none").all()


def test_a_sites_policy_knows_the_new_aggregator_and_that_it_shows_each_term(rounded):
    SitePolicy(("rounded",), reveal_counts=True).check("rounded", reveals_counts=False, n_sites=3)
    with pytest.raises(PolicyError, match="wants to see the site's counts of cells"):
        SitePolicy(("rounded",)).check("rounded", reveals_counts=False, n_sites=3)
    with pytest.raises(PolicyError, match="wants to sum with 'rounded', but the site allows only 'masked'"):
        SitePolicy(("masked",)).check("rounded", reveals_counts=False, n_sites=3)


def test_a_name_that_nobody_registered_is_refused_before_anything_is_computed():
    with pytest.raises(ValueError, match="unknown aggregator 'squared': choose one of 'plain', 'crypten', 'masked'"):
        SitePolicy(("squared",))
    with pytest.raises(ValueError, match="unknown aggregator 'squared'"):
        simulate(make_adata(), secure="squared", **QUICK)
