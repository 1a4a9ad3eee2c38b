"""Settings are values: they can be run again, kept in a file, and are checked before anything is done."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import scvi

from cells import SMALL
from fedscgen import federation
from fedscgen.federation import (
    Client,
    CorrectionOptions,
    FederationSettings,
    SimulationSettings,
    SiteOptions,
    read_settings,
    simulate,
    write_settings,
)
from fedscgen.model import FedSCGEN
from fedscgen.secure import PlainAggregator

TUNED = SimulationSettings(
    FederationSettings(
        n_rounds=3,
        lr=0.002,
        lr_decay=0.9,
        early_stopping_patience=2,
        reference="mean",
        genes="union",
        seed=7,
        model={"n_latent": 6, "normalization": "layer", "linear_path": False},
    ),
    SiteOptions(layer="log", labels_key="type", unlabeled_category="unknown", min_cells=3),
    CorrectionOptions(shrink=True, unlabeled="mean", expression=None),
)
LABEL_FREE = SimulationSettings(FederationSettings(n_rounds=0, label_noise=0.1), SiteOptions(labels_key=None))


def test_settings_of_a_result_repeat_the_run(adata):
    scvi.settings.seed = None
    first = simulate(adata, settings=FederationSettings(n_rounds=1, n_epochs=1, model=SMALL), show_progress=False)
    assert isinstance(first.settings.seed, int)
    again = simulate(adata, settings=first.settings, show_progress=False)
    assert again.settings == first.settings
    np.testing.assert_array_equal(first.corrected.obsm["X_fedscgen"], again.corrected.obsm["X_fedscgen"])


def test_a_seed_of_its_own_goes_before_that_of_scvi_tools():
    scvi.settings.seed = 3
    assert FederationSettings(seed=5).find_seed() == 5
    assert FederationSettings().find_seed() == 3


@pytest.mark.parametrize("settings", [TUNED, LABEL_FREE, SimulationSettings(), read_settings("paper")])
def test_a_file_holds_all_settings(settings, tmp_path):
    (tmp_path / "settings.toml").write_text(write_settings(settings))
    assert read_settings(tmp_path / "settings.toml") == settings


def test_a_file_says_of_each_setting_what_it_does():
    lines = [line for line in write_settings(TUNED).splitlines() if line and not line.startswith("[")]
    of_model = [name.replace("_", "-") for name in TUNED.federation.model]
    for before, line in zip(["", *lines], lines, strict=False):
        if line.partition(" ")[0] not in of_model:
            assert line.startswith("#") or before.startswith("#"), f"{line} is not explained"


def test_names_stand_for_settings():
    assert read_settings("default") == SimulationSettings()
    paper = read_settings("paper")
    assert (paper.federation.n_epochs, paper.federation.lr) == (2, 1e-3)
    assert paper.federation.model == FedSCGEN.PRESETS["scarches"]
    assert paper.federation.reference == "dominant"
    assert paper.correction.denoise


def test_single_settings_can_be_changed_by_name():
    changed = read_settings("paper").change(n_rounds=2, min_cells=1, shrink=True, model={"n_latent": 3}, lr=None)
    assert (changed.federation.n_rounds, changed.federation.lr) == (2, 1e-3)
    assert changed.federation.model == {**FedSCGEN.PRESETS["scarches"], "n_latent": 3}
    assert changed.site.min_cells == 1
    assert changed.correction == CorrectionOptions(shrink=True, denoise=True)
    with pytest.raises(ValueError, match="unknown setting 'n_round'"):
        changed.change(n_round=3)


def test_changes_are_checked():
    with pytest.raises(ValueError, match="n_rounds=-1: from 0 to 10000"):
        SimulationSettings().change(n_rounds=-1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[federation]\nn-round = 3\n", r"unknown 'n-round' in \[federation\] of .*settings.toml: there are n-rounds"),
        ("[federation]\nn-rounds = '3'\n", r"\[federation\] of .*: n_rounds='3': expected a whole number"),
        ("[site]\nn-rounds = 3\n", r"unknown 'n-rounds' in \[site\]"),
        ("[federation.model]\nn-latnt = 3\n", "model: unknown setting 'n_latnt'"),
        ("[correction]\nunlabeled = 'drop'\n", "unknown unlabeled 'drop': choose one of 'knn', 'mean', 'leave'"),
        ("n-rounds = 3\n", r"unknown 'n-rounds' in .*: settings stand in the tables \[federation\], \[site\]"),
        ("rounds: 3\n", "is not TOML"),
    ],
)
def test_what_does_not_fit_in_a_file_is_named(tmp_path, content, message):
    (tmp_path / "settings.toml").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_settings(tmp_path / "settings.toml")


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(
        FileNotFoundError, match=r"no settings 'nature': neither a file nor one of 'default', 'components', 'paper'"
    ):
        read_settings("nature")


@pytest.mark.parametrize("cls", [FederationSettings, SiteOptions, CorrectionOptions])
def test_a_misspelt_option_is_refused_at_once(cls):
    with pytest.raises(TypeError, match="shrinkk"):
        cls(shrinkk=True)
    with pytest.raises(TypeError, match="shrinkk"):
        replace(cls(), shrinkk=True)


def test_a_client_takes_no_other_options(adata):
    with pytest.raises(TypeError, match="shrinkk"):
        Client("site", adata, PlainAggregator().contributor("site"), shrinkk=True)
    with pytest.raises(TypeError, match="shrink"):
        simulate(adata, shrink=True)


@pytest.mark.parametrize(
    ("cls", "option", "message"),
    [
        (FederationSettings, {"n_rounds": 2.5}, "n_rounds=2.5: expected a whole number"),
        (FederationSettings, {"restore_best_epoch": "yes"}, "restore_best_epoch='yes': expected true or false"),
        (FederationSettings, {"model": 5}, "model=5: expected Mapping"),
        (FederationSettings, {"model": {"n_latent": 0}}, "no 'fedscgen' can be made with this: n_latent=0: at least 1"),
        (
            FederationSettings,
            {"model": {"n_latent": "20"}},
            'model={"n_latent": "20"}: no \'fedscgen\' can be made with',
        ),
        (FederationSettings, {"model": {"n_latent": 2.5}}, "model={\"n_latent\": 2.5}: no 'fedscgen' can be made with"),
        (FederationSettings, {"model": {"n_latent": {1, 2}}}, "model: n_latent={1, 2} can't be written into a file"),
        (FederationSettings, {"lr": float("inf")}, "lr=inf: expected a finite number"),
        (FederationSettings, {"lr": float("nan")}, "lr=nan: expected a finite number"),
        (FederationSettings, {"seed": 2**40}, "seed=1099511627776: from 0 to 4294967295"),
        (FederationSettings, {"batchnorm": "global"}, "unknown batchnorm 'global': choose one of 'pooled', 'local'"),
        (FederationSettings, {"reference": None}, "unknown reference None: choose one of 'landmarks', 'dominant', 'm"),
        (FederationSettings, {"label_noise": 1.0}, "label_noise=1.0: a share, from 0 to below 1"),
        (FederationSettings, {"label_noise": -0.1}, "label_noise=-0.1: a share, from 0 to below 1"),
        (SiteOptions, {"min_cells": 0}, "min_cells=0: at least 1"),
        (SiteOptions, {"min_holders": 0}, "min_holders=0: at least 1"),
        (SiteOptions, {"layer": 3}, "layer=3: expected text"),
        (CorrectionOptions, {"batch_size": 0}, "batch_size=0: at least 1"),
        (CorrectionOptions, {"min_confidence": 1.1}, "min_confidence=1.1: a probability, from 0 to 1"),
        (CorrectionOptions, {"shrink": "no"}, "shrink='no': expected true or false"),
    ],
)
def test_values_that_do_not_fit_are_refused_at_once(cls, option, message):
    with pytest.raises(ValueError, match=message):
        cls(**option)


def test_settings_are_values():
    given = {"n_latent": np.int64(3)}
    settings = FederationSettings(model=given)
    given["n_latent"] = 5
    assert settings.model == {"n_latent": 3}
    assert pickle.loads(pickle.dumps(settings)) == settings  # noqa: S301  (our own)
    assert len({settings, replace(settings), FederationSettings()}) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"settings": {"n_rounds": 3}}, r"settings={'n_rounds': 3}: pass FederationSettings\(...\)"),
        ({"settings": None}, r"settings=None: pass FederationSettings\(...\)"),
        ({"settings": SimulationSettings()}, r"pass FederationSettings\(...\)"),
        ({"site": "cell_type"}, r"site='cell_type': pass SiteOptions\(...\)"),
        ({"correction": {"shrink": True}}, r"correction={'shrink': True}: pass CorrectionOptions\(...\)"),
        ({"correction": SiteOptions()}, r"pass CorrectionOptions\(...\)"),
        (
            {"secure": PlainAggregator},
            r"secure=PlainAggregator: pass an aggregator, PlainAggregator\(...\), or its name",
        ),
    ],
)
def test_what_is_no_such_settings_is_refused_before_anything_is_done(adata, monkeypatch, options, message):
    monkeypatch.setattr(FedSCGEN, "setup_anndata", None)
    with pytest.raises(TypeError, match=message):
        simulate(adata, **options)
    if "correction" in options:
        with pytest.raises(TypeError, match=message):
            Client("site", adata, PlainAggregator().contributor("site"), **options)


def test_all_that_was_asked_for_repeats_the_run(adata):
    adata.obs["kind"] = adata.obs.pop("cell_type")
    asked = {"site": SiteOptions(labels_key="kind", min_cells=1), "correction": CorrectionOptions(denoise=True)}
    first = simulate(
        adata, settings=FederationSettings(n_rounds=1, n_epochs=1, model=SMALL), show_progress=False, **asked
    )
    parts = {"settings": first.settings, "site": first.site, "correction": first.correction}
    again = simulate(adata, show_progress=False, **parts)
    layers = [result.corrected.layers["fedscgen_corrected"] for result in (first, again)]
    np.testing.assert_array_equal(*layers)


def test_simulate_has_about_ten_parameters():
    import inspect

    assert len(inspect.signature(federation.simulate).parameters) <= 10
