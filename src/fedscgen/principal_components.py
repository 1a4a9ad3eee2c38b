"""Principal components of cells that lie at many sites, from sums over the sites alone. Pure numpy.

Subspace iteration: the coordinator sends a basis, every site multiplies it by its own second moments, and only the sum
of the products is opened. It has as many columns as components are wanted and a few more; no site's cells, and not even
all sites' covariance matrix, are ever put together.
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
_N_PRODUCTS = 7  # these explain 99.9 % of what the exact components explain, on real cells

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
        From a basis to the weighted mean of what :func:`second_moments` gives at each site. It is called seven times.
    n_genes, n_components
        Sizes.
    """
    search = seek_principal_components(n_genes, n_components)
    return answer_all(search, lambda question: mean_over_sites(question[BASIS]))


def seek_principal_components(
    n_genes: int, n_components: int
) -> Generator[NamedArrays, NamedArrays, PrincipalComponents]:
    """Ask seven times for the mean over the sites of what :func:`second_moments` gives along a ``"basis"``.

    Randomized subspace iteration (Halko, Martinsson & Tropp 2011, algorithm 4.4), whose products are sums over the
    sites (for federations: Hartebrodt et al. 2024).

    Parameters
    ----------
    n_genes, n_components
        Sizes.
    """
    n_directions = min(n_components + _MORE_DIRECTIONS, n_genes)
    product = np.random.default_rng(0).standard_normal((n_genes, n_directions))  # any first basis leads there
    for _ in range(_N_PRODUCTS):
        basis = np.linalg.qr(product)[0]
        moments = yield {BASIS: basis}
        center = moments[MEAN]
        product = moments[PRODUCT] - np.outer(center, center @ basis)  # the covariance matrix times the basis
    return PrincipalComponents(center, _leading_axes(basis, product, n_components))


def _leading_axes(basis: np.ndarray, product: np.ndarray, n_components: int) -> np.ndarray:
    """Rotate the basis to the axes of most variance (Rayleigh-Ritz), each with its largest entry above zero."""
    projected = basis.T @ product
    _, rotation = np.linalg.eigh((projected + projected.T) / 2)  # the least variance first
    axes = (basis @ rotation[:, ::-1]).T[:n_components]
    largest = np.abs(axes).argmax(axis=1)
    axes *= np.sign(axes[np.arange(len(axes)), largest])[:, None]
    return np.pad(axes, ((0, n_components - len(axes)), (0, 0)))
