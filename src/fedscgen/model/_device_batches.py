"""Mini-batches made where the network is, where cells go once; or of cells in a file, read as they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import sparse
from scvi import REGISTRY_KEYS
from torch.utils.data import RandomSampler, SequentialSampler

from fedscgen._rows import dense_chunks

if TYPE_CHECKING:
    from collections.abc import Iterator

_LARGEST_SHARE = 0.5  # of the memory that is free
_BYTES_PER_ENTRY = 8  # a value, and its column


def fits(matrix: Any, n_cells: int, device: torch.device) -> bool:
    """Whether so many of the cells can lie on the device beside the network; never on a CPU, where they lie already."""
    if device.type != "cuda" or not isinstance(matrix, np.ndarray | sparse.csr_matrix | sparse.csr_array):
        return False
    free, _ = torch.cuda.mem_get_info(device)
    size = matrix.size * (4 if isinstance(matrix, np.ndarray) else _BYTES_PER_ENTRY)
    needed = size * n_cells / max(matrix.shape[0], 1)
    return bool(needed < _LARGEST_SHARE * free)


class FileBatches:
    """The mini-batches that scvi-tools' ``AnnDataLoader`` gives of the same cells in memory.

    Parameters
    ----------
    matrix
        Cells x genes, in a file or yet to be computed.
    rows, batch_size, shuffle, drop_last
        As :class:`DeviceBatches` takes them.
    """

    def __init__(self, matrix: Any, rows: np.ndarray, batch_size: int, *, shuffle: bool, drop_last: bool) -> None:
        self._sampler = RandomSampler(rows) if shuffle else SequentialSampler(rows)
        self._matrix, self._rows = matrix, rows
        self._batch_size, self._drop_last = batch_size, drop_last

    def __len__(self) -> int:
        return _count_batches(len(self._rows), self._batch_size, self._drop_last)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        _draw_seed()
        cells = self._rows[np.array(list(self._sampler), dtype=np.int64)][: len(self) * self._batch_size]
        for _, chunk in dense_chunks(self._matrix, None, self._batch_size, cells):
            yield {REGISTRY_KEYS.X_KEY: torch.from_numpy(chunk)}


class DeviceBatches:
    """The mini-batches that scvi-tools' ``AnnDataLoader`` gives for the same random numbers, made on a device.

    No step waits for the device: sizes are known here, and everything else stays there.

    Parameters
    ----------
    matrix
        Cells x genes, dense or in CSR format.
    rows
        Positions of the cells to take.
    batch_size
        Cells in a mini-batch.
    shuffle
        Take the cells in a new order in every epoch.
    drop_last
        Leave an incomplete last mini-batch out.
    device
        Where the mini-batches are made.
    """

    def __init__(
        self,
        matrix: Any,
        rows: np.ndarray,
        batch_size: int,
        *,
        shuffle: bool,
        drop_last: bool,
        device: torch.device,
    ) -> None:
        self._sampler = RandomSampler(rows) if shuffle else SequentialSampler(rows)
        self._batch_size, self._drop_last, self._device = batch_size, drop_last, device
        self._n_cells, self._n_genes = len(rows), matrix.shape[1]
        chosen = matrix[rows]
        self._counts: torch.Tensor | None = None
        if sparse.issparse(chosen):
            self._counts = torch.from_numpy(np.diff(chosen.indptr).astype(np.int64))
            self._starts = self._put(chosen.indptr[:-1].astype(np.int64))
            self._counts_there = self._counts.to(device)
            self._columns = self._put(chosen.indices.astype(np.int32))
            self._values = self._put(chosen.data.astype(np.float32, copy=False))
        else:
            self._values = self._put(chosen.astype(np.float32, copy=False))

    def __len__(self) -> int:
        return _count_batches(self._n_cells, self._batch_size, self._drop_last)

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        _draw_seed()
        order = torch.tensor(list(self._sampler), dtype=torch.int64)
        counts = None if self._counts is None else self._counts[order]
        order = order.to(self._device)
        for start in range(0, len(self) * self._batch_size, self._batch_size):
            cells = order[start : start + self._batch_size]
            n_entries = 0 if counts is None else int(counts[start : start + self._batch_size].sum())
            yield {REGISTRY_KEYS.X_KEY: self._values[cells] if counts is None else self._dense(cells, n_entries)}

    def _dense(self, cells: torch.Tensor, n_entries: int) -> torch.Tensor:
        """Make sparse cells dense, shape ``(n_cells, n_genes)``."""
        counts = self._counts_there[cells]
        begins = torch.cumsum(counts, 0) - counts
        of_cell = torch.repeat_interleave(torch.arange(len(cells), device=self._device), counts, output_size=n_entries)
        entries = torch.arange(n_entries, device=self._device) + (self._starts[cells] - begins)[of_cell]
        batch = torch.zeros(len(cells) * self._n_genes, device=self._device)
        batch[of_cell * self._n_genes + self._columns[entries]] = self._values[entries]
        return batch.view(len(cells), self._n_genes)

    def _put(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def _count_batches(n_cells: int, batch_size: int, drop_last: bool) -> int:
    whole, rest = divmod(n_cells, batch_size)
    return whole + (rest > 0 and not drop_last)


def _draw_seed() -> None:
    """Draw a random number, as torch's loaders do for their workers."""
    torch.empty((), dtype=torch.int64).random_()
