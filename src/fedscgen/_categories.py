"""Each cell's batch or type as text, however the column spells it."""

from __future__ import annotations

import numpy as np
import pandas as pd


def with_names_as_strings(column: pd.Series) -> pd.Categorical:
    """Each cell's name; whole numbers have the same whether or not missing values have made them decimal ones."""
    categories = column.astype("category").cat.remove_unused_categories().cat
    kinds = categories.categories
    if pd.api.types.is_float_dtype(kinds) and np.equal(kinds, np.rint(kinds)).all():
        kinds = kinds.astype(np.int64)
    names = pd.Index([str(kind) for kind in kinds])
    if not names.is_unique:
        raise ValueError(
            f"obs[{column.name!r}] holds {names[names.duplicated()][0]!r} both as text and as a number: make all "
            f"of them text, with adata.obs[{column.name!r}].astype(str)"
        )
    return pd.Categorical.from_codes(categories.codes, names)


def trim(name: str) -> str:
    """The name with single spaces, and none around it; one of spaces alone as it is."""
    return " ".join(name.split()) or name


def without_spaces(names: pd.Categorical) -> pd.Categorical:
    """The same with trimmed names, of which some may then be one."""
    positions, trimmed = pd.factorize(np.array([trim(name) for name in names.categories], dtype=object))
    codes = np.append(positions, -1)[names.codes]
    return pd.Categorical.from_codes(codes, pd.Index(trimmed, dtype=object))


def find_spaced(column: pd.Series) -> list[str]:
    """Names in the column that differ from what they are read as."""
    names = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column.dropna().unique()
    return [name for name in names if isinstance(name, str) and trim(name) != name]
