"""What a client's user gets: the published app's files under their names, beside ours."""

from __future__ import annotations

import logging
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from fedscgen._data import CORRECTED_LAYER, LATENT_KEY
from fedscgen._files import create_whole, write_whole
from fedscgen._output import write_cells
from fedscgen._read_cells import read_cells
from fedscgen._types import References
from fedscgen.deployment import checklist
from fedscgen.model import read_model

if TYPE_CHECKING:
    from pathlib import Path

    from fedscgen.correction import Landmarks
    from fedscgen.featurecloud._config import AppConfig

logger = logging.getLogger(__name__)


def write_outputs(config: AppConfig, own: Path, output: Path) -> None:
    """Write ``corrected.h5ad``, ``trained_model/``, ``GLMs.csv``, and copies of the configuration and the cells.

    Parameters
    ----------
    config
        The client's.
    own
        Folder with what the site's program has written, from which cells and model are moved.
    output
        Folder for all of it.
    """
    _write_corrected(own / "corrected.h5ad", output / "corrected.h5ad", config.site.options.layer)
    with create_whole(output / "trained_model", overwrite=True, remedy="") as target:
        shutil.move(own / "model", target)
    references = read_model(output / "trained_model").references
    if references is not None:
        write_whole(output / "GLMs.csv", mean_latent(references).to_csv().encode())
    for path in (config.path, config.site.data):
        with create_whole(output / path.name, overwrite=True, remedy="") as target:
            shutil.copyfile(path, target)
    write_whole(own / "checklist.md", checklist(own / "ledger.csv", config.site.site).encode())


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


def _write_corrected(source: Path, path: Path, layer: str | None) -> None:
    """Cells as the published app gives them: corrected expression in ``X``, the given one in a layer."""
    adata = read_cells(source)
    adata.layers["original_data"] = adata.X if layer is None else adata.layers[layer]
    adata.X = adata.layers.pop(CORRECTED_LAYER)
    adata.obsm["latent_corrected"] = adata.obsm[LATENT_KEY]
    with create_whole(path, overwrite=True, remedy="") as target:
        write_cells(adata, target)
    source.unlink()
