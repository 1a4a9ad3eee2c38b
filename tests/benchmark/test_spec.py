"""Specifications: what is read, and what is said of those that can't be run."""

import subprocess
import sys

import pytest

from fedscgen.benchmark import (
    Method,
    SpecError,
    _methods,
    list_methods,
    read_spec,
    register_method,
    standard_specs,
)
from fedscgen.benchmark._kinds import KINDS

WHOLE = """
name = "mine"
seeds = [1, 2]

[data.hospital]
file = "cells.h5ad"
batch_key = "ward"

[data.drawn]
simulate = { n_sites = 4 }

[methods.fedavg]
like = "fedscgen"
strategy = "fedavg"

[[experiments]]
name = "both"
kind = "integration"
data = ["hospital", "drawn", "demo"]
methods = ["pca", "fedavg"]
"""
EXPERIMENT = '[[experiments]]\nname = "e"\nkind = "integration"\ndata = ["demo"]\nmethods = ["pca"]\n'


HIDDEN = EXPERIMENT.replace("integration", "hidden_labels")


@pytest.fixture
def write(tmp_path):
    def write(text):
        (tmp_path / "spec.toml").write_text(text)
        return tmp_path / "spec.toml"

    return write


def test_a_spec_names_data_methods_and_experiments(write, tmp_path):
    spec = read_spec(write(WHOLE))
    (experiment,) = spec.experiments
    assert (spec.name, spec.min_cells, experiment.seeds) == ("mine", 10, (1, 2))
    assert spec.data["hospital"].file == str(tmp_path / "cells.h5ad"), "a file lies beside the specification"
    assert spec.data["hospital"].batch_key == "ward"
    assert spec.data["drawn"].simulate == {"n_sites": 4}
    assert spec.methods["fedavg"].like == "fedscgen"
    assert spec.methods["fedavg"].settings == {"strategy": "fedavg"}
    assert "demo" in spec.data
    assert experiment.inclusion == ("all",)


def test_an_experiment_may_have_seeds_of_its_own(write):
    (experiment,) = read_spec(write("seeds = [1, 2]\n" + EXPERIMENT + "seeds = [7]\n")).experiments
    assert experiment.seeds == (7,)


@pytest.mark.parametrize(("kind", "shares"), [("hidden_labels", (0.5, 0.8, 0.95)), ("label_noise", (0.2,))])
def test_shares_have_a_default_and_may_be_others(write, kind, shares):
    text = EXPERIMENT.replace("integration", kind)
    assert read_spec(write(text)).experiments[0].shares == shares
    assert read_spec(write(text + "shares = [0.3]")).experiments[0].shares == (0.3,)


def test_a_method_that_takes_no_label_for_a_type_is_refused_where_labels_are_hidden(write, monkeypatch):
    monkeypatch.setattr(_methods._METHODS, "_values", list_methods())
    register_method("strict", Method(lambda cells: cells.all.X, takes_unlabelled=False))
    with pytest.raises(SpecError, match="'strict' doesn't get along with cells without a label"):
        read_spec(write(HIDDEN.replace("pca", "strict")))
    read_spec(write(EXPERIMENT.replace("pca", "strict")))


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("smoke", {"hidden_labels", "integration", "expression", "tuning", "batch_out"}),
        ("paper", {"integration", "tuning", "batch_out"}),
        ("quality", set(KINDS) - {"tuning", "batch_out"}),
    ],
)
def test_specs_of_the_package_can_be_read(name, kinds):
    assert name in standard_specs()
    assert {experiment.kind for experiment in read_spec(name).experiments} == kinds


def test_quality_is_measured_on_regimes_that_differ_and_that_seeds_of_no_other_data_drew():
    drawn = [source.simulate for source in read_spec("quality").data.values() if source.simulate]
    seeds = [settings["seed"] for settings in drawn]
    assert len(drawn) == 5
    assert min(seeds) >= 100
    assert len(set(seeds)) == 5


def test_files_of_the_user_join_every_experiment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = read_spec("quality", extra_data={"mine": "cells.h5ad"})
    assert spec.data["mine"].file == str(tmp_path / "cells.h5ad")
    assert [experiment.data[-1] for experiment in spec.experiments] == ["mine"] * len(spec.experiments)
    assert read_spec(read_spec("quality"), extra_data={"mine": "cells.h5ad"}) == spec
    assert "mine" not in read_spec("quality").data


def test_a_name_that_the_specification_has_is_refused_for_a_file():
    with pytest.raises(SpecError, match=r"Quality has data 'demo' of its own: give cells.h5ad another name"):
        read_spec("quality", extra_data={"demo": "cells.h5ad"})


