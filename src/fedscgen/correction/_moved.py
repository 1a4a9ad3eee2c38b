"""Corrected cells: which moved, by batch and cell type, why others didn't, and whose spelling may be to blame."""

from __future__ import annotations

import re
import warnings
from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from fedscgen._spelling import simplify
from fedscgen._words import list_names
from fedscgen.correction._references import NoSharedLabelError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

IS_REFERENCE = "is itself where this type belongs"
NO_LABEL = "no label, and nothing to tell the type by"
NO_REFERENCE = "no reference: no two sites or batches share this type"
WITH_BATCH = "moves with its batch: no two sites or batches share this type"
FEW_CELLS = 5
"""Of a batch with fewer cells, what is its own can't be told from what is theirs: the prior weighs as much."""
TOO_FEW = f"moved by fewer than {FEW_CELLS} cells of its batch: not to be relied on"
_ALIKE = 0.8


class Correction(NamedTuple):
    """Corrected cells.

    Parameters
    ----------
    latent
        Latent vectors without the batch's effect, which a decoder takes, shape ``(n_cells, n_latent)``, float32.
    embedding
        In what neighbours and clusters are to be looked for, float32: the same vectors or, with landmarks, what
        :meth:`Landmarks.embed` makes of them.
    cell_types
        Each cell's own label or, where it has none, the predicted one. None if nothing was predicted.
    confidence
        How probable the classifier finds each cell's type, ``(n_cells,)``; NaN for a type that it doesn't know.
    conflict
        Whether classifier and neighbours contradict the cell's own label, ``(n_cells,)``.
    known
        Cell types of which it is known where they belong.
    """

    latent: np.ndarray
    embedding: np.ndarray
    cell_types: pd.Categorical | None = None
    confidence: np.ndarray | None = None
    conflict: np.ndarray | None = None
    known: tuple[str, ...] = ()

    def take(self, rows: np.ndarray) -> Correction:
        """The same of these cells."""
        parts = {name: part for name, part in self._asdict().items() if name != "known" and part is not None}
        return self._replace(**{name: part[rows] for name, part in parts.items()})


def tabulate_moves(
    batches: pd.Categorical,
    labels: pd.Categorical,
    moved: np.ndarray,
    known: Collection[str],
    measured: pd.Categorical | None = None,
) -> pd.DataFrame:
    """Count the cells of each batch and type, and those that moved, and say why others didn't.

    Parameters
    ----------
    batches, labels
        Each cell's batch and label; a missing label is none.
    moved
        Whether each cell has moved, shape ``(n_cells,)``.
    known
        Cell types of which it is known where they belong.
    measured
        Batches of the cells by which it was measured how far each batch lies from there. ``None``: it was known.

    Returns
    -------
    One row per batch and type with cells: ``batch``, ``cell_type`` (``"(no label)"`` for none), ``n_cells``,
    ``n_moved``, ``why``, which is empty where all cells moved to the place of their type, by enough cells of their
    batch, and ``like``, a known type of almost this name or nothing.
    """
    none = name_apart("(no label)", labels.categories)
    types = np.where(labels.codes >= 0, np.asarray(labels, dtype=object), none)
    cells = pd.DataFrame({"batch": np.asarray(batches, dtype=str), "cell_type": types.astype(str), "moved": moved})
    counts = cells.groupby(["batch", "cell_type"])["moved"].agg(["size", "sum"]).reset_index()
    table = counts.set_axis(["batch", "cell_type", "n_cells", "n_moved"], axis=1)
    table["n_moved"] = table["n_moved"].astype(int)
    table["why"] = [
        _explain(row.cell_type, row.n_cells, row.n_moved, known, none) for row in table.itertuples(index=False)
    ]
    few = (table["n_moved"] > 0) & table["batch"].isin(_find_small(measured))
    table.loc[few, "why"] = [f"{why}; {TOO_FEW}" if why else TOO_FEW for why in table.loc[few, "why"]]
    table["like"] = [
        "" if name in known or name == none else suggest_spelling(name, known) or "" for name in table["cell_type"]
    ]
    return table


