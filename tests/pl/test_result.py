"""Figures of a result: what they show is what the tables say."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt

from cells import SMALL, make_adata
from fedscgen import pl
from fedscgen.federation import FederationSettings, simulate


@pytest.fixture(scope="module")
def result():
    """Three sites, two rounds of two epochs."""
    settings = FederationSettings(n_rounds=2, n_epochs=2, model=SMALL, seed=0)
    return simulate(make_adata(n_cells=240), settings=settings, show_progress=False)


@pytest.fixture(autouse=True)
def no_window(monkeypatch):
    """Count what is shown instead."""
    shown = []
    mpl.use("agg")
    monkeypatch.setattr(plt, "show", lambda: shown.append(1))
    yield shown
    plt.close("all")


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def test_training_has_a_line_for_each_site_and_the_federation(result):
    ax = pl.training(result.history, show=False)
    assert texts(ax.get_legend()) == ["site0", "site1", "site2", "federation"]
    for line in ax.lines[:3]:
        of_site = result.history[result.history["site"] == line.get_label()]
        np.testing.assert_array_equal(line.get_ydata(), of_site["validation_loss"])
        np.testing.assert_allclose(line.get_xdata(), [0.5, 1, 1.5, 2])
    np.testing.assert_array_equal(ax.lines[3].get_xdata(), [1, 2])


def test_training_takes_colours_and_either_loss():
    rows = [(site, 0, epoch, 300.0 / 10**epoch) for site in ("a", "b") for epoch in (1, 2, 3)]
    history = pd.DataFrame(rows, columns=["site", "round", "epoch", "train_loss"])
    ax = pl.training(history, loss="train_loss", palette={"b": "#00ff00", "a": "#ff0000"}, show=False)
    assert [line.get_color() for line in ax.lines] == ["#ff0000", "#00ff00"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [30, 3, 0.3])
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2, 3])
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_yscale()) == ("epoch", "training loss", "log")
    history["train_loss"] = [3.0, np.nan, 1.0] * 2
    assert pl.training(history, loss="train_loss", show=False).get_yscale() == "linear"
    with pytest.raises(ValueError, match="unknown loss 'loss'"):
        pl.training(history, loss="loss")


def test_moves_says_how_many_cells_there_are_and_which_share_moved(result):
    ax = pl.moves(result.types, show=False)
    types = result.types.set_index(["cell_type", "site"])
    names = [label.get_text() for label in ax.get_yticklabels()]
    sites = [label.get_text() for label in ax.get_xticklabels()]
    shares = ax.images[0].get_array()
    for i, name in enumerate(names):
        for k, site in enumerate(sites):
            row = types.loc[(name, site)]
            assert shares[i, k] == row["n_moved"] / row["n_cells"]
    numbers = {(text.get_position()[1], text.get_position()[0]): int(text.get_text()) for text in ax.texts}
    assert numbers[0, 1] == types.loc[(names[0], sites[1]), "n_cells"]


def test_a_type_that_a_site_lacks_is_blank():
    types = pd.DataFrame(
        {"batch": ["a", "a", "b"], "cell_type": ["x", "y", "x"], "n_cells": [4, 5, 6], "n_moved": [4, 0, 3]}
    )
    ax = pl.moves(types, show=False)
    shares = np.ma.filled(ax.images[0].get_array(), np.nan)
    np.testing.assert_array_equal(shares, [[1, 0.5], [0, np.nan]])
    assert sorted(text.get_text() for text in ax.texts) == ["4", "5", "6"]


def test_composition_adds_up_and_has_the_colours_of_scanpy():
    adata = make_adata()
    adata.obs["cell_type"] = adata.obs["cell_type"].cat.add_categories("rare")
    adata.obs.iloc[:30, adata.obs.columns.get_loc("cell_type")] = np.nan
    adata.uns["cell_type_colors"] = ["#ff0000", "#00ff00", "#0000ff", "#ffff00", "#ff00ff"]
    ax = pl.composition(adata, "batch", show=False)
    assert texts(ax.get_legend()) == ["type0", "type1", "type2", "type3", "no label"]
    first = ax.containers[0]
    assert colors.to_hex(first[0].get_facecolor()) == "#ff0000"
    of_site = adata.obs[adata.obs["batch"] == "site0"]["cell_type"]
    assert first[0].get_width() == pytest.approx((of_site == "type0").mean())
    totals = np.sum([[bar.get_width() for bar in group] for group in ax.containers], axis=0)
    np.testing.assert_allclose(totals, 1)
    with pytest.raises(KeyError, match=r"obs\['hospital'\] not found; there are 'batch'"):
        pl.composition(adata, "hospital", show=False)


def test_ledger_counts_what_left_the_sites(result):
    ax = pl.ledger(result.ledger, show=False)
    sent = result.ledger[result.ledger["receiver"] == "server"]
    drawn = sum(bar.get_width() for group in ax.containers for bar in group)
    assert drawn == pytest.approx(sent["bytes"].sum() / 1e6)
    assert set(texts(ax.get_legend())) == set(sent["protection"])


@pytest.mark.parametrize("name", ["training", "moves", "ledger"])
def test_they_are_shown_saved_or_drawn_on_given_axes(result, no_window, tmp_path, name):
    draw = getattr(pl, name)
    table = {"training": result.history, "moves": result.types, "ledger": result.ledger}[name]
    assert draw(table) is None
    assert no_window == [1]
    assert draw(table, save=tmp_path / "figure.png") is not None
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    _, axes = plt.subplots()
    assert draw(table, ax=axes) is axes
    assert no_window == [1]
    with pytest.raises(ValueError, match=r"empty|no message"):
        draw(table.iloc[:0])
