"""Which cell types take part: all, without the minor ones, or with these merged into one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from fedscgen._types import check_choice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

Inclusion = Literal["all", "dropped", "combined"]
"""``"all"``: every cell. ``"dropped"``: without the minor types. ``"combined"``: these merged into one type."""

OTHERS = "others"


def apply_inclusion(adata: AnnData, inclusion: Inclusion, minor_types: Sequence[str]) -> AnnData:
    """Leave out or merge the minor cell types, as in the published inclusion scenarios (Bakhtiari et al. 2025).

    Parameters
    ----------
    adata
        Cells with ``obs["batch"]`` and ``obs["cell_type"]`` as categories. Not altered.
    inclusion
        ``"all"``, ``"dropped"`` or ``"combined"``.
    minor_types
        The cell types in question, as in ``minor_types`` of :class:`PublishedDataset`.

    Returns
    -------
    For ``"all"``, ``adata`` itself. Otherwise a copy in the same order, without the cells of the minor types, or with
    all of these cells named ``"others"``. Categories that no cell has are gone.

    Raises
    ------
    ValueError
        No such scenario; no minor type named, or one that no cell has; no cell would be left; or ``"combined"`` where a
        type that isn't minor is named ``"others"`` already.
    """
    check_choice(inclusion, Inclusion, "inclusion scenario")
    if inclusion == "all":
        return adata
    _check_types(adata, inclusion, minor_types)
    minor = adata.obs["cell_type"].isin(minor_types).to_numpy()  # (n_cells,)
    if inclusion == "dropped":
        result = adata[~minor].copy()
    else:
        result = adata.copy()
        names = adata.obs["cell_type"].astype(str)
        result.obs["cell_type"] = names.mask(minor, OTHERS).astype("category")
    for key in ("batch", "cell_type"):
        result.obs[key] = result.obs[key].cat.remove_unused_categories()
    return result


def _check_types(adata: AnnData, inclusion: Inclusion, minor_types: Sequence[str]) -> None:
    present = sorted(adata.obs["cell_type"].unique())
    missing = [name for name in minor_types if name not in present]
    left = [name for name in present if name not in minor_types]
    if not minor_types:
        raise ValueError(f"inclusion {inclusion!r} needs minor cell types, but none are named: use 'all'")
    if missing:
        raise ValueError(f"no cell is of the minor types {missing}: obs['cell_type'] holds {present}")
    if inclusion == "dropped" and not left:
        raise ValueError(f"no cell would be left: all cell types, {present}, are named as minor")
    if inclusion == "combined" and OTHERS in left:
        raise ValueError(
            f"obs['cell_type'] holds a type {OTHERS!r} already, which the minor types would be mixed up with: name it "
            "among them, or rename it"
        )
