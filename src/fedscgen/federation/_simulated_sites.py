"""The sites of a simulation: given one by one, or told apart by a column."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from anndata import AnnData

from fedscgen._batches import BATCH_KEY, find_held, name_batches
from fedscgen._data import check_unique, working_copy
from fedscgen._entries import check_length
from fedscgen._shared_cells import share_cells
from fedscgen.federation._client import Client

if TYPE_CHECKING:
    from fedscgen._data import DataKeys
    from fedscgen._types import Message
    from fedscgen.federation._settings import FederationSettings, SiteOptions


class LightClient(Client):
    """A client of cells that are there besides: in the end it keeps what is new alone, and lets go of its own."""

    def _correct(self, message: Message) -> Message:
        answer = super()._correct(message)
        if self.corrected is not None:
            self.corrected.raw = None
            if self._correction.expression != "X":
                self.corrected.X = None
        self.close()
        self._adata.X = None
        for name in [name for name in self._adata.layers if name is not None]:  # where None is, it is X
            del self._adata.layers[name]
        return answer


def take_sites(data: AnnData | Mapping[str, AnnData], site_key: str, keys: DataKeys) -> dict[str, AnnData]:
    """Each site's cells by its name, in an AnnData of their own.

    Raises
    ------
    TypeError, ValueError
        A site has no proper name, or the data are of another kind.
    KeyError
        No site has the column of batches.
    """
    sites = _check_names(data) if isinstance(data, Mapping) else _split(data, site_key, keys)
    check_length("site", sites)
    if isinstance(data, Mapping):
        _check_batches(sites, keys)
    return sites


def read_backed(data: AnnData | Mapping[str, AnnData]) -> AnnData | Mapping[str, AnnData]:
    """The data in memory: a simulation holds them all, and changes none that is in a file."""
    if isinstance(data, Mapping):
        return {name: read_backed(cells) for name, cells in data.items()}
    return data.to_memory() if isinstance(data, AnnData) and data.isbacked else data


def join_batches(
    data: AnnData | Mapping[str, AnnData], options: SiteOptions
) -> tuple[AnnData | Mapping[str, AnnData], SiteOptions]:
    """The data with their batches in one column; of several, a site joins those that it has."""
    if not isinstance(options.batch_key, tuple):
        return data, options
    named = replace(options, batch_key=BATCH_KEY)
    if not isinstance(data, Mapping):
        return name_batches(data, options.batch_key)[0], named
    held = find_held(data, options.batch_key)
    return {name: name_batches(cells, held[name])[0] for name, cells in data.items()}, named


def options_of(cells: AnnData, options: SiteOptions) -> SiteOptions:
    """A site's options: without a column of batches where it has none."""
    lacks = options.batch_key is not None and options.batch_key not in cells.obs
    return replace(options, batch_key=None) if lacks else options


def _check_batches(sites: Mapping[str, AnnData], keys: DataKeys) -> None:
    """Refuse a column of batches that no site has."""
    if keys.batch_key is not None and sites and not any(keys.batch_key in cells.obs for cells in sites.values()):
        keys.column_of(next(iter(sites.values())), keys.batch_key)  # which says what there is


def _check_names(sites: Mapping[str, AnnData]) -> dict[str, AnnData]:
    """The sites' cells, if each has a name that messages and columns can hold."""
    for name in sites:
        if not isinstance(name, str) or not name:
            raise TypeError(f"site {name!r} has no name that is text: write {str(name) or 'north'!r}")
        if not isinstance(sites[name], AnnData):
            raise TypeError(
                f"site {name!r} is a {type(sites[name]).__name__}: pass an AnnData, which of a MuData is the modality "
                "mdata.mod['rna'], with the columns in its obs"
            )
    return {name: share_cells(cells) for name, cells in sites.items()}


def check_sites(sites: Collection[str], site_key: str, settings: FederationSettings) -> None:
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
