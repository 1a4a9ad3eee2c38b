"""The sites of a simulation: given one by one, or told apart by a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from anndata import AnnData

from fedscgen._data import check_unique, working_copy

if TYPE_CHECKING:
    from fedscgen._data import DataKeys
    from fedscgen.federation._settings import FederationSettings


def take_sites(
    data: AnnData | Mapping[str, AnnData], site_key: str, settings: FederationSettings, keys: DataKeys
) -> dict[str, AnnData]:
    """Each site's cells by its name.

    Raises
    ------
    TypeError, ValueError
        A site has no proper name, or there is one site alone and ``min_sites`` doesn't ask for it.
    """
    sites = _check_names(data) if isinstance(data, Mapping) else _split(data, site_key, keys)
    _check_sites(sites, site_key, settings)
    return sites


def _check_names(sites: Mapping[str, AnnData]) -> dict[str, AnnData]:
    """The sites as they are, if each has a name that messages and columns can hold."""
    for name in sites:
        if not isinstance(name, str) or not name:
            raise TypeError(f"site {name!r} has no name that is text: write {str(name) or 'north'!r}")
    return dict(sites)


def _check_sites(sites: Mapping[str, AnnData], site_key: str, settings: FederationSettings) -> None:
    """Refuse one site alone, unless ``min_sites`` asks for it."""
    if len(sites) > 1 or settings.min_sites == 1:
        return
    where = f"there is one site alone, {min(sites)!r}" if sites else "there is no site"
    raise ValueError(
        f"{where}, so nothing to federate: name the column of obs that tells sites apart (site_key={site_key!r} "
        "now), pass several AnnData, train in one place with FedSCGEN.train(), or ask for one site with min_sites=1"
    )


def _split(adata: AnnData, site_key: str, keys: DataKeys) -> dict[str, AnnData]:
    """One light AnnData per site, with no more than its client needs."""
    if not isinstance(adata, AnnData):
        raise TypeError(f"pass an AnnData or a mapping of AnnData by site, not {type(adata).__name__}")
    check_unique(adata.obs_names, "obs_names")
    check_unique(adata.var_names, "var_names")
    sites = keys.categories_of(adata, site_key)
    keys.categories_of(adata, keys.batch_key)
    keys.labels_of(adata)
    light = working_copy(adata, keys, adata.var_names)
    return {site: light[sites == site].copy() for site in sites.categories}
