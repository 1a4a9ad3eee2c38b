"""From a specification to tasks, whose names tell them apart."""

from dataclasses import replace

import pytest

from cells import make_adata
from fedscgen.benchmark import SpecError, read_spec
from fedscgen.benchmark._cost import describe_plan, estimate_seconds
from fedscgen.benchmark._spec import DataSource, MethodSettings
from fedscgen.benchmark._tasks import Task, plan, size_of, unique_tasks

DRAWN = DataSource("drawn", simulate={"n_sites": 4, "n_cells": 200, "n_genes": 50})
TASK = Task("integration", DRAWN, MethodSettings("fedscgen", {"lr": 0.001}), seed=1, min_cells=10)


@pytest.fixture
def read(tmp_path):
    def read(text):
        (tmp_path / "spec.toml").write_text(text)
        return read_spec(tmp_path / "spec.toml")

    return read


def experiment(name="e", kind="integration", data='["demo"]', methods='["pca"]', more=""):
    return f'[[experiments]]\nname = "{name}"\nkind = "{kind}"\ndata = {data}\nmethods = {methods}\n{more}\n'


def test_a_task_survives_its_text():
    for task in (TASK, replace(TASK, kind="batch_out", held_out=1, classifiers=("MLP",), pictured=True)):
        assert Task.from_json(task.to_json()) == task
        assert Task.from_json(task.to_json()).id == task.id


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2},
        {"min_cells": 5},
        {"inclusion": "dropped"},
        {"method": MethodSettings("fedscgen", {"lr": 0.01})},
        {"method": MethodSettings("scgen", {"lr": 0.001})},
        {"data": replace(DRAWN, simulate={"n_sites": 5})},
        {"data": replace(DRAWN, minor_types=("a",))},
        {"held_out": 0},
        {"n_rounds": 3},
        {"share": 0.5},
        {"noisy_sites": "all"},
        {"cell_type": "B"},
        {"data": replace(DRAWN, coarser={"T": ["a", "b"]})},
    ],
)
def test_whatever_changes_a_result_changes_the_name(change):
    assert replace(TASK, **change).id != TASK.id


def test_names_of_data_do_not_count_where_their_content_does(tmp_path):
    assert replace(TASK, data=replace(DRAWN, name="other")).id == TASK.id
    file = replace(TASK, data=DataSource("a", file="a.h5ad"), fingerprint="0")
    assert replace(file, data=DataSource("b", file="b.h5ad")).id == file.id
    assert replace(file, fingerprint="1").id != file.id


def test_experiments_share_tasks(read):
    runs = plan(read("seeds = [0, 1]\n" + experiment("a", methods='["pca", "scgen"]') + experiment("b")))
    assert [(run.experiment, run.method, run.task.seed) for run in runs] == [
        ("a", "pca", 0), ("a", "pca", 1), ("a", "scgen", 0), ("a", "scgen", 1), ("b", "pca", 0), ("b", "pca", 1),
    ]  # fmt: skip
    assert len(unique_tasks(runs)) == 4


def test_each_batch_is_left_out_in_turn_and_pictured_once(read):
    more = 'seeds = [3, 4]\nclassifiers = ["k-NN"]'
    tasks = [run.task for run in plan(read(experiment(kind="batch_out", more=more)))]
    assert [(task.seed, task.held_out) for task in tasks] == [(3, 0), (3, 1), (3, 2), (4, 0), (4, 1), (4, 2)]
    assert [task.pictured for task in tasks] == [True] * 3 + [False] * 3


@pytest.mark.parametrize(
    ("kind", "more", "conditions"),
    [
        ("hidden_labels", "", ["50 % hidden", "80 % hidden", "95 % hidden"]),
        ("label_noise", "shares = [0.1]", ["10 % wrong at one site"]),
        ("label_noise", "noisy_sites = 'all'", ["20 % wrong"]),
        ("random_split", "", [""]),
    ],
)
def test_each_share_is_a_condition_of_its_own(read, kind, more, conditions):
    assert [run.task.condition for run in plan(read(experiment(kind=kind, more=more)))] == conditions


@pytest.mark.parametrize("kind", ["unlabelled_site", "unlabelled_newcomer"])
def test_each_site_is_without_labels_in_turn(read, kind):
    assert [run.task.held_out for run in plan(read(experiment(kind=kind)))] == [0, 1, 2]


