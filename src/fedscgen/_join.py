"""Cells of several sites in one AnnData, with all that they have in common and all columns that some have."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from itertools import chain, count
from typing import TYPE_CHECKING

import anndata
import numpy as np
import pandas as pd
from anndata import AnnData

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger(__name__)


def concatenate(parts: Mapping[str, AnnData], site_key: str) -> AnnData:
    """All sites' cells, one site after the other; names get the site appended where they would repeat.

    Genes that only some sites hold are zero at the others, and ``var["n_sites"]`` counts who holds each. Columns of
    ``obs`` that only some sites have are missing at the others; layers and ``obsm`` are those that all have.
    """
    names = pd.Index([name for part in parts.values() for name in part.obs_names])
    genes = list(dict.fromkeys(gene for part in parts.values() for gene in part.var_names))
    alike = {site: _keep_common(part, list(parts.values())) for site, part in parts.items()}
    whole = anndata.concat(
        alike, join="outer", fill_value=0, label=site_key, merge="same", index_unique=None if names.is_unique else "-"
    )
    holders = sum(pd.Index(genes).isin(part.var_names).astype(int) for part in parts.values())
    whole = whole[:, genes].copy() if list(whole.var_names) != genes else whole
    if (holders < len(parts)).any():
        whole.var["n_sites"] = holders
    for key in [key for key, kind in whole.obs.dtypes.items() if kind.name == "object"]:
        whole.obs[key] = _make_writable(whole.obs[key])
    return whole


def name_column(data: AnnData | Mapping[str, AnnData], site_key: str) -> str:
    """Column of the result that names the sites: another one where sites have a column of that name for their own."""
    if not isinstance(data, Mapping):
        return site_key
    own = [name for name, cells in data.items() if site_key in cells.obs and _differs(cells.obs[site_key], name)]
    if not own:
        return site_key
    taken = {column for cells in data.values() for column in cells.obs}
    free = next(key for key in chain(("site", "hospital"), (f"site{i}" for i in count(2))) if key not in taken)
    logger.warning(
        "site %r has a column obs[%r] of its own, which stays: the sites are in obs[%r]", own[0], site_key, free
    )
    return free


def _differs(column: pd.Series, name: str) -> bool:
    return not (column.astype(str) == name).all()


def _make_writable(column: pd.Series) -> pd.Series:
    """Give a column that is missing at some sites, or of another kind there, a type that files can hold."""
    kind = pd.api.types.infer_dtype(column, skipna=True)
    if kind == "boolean":
        return column.astype("boolean")
    if kind in ("empty", "integer", "floating", "mixed-integer-float"):
        return column.astype(float)
    return column if kind == "string" else column.astype(str).where(column.notna(), None)


def _keep_common(part: AnnData, parts: Sequence[AnnData]) -> AnnData:
    """The part with those layers and ``obsm`` alone that all parts have in one width."""
    layers = [key for key in part.layers if key is not None and all(key in other.layers for other in parts)]
    arrays = [key for key in part.obsm if len({np.shape(other.obsm.get(key, 0))[1:] for other in parts}) == 1]
    return AnnData(
        part.X,
        part.obs,
        part.var,
        layers={key: part.layers[key] for key in layers},
        obsm={key: part.obsm[key] for key in arrays},
    )
