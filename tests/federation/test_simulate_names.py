"""What sites may be called, and what they need to have in common."""

import pytest

from cells import make_adata
from fedscgen.federation import SiteError, simulate
from fedscgen.federation._agreement import agree_on_genes


def test_a_site_needs_a_name_that_is_text():
    with pytest.raises(TypeError, match="site 0 has no name that is text: write '0'"):
        simulate({0: make_adata(), 1: make_adata(seed=1)})


def test_few_genes_in_common_are_a_warning():
    north = [f"g{i}" for i in range(400)]
    south = [*north[:4], *(f"G{i}" for i in range(396))]
    with pytest.warns(UserWarning, match="only 4 genes in common, and each holds 400 or more: are they named in the"):
        assert agree_on_genes({"north": north, "south": south}, "intersection") == north[:4]


@pytest.mark.parametrize(("what", "named"), [("site", "n" * 20), ("gene", "gene0n"), ("cell type", "type0n")])
def test_names_that_no_message_holds_are_refused_by_name(what, named):
    adata = make_adata()
    if what == "gene":
        adata.var_names = [f"{name}{'n' * 300}" for name in adata.var_names]
    elif what == "cell type":
        adata.obs["cell_type"] = [f"{name}{'n' * 300}" for name in adata.obs["cell_type"]]
    else:
        adata.obs["batch"] = [f"{'n' * 300}{name}" for name in adata.obs["batch"]]
    with pytest.raises((SiteError, ValueError), match=f"{what} '{named}.*'... has 30. characters: shorten it to 200"):
        simulate(adata, settings="components", show_progress=False)
