"""Batches of a few cells: they move, and it is said how little one can rely on that."""

import warnings

import numpy as np
import pytest

from cells import leave_out_pandas, make_adata

TOLD = r"^too few cells{} \({}; a batch needs 5\) to tell their batch's effect from what is their own"
NOTE = "moved by fewer than 5 cells of its batch: not to be relied on"


def newcomer(n_cells):
    return make_adata(60, n_batches=1, seed=3)[:n_cells].copy()


@pytest.mark.parametrize("kind", ["landmarks", "mean", "dominant"])
@pytest.mark.parametrize("n_cells", [1, 2, 4])
def test_a_newcomer_of_few_cells_is_told_not_to_be_relied_on(trained, n_cells, kind):
    with pytest.warns(UserWarning, match=TOLD.format("", n_cells)) as warned:
        corrected = trained.correct(newcomer(n_cells), references=trained.get_references(kind=kind))
    assert len(leave_out_pandas(warned)) == 1
    types = corrected.uns["fedscgen_types"]
    assert types["n_cells"].sum() == types["n_moved"].sum() == n_cells
    assert (types["why"] == NOTE).all()
    assert corrected.obs["fedscgen_moved"].all()


def test_enough_cells_are_not_spoken_of(trained):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        types = trained.correct(newcomer(5), references=trained.get_references()).uns["fedscgen_types"]
    assert (types["why"] == "").all()


def test_a_few_registered_cells_are_moved_by_their_whole_batch(trained, adata):
    """What was measured on many cells isn't called into question."""
    trained.references = trained.get_references()
    whole = trained.correct(expression=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        part = trained.correct(adata[:2].copy(), expression=None)
    np.testing.assert_allclose(part.obsm["X_fedscgen"], whole.obsm["X_fedscgen"][:2], atol=1e-5)
    assert (part.uns["fedscgen_types"]["why"] == "").all()


def test_of_several_batches_the_small_one_is_named(trained, adata):
    batches = adata.obs["batch"].cat.add_categories("new")
    batches.iloc[:2] = "new"
    adata = adata.copy()
    adata.obs["batch"] = batches
    with pytest.warns(UserWarning, match=TOLD.format(" of batch 'new'", 2)):
        types = trained.correct(adata, references=trained.get_references()).uns["fedscgen_types"]
    assert (types["why"] == np.where(types["batch"] == "new", NOTE, "")).all()


def test_who_gives_shifts_has_chosen_what_moves(trained):
    shifts = trained.get_latent_shifts(trained.get_references(kind="mean"))
    corrected = trained.correct(newcomer(1), shifts=shifts)
    assert (corrected.uns["fedscgen_types"]["why"] == "").all()


def test_small_and_unknown_types_say_both(trained):
    cells = newcomer(3)
    cells.obs["cell_type"] = ["type9", *cells.obs["cell_type"].astype(str)[1:]]
    with pytest.warns(UserWarning, match="^too few cells"):
        types = trained.correct(cells, references=trained.get_references()).uns["fedscgen_types"]
    (why,) = types.loc[types["cell_type"] == "type9", "why"]
    assert why == f"moves with its batch: no two sites or batches share this type; {NOTE}"
