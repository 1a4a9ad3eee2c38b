"""What a method is told of cell types, and what it is scored with: one pure function for each protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from fedscgen._types import check_choice
from fedscgen.benchmark._cells import UNLABELLED

if TYPE_CHECKING:
    import numpy.typing as npt

NoisySites = Literal["one", "all"]
_LARGER_HALF = 0.7  # of a type that is split


@dataclass(frozen=True)
class Labelling:
    """Labels as given, and those with which cells are scored.

    Parameters
    ----------
    given
        What the method is told, shape ``(n_cells,)``: a type, or :data:`UNLABELLED`.
    truth
        The types that count, shape ``(n_cells,)``.
    scored
        Whether a cell is scored, shape ``(n_cells,)``, boolean.
    asked
        Whether a cell's type is asked for, shape ``(n_cells,)``, boolean: those that have no label or a wrong one.
    held_out
        Whether a cell takes no part in training, shape ``(n_cells,)``, boolean.
    cell_type
        The type that the protocol is about, if it is about one.
    """

    given: np.ndarray
    truth: np.ndarray
    scored: np.ndarray
    asked: np.ndarray
    held_out: np.ndarray
    cell_type: str = ""


def give_all(labels: npt.ArrayLike) -> Labelling:
    """Give every label, and score with the same."""
    truth = _check_labels(labels)
    return _label(truth, truth)


def hold_out(labels: npt.ArrayLike, batches: npt.ArrayLike, batch: str) -> Labelling:
    """Give every label, but keep one batch out of training."""
    truth = _check_labels(labels)
    return _label(truth, truth, held_out=np.asarray(batches) == batch)


def hide_share(labels: npt.ArrayLike, batches: npt.ArrayLike, share: float, seed: int) -> Labelling:
    """Hide the labels of a random share of each batch's cells, and score those cells alone."""
    truth = _check_labels(labels)
    hidden = _draw(np.asarray(batches), share, seed)
    return _label(np.where(hidden, UNLABELLED, truth), truth, scored=hidden, asked=hidden)


def hide_site(labels: npt.ArrayLike, batches: npt.ArrayLike, batch: str) -> Labelling:
    """Hide all labels of one batch; it is scored together with the others, as batches mix or don't."""
    truth = _check_labels(labels)
    hidden = np.asarray(batches) == batch
    return _label(np.where(hidden, UNLABELLED, truth), truth, asked=hidden)


def hide_newcomer(labels: npt.ArrayLike, batches: npt.ArrayLike, batch: str) -> Labelling:
    """Hide all labels of one batch, which takes no part in training either."""
    site = hide_site(labels, batches, batch)
    return _label(site.given, site.truth, asked=site.asked, held_out=site.asked)


def replace_share(
    labels: npt.ArrayLike, batches: npt.ArrayLike, share: float, seed: int, *, sites: NoisySites = "one"
) -> Labelling:
    """Give a random share of cells another type, drawn from all others alike, and score with the true ones.

    ``sites``: at ``"one"`` batch, which the seed draws, or at ``"all"``.
    """
    check_choice(sites, NoisySites, "choice of noisy sites")
    truth, of_batches = _check_labels(labels), np.asarray(batches)
    rng = np.random.default_rng([seed, 1])  # apart from the one that draws the cells
    wrong = _draw(of_batches, share, seed)
    if sites == "one":
        wrong &= of_batches == rng.choice(np.unique(of_batches))
    types, codes = np.unique(truth, return_inverse=True)
    if len(types) < 2:
        raise ValueError(f"all cells are of the type {str(types[0])!r}: there is no other to mistake it for")
    others = (codes + rng.integers(1, len(types), len(codes))) % len(types)
    return _label(np.where(wrong, types[others], truth), truth, asked=wrong)


