"""Cells of which two AnnData hold the same matrices, so that memory holds them once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from scipy import sparse

if TYPE_CHECKING:
    from fedscgen._rows import Matrix

_KINDS = (sparse.csr_matrix, sparse.csc_matrix, sparse.csr_array, sparse.csc_array)


def share_cells(adata: AnnData) -> AnnData:
    """The same cells in an AnnData of their own: what is added to one or taken from it isn't so in the other."""
    raw = None if adata.raw is None else {name: getattr(adata.raw, name) for name in ("X", "var", "varm")}
    aligned = {name: dict(getattr(adata, name)) for name in ("obsm", "varm", "obsp", "varp")}
    layers = {name: adata.layers[name] for name in adata.layers if name is not None}
    return AnnData(adata.X, adata.obs.copy(), adata.var.copy(), dict(adata.uns), layers=layers, raw=raw, **aligned)


def share_locked(adata: AnnData) -> AnnData:
    """A copy of the cells, but for ``X``, layers and ``raw``: these are shared, and can't be written to through it."""
    shared = copy_light(adata)
    for name, matrix in matrices_of(adata).items():
        put(shared, name, lock(matrix))
    take_raw(shared, adata, lock)
    return shared


def copy_light(adata: AnnData, genes: np.ndarray | None = None) -> AnnData:
    """A copy, of these genes, of everything but ``X``, layers and ``raw``."""
    light = AnnData(
        obs=adata.obs, var=adata.var, uns=adata.uns, obsm=dict(adata.obsm), varm=dict(adata.varm),
        obsp=dict(adata.obsp), varp=dict(adata.varp),
    )  # fmt: skip
    return (light if genes is None else light[:, genes]).copy()


def matrices_of(adata: AnnData) -> dict[str, Matrix]:
    """``X`` and the layers by their names in a file."""
    named = {"X": adata.X, **{f"layers/{name}": adata.layers[name] for name in adata.layers if name is not None}}
    return {name: _plain(matrix) for name, matrix in named.items() if matrix is not None}


def put(adata: AnnData, name: str, matrix: Matrix) -> None:
    """Set ``X`` or a layer by its name in a file."""
    if name == "X":
        adata.X = matrix
    else:
        adata.layers[name.removeprefix("layers/")] = matrix


def take_raw(adata: AnnData, given: AnnData, take: Any) -> None:
    """Set ``raw``, if the given cells have it, with what ``take`` makes of its matrix."""
    if given.raw is None:
        return
    raw = AnnData(take(_plain(given.raw.X)), var=given.raw.var, varm=dict(given.raw.varm))
    raw.obs_names = adata.obs_names
    adata.raw = raw


def lock(matrix: Matrix) -> Matrix:
    """The matrix itself, of which what is in memory can't be written to."""
    if isinstance(matrix, np.ndarray):
        return _read_only(matrix)
    if sparse.issparse(matrix) and matrix.format in ("csr", "csc"):
        parts = tuple(map(_read_only, (matrix.data, matrix.indices, matrix.indptr)))
        return type(matrix)(parts, shape=matrix.shape, copy=False)
    return matrix


def _plain(matrix: Matrix) -> Matrix:
    """What a view of anndata's is of; anything else as it is."""
    if isinstance(matrix, np.ndarray):
        return np.asarray(matrix)
    kind = next((kind for kind in _KINDS if isinstance(matrix, kind)), None)
    return matrix if kind is None or type(matrix) is kind else kind(matrix)


def _read_only(array: np.ndarray) -> Any:
    shared = array.view()
    shared.flags.writeable = False
    return shared
