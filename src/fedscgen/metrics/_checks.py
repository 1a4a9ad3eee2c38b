"""What every metric refuses."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class UndefinedMetricError(ValueError):
    """The cells are well formed, but this metric has no value on them."""


def check_embedding(embedding: npt.ArrayLike) -> np.ndarray:
    """Return ``embedding`` as a finite array of shape ``(n_cells, n_dimensions)``."""
    array = np.asarray(embedding)
    if array.ndim != 2 or array.shape[1] == 0 or not np.issubdtype(array.dtype, np.number):
        raise ValueError(
            f"an embedding is a numeric array of shape (n_cells, n_dimensions), not one of shape {array.shape} and "
            f"dtype {array.dtype}: pass, for example, adata.obsm['X_fedscgen']"
        )
    broken = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if len(broken):
        raise ValueError(
            f"the embedding of {len(broken)} of {len(array)} cells is not finite, first that of cell {broken[0]}: "
            "leave these cells out, or look for the step that produced NaN or infinity"
        )
    return array


def check_names(names: npt.ArrayLike, what: str, *, n_cells: int, at_least: int = 2) -> np.ndarray:
    """Return for each cell the position of its name among the sorted names, shape ``(n_cells,)``."""
    from pandas import isna

    array = np.asarray(names)
    if array.shape != (n_cells,):
        raise ValueError(f"{what} has shape {array.shape}, but there are {n_cells} cells: pass one {what} per cell")
    missing = np.flatnonzero(isna(array))
    if len(missing):
        raise ValueError(
            f"{len(missing)} of {n_cells} cells have no {what}, first cell {missing[0]}: leave them out or name them"
        )
    present, codes = np.unique(array.astype(str), return_inverse=True)
    if len(present) < at_least:
        raise ValueError(
            f"all {n_cells} cells have the {what} {', '.join(map(repr, present.tolist()))}: this metric compares "
            f"at least {at_least}, so check that the {what} column is the one you mean"
        )
    return codes