def test_finer_labels_are_scored_where_there_are_coarser_ones(read):
    text = '[data.drawn]\nsimulate = { n_sites = 2 }\ncoarser = { some = ["type_1", "type_2"] }\n'
    (run,) = plan(read(text + experiment(kind="finer_labels", data='["demo", "drawn"]')))
    assert run.task.data.coarser == {"some": ["type_1", "type_2"]}
    with pytest.raises(SpecError, match="'e' has no run: it needs data with given_labels_key or coarser"):
        plan(read(experiment(kind="finer_labels")))


def test_a_type_to_split_may_be_named(read):
    (run,) = plan(read(experiment(kind="random_split", more="cell_type = 'B'")))
    assert run.task.cell_type == "B"


def test_minor_types_of_published_data_are_known(read):
    data, more = '["PBMC", "CellLine"]', 'inclusion = ["all", "dropped", "combined"]'
    runs = plan(read(experiment(data=data, more=more)))
    assert [(run.task.data.name, run.task.inclusion) for run in runs] == [
        ("PBMC", "all"), ("PBMC", "dropped"), ("PBMC", "combined"), ("CellLine", "all"),
    ]  # fmt: skip
    assert "Megakaryocyte" in runs[0].task.data.minor_types


def test_an_experiment_without_any_run_is_refused(read):
    with pytest.raises(SpecError, match="experiment 'e' has no run: dropped needs data with minor_types"):
        plan(read(experiment(more='inclusion = ["dropped"]')))


def test_a_file_is_known_by_its_content(tmp_path, read):
    text = '[data.mine]\nfile = "cells.h5ad"\nbatch_key = "hospital"\n' + experiment(data='["mine"]')
    adata = make_adata()
    adata.obs = adata.obs.rename(columns={"batch": "hospital"})
    adata.write_h5ad(tmp_path / "cells.h5ad")
    (run,) = plan(read(text))
    assert len(run.task.fingerprint) == 64
    size = size_of(run.task.data)
    assert (size.n_batches, size.n_cells, size.n_genes) == (3, 150, 30)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (experiment(kind="batch_out", data='["HumanPancrea"]'), "no data 'HumanPancrea'.*HumanPancreas"),
        (
            "[data.d]\nsimulate = { sites = 3 }\n" + experiment(kind="batch_out", data='["d"]'),
            r"\[data.d\] simulate sets 'sites': known are n_sites",
        ),
        ("[data.d]\nfile = 'no.h5ad'\n" + experiment(data='["d"]'), "no.h5ad"),
        (experiment(data='["HumanPancrea"]'), "no data 'HumanPancrea'"),
    ],
)
def test_data_that_are_not_there_are_named_before_anything_runs(read, text, message):
    with pytest.raises((SpecError, FileNotFoundError), match=message):
        plan(read(text))


def test_a_dry_run_counts_files_of_the_user(tmp_path):
    make_adata().write_h5ad(tmp_path / "cells.h5ad")
    text = describe_plan("quality", tmp_path / "nowhere", extra_data={"mine": tmp_path / "cells.h5ad"})
    spec = read_spec("quality", extra_data={"mine": tmp_path / "cells.h5ad"})
    assert {"mine"} < set(spec.experiments[0].data)
    assert f"{len(unique_tasks(plan(spec)))} tasks to run" in text
    with pytest.raises(SpecError, match=r"\[data.mine\] file .*no.h5ad does not exist"):
        describe_plan("quality", tmp_path / "nowhere", extra_data={"mine": tmp_path / "no.h5ad"})


def test_a_dry_run_says_what_is_to_do(tmp_path, read):
    spec = read(experiment(methods='["pca", "fedscgen"]') + experiment("again") + experiment("big", data='["PBMC"]'))
    text = describe_plan(spec, tmp_path / "nowhere")
    assert "3 tasks to run, 0 finished" in text
    assert not (tmp_path / "nowhere").exists()
    with pytest.raises(ValueError, match="jobs=0"):
        describe_plan(spec, tmp_path, jobs=0)
    with pytest.raises(ValueError, match="devices gpu: name 'cpu' or numbers"):
        describe_plan(spec, tmp_path, devices=["gpu"])


def test_more_training_costs_more():
    methods = [MethodSettings("pca"), *(MethodSettings("fedscgen", {"n_rounds": n}) for n in (1, 50))]
    costs = [estimate_seconds(replace(TASK, method=method)) for method in methods]
    assert costs == sorted(set(costs))
