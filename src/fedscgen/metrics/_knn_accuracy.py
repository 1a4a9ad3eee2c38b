"""Do a cell's neighbours tell its type?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fedscgen.metrics._checks import check_names
from fedscgen.metrics._neighbors import check_neighbors, count_groups, drop_self

if TYPE_CHECKING:
    import numpy.typing as npt


def knn_accuracy(neighbors: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """k-NN accuracy (kNN): share of cells whose type is the one that most of their neighbours have.

    The leave-one-out accuracy of scikit-learn's ``KNeighborsClassifier``, except that among types with as many
    neighbours the one whose cell is nearest wins, and not the first by name.

    Parameters
    ----------
    neighbors
        Positions of each cell's neighbours, nearest first and itself included, shape ``(n_cells, n_neighbors)``: see
        :func:`nearest_neighbors`. 16 give k = 15.
    labels
        Cell type of each cell, shape ``(n_cells,)``.

    Returns
    -------
    0 to 1: 1 if every cell's type is told by its neighbours.

    Raises
    ------
    ValueError
        Fewer than two types, neighbours that are no positions of cells or no others than the cell, a missing name, or
        shapes that don't fit.
    """
    indices = check_neighbors(neighbors, at_least=2)
    codes = check_names(labels, "label", n_cells=len(indices))
    around = codes[drop_self(indices)]  # (n_cells, k)
    votes = np.take_along_axis(count_groups(around, codes.max() + 1), around, axis=1)  # of each neighbour's type
    nearest_of_the_most = votes.argmax(axis=1)[:, None]
    return float(np.mean(np.take_along_axis(around, nearest_of_the_most, axis=1)[:, 0] == codes))