def check_moves(table: pd.DataFrame, *, allow_unaligned: bool, who: str = "") -> None:
    """Warn of what stays or has moved by too few cells, and refuse a batch of whose labels none is known elsewhere.

    Parameters
    ----------
    table
        As :func:`tabulate_moves` makes it.
    allow_unaligned
        Let such a batch pass.
    who
        What messages begin with, such as the name of a site.

    Raises
    ------
    NoSharedLabelError
        Every cell of a batch has a label, and of none of its types it is known where they belong.

    Warns
    -----
    UserWarning
        Cells stay where they are, or their batch has so few that one can't rely on how they have moved.
    """
    unknown = table["why"].str.startswith((NO_REFERENCE, WITH_BATCH))
    apart = table[unknown.groupby(table["batch"]).transform("all")]
    if len(apart) and not allow_unaligned:
        names = list(dict.fromkeys(apart["batch"]))
        shown = ", ".join(map(repr, names[:3])) + ("" if len(names) <= 3 else f" and {len(names) - 3} more")
        raise NoSharedLabelError(
            f"{who}no cell type of batch {shown} is known elsewhere ({_list(apart)}), so that labels don't tell where "
            "its cells belong: check that they are spelled as they are there, leave them out (labels_key=None, "
            "--unlabelled) where references are landmarks, or say that a batch may be so (allow_unaligned=True, "
            "--allow-unaligned)"
        )
    stays = table[(table["n_moved"] < table["n_cells"]) & unknown]
    if len(stays):
        n_cells = int((stays["n_cells"] - stays["n_moved"]).sum())
        some = "some" if n_cells == 1 else n_cells
        warnings.warn(f"{who}{some} cells stay where they are ({_list(stays)})", UserWarning, stacklevel=3)
    few = table[table["why"].str.endswith(TOO_FEW)].groupby("batch", sort=False)["n_moved"].sum()
    if len(few):
        whose = "" if table["batch"].nunique() == 1 else f" of batch {list_names(few.index)}"
        warnings.warn(
            f"{who}too few cells{whose} ({few.sum()}; a batch needs {FEW_CELLS}) to tell their batch's effect from "
            "what is their own: they have moved, but don't rely on where they lie now, nor on their corrected "
            "expression; correct them together with more cells of their batch",
            UserWarning,
            stacklevel=3,
        )


def suggest_spelling(name: str, known: Iterable[str]) -> str | None:
    """The known name that differs from this one by little more than spelling, if there is one.

    Case, spaces, punctuation, ``1`` and ``1.0``, a plural and the word "cell" don't count; else most letters must be
    the same, and all digits and signs, as in ``CD4`` and ``CD8``.

    Parameters
    ----------
    name
        The name.
    known
        Others.
    """
    plain = {_simplify(other): other for other in sorted(known) if other != name}
    own = _simplify(name)
    if own in plain:
        return plain[own]
    marks = re.findall(r"\d+|\+", own)
    candidates = [other for other in plain if re.findall(r"\d+|\+", other) == marks and len(other) > 3]
    close = get_close_matches(own, candidates, n=1, cutoff=_ALIKE)
    return plain[close[0]] if close else None


def name_apart(name: str, taken: Iterable[str]) -> str:
    """The name, made longer until it is none of these."""
    names = set(taken)
    while name in names:
        name += " (none of these)"
    return name


def _find_small(batches: pd.Categorical | None) -> list[str]:
    """Names of the batches with few cells."""
    if batches is None:
        return []
    n_cells = pd.Series(np.asarray(batches, dtype=str)).value_counts()
    return list(n_cells.index[n_cells < FEW_CELLS])


def _explain(label: str, n_cells: int, n_moved: int, known: Collection[str], none: str) -> str:
    if label == none:
        return "" if n_moved == n_cells else NO_LABEL
    if label in known:
        return "" if n_moved else IS_REFERENCE
    return WITH_BATCH if n_moved else NO_REFERENCE


def _simplify(name: str) -> str:
    """The simplified name, of numbers without a fraction of zeros, which missing values give them."""
    return simplify(re.sub(r"(?<=\d)\.0+$", "", name.strip()))


def _list(rows: pd.DataFrame, at_most: int = 5) -> str:
    """Types with their numbers of cells, and what they may be meant to be called."""
    texts = [
        f"{row.n_cells} of {row.cell_type!r}" + (f", is it {row.like!r}?" if row.like else "")
        for row in rows.head(at_most).itertuples(index=False)
    ]
    return "; ".join(texts) + ("" if len(rows) <= at_most else f"; and {len(rows) - at_most} more types")
