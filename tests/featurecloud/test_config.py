"""The published app's ``config.yml``, with sections of our own."""

import logging

import pytest

from cells import make_adata
from fedscgen.featurecloud._config import Place, read_config
from fedscgen.federation import FederationSettings, InitialModel
from fedscgen.model import FedSCGEN

PUBLISHED = """
normalization:
  whatever: another app's
fedscgen:
  workflow: "train" # train or correction
  data:
    adata: raw.h5ad
    batch_key: batch
    cell_key: cell_type
  model:
    init_model: None
    ref_model: model.pth
    hidden_layer_sizes: "800,800"
    z_dimension: 10
  train:
    lr: 0.01
    epoch: 3
    batch_size: 32
    early_stopping:
      early_stopping_metric: val_loss
      threshold: 0
      reduce_lr: True
      lr_patience: 13
      lr_factor: 0.1
    n_rounds: 2
"""
EARLIER = """
fedscgen:
  workflow: "train" # train or correction
  data:
    adata: raw.h5ad
    batch_key: batch
    cell_key: cell_type
  smpc: True # True or False
  n_rounds: 2 # number of federated rounds
  model:
    init_model: None
    ref_model: model.pth
    hidden_layer_sizes: "800,800"
    z_dimension: 10
  train:
    lr: 0.01
    n_epochs: 3
    batch_size: 32"""
SHORT = "fedscgen: {data: {adata: raw.h5ad}}"


@pytest.fixture
def place(tmp_path):
    for name in ("input", "output", "work"):
        (tmp_path / name).mkdir()
    make_adata().write_h5ad(tmp_path / "input" / "raw.h5ad")
    return Place(tmp_path / "input", tmp_path / "output", tmp_path / "work", "client7", 4)


@pytest.fixture
def read(place):
    def read(text, name="config.yml"):
        (place.given / name).write_text(text)
        return read_config(place)

    return read


@pytest.mark.parametrize(("text", "name"), [(PUBLISHED, "config.yml"), (EARLIER, "config.yaml")])
def test_the_published_file_is_read_as_it_stands(read, place, text, name):
    config = read(text, name)
    settings = config.coordinator.settings
    assert config.coordinator.workflow == "training"
    assert (settings.n_rounds, settings.n_epochs, settings.lr, settings.batch_size) == (2, 3, 0.01, 32)
    assert {name: settings.model[name] for name in ("n_hidden", "n_layers", "n_latent")} == {
        "n_hidden": 800, "n_layers": 2, "n_latent": 10,
    }  # fmt: skip
    assert config.coordinator.init_model is None
    assert config.coordinator.n_sites == 4
    assert config.site.site == "client7"
    assert config.site.data == place.given / "raw.h5ad"
    assert (config.site.options.batch_key, config.site.options.labels_key) == ("batch", "cell_type")


def test_what_the_published_file_does_not_say_protects(read):
    config = read(PUBLISHED)
    defaults = FederationSettings()
    assert config.coordinator.secure == "masked"
    assert not config.coordinator.reveals_counts
    assert config.coordinator.settings.reference == defaults.reference
    assert config.coordinator.settings.min_sites is None
    assert config.site.policy.aggregators == ("masked",)
    assert not config.site.policy.reveal_counts
    assert config.site.policy.min_sites is None
    assert (config.site.options.min_cells, config.site.options.min_holders) == (5, 2)
    assert config.site.identity.parent == config.site.output  # a key that isn't among what the user gets


def test_early_stopping_counts_in_rounds_and_says_what_it_does_not_do(read, caplog):
    assert read(PUBLISHED).coordinator.settings.early_stopping_patience is None  # 20 epochs are never over
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        longer = read(PUBLISHED.replace("n_rounds: 2", "n_rounds: 9"))
    assert longer.coordinator.settings.early_stopping_patience == 7
    assert "lr_decay lowers the rate by the round" in caplog.text


def test_our_sections_say_the_rest(read, place):
    (place.given / "salt").write_text("secret")
    (place.given / "trusted_sites.toml").write_text("")
    config = read(
        """
fedscgen:
  data: {adata: raw.h5ad, cell_key: None}
  train: {lr: 1e-3}
  federation: {settings: paper, reference: mean, min_sites: 3, answer_timeout: 60, model: {n_hidden: 16}}
  site: {name: north, min_cells: 10, min_sites: 3, label_salt_file: salt, other_sites: true}
"""
    )
    settings = config.coordinator.settings
    assert (settings.strategy, settings.reference, settings.min_sites, settings.lr) == ("fedavg", "mean", 3, 1e-3)
    assert settings.model["n_hidden"] == 16
    assert settings.model["normalization"] == "batch"
    assert config.coordinator.answer_timeout == 60
    assert (config.site.site, config.site.policy.min_sites, config.site.options.min_cells) == ("north", 3, 10)
    assert config.site.options.labels_key is None
    assert config.site.read_label_salt() == "secret"
    assert not config.site.allow_unknown_sites  # as it has been told whom to know
    assert config.site.correction.denoise  # as published


def test_a_check_has_the_settings_of_a_training_and_the_clients_own_map(read, place):
    config = read(f"{EARLIER}\n".replace('"train"', "check") + "  site: {label_map: labels.toml}")
    assert config.coordinator.workflow == "check"
    assert config.coordinator.settings == read(EARLIER, "config.yml").coordinator.settings
    assert config.site.label_map == place.given / "labels.toml"


