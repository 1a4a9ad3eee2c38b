"""How many cells of which type each simulated site holds."""

from __future__ import annotations

import numpy as np


def geometric_shares(ranks: np.ndarray, decay: float) -> np.ndarray:
    """Shares proportional to ``decay ** rank``, which add up to 1; ``ranks`` ascend, shape ``(n,)``."""
    shares: np.ndarray = decay ** (ranks - ranks[0])
    return np.asarray(shares / shares.sum())


def cells_by_site(n_cells: int, n_sites: int, *, decay: float, at_least: int) -> np.ndarray:
    """Give each site ``at_least`` cells, and share out the rest with decay; shape ``(n_sites,)``, sum ``n_cells``."""
    bounds: np.ndarray = np.rint(
        np.cumsum(geometric_shares(np.arange(n_sites), decay)) * (n_cells - n_sites * at_least)
    ).astype(int)
    return np.asarray(at_least + np.diff(bounds, prepend=0))


def cells_by_site_and_type(
    site_cells: np.ndarray,
    n_types: int,
    rng: np.random.Generator,
    *,
    decay: float,
    concentration: float,
    missing: float,
) -> np.ndarray:
    """Draw each site's composition; shape ``(n_sites, n_types)``.

    Every type has a home among the sites, which holds at least one cell of it. Elsewhere it is missing with the given
    probability. A site's further cells are multinomial, with shares drawn from a Dirichlet distribution around the
    shares of the types that the site has.
    """
    n_sites = len(site_cells)
    home = np.zeros((n_sites, n_types), dtype=bool)
    home[rng.permutation(n_sites)[np.arange(n_types) % n_sites], rng.permutation(n_types)] = True
    chance = rng.random((n_sites, n_types))
    # the type with the best chance stays, so that no site is without types
    present = home | (chance >= missing) | (chance == chance.max(axis=1, keepdims=True))
    cells = home.astype(int)
    for site, n in enumerate(site_cells - home.sum(axis=1)):
        types = np.flatnonzero(present[site])
        shares = geometric_shares(types, decay)
        if np.isfinite(concentration):
            shares = rng.dirichlet(concentration * shares)
        cells[site, types] += rng.multinomial(n, shares)
    return cells