def test_the_paper_is_the_published_grid():
    spec = read_spec("paper")
    secure = next(experiment for experiment in spec.experiments if experiment.name == "secure aggregation")
    tuning = next(experiment for experiment in spec.experiments if experiment.kind == "tuning")
    assert secure.seeds == (42, 123, 456, 789, 101112, 2024, 31415, 2718, 1618, 9999)
    assert "MouseBrain" not in secure.data
    assert len(secure.data) == 7
    assert (tuning.n_rounds, tuning.n_epochs) == (10, tuple(range(1, 11)))
    assert spec.methods["fedscgen-crypten"].settings == {"preset": "paper", "embedding": "reencoded"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name = ", "is not TOML"),
        ('name = "empty"', r"no \[\[experiments\]\] table"),
        (EXPERIMENT + 'titel = "x"', "unknown key 'titel': known are data, inclusion, kind"),
        ("sedes = [1]\n" + EXPERIMENT, "unknown key 'sedes'"),
        (EXPERIMENT.replace('"pca"', '"pac"'), "unknown method 'pac': known are pca, harmony"),
        (EXPERIMENT.replace("integration", "integrate"), "unknown kind 'integrate'"),
        (EXPERIMENT.replace('name = "e"\n', ""), "has no name"),
        (EXPERIMENT + EXPERIMENT, "names of experiments repeat"),
        (EXPERIMENT + "seeds = []", r"seeds is \[\], not a list of int"),
        (EXPERIMENT + "seeds = [1, 1]", "seeds repeats a value"),
        (EXPERIMENT + "seeds = [true]", "not a list of int"),
        (EXPERIMENT + 'inclusion = ["most"]', "unknown inclusion 'most'"),
        (EXPERIMENT + "n_rounds = 3", "unknown key 'n_rounds'"),
        ("min_cells = 0\n" + EXPERIMENT, "min_cells is 0"),
        ("[methods.fedscgen]\nrounds = 3\n" + EXPERIMENT, "sets 'rounds', which 'fedscgen' doesn't have; it has"),
        ("[methods.fedscgen]\nsite_key = 'x'\n" + EXPERIMENT, "sets 'site_key'"),
        ("[methods.scgen]\nreencode = true\n" + EXPERIMENT, "sets 'reencode', which 'scgen' doesn't have; .*embedding"),
        ("[methods.scgen]\nembedding = 'means'\n" + EXPERIMENT, "unknown embedding 'means': known are latent, reencod"),
        (EXPERIMENT.replace("integration", "expression"), "'pca' yields no corrected expression; scgen, fedscgen"),
        (EXPERIMENT.replace("integration", "batch_out").replace("pca", "local"), "'local' can't embed a batch"),
        ("[methods.mine]\nlr = 3\n" + EXPERIMENT, "is like 'mine', which is no method: add like"),
        ("[data.d]\nfile = 'a'\nsimulate = {}\n" + EXPERIMENT, "both file and simulate"),
        (EXPERIMENT.replace("integration", "batch_out").replace("pca", "harmony"), "can't embed a batch"),
        (EXPERIMENT.replace("integration", "tuning") + "n_rounds = 2\nn_epochs = [1]", "doesn't train in rounds"),
        (EXPERIMENT.replace("integration", "tuning") + "n_epochs = [1]", "n_rounds is None"),
        ("[methods.scgen]\nmax-epochs = 1\nmax_epochs = 2\n" + EXPERIMENT, "sets 'max-epochs' twice, with hyphens"),
        ("methods.scgen = 3\n" + EXPERIMENT, r"\[methods.scgen\] is no table"),
        (EXPERIMENT + "shares = [0.5]", "unknown key 'shares'"),
        (HIDDEN + "shares = [0.5, 1.0]", r"shares are \[0.5, 1.0\]: each lies between 0 and 1"),
        (HIDDEN + "shares = []", r"shares is \[\], not a list of float"),
        (HIDDEN + "cell_type = 'B'", "unknown key 'cell_type'"),
        (EXPERIMENT.replace("integration", "label_noise") + "noisy_sites = 'two'", "choice of noisy_sites 'two'"),
        (EXPERIMENT.replace("integration", "random_split") + "cell_type = 3", "cell_type is 3, not the name of a type"),
        (EXPERIMENT.replace("integration", "unlabelled_newcomer").replace("pca", "scvi"), "'scvi' can't embed a batch"),
        ("[data.d]\nsimulate = {}\ngiven_labels_key = 'a'\n" + EXPERIMENT, "given_labels_key, which goes with a file"),
        ("[data.d]\ncoarser = 3\n" + EXPERIMENT, "coarser is 3, not a table of lists"),
        ("[data.d]\ncoarser = { a = ['T'], b = ['T'] }\n" + EXPERIMENT, "coarser puts a type into two"),
    ],
)
def test_what_does_not_fit_is_named(write, text, message):
    with pytest.raises(SpecError, match=message) as error:
        read_spec(write(text))
    assert "spec.toml" in str(error.value)


