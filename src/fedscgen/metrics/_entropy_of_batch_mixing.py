"""How evenly do batches share each cell's neighbourhood?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedscgen.metrics._checks import check_names
from fedscgen.metrics._neighbors import check_neighbors, count_groups, drop_self

if TYPE_CHECKING:
    import numpy.typing as npt


def entropy_of_batch_mixing(neighbors: npt.ArrayLike, batch: npt.ArrayLike) -> float:
    """Entropy of batch mixing (EBM): mean over cells of the entropy of the batches among each cell's neighbours.

    As scArches measures it (Lotfollahi et al. 2022; after Haghverdi et al. 2018): the logarithm's base is the number of
    batches, and the cell itself doesn't count. The mean is over all cells, where scArches draws pools of 100 cells and
    takes the mean of theirs, which has the same expectation.

    Parameters
    ----------
    neighbors
        Positions of each cell's neighbours, itself included, shape ``(n_cells, n_neighbors)``: see
        :func:`nearest_neighbors`. 51 give scArches' 50.
    batch
        Batch of each cell, shape ``(n_cells,)``.

    Returns
    -------
    0 to 1: 1 if all batches have an even share of every neighbourhood.

    Raises
    ------
    ValueError
        Fewer than two batches, neighbours that are no positions of cells or no others than the cell, a missing name, or
        shapes that don't fit.
    """
    from scipy.stats import entropy

    indices = check_neighbors(neighbors, at_least=2)
    codes = check_names(batch, "batch", n_cells=len(indices))
    n_batches = codes.max() + 1
    counts = count_groups(codes[drop_self(indices)], n_batches)  # (n_cells, n_batches)
    return float(entropy(counts, base=n_batches, axis=1).mean())
