"""Cells that two sites of a simulation both hold: told by equal expression, whatever they are called."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import sparse

from fedscgen._rows import row_chunks
from fedscgen._words import quantity
from fedscgen.federation._labels import warn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData

    from fedscgen._data import DataKeys

_FEWEST_GENES = 10  # that a cell expresses; of fewer, two cells' expression may be equal by chance
_MOST_SHARED = 0.01  # of the smaller site's cells, which a warning lets pass
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no two values are mapped to one


def refuse_same_cells(sites: Mapping[str, AnnData], keys: DataKeys) -> None:
    """Refuse two sites that hold the same cells: that a model fits both, or that they mix, would mean nothing.

    Cells are compared by their expression of the genes that all sites have, as float32.

    Parameters
    ----------
    sites
        Each site's cells.
    keys
        Where their expression is.

    Raises
    ------
    ValueError
        More than 1 % of a site's cells are another's, too. The message names both sites and the first such cell.

    Warns
    -----
    UserWarning
        Fewer are.
    """
    if len(sites) < 2:
        return
    numbers = _weigh_genes(sites)
    found = _find_most_shared({site: _hash_cells(cells, keys, numbers) for site, cells in sites.items()})
    if found is None:
        return
    (one, other), rows, there = found
    smaller = min((one, other), key=lambda site: sites[site].n_obs)
    n_cells = sites[smaller].n_obs
    told = (
        f"sites {one!r} and {other!r} hold the same {quantity(len(rows), 'cell')}, by their expression (first: "
        f"{sites[one].obs_names[rows[0]]!r} of {one!r} is {sites[other].obs_names[there]!r} of {other!r})"
    )
    remedy = "give each site its own cells, and take those out that are a copy"
    if len(rows) > _MOST_SHARED * n_cells:
        raise ValueError(f"{told}, which are {len(rows) / n_cells:.0%} of those of {smaller!r}: {remedy}")
    warn(f"{told}: {remedy}")


def _weigh_genes(sites: Mapping[str, AnnData]) -> pd.Series:
    """A random odd number for each gene that all sites have, by its name."""
    first, *others = (cells.var_names for cells in sites.values())
    common = [name for name in first if all(name in names for names in others)]
    numbers = np.random.default_rng(0).integers(2**63, size=len(common), dtype=np.uint64)
    return pd.Series(numbers * np.uint64(2) + np.uint64(1), index=common)


def _hash_cells(cells: AnnData, keys: DataKeys, numbers: pd.Series) -> np.ndarray:
    """A number for each cell that is the same for equal expression, whatever the order of genes; 0 for cells of little.

    Shape ``(n_cells,)``, uint64.
    """
    weights = numbers.reindex(cells.var_names, fill_value=0).to_numpy(dtype=np.uint64)
    return np.concatenate([_hash_rows(chunk, weights) for _, chunk in row_chunks(keys.expression_of(cells))])


def _hash_rows(chunk: np.ndarray | sparse.csr_matrix, weights: np.ndarray) -> np.ndarray:
    rows = sparse.csr_matrix(chunk, dtype=np.float32)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    values = rows.data.view(np.uint32).astype(np.uint64) * _SPREAD
    values ^= values >> np.uint64(32)
    counted = weights[rows.indices]
    hashes = _sum_rows(values * counted, rows.indptr)
    hashes[_sum_rows((counted != 0) & (rows.data != 0), rows.indptr) < _FEWEST_GENES] = 0
    return hashes


def _sum_rows(entries: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Sums of the entries of each row, modulo 2**64."""
    sums = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(entries, dtype=np.uint64)])
    difference: np.ndarray = sums[starts[1:]] - sums[starts[:-1]]
    return difference


def _find_most_shared(hashes: Mapping[str, np.ndarray]) -> tuple[tuple[str, str], np.ndarray, int] | None:
    """Which two sites share most cells, which rows of the first these are, and the first one's row at the other."""
    found = None
    for one, other in combinations(hashes, 2):
        rows = np.flatnonzero((hashes[one] != 0) & np.isin(hashes[one], hashes[other]))
        if len(rows) and (found is None or len(rows) > len(found[1])):
            found = (one, other), rows, int(np.flatnonzero(hashes[other] == hashes[one][rows[0]])[0])
    return found
