"""Scores, confidence and audits: the numbers that are drawn are those of the tables."""

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt

from cells import make_adata
from fedscgen import pl


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def repeats():
    """Three seeds of two embeddings."""
    rng = np.random.default_rng(0)
    names = ["kBET", "NMI", "TDI", "total"]
    return pd.DataFrame(rng.random((6, 4)), index=["before", "after"] * 3, columns=names)


def written(ax, n_rows):
    """Texts in the cells of a table, by row and column."""
    inside = [text for text in ax.texts if text.get_position()[1] in range(n_rows)]
    return {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in inside}


def test_scores_shows_means_and_spread_of_the_repeats():
    table = repeats()
    ax = pl.scores(table, show=False)
    mean, spread = (table.groupby(level=0, sort=False).agg(how) for how in ("mean", "std"))
    drawn = [label.get_text().split("\n")[0] for label in ax.get_xticklabels()]
    assert drawn == ["NMI", "TDI (less is better)", "kBET", "total"]
    order = ["NMI", "TDI", "kBET", "total"]
    np.testing.assert_allclose(ax.images[0].get_array(), mean[order])
    assert ax.images[0].get_clim() == (0, 1)
    texts = written(ax, 2)
    for row, name in enumerate(["before", "after"]):
        for column, metric in enumerate(order):
            assert texts[row, column] == f"{mean.at[name, metric]:.2f}\n± {spread.at[name, metric]:.2f}"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["before (n = 3)", "after (n = 3)"]


def test_scores_says_what_each_metric_asks_and_was_scored_on():
    ax = pl.scores(repeats(), show=False)
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels[0] == "NMI\nk-means clusters"
    assert labels[2] == "kBET\n50 nearest cells, within types"
    titles = [text.get_text() for text in ax.texts if text.get_position()[1] < 0]
    assert titles == ["bio conservation", "batch correction", "means and others"]
    ax = pl.scores(repeats(), scored_on={"NMI": "B cells alone"}, show=False)
    assert [label.get_text() for label in ax.get_xticklabels()][:2] == ["NMI\nB cells alone", "TDI (less is better)"]


def test_a_single_table_has_no_spread_and_what_is_not_known_is_a_dash():
    table = repeats().iloc[:2]
    table.iloc[0, 1] = np.nan
    ax = pl.scores(table, show=False)
    texts = written(ax, 2)
    assert texts[0, 0] == "–"
    assert texts[1, 0] == f"{table.loc['after', 'NMI']:.2f}"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["before", "after"]
    with pytest.raises(ValueError, match="table of scores is empty"):
        pl.scores(table.iloc[:0])


def corrected():
    adata = make_adata(n_cells=90)
    rng = np.random.default_rng(0)
    adata.obs["fedscgen_cell_type"] = adata.obs["cell_type"]
    adata.obs["fedscgen_confidence"] = rng.random(adata.n_obs)
    adata.obs["fedscgen_label_conflict"] = rng.random(adata.n_obs) < 0.2
    return adata


def test_confidence_has_a_box_for_each_type_and_counts_contradicted_labels():
    adata = corrected()
    adata.uns["fedscgen_cell_type_colors"] = ["#ff0000", "#00ff00", "#0000ff", "#ffff00"]
    adata.obs.loc[adata.obs["cell_type"] == "type2", "fedscgen_confidence"] = np.nan
    ax = pl.confidence(adata, show=False)
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names == [f"type{i}" for i in range(4)]
    boxes = [patch for patch in ax.patches if len(patch.get_path().vertices) > 4]
    notes = [label.get_text() for label in ax.child_axes[0].get_yticklabels()]
    for position, (name, box) in enumerate(zip(names, boxes, strict=True)):
        own = adata.obs[adata.obs["cell_type"] == name]
        assert notes[position] == f"{own['fedscgen_label_conflict'].sum()} of {len(own)}"
        edges = box.get_path().vertices[:, 0]
        if name == "type2":
            assert np.isnan(edges).all()
            continue
        assert edges.min() == pytest.approx(own["fedscgen_confidence"].quantile(0.25))
        assert edges.max() == pytest.approx(own["fedscgen_confidence"].quantile(0.75))
    assert colors.to_hex(boxes[0].get_facecolor()) == "#ff0000"
    assert [label.get_text() for label in pl.confidence(adata, "batch", show=False).get_yticklabels()] == [
        "site0",
        "site1",
        "site2",
    ]


def test_confidence_of_cells_without_a_classifier_is_refused():
    with pytest.raises(KeyError, match=r"obs\['fedscgen_confidence'\] not found: pass corrected cells"):
        pl.confidence(make_adata())
    adata = corrected()
    adata.obs["fedscgen_confidence"] = np.nan
    with pytest.raises(ValueError, match="has no value"):
        pl.confidence(adata)


def test_privacy_draws_each_method_s_attack_against_its_quality():
    audit = pd.DataFrame(
        {
            "method": ["plain", "plain", "masked"],
            "attack_auc": [0.7, 0.8, 0.51],
            "total": [0.6, 0.64, 0.61],
            "kBET": [0.1, 0.2, 0.3],
        }
    )
    ax = pl.privacy(audit, show=False)
    points = {container.get_label(): container for container in ax.containers}
    assert list(points) == ["plain", "masked"]
    dot, _, bars = points["plain"]
    assert dot.get_xydata()[0] == pytest.approx([0.75, 0.62])
    ends = np.concatenate([bar.get_segments()[0] for bar in bars])
    assert np.ptp(ends[:, 0]) == pytest.approx(2 * np.std([0.7, 0.8], ddof=1))
    assert points["masked"].lines[0].get_xydata()[0] == pytest.approx([0.51, 0.61])
    assert not points["masked"].has_xerr
    (guessing,) = [line for line in ax.lines if line.get_label() == "guessing"]
    assert list(guessing.get_xdata()) == [0.5, 0.5]
    ax = pl.privacy(audit, quality="kBET", chance=None, show=False)
    assert ax.get_ylabel() == "kBET"
    assert ax.containers[0].lines[0].get_ydata()[0] == pytest.approx(0.15)
    assert not [line for line in ax.lines if line.get_label() == "guessing"]
    with pytest.raises(KeyError, match="the audit has no column 'loss'; it has 'method'"):
        pl.privacy(audit, leakage="loss")
    with pytest.raises(ValueError, match="audit is empty"):
        pl.privacy(audit.iloc[:0])
