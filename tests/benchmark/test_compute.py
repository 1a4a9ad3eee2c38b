"""What a task tells its method, and what it measures of the result."""

import numpy as np
import pandas as pd
import pytest

from fedscgen.benchmark import UNLABELLED, Embedded, Method, _methods, list_methods, register_method
from fedscgen.benchmark._compute import compute, load_cells
from fedscgen.benchmark._kinds import KINDS
from fedscgen.benchmark._spec import DataSource, MethodSettings
from fedscgen.benchmark._tasks import Task

pytest.importorskip("scib_metrics")
pytestmark = pytest.mark.filterwarnings("ignore")  # scvi-tools, Lightning and jax warn as they like

DRAWN = DataSource(
    "drawn",
    simulate={"n_sites": 3, "n_types": 4, "n_cells": 360, "n_genes": 60, "seed": 5},
    coarser={"lymphocyte": ["type_1", "type_2"]},
)
AXES = {
    "hidden_labels": {"share": 0.5},
    "unlabelled_site": {"held_out": 1},
    "unlabelled_newcomer": {"held_out": 1},
    "label_noise": {"share": 0.2, "noisy_sites": "all"},
    "batch_out": {"held_out": 1},
}
PROTOCOLS = [kind for kind in KINDS if kind not in ("tuning", "expression")]


@pytest.fixture
def watched(monkeypatch):
    """A method that embeds by principal components, and keeps what it was given."""
    monkeypatch.setattr(_methods._METHODS, "_values", list_methods())
    given = []

    def embed(cells):
        given.append(cells)
        return list_methods()["pca"](cells, {})

    register_method("watched", Method(embed, centralized=True, takes_newcomers=True))
    return given


def run(kind, method, settings=None, **axes):
    """Values by metric."""
    task = Task(kind, DRAWN, MethodSettings(method, settings or {}), 3, 10, **{**AXES.get(kind, {}), **axes})
    rows = pd.DataFrame(compute(task).rows)
    assert set(rows["kind"]) == {kind}
    return rows.set_index("metric")["value"]


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_a_method_learns_of_cell_types_what_its_protocol_tells_alone(watched, kind):
    values, truth = run(kind, "watched"), load_cells(DRAWN)
    (cells,) = watched
    given, true = (adata.obs["cell_type"].astype(str).to_numpy() for adata in (cells.all, truth))
    assert list(cells.all.obs) == list(cells.train.obs) == ["batch", "cell_type"]
    assert not cells.all.uns
    assert not cells.all.obsm
    assert (cells.all.X != truth.X).nnz == 0
    hidden = given == UNLABELLED
    assert hidden.any() == KINDS[kind].hides_labels
    assert (given == true).all() == (KINDS[kind].scoring == "given labels")
    left_out = sorted(set(cells.all.obs["batch"]) - set(cells.train.obs["batch"]))
    assert left_out == (["site_2"] if kind in ("unlabelled_newcomer", "batch_out") else [])
    if kind == "hidden_labels":
        assert hidden.mean() == pytest.approx(0.5, abs=0.02)
    elif hidden.any():
        assert (hidden == (truth.obs["batch"] == "site_2")).all()
    assert 0 < values["total"] < 1
    assert ("accuracy" in values) == (KINDS[kind].hides_labels or kind in ("label_noise", "renamed_type"))


def test_hidden_cells_alone_are_scored(watched, monkeypatch):
    from fedscgen import metrics

    seen = []
    real = metrics.all_metrics
    monkeypatch.setattr(metrics, "all_metrics", lambda *args, **options: seen.append(args) or real(*args, **options))
    run("hidden_labels", "watched")
    embedding, batch, labels = seen[0]
    (cells,) = watched
    hidden = (cells.all.obs["cell_type"] == UNLABELLED).to_numpy()
    assert len(embedding) == len(batch) == len(labels) == hidden.sum()
    np.testing.assert_array_equal(labels, load_cells(DRAWN).obs["cell_type"].astype(str)[hidden])


def register(monkeypatch, embed, **abilities):
    monkeypatch.setattr(_methods._METHODS, "_values", list_methods())
    register_method("mine", Method(embed, **abilities))


