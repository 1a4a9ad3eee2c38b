"""What a site contributes to a selection: keys that are compared among the sites, and the values that go with them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

KEYS, VALUES = "keys", "values"
"""Names of the arrays."""


def read_selection(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Take keys and values from a site's arrays.

    Returns
    -------
    Keys of shape ``(n_keys,)``, and values of shape ``(n_keys, n_dimensions)``.

    Raises
    ------
    ValueError
        One is missing, their shapes don't fit together, or a key is negative or no whole number.
    """
    missing = [name for name in (KEYS, VALUES) if name not in arrays]
    if missing:
        raise ValueError(f"a selection needs the arrays {KEYS!r} and {VALUES!r}: {', '.join(missing)} is not there")
    keys, values = (np.asarray(arrays[name]) for name in (KEYS, VALUES))
    if keys.ndim != 1 or values.ndim != 2 or len(keys) != len(values):
        raise ValueError(f"keys of shape {keys.shape} and values of shape {values.shape}: one row of values per key")
    odd = np.flatnonzero(~((keys >= 0) & (keys == np.floor(keys))))  # NaN is odd too
    if odd.size:
        raise ValueError(f"keys[{odd[0]}] is {keys[odd[0]]}: only whole numbers from 0 are compared")
    return keys, values
