"""What a client's user gets: the published app's files under their names, beside ours."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from anndata import AnnData

from fedscgen._data import CORRECTED_LAYER, LATENT_KEY, TYPES_KEY
from fedscgen._files import create_whole, write_whole
from fedscgen._output import write_cells
from fedscgen._read_cells import read_cells
from fedscgen._types import References
from fedscgen.check import CHECK_PAGE, LABEL_MAP
from fedscgen.deployment import checklist
from fedscgen.model import read_model
from fedscgen.report import write_report

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from fedscgen.correction import Landmarks
    from fedscgen.featurecloud._config import AppConfig

logger = logging.getLogger(__name__)

_SITE = "fedscgen_site"


def write_outputs(config: AppConfig, own: Path, output: Path) -> None:
    """Write ``corrected.h5ad``, ``trained_model/``, ``GLMs.csv``, copies of configuration and cells, and a report.

    Parameters
    ----------
    config
        The client's.
    own
        Folder with what the site's program has written, from which cells and model are moved.
    output
        Folder for all of it.
    """
    _write_report(config, own)
    _write_corrected(own / "corrected.h5ad", output / "corrected.h5ad", config.site.options.layer)
    with create_whole(output / "trained_model", overwrite=True, remedy="") as target:
        shutil.move(own / "model", target)
    references = read_model(output / "trained_model").references
    if references is not None:
        write_whole(output / "GLMs.csv", mean_latent(references).to_csv().encode())
    _copy_files([config.path, config.site.data], output)
    write_whole(own / "checklist.md", checklist(own / "ledger.csv", config.site.site).encode())


def write_check_outputs(config: AppConfig, own: Path, output: Path) -> None:
    """Write ``check.html`` about the client's own cells, ``labels.toml`` if one is proposed, and copies as ever.

    Parameters
    ----------
    config, own, output
        As :func:`write_outputs` takes them.
    """
    written = [own / name for name in (CHECK_PAGE, LABEL_MAP) if (own / name).exists()]
    _copy_files([*written, config.path, config.site.data], output)


def mean_latent(references: References | Landmarks) -> pd.DataFrame:
    """Where cells of each type belong in latent space, as the published app names rows and columns.

    Parameters
    ----------
    references
        The model's. Of landmarks, a type's mean is over its landmarks, by their cells.

    Returns
    -------
    One row per cell type, with as many columns as the latent space has dimensions, from ``"1"``.
    """
    if isinstance(references, References):
        labels, means = list(references.labels), np.asarray(references.means)
    else:
        present = np.unique(references.types[references.types < len(references.labels)])
        labels = [references.labels[i] for i in present]
        near = references.types == present[:, None]  # (n_types, n_landmarks)
        weights = near * np.maximum(references.n_cells, np.finfo(float).tiny)
        means = weights @ references.positions / weights.sum(axis=1, keepdims=True)
    return pd.DataFrame(means, index=labels, columns=[str(i + 1) for i in range(means.shape[1])])


def _copy_files(paths: Iterable[Path], output: Path) -> None:
    for path in paths:
        with create_whole(output / path.name, overwrite=True, remedy="") as target:
            shutil.copyfile(path, target)


def _write_report(config: AppConfig, own: Path) -> None:
    """Write the page about the client's own cells; one that can't be drawn costs nobody the results."""
    site, keys = config.site.site, config.site.options.keys
    adata = read_cells(own / "corrected.h5ad")
    obs = adata.obs if keys.batch_key is not None else adata.obs.assign(**{_SITE: site})
    layers = {name: adata.layers[name] for name in (CORRECTED_LAYER,) if name in adata.layers}
    latent = {LATENT_KEY: adata.obsm[LATENT_KEY]}
    shown = AnnData(keys.expression_of(adata), obs, adata.var, obsm=latent, layers=layers)
    labelled = keys.labels_of(adata).codes >= 0
    try:
        write_report(
            own / "report.html",
            shown[labelled] if labelled.any() and not labelled.all() else shown,
            batch_key=keys.batch_key or _SITE,
            labels_key=keys.labels_key if labelled.any() else None,
            history=_read_history(own / "history.csv").assign(site=site),
            ledger=pd.read_csv(own / "ledger.csv"),
            types=adata.uns[TYPES_KEY].assign(site=site) if TYPES_KEY in adata.uns else None,
            obs=obs,
        )
    except (ImportError, KeyError, OSError, RuntimeError, ValueError) as error:
        logger.warning("there is no report.html: %s", error)


def _read_history(path: Path) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except pd.errors.EmptyDataError:  # nothing was trained
        return pd.DataFrame(columns=["round", "epoch", "train_loss", "validation_loss"])


def _write_corrected(source: Path, path: Path, layer: str | None) -> None:
    """Cells as the published app gives them: corrected expression in ``X``, the given one in a layer."""
    adata = read_cells(source)
    adata.layers["original_data"] = adata.X if layer is None else adata.layers[layer]
    adata.X = adata.layers.pop(CORRECTED_LAYER)
    adata.obsm["latent_corrected"] = adata.obsm[LATENT_KEY]
    with create_whole(path, overwrite=True, remedy="") as target:
        write_cells(adata, target)
    source.unlink()