def rename_type(labels: npt.ArrayLike, batches: npt.ArrayLike, seed: int, *, cell_type: str | None = None) -> Labelling:
    """Give one type another name at one batch of those that hold it, which the seed draws.

    ``cell_type``: by default the one with most cells of those that several batches hold.
    """
    truth, of_batches = _check_labels(labels), np.asarray(batches)
    name = _choose_type(truth, of_batches, cell_type)
    of_type = truth == name
    batch = np.random.default_rng(seed).choice(np.unique(of_batches[of_type]))
    renamed = of_type & (of_batches == batch)
    given = np.where(renamed, _make_name(truth, f"{name} of {batch}"), truth)
    return _label(given, truth, asked=renamed, cell_type=name)


def split_type(labels: npt.ArrayLike, batches: npt.ArrayLike, seed: int, *, cell_type: str | None = None) -> Labelling:
    """Split one type at random into two: 70 to 30 at every other batch by name, and 30 to 70 at the rest.

    No biology tells the halves apart: what separates them has been invented. ``cell_type``: as in :func:`rename_type`.
    """
    truth, of_batches = _check_labels(labels), np.asarray(batches)
    name = _choose_type(truth, of_batches, cell_type)
    rng, given = np.random.default_rng(seed), truth.astype(object)
    first, second = (_make_name(truth, f"{name}, {half}") for half in "ab")
    for position, batch in enumerate(np.unique(of_batches)):
        cells = rng.permutation(np.flatnonzero((truth == name) & (of_batches == batch)))
        n_first = round((1 - _LARGER_HALF if position % 2 else _LARGER_HALF) * len(cells))
        given[cells[:n_first]], given[cells[n_first:]] = first, second
    return _label(given.astype(str), truth, cell_type=name)


def give_coarser(labels: npt.ArrayLike, coarser: npt.ArrayLike) -> Labelling:
    """Give coarser labels than those with which cells are scored."""
    return _label(_check_labels(coarser), _check_labels(labels))


def _label(given: np.ndarray, truth: np.ndarray, *, cell_type: str = "", **masks: np.ndarray) -> Labelling:
    """Labels of which all cells are scored, none is asked for and none held out, unless a mask says so."""
    nobody = np.zeros(len(truth), dtype=bool)
    return Labelling(**{"scored": ~nobody, "asked": nobody, "held_out": nobody, **masks},
                     given=given, truth=truth, cell_type=cell_type)  # fmt: skip


def _check_labels(labels: npt.ArrayLike) -> np.ndarray:
    """Labels as text of shape ``(n_cells,)``, none of which reads like that of a cell without."""
    names = np.asarray(labels).astype(str)
    if (names == UNLABELLED).any():
        raise ValueError(f"a cell type is called {UNLABELLED!r}, as cells without a label are here: rename it")
    return names


def _draw(batches: np.ndarray, share: float, seed: int) -> np.ndarray:
    """A share of each batch's cells, rounded to whole cells; shape ``(n_cells,)``, boolean."""
    if not 0 < share < 1:
        raise ValueError(f"a share of {share}: it lies between 0 and 1")
    rng, drawn = np.random.default_rng(seed), np.zeros(len(batches), dtype=bool)
    for batch in np.unique(batches):
        cells = rng.permutation(np.flatnonzero(batches == batch))
        drawn[cells[: round(share * len(cells))]] = True
    return drawn


def _choose_type(labels: np.ndarray, batches: np.ndarray, cell_type: str | None) -> str:
    """The type that is named, or the one with most cells, of those that several batches hold."""
    shared = {name: n for name, n in _count(labels).items() if len(np.unique(batches[labels == name])) > 1}
    if cell_type is None and shared:
        return max(shared, key=shared.__getitem__)
    if cell_type is None or cell_type not in shared:
        wanted = "" if cell_type is None else f" {cell_type!r}"
        raise ValueError(f"no cell type{wanted} is held by two batches: choose one of {', '.join(shared) or 'none'}")
    return cell_type


def _count(names: np.ndarray) -> dict[str, int]:
    return dict(zip(*(each.tolist() for each in np.unique(names, return_counts=True)), strict=True))


def _make_name(taken: np.ndarray, name: str) -> str:
    """The name, with as many primes as make it unlike all others."""
    while (taken == name).any():
        name += "'"
    return name