VALUES = [
    ("n_rounds = 'three'", "n_rounds='three': expected a whole number"),
    ("n_rounds = -1", "n_rounds=-1: from 0"),
    ("preset = 'papr'", "unknown preset 'papr': choose one of 'default', 'components', 'paper'"),
    ("model = { n_latnt = 5 }", "model: unknown setting 'n_latnt' of 'fedscgen': it has n_hidden"),
    ("model = 'large'", "model='large': expected a table"),
    ("min_cells = 0", "min_cells=0: at least 1"),
    ("seed = 3", "sets 'seed', which"),
    ("batch_key = 'ward'", "sets 'batch_key', which"),
    ("labels_key = 'type'", "sets 'labels_key', which"),
    ("layer = 'counts'", "sets 'layer', which"),
    ("genes = 'union'", "sets 'genes', which"),
]
OF_FEDERATIONS = [
    ("secure = 'nope'", "unknown aggregator 'nope': choose one of 'plain'"),
    ("secure = ['masked']", r"secure=\['masked'\]: expected the name of an aggregator"),
    ("architecture = 'nope'", "unknown architecture 'nope': choose one of 'fedscgen'"),
    ("unlabeled = 'knnn'", "unknown unlabeled 'knnn': choose one of 'knn', 'mean', 'leave'"),
]
OF_LOCAL = [
    ("secure = 'plain'", "sets 'secure', which 'local' doesn't have"),
    ("architecture = 'fedscgen'", "sets 'architecture', which 'local' doesn't have"),
    ("lr_decay = 0.9", "sets 'lr_decay', which 'local' doesn't have"),
]


@pytest.mark.parametrize(
    ("like", "line", "message"),
    [
        *[(like, *case) for like in ("fedscgen", "fedscgen-masked", "local") for case in VALUES],
        *[("fedscgen", *case) for case in OF_FEDERATIONS],
        *[("local", *case) for case in OF_LOCAL],
        *[(like, "model = 'large'", "model='large': expected a table") for like in ("scgen", "scvi", "scanvi")],
        ("scgen", "model = { n_latnt = 5 }", "model: unknown setting 'n_latnt' of 'fedscgen': it has n_hidden"),
        ("scgen", "max_epochs = 'three'", "max_epochs='three': expected a whole number above 0"),
        ("scvi", "max_epochs = true", "max_epochs=True: expected a whole number above 0"),
        ("scanvi", "scanvi_epochs = 1.5", "scanvi_epochs=1.5: expected a whole number above 0"),
    ],
)
def test_values_that_a_method_can_not_run_with_are_refused_before_it_runs(write, like, line, message):
    with pytest.raises(SpecError, match=message) as error:
        read_spec(write(f"[methods.mine]\nlike = '{like}'\n{line}\n{EXPERIMENT}"))
    assert "spec.toml: [methods.mine]" in str(error.value)


@pytest.mark.parametrize("like", ["local", "fedscgen"])
def test_settings_may_have_the_names_that_the_command_prints(write, like):
    spec = read_spec(write(f"[methods.mine]\nlike = '{like}'\nn-rounds = 3\nmodel = {{ n-latent = 5 }}\n{EXPERIMENT}"))
    assert spec.methods["mine"].settings == {"n_rounds": 3, "model": {"n_latent": 5}}


@pytest.mark.parametrize(("embedding", "refused"), [("latent", False), ("sampled", True), ("reencoded", True)])
def test_another_model_is_embedded_by_its_latent_vectors_alone(write, linear, embedding, refused):
    text = f"[methods.mine]\nlike = 'fedscgen'\narchitecture = '{linear}'\nembedding = '{embedding}'\n{EXPERIMENT}"
    if not refused:
        assert read_spec(write(text)).methods["mine"].settings["architecture"] == linear
        return
    with pytest.raises(SpecError, match=f"embedding '{embedding}' needs a FedSCGEN, not the model '{linear}'"):
        read_spec(write(text))


def test_to_read_a_spec_without_settings_of_a_federation_does_not_load_it(write):
    script = (
        "import sys; from fedscgen.benchmark import read_spec, standard_specs;"
        "standard_specs(); read_spec(sys.argv[1]);"
        "print('torch' in sys.modules)"
    )
    run = [sys.executable, "-c", script, write(EXPERIMENT)]
    output = subprocess.run(run, check=True, capture_output=True, text=True)  # noqa: S603
    assert output.stdout == "False\n"


def test_a_name_that_is_none_says_which_there_are():
    with pytest.raises(
        FileNotFoundError, match="no specification 'smok': neither a file nor one of paper, quality, smoke"
    ):
        read_spec("smok")
