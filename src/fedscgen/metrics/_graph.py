"""The weighted graph of nearest neighbours that UMAP lays out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_N_STEPS, _TOLERANCE = 64, 1e-5
_SMALLEST_SCALE = 1e-3  # of the mean distance, where many neighbours coincide


def weigh_neighbors(neighbors: np.ndarray, distances: np.ndarray) -> csr_matrix:
    """Weigh each cell's nearest cells as UMAP does (McInnes et al. 2018, algorithm 3), and join both directions.

    In numpy, since umap-learn compiles its own function for this anew in each process, which takes longer than all else
    about a picture.

    Parameters
    ----------
    neighbors, distances
        Each cell's nearest cells, itself first, and how far away they are; shape ``(n_cells, n_neighbors)``.

    Returns
    -------
    Symmetric weights from 0 to 1, shape ``(n_cells, n_cells)``.
    """
    from scipy.sparse import csr_matrix

    n_cells, n_neighbors = neighbors.shape
    distances = distances.astype(np.float32)
    nearest = np.min(distances, axis=1, where=distances > 0, initial=np.inf)
    nearest[~np.isfinite(nearest)] = 0.0  # all coincide
    beyond = np.maximum(distances - nearest[:, None], 0.0)
    weights = np.exp(-beyond / _find_scales(beyond[:, 1:], distances)[:, None])
    weights[neighbors == np.arange(n_cells)[:, None]] = 0.0
    starts = np.arange(0, neighbors.size + 1, n_neighbors)
    directed = csr_matrix((weights.astype(np.float32).ravel(), neighbors.ravel(), starts), shape=(n_cells, n_cells))
    joined = csr_matrix(directed + directed.T - directed.multiply(directed.T))
    joined.eliminate_zeros()
    return joined


def _find_scales(beyond: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Scale by which each cell's weights add up to the logarithm of the number of neighbours; shape ``(n_cells,)``.

    It is searched from 1 upwards by doubling, then by halving, as far as UMAP goes, so that the weights are its own.
    """
    target = np.log2(beyond.shape[1] + 1)
    low, high, scale = (np.full(len(beyond), value) for value in (0.0, np.inf, 1.0))
    searching = np.arange(len(beyond))
    for _ in range(_N_STEPS):
        missed = np.exp(-beyond[searching] / scale[searching, None]).sum(axis=1) - target
        open_ = np.abs(missed) >= _TOLERANCE
        searching, too_large = searching[open_], missed[open_] > 0
        if not len(searching):
            break
        high[searching[too_large]] = scale[searching[too_large]]
        low[searching[~too_large]] = scale[searching[~too_large]]
        bounded = np.isfinite(high[searching])
        halves, doubled = searching[bounded], searching[~bounded]
        scale[halves] = (low[halves] + high[halves]) / 2
        scale[doubled] *= 2
    apart = (distances > 0).any(axis=1)
    smallest = _SMALLEST_SCALE * np.where(apart, distances.mean(axis=1), distances.mean())
    return np.asarray(np.maximum(scale, smallest))