def test_names_that_a_method_gives_count_before_those_of_classifiers(monkeypatch):
    truth = load_cells(DRAWN).obs["cell_type"].astype(str).to_numpy()
    names = np.where(np.arange(len(truth)) % 2, truth, None)  # every other cell is left without a name

    def embed(cells):
        return Embedded(
            np.eye(4)[np.unique(truth, return_inverse=True)[1]] + 1e-3 * cells.all.X[:, :4].toarray(), names
        )

    register(monkeypatch, embed)
    values = run("hidden_labels", "mine")
    assert values["k-NN accuracy"] == values["logistic accuracy"] == 1
    assert values["accuracy"] == pytest.approx(0.5, abs=0.1)
    assert 0.5 < values["macro-F1"] < 0.8
    noisy = run("label_noise", "mine")
    assert noisy["accuracy"] == 1, "a cell with a wrong label lies where it belongs, whatever its name"


def test_a_method_that_follows_the_random_halves_is_found_out(monkeypatch):
    def follow(cells):
        codes = cells.all.obs["cell_type"].cat.codes.to_numpy()
        invented = cells.all.X.toarray() + (codes[:, None] == np.arange(60) % 5)
        return Embedded(9.0 * np.eye(5)[codes] + cells.all.X[:, :5].toarray(), expression=invented)

    register(monkeypatch, follow, decode=lambda cells: cells.all.X)
    invented = run("random_split", "mine")
    assert invented["split_accuracy"] > 0.95
    assert invented["split_accuracy_gain"] > 0.2
    assert invented["invented_genes"] > 15
    honest = run("random_split", "pca")
    assert honest["split_accuracy_gain"] == pytest.approx(0, abs=0.05)
    assert "invented_genes" not in honest


def test_expression_is_decoded_where_a_method_does_not_bring_it(monkeypatch):
    pca = list_methods()["pca"]
    register(monkeypatch, lambda cells: pca(cells, {}), decode=lambda cells: cells.all.X)
    assert run("random_split", "mine")["invented_genes"] == 0


def test_finer_labels_tell_a_method_that_merges_types_from_one_that_does_not(monkeypatch):
    def follow(cells):
        return 9.0 * np.eye(4)[cells.all.obs["cell_type"].cat.codes] + cells.all.X[:, :4].toarray()

    register(monkeypatch, follow)
    assert run("integration", "mine")["NMI"] > run("finer_labels", "mine")["NMI"] + 0.1


QUICK = {
    "pca": {},
    "harmony": {"theta": 4, "lamb": 1.0},
    "scvi": {"max_epochs": 2},
    "scanvi": {"max_epochs": 2, "scanvi_epochs": 2},
    "scgen": {"max_epochs": 2, "model": {"n_hidden": 16}},
    "local": {"n_rounds": 1, "n_epochs": 1, "model": {"n_hidden": 16}},
    "fedscgen": {"n_rounds": 1, "n_epochs": 1, "model": {"n_hidden": 16}},
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (name, kind)
        for name in QUICK
        for kind in KINDS
        if KINDS[kind].hides_labels and (kind != "unlabelled_newcomer" or list_methods()[name].takes_newcomers)
    ],
)
def test_every_method_gets_along_with_cells_without_a_label(name, kind):
    if name == "harmony":
        pytest.importorskip("harmonypy")
    values = run(kind, name, QUICK[name])
    assert 0 <= values["accuracy"] <= 1
    assert np.isfinite(values["total"])


@pytest.mark.parametrize("settings", [{"theta": 0}, {"lamb": -1.0}, {"theta": "four"}, {"lamb": True}])
def test_harmony_refuses_weights_that_it_can_not_take(settings):
    with pytest.raises(ValueError, match=r"(theta|lamb)=.*: expected a number above 0"):
        list_methods()["harmony"].check_settings(settings)


def test_coarser_labels_that_are_not_there_are_named():
    source = DataSource("drawn", simulate=DRAWN.simulate, coarser={"lymphocyte": ["T"]})
    with pytest.raises(ValueError, match="coarser merges 'T', which 'drawn' lacks: it has"):
        compute(Task("finer_labels", source, MethodSettings("pca"), 0, 10))
