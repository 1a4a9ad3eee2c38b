"""Sites or cell types of cells, and how each is marked in all figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fedscgen.pl._style import Mark, make_marks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from anndata import AnnData

MISSING = "(missing)"
_MISSING_MARK = Mark("#bbbbbb", "o", "-")


@dataclass(frozen=True)
class Group:
    """Sites or cell types, and which of them each cell belongs to.

    Parameters
    ----------
    names, marks
        Names and marks of the sites or cell types.
    codes
        Position of each cell's site or cell type among these, shape ``(n_cells,)``.
    """

    names: tuple[str, ...]
    marks: tuple[Mark, ...]
    codes: np.ndarray

    def of_cells(self) -> np.ndarray:
        """Name of each cell's site or type, shape ``(n_cells,)``."""
        return np.asarray(np.asarray(self.names)[self.codes])


def group_cells(column: pd.Series, colours: Sequence[str], *, by_size: bool = False) -> Group:
    """Group cells by a column of ``obs``, in the order of its categories or by falling number of cells.

    Parameters
    ----------
    column
        Names; a missing one is ``"(missing)"``.
    colours
        Palette of the marks.
    by_size
        Whether the largest group comes first.
    """
    import pandas as pd

    names = column.astype(object).where(column.notna(), MISSING).astype(str)
    order = [str(name) for name in column.cat.categories] if isinstance(column.dtype, pd.CategoricalDtype) else []
    counts = names.value_counts()
    order = sorted(counts.index, key=lambda name: (order.index(name) if name in order else len(order), name))
    if by_size:
        order = sorted(order, key=lambda name: -counts[name])
    codes = pd.Categorical(names, categories=order).codes.astype(np.int64)
    return Group(tuple(order), tuple(make_marks(len(order), colours)), codes)


def group_column(adata: AnnData, key: str, colours: Sequence[str], *, by_size: bool = False) -> Group:
    """Group cells by a column of ``obs``, in the colours of ``uns[f"{key}_colors"]`` where scanpy has put them there.

    Parameters
    ----------
    adata
        The cells. Nothing of them is altered.
    key
        The column. Cells without a value are grey.
    colours
        Palette, where ``uns`` has no colour for each category.
    by_size
        As :func:`group_cells` takes it.

    Raises
    ------
    KeyError
        There is no such column.
    """
    if key not in adata.obs:
        raise KeyError(f"obs[{key!r}] not found; there are {', '.join(map(repr, adata.obs.columns))}")
    column = adata.obs[key].astype("category")
    cells = group_cells(column, colours, by_size=by_size)
    coloured = [str(name) for name in column.cat.categories]
    given = list(adata.uns.get(f"{key}_colors", ()))
    if len(given) != len(coloured):
        given, coloured = list(colours), [name for name in cells.names if name != MISSING] if by_size else coloured
    marks = dict(zip(coloured, make_marks(len(coloured), given), strict=True)) if coloured else {}
    return Group(cells.names, tuple(marks.get(name, _MISSING_MARK) for name in cells.names), cells.codes)
