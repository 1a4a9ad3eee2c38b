"""Cells before and after correction: what is drawn is where the cells are, in the colours that were given."""

import numpy as np
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt
from matplotlib.image import imread

from cells import make_adata
from fedscgen import pl

SITES = {"site0": "#ff0000", "site1": "#00ff00", "site2": "#0000ff"}


@pytest.fixture
def adata():
    """Cells with ready layouts, one of which is upside down."""
    adata = make_adata(n_cells=60)
    layout = np.random.default_rng(0).random((adata.n_obs, 2))
    adata.obsm["X_umap"], adata.obsm["X_after"] = layout, 10 * (1 - layout)
    return adata


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def dots(ax):
    """Positions and colours of an axes' dots."""
    drawn = [part for part in ax.collections if len(part.get_offsets())]
    return np.concatenate([part.get_offsets() for part in drawn]), np.concatenate([c.get_facecolor() for c in drawn])


def by_position(positions, values):
    return values[np.lexsort(positions.T)]


def test_every_cell_is_drawn_where_it_is_in_the_colour_of_its_site(adata):
    adata.uns["batch_colors"] = list(SITES.values())
    before, after = pl.embedding(adata, "batch", before="X_umap", after="X_after", show=False)
    for ax, layout in ((before, adata.obsm["X_umap"]), (after, adata.obsm["X_after"])):
        expected = (layout - layout.min(axis=0)) / np.ptp(layout, axis=0)
        positions, shades = dots(ax)
        np.testing.assert_allclose(np.sort(positions, axis=0), np.sort(expected, axis=0))
        wanted = np.array([colors.to_rgb(SITES[site]) for site in adata.obs["batch"]])
        np.testing.assert_allclose(by_position(positions, shades)[:, :3], by_position(expected, wanted))
    assert [ax.get_title() for ax in (before, after)] == ["batch, before correction", "batch, after correction"]


def test_a_legend_names_the_groups_in_their_colours(adata):
    adata.uns["batch_colors"] = list(SITES.values())
    before, after = pl.embedding(adata, "batch", before="X_umap", after="X_after", show=False)
    assert before.get_legend() is None
    named = {line.get_label(): line.get_color() for line in after.get_legend().legend_handles}
    assert named == SITES
    axes = pl.embedding(adata, "batch", before="X_umap", after="X_after", legend_loc="none", show=False)
    assert not any(ax.get_legend() for ax in axes)


def test_cells_without_a_type_are_grey(adata):
    adata.obs.iloc[:7, adata.obs.columns.get_loc("cell_type")] = np.nan
    _, after = pl.embedding(adata, "cell_type", before="X_umap", after="X_after", show=False)
    _, shades = dots(after)
    assert [colors.to_hex(shade) for shade in shades].count("#bbbbbb") == 7
    assert after.get_legend().get_texts()[-1].get_text() == "(missing)"


def test_numbers_and_genes_are_drawn_by_their_values(adata):
    gene = adata.var_names[3]
    axes = pl.embedding(adata, ["batch", gene], before="X_umap", after="X_after", show=False)
    assert len(axes) == 4
    shown = next(part for part in axes[3].collections if part.get_array() is not None)
    expression = np.asarray(adata[:, gene].to_df()[gene])
    np.testing.assert_allclose(np.sort(np.asarray(shown.get_array())), np.sort(expression), rtol=1e-6)
    layout = adata.obsm["X_after"]
    expected = (layout - layout.min(axis=0)) / np.ptp(layout, axis=0)
    np.testing.assert_allclose(np.sort(shown.get_offsets(), axis=0), np.sort(expected, axis=0))


def test_layouts_are_made_of_components_and_the_corrected_embedding(adata):
    rng = np.random.default_rng(0)
    of_type = adata.obs["cell_type"].cat.codes.to_numpy()
    adata.obsm["X_fedscgen"] = 20 * np.eye(5)[of_type] + rng.normal(size=(adata.n_obs, 5))
    given = sorted(adata.obsm), sorted(adata.uns), adata.X.copy()
    _, after = pl.embedding(adata, "cell_type", show=False)
    expected = pl.umap_layout(adata.obsm["X_fedscgen"], seed=0)
    positions, _ = dots(after)
    np.testing.assert_allclose(np.sort(positions, axis=0), np.sort(expected, axis=0))
    assert (sorted(adata.obsm), sorted(adata.uns)) == given[:2]
    assert (given[2] != adata.X).nnz == 0


def test_of_many_cells_some_are_chosen(adata):
    before, _ = pl.embedding(adata, "batch", before="X_umap", after="X_after", max_cells=20, show=False)
    positions, _ = dots(before)
    chosen = pl.choose_cells(adata.n_obs, 20, 0)
    assert len(chosen) == len(set(chosen)) == 20
    layout = adata.obsm["X_umap"][chosen]
    expected = (layout - layout.min(axis=0)) / np.ptp(layout, axis=0)
    np.testing.assert_allclose(np.sort(positions, axis=0), np.sort(expected, axis=0))


def test_it_is_saved_whole_and_drawn_on_given_axes(adata, tmp_path):
    keys = {"before": "X_umap", "after": "X_after"}
    assert len(pl.embedding(adata, save=tmp_path / "cells.png", **keys)) == 4
    assert imread(tmp_path / "cells.png").shape[1] > 800  # with the legends beside
    _, given = plt.subplots(1, 2)
    assert pl.embedding(adata, "batch", ax=given, **keys) == list(given)
    with pytest.raises(ValueError, match="2 axes for 2 colourings: two for each"):
        pl.embedding(adata, ax=given, **keys)


def test_what_is_not_there_is_named(adata):
    with pytest.raises(KeyError, match="'hospital' is no column of obs and no gene; obs has 'batch'"):
        pl.embedding(adata, "hospital", before="X_umap", after="X_after")
    with pytest.raises(KeyError, match=r"obsm\['X_fedscgen'\] not found; there are 'X_given', 'X_umap'"):
        pl.embedding(adata, "batch")
    with pytest.raises(ValueError, match="unknown place for a legend 'left'"):
        pl.embedding(adata, "batch", before="X_umap", after="X_after", legend_loc="left")
    del adata.X
    with pytest.raises(ValueError, match="X is empty"):
        pl.embedding(adata, "batch", after="X_after")
