"""The methods of this package: centralized, at each site alone, and federated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fedscgen._types import check_choice
from fedscgen.benchmark._cells import BATCH, LABELS, UNLABELLED, Cells, Embedded

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from fedscgen._rows import Matrix
    from fedscgen._types import NamedArrays, References
    from fedscgen.correction import Landmarks
    from fedscgen.federation import FederationSettings, Preset, SimulationResult, SimulationSettings
    from fedscgen.model import FedSCGEN

Embedding = Literal["latent", "reencoded", "sampled"]
_KEYS = {"latent": "X_fedscgen", "reencoded": "X_fedscgen_reencoded"}


def scgen(
    cells: Cells, *, model: Mapping[str, Any] | None = None, embedding: Embedding = "latent", **train: Any
) -> Embedded:
    """Correct by scGen's batch removal (Lotfollahi et al. 2019), with all cells in one place."""
    return _embed(_train_scgen(cells, model, train), cells, embedding, {"kind": "dominant", "min_cells": 1})


def scgen_expression(cells: Cells, *, model: Mapping[str, Any] | None = None, **train: Any) -> Matrix:
    """Expression as scGen's batch removal corrects it."""
    return _train_scgen(cells, model, train).correct(cells.all, expression="X").X


def _train_scgen(cells: Cells, network: Mapping[str, Any] | None, train: Mapping[str, Any]) -> FedSCGEN:
    model = _set_up(cells.train, network, cells.no_label)
    model.train(accelerator=cells.accelerator, enable_progress_bar=False, **train)
    model.references = model.get_references(kind="dominant")
    return model


def local(cells: Cells, *, preset: Preset = "default", **settings: Any) -> Embedded:
    """What sites can do without a federation: each trains alone, and only references are agreed on.

    Every batch trains a model of its own from the same random weights, for as many epochs as all rounds of a federation
    have. Then cells move to references that are found as if all latent spaces were one.
    """
    chosen = _choose_settings({**settings, "preset": preset, "seed": cells.seed})
    federation = chosen.federation
    batches = cells.all.obs[BATCH]
    rows = [np.flatnonzero(batches == site) for site in batches.cat.categories]
    latent = np.concatenate([_train_alone(cells, own, federation) for own in rows])
    latent = latent[np.argsort(np.concatenate(rows))]  # back into the order of the cells
    return _correct(
        latent,
        cells,
        kind=federation.reference,
        min_cells=chosen.site.min_cells,
        label_noise=federation.label_noise,
    )


def _train_alone(cells: Cells, own: np.ndarray, settings: FederationSettings) -> np.ndarray:
    """Latent vectors of one site's ``own`` cells, in a space of its own; shape ``(len(own), n_latent)``."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(settings.seed)
        model = _set_up(cells.all[own], settings.model, cells.no_label)
        model.begin_together([model])
        model.train_local(
            settings.n_rounds * settings.n_epochs,
            lr=settings.lr,
            batch_size=settings.batch_size,
            fixed_batches=settings.fixed_batches,
            early_stopping=settings.restore_best_epoch,
            accelerator=cells.accelerator,
        )
    return np.asarray(model.get_latent_representation())


def fedscgen(cells: Cells, *, embedding: Embedding = "latent", **settings: Any) -> Embedded:
    """The federation, one site per batch. A batch that is held out corrects itself afterwards."""
    expression = "X" if cells.wants_expression else None
    chosen = _choose_settings(settings, expression=expression, reencode=embedding == "reencoded")
    result = _simulate(cells, chosen, settings)
    if embedding in _KEYS and cells.train is cells.all:
        return _take_result(result.corrected, _KEYS[embedding], cells)
    return _embed(result.model, cells, embedding, _find_choice(result, chosen), shrink=chosen.correction.shrink)


def fedscgen_expression(cells: Cells, **settings: Any) -> Matrix:
    """Expression as the sites of a federation correct it."""
    return _simulate(cells, _choose_settings(settings, expression="X"), settings).corrected.X


def round_by_round(
    cells: Cells, *, embedding: Embedding = "latent", **settings: Any
) -> Iterator[tuple[int, np.ndarray]]:
    """Embeddings as they would be had the federation ended after each round.

    The weights are those of the federation. References are chosen with all cells at hand, which gives what the sites
    find together.
    """
    snapshots: dict[int, Any] = {}
    chosen = _choose_settings(settings, expression=None)
    result = _simulate(cells, chosen, settings, on_round=snapshots.__setitem__)
    choice = _find_choice(result, chosen)
    for n_rounds in sorted(snapshots):
        result.model.load_weights(snapshots.pop(n_rounds))
        result.model.references = _find_references(result.model.get_latent_representation(), cells.train, **choice)
        yield n_rounds, _embed(result.model, cells, embedding, choice, shrink=chosen.correction.shrink).embedding


def check_network(settings: Mapping[str, Any]) -> None:
    """Refuse with a ``ValueError`` settings whose ``model`` is no table."""
    network = settings.get("model", {})
    if not isinstance(network, Mapping):
        raise ValueError(f"model={network!r}: expected a table")


def check_local(settings: Mapping[str, Any]) -> None:
    """Refuse with a ``ValueError`` settings with which :func:`local` can't run."""
    _choose_settings(settings)


