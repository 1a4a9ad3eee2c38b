"""Principal components of cells that lie at many sites, from sums over the sites alone. Pure numpy.

Block Lanczos: every site multiplies a basis by its own second moments, and only the sum of the products is opened, from
which the next basis follows. Each has as many columns as components are wanted and a few more; no site's cells, and not
even all sites' covariance matrix, are ever put together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import sparse

from fedscgen._questions import answer_all

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from fedscgen._types import NamedArrays

_MORE_DIRECTIONS = 20  # than components, for a fast convergence
_MOST_PRODUCTS = 4  # these explain 99.9 % of what the exact components explain, on real cells
_ROUNDING = 1e-9  # of the whole variance: what is left of a product within it tells nothing

BASIS, MEAN, PRODUCT = "basis", "gene_mean", "gene_product"


class PrincipalComponents(NamedTuple):
    """Where cells lie and along which axes they vary most.

    Parameters
    ----------
    center
        Mean expression, shape ``(n_genes,)``.
    axes
        Orthonormal rows, those of most variance first, shape ``(n_components, n_genes)``. Zero where there are fewer
        genes than components.
    """

    center: np.ndarray
    axes: np.ndarray


def second_moments(chunks: Iterable[np.ndarray | sparse.spmatrix], basis: np.ndarray) -> NamedArrays:
    """One site's part: its cells' means ``E[x]`` and ``E[x x'] basis``.

    Parameters
    ----------
    chunks
        The site's cells, at least one, in pieces of shape ``(<= n_cells, n_genes)``; sparse ones stay sparse.
    basis
        Shape ``(n_genes, n_directions)``.

    Returns
    -------
    ``"gene_mean"`` of shape ``(n_genes,)`` and ``"gene_product"`` of shape ``(n_genes, n_directions)``, in float64.
    """
    n_cells, total, product = 0, np.zeros(len(basis)), np.zeros(basis.shape)
    for chunk in chunks:
        cells = chunk.astype(np.float64)
        n_cells += cells.shape[0]
        total += np.asarray(cells.sum(axis=0)).reshape(-1)
        product += cells.T @ (cells @ basis)
    return {MEAN: total / n_cells, PRODUCT: product / n_cells}


def find_principal_components(
    mean_over_sites: Callable[[np.ndarray], NamedArrays], n_genes: int, n_components: int
) -> PrincipalComponents:
    """Find the components of all sites' cells, as :func:`seek_principal_components` does.

    Parameters
    ----------
    mean_over_sites
        From a basis to the weighted mean of what :func:`second_moments` gives at each site. It is called four
        times, less often for few genes.
    n_genes, n_components
        Sizes.
    """
    search = seek_principal_components(n_genes, n_components)
    return answer_all(search, lambda question: mean_over_sites(question[BASIS]))


def list_widths(n_genes: int, n_components: int) -> list[int]:
    """Columns of the basis of each sum: of four or, where their directions become as many as there are genes, of fewer.

    Parameters
    ----------
    n_genes, n_components
        Sizes.
    """
    width = n_components + _MORE_DIRECTIONS
    return [min(width, n_genes - start) for start in range(0, min(n_genes, _MOST_PRODUCTS * width), width)]


def seek_principal_components(
    n_genes: int, n_components: int
) -> Generator[NamedArrays, NamedArrays, PrincipalComponents]:
    """Ask, four times at most, for the mean over the sites of what :func:`second_moments` gives along a ``"basis"``.

    A randomized block Lanczos method (Musco & Musco 2015, algorithm 2) with every basis orthogonal to all before. Its
    products are sums over the sites (for federations: Hartebrodt et al. 2024).

    Parameters
    ----------
    n_genes, n_components
        Sizes.
    """
    widths, random = list_widths(n_genes, n_components), np.random.default_rng(0)
    directions, product = np.empty((n_genes, 0)), np.zeros((n_genes, max(widths)))
    projected = np.empty((0, 0))  # the covariance matrix, along the directions
    for width in widths:
        drawn, least = random.standard_normal((n_genes, width)), _ROUNDING * float(np.linalg.norm(projected))
        basis = _next_basis(directions, product[:, :width], drawn, least)
        moments = yield {BASIS: basis}
        center = moments[MEAN]
        product = moments[PRODUCT] - np.outer(center, center @ basis)  # the covariance matrix times the basis
        directions = np.hstack([directions, basis])
        projected = _extend(projected, directions.T @ product)
    return PrincipalComponents(center, _leading_axes(directions, projected, n_components))


def _next_basis(directions: np.ndarray, product: np.ndarray, drawn: np.ndarray, least: float) -> np.ndarray:
    """What a product tells beyond the directions before it, as orthonormal columns.

    Where that is ``least`` or less, as at first, a drawn column takes its place: rounding differs between machines.
    """
    columns = _without(directions, product)
    tells_nothing = np.abs(np.diagonal(np.linalg.qr(columns)[1])) <= least
    basis = np.linalg.qr(np.where(tells_nothing, _without(directions, drawn), columns))[0]
    return np.linalg.qr(_without(directions, basis))[0]  # once more, as what was left of short columns was inexact


def _without(directions: np.ndarray, columns: np.ndarray) -> np.ndarray:
    rest: np.ndarray = columns - directions @ (directions.T @ columns)
    return rest


def _extend(projected: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """A symmetric matrix with its next columns, which are its next rows as well."""
    n_known = len(projected)
    corner = columns[n_known:]
    return np.block([[projected, columns[:n_known]], [columns[:n_known].T, (corner + corner.T) / 2]])


def _leading_axes(directions: np.ndarray, projected: np.ndarray, n_components: int) -> np.ndarray:
    """Rotate the directions to the axes of most variance (Rayleigh-Ritz), each with its largest entry above zero."""
    _, rotation = np.linalg.eigh(projected)  # the least variance first
    axes = (directions @ rotation[:, ::-1][:, :n_components]).T
    largest = np.abs(axes).argmax(axis=1)
    axes *= np.sign(axes[np.arange(len(axes)), largest])[:, None]
    return np.pad(axes, ((0, n_components - len(axes)), (0, 0)))