def test_training_begins_with_a_model_that_the_client_has_itself(read, place):
    FedSCGEN.setup_anndata(adata := make_adata())
    FedSCGEN(adata, n_hidden=16, n_latent=4).save(place.given / "model")
    config = read("fedscgen: {data: {adata: raw.h5ad}, model: {init_model: model}}")
    assert config.coordinator.init_model == place.given / "model"
    assert config.site.policy.init_models == (InitialModel.read(place.given / "model").sha256,)


def test_a_correction_is_by_the_trained_folder(read, place):
    (place.given / "trained_model").mkdir()
    config = read("fedscgen: {workflow: correction, data: {adata: raw.h5ad}, model: {init_model: trained_model}}")
    assert config.coordinator.workflow == "correction"
    assert config.coordinator.trained_model == place.given / "trained_model"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fedscgen: [", "config.yml is not YAML"),
        ("other: {}", "config.yml has no section 'fedscgen'"),
        ("fedscgen: {data: {adata: raw.h5ad, adata: b.h5ad}}", "'adata' is there twice"),
        ("fedscgen: {data: [raw.h5ad]}", r"fedscgen.data=\['raw.h5ad'\]: expected keys below it"),
        ("fedscgen: {data: {}}", r"fedscgen.data: it lacks adata: add adata="),
        ("fedscgen: {data: {adata: a.h5ad}}", r"data.adata='a.h5ad': .* no such file; of .h5ad it has raw.h5ad"),
        ("fedscgen: {data: {adata: raw.h5ad, cel_key: a}}", r"unknown 'cel-key' in config.yml: fedscgen.data: there"),
        (SHORT[:-1] + ", workflow: test}", "unknown workflow 'test': choose one of 'train', 'correction'"),
        (SHORT[:-1] + ", rounds: 3}", "unknown 'rounds' in config.yml: fedscgen: there are workflow, smpc, n-rounds"),
        (SHORT[:-1] + ", smpc: maybe}", "smpc='maybe': expected true or false"),
        (SHORT[:-1] + ", model: {z_dimension: ten}}", "z_dimension='ten': expected a whole number"),
        (SHORT[:-1] + ', model: {hidden_layer_sizes: "800,400"}}', "'800,400': write one whole number, the same for"),
        (SHORT[:-1] + ", model: {init_model: absent}}", "init_model='absent': .* holds no such file or folder"),
        (SHORT[:-1] + ", workflow: correction}", "needs fedscgen.model.init_model: the folder trained_model"),
        (SHORT[:-1] + ", train: {lr: fast}}", "lr='fast': expected a number"),
        (SHORT[:-1] + ", train: {lr: 7}}", "lr=7.0: from 1e-07 to 1"),
        (SHORT[:-1] + ", train: {epoch: 2, n_epochs: 2}}", "are the same: keep one"),
        (SHORT[:-1] + ", n_rounds: 2, train: {n_rounds: 3}}", "are the same: keep one"),
        (SHORT[:-1] + ", train: {early_stopping: yes}}", "early_stopping=True: expected keys below it"),
        (SHORT[:-1] + ", train: {early_stopping: {patience: 0}}}", "patience=0: at least 1 epoch"),
        (SHORT[:-1] + ", train: {early_stopping: {lr_factor: 2}}}", "lr_factor=2.0: above 0, at most 1"),
        (SHORT[:-1] + ", train: {early_stopping: {early_stopping_metric: loss}}}", "choose one of 'val_loss'"),
        (SHORT[:-1] + ", federation: {settings: best}}", "unknown .*settings 'best': choose one of 'default'"),
        (SHORT[:-1] + ", federation: {lr: 0.1}}", "lr has its place in fedscgen.train.lr: write it there"),
        (SHORT[:-1] + ", federation: {output: /tmp}}", "output is the app's own on FeatureCloud: remove it"),
        (SHORT[:-1] + ", federation: {min_sites: 9}}", "min_sites=9: at most n_sites=4"),
        (SHORT[:-1] + ", federation: {secure: crypten}}", "unknown aggregator for sites that talk only to the coord"),
        (SHORT[:-1] + ", site: {min_cells: 0}}", "min_cells=0: at least 1"),
        (SHORT[:-1] + ", site: {name: server}}", "coordinator's name in ledgers"),
        (SHORT[:-1] + ", site: {max_sum: 3}}", "unknown 'max-sum' in config.yml: fedscgen.site: there are"),
    ],
)  # fmt: skip
def test_bad_configurations_are_refused_by_key_value_and_remedy(read, text, said):
    with pytest.raises((ValueError, FileNotFoundError), match=said):
        read(text)


def test_one_file_is_read(read, place):
    with pytest.raises(FileNotFoundError, match=r"no config.yml in .*: add one, with a section fedscgen"):
        read_config(place)
    read(SHORT)
    with pytest.raises(ValueError, match=r"config.yml and config.yaml in .*: keep one"):
        read(SHORT, "config.yaml")


def test_the_published_model_can_not_correct_as_it_knows_no_place_of_cells(read, place):
    (place.given / "trained_model").mkdir()
    (place.given / "trained_model" / "model_params.pt").touch()
    with pytest.raises(ValueError, match=r"workflow='train' and n_rounds: 0"):
        read("fedscgen: {workflow: correction, data: {adata: raw.h5ad}, model: {init_model: trained_model}}")