def check_federation(settings: Mapping[str, Any]) -> None:
    """Refuse with a ``ValueError`` settings with which :func:`fedscgen` can't run."""
    from fedscgen.federation import find_model
    from fedscgen.model import FedSCGEN
    from fedscgen.secure import find_aggregator

    secure, embedding = settings.get("secure", "plain"), settings.get("embedding", "latent")
    if not isinstance(settings.get("label_free", False), bool):
        raise ValueError(f"label_free={settings['label_free']!r}: expected true or false")
    if not isinstance(secure, str):
        raise ValueError(f"secure={secure!r}: expected the name of an aggregator")
    find_aggregator(secure)
    check_choice(embedding, Embedding, "embedding")
    chosen = _choose_settings({name: value for name, value in settings.items() if name != "embedding"})
    architecture = chosen.federation.architecture
    if embedding != "latent" and not issubclass(find_model(architecture), FedSCGEN):
        raise ValueError(f"embedding {embedding!r} needs a FedSCGEN, not the model {architecture!r}: take 'latent'")


def _choose_settings(settings: Mapping[str, Any], **correction: Any) -> SimulationSettings:
    """Settings as a specification names them, and how the benchmark corrects."""
    from fedscgen.federation import Preset, read_settings

    preset = settings.get("preset", "default")
    check_choice(preset, Preset, "preset")
    check_network(settings)
    given = {name: value for name, value in settings.items() if name not in ("preset", "secure", "label_free")}
    chosen = read_settings(preset).change(**given)
    return replace(chosen, correction=replace(chosen.correction, min_confidence=0.0, **correction))


def _simulate(
    cells: Cells,
    chosen: SimulationSettings,
    settings: Mapping[str, Any],
    on_round: Callable[[int, NamedArrays], None] | None = None,
) -> SimulationResult:
    from fedscgen.federation import simulate

    alone = cells.train.obs[BATCH].nunique() == 1  # of two, where the other is left out
    return simulate(
        cells.train,
        BATCH,
        settings=replace(chosen.federation, min_sites=1) if alone else chosen.federation,
        site=replace(chosen.site, **_choose_labels(cells, settings)),
        correction=chosen.correction,
        secure=settings.get("secure", "plain"),
        accelerator=cells.accelerator,
        show_progress=False,
        on_round=on_round,
    )


def _choose_labels(cells: Cells, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Where the labels are that the sites may use."""
    if settings.get("label_free"):
        return {"labels_key": None, "unlabeled_category": None}
    return {"labels_key": LABELS, "unlabeled_category": cells.no_label}


def _find_choice(result: SimulationResult, chosen: SimulationSettings) -> dict[str, Any]:
    """How the federation chose its references."""
    return {
        "kind": result.references.kind,
        "min_cells": chosen.site.min_cells,
        "label_noise": result.settings.label_noise,
        "seed": result.settings.seed,
    }


def _embed(
    model: FedSCGEN, cells: Cells, embedding: Embedding, choice: Mapping[str, Any], **correction: Any
) -> Embedded:
    """Corrected latent vectors of all cells in one place; ``"sampled"`` has references of that very sample."""
    check_choice(embedding, Embedding, "embedding")
    if embedding == "sampled":
        latent = model.get_latent_representation(cells.all, give_mean=False)
        return _correct(latent, cells, **choice, **correction)
    expression = "X" if cells.wants_expression else None
    options = {"expression": expression, "reencode": embedding == "reencoded", "min_confidence": 0.0, **correction}
    return _take_result(model.correct(cells.all, references=model.references, **options), _KEYS[embedding], cells)


def _take_result(corrected: AnnData, key: str, cells: Cells) -> Embedded:
    """What corrected cells hold: their embedding, and types and expression where there are any."""
    from fedscgen._data import CELL_TYPE_KEY

    return Embedded(
        np.asarray(corrected.obsm[key]),
        corrected.obs.get(CELL_TYPE_KEY),
        corrected.X if cells.wants_expression else None,
    )


def _correct(latent: np.ndarray, cells: Cells, *, shrink: bool = False, **choice: Any) -> Embedded:
    """Move latent vectors of all cells, shape ``(n_cells, n_latent)``, to references that the training cells give."""
    from fedscgen.correction import correct_latent

    trained = cells.all.obs[BATCH].isin(cells.train.obs[BATCH].unique()).to_numpy()
    references = _find_references(latent[trained], cells.all[trained], **choice)
    shrink = shrink and choice["kind"] != "landmarks"
    result = correct_latent(latent, *_categories(cells.all), references, shrink=shrink, min_confidence=0.0)
    return Embedded(result.embedding, result.cell_types)


def _find_references(latent: np.ndarray, adata: AnnData, **choice: Any) -> References | Landmarks:
    """What sites with these latent vectors would agree on, with all of them at hand."""
    from fedscgen.correction import find_own_references

    return find_own_references(latent, *_categories(adata), **choice)


def _categories(adata: AnnData) -> tuple[pd.Categorical, pd.Categorical]:
    """Each cell's batch and label."""
    batches, labels = (adata.obs[key].astype("category").array for key in (BATCH, LABELS))
    return batches, labels.set_categories([name for name in labels.categories if name != UNLABELLED])


def _set_up(adata: AnnData, network: Mapping[str, Any] | None, no_label: str | None) -> FedSCGEN:
    from fedscgen.model import FedSCGEN

    cells = adata.copy()
    FedSCGEN.setup_anndata(cells, BATCH, LABELS, unlabeled_category=no_label)
    return FedSCGEN(cells, **(network or {}))
