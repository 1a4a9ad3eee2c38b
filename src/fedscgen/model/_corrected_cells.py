"""From given cells to corrected ones: what is taken over, and where expression goes."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from fedscgen._data import KNOWN_KEY, REENCODED_KEY
from fedscgen._files import check_room, create_whole
from fedscgen._output import count_bytes, estimate_bytes, try_writing
from fedscgen._result_file import check_suffix, write_result
from fedscgen._rows import count_entries, gather, is_in_memory, row_chunks
from fedscgen._shared_cells import copy_light, lock, matrices_of, put, take_raw
from fedscgen.model._fill_genes import FILLED_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from anndata import AnnData

    from fedscgen._result_file import ResultFile
    from fedscgen._rows import Matrix
    from fedscgen.model._expression import ExpressionChange

logger = logging.getLogger(__name__)


class CorrectedCells:
    """Given cells on their way to become a result.

    Parameters
    ----------
    given
        The cells. Never changed.
    source
        Name of the matrix with the expression, ``"X"`` or ``"layers/..."``.
    genes
        The model's.
    keep_genes
        Whether genes that the model doesn't know stay.

    Attributes
    ----------
    light
        A copy of everything but ``X``, layers and ``raw``, which the correction may write to.
    """

    def __init__(self, given: AnnData, source: str, genes: Sequence[str], *, keep_genes: bool) -> None:
        self._given, self._source = given, source
        known = given.var_names.isin(genes)
        wanted = known | keep_genes
        if FILLED_KEY in given.var:
            wanted = wanted & ~given.var[FILLED_KEY].to_numpy(dtype=bool)
        self._wanted = None if wanted.all() else wanted
        self.light = copy_light(given, self._wanted)
        self.light.var = self.light.var.drop(columns=FILLED_KEY, errors="ignore")
        if not known.all():
            logger.info("%d genes aren't the model's: %s", (~known).sum(), "kept" if keep_genes else "left out")
        if keep_genes and not known.all():
            self.light.var[KNOWN_KEY] = known[wanted]

    @contextmanager
    def place(self, out: str | Path | None, expression: str | None, *, dense: bool) -> Iterator[Path | None]:
        """Where a file may be written that will be at ``out``; checked before anything is computed.

        Raises
        ------
        ValueError
            The name is of no format that can be written, or cells can't be written.
        OSError
            It exists, can't be written there, or there is no room.
        """
        if out is None:
            yield None
            return
        path = Path(out)
        check_suffix(path, "out")
        with create_whole(path, overwrite=False, remedy="delete it, or choose another name") as target:
            added = self._estimate(dense) if expression is not None else 0
            check_room(target, estimate_bytes(self._given) + added)
            try_writing(self.light, target.parent)
            yield target

    def finish(self, path: Path | None, change: ExpressionChange, expression: str | None, size: int) -> AnnData:
        """Complete the result: in memory, or in a file, beside which it stays light.

        Parameters
        ----------
        path
            The file to write, if any, as :meth:`place` has given it.
        change
            What becomes of expression.
        expression
            Where it goes: a layer's name, ``"X"``, or ``None`` for nowhere. Then the given cells' matrices are shared,
            but can't be written to through the result.
        size
            Cells at a time.
        """
        key = None if expression is None else "X" if expression == "X" else f"layers/{expression}"
        if path is None:
            self._finish_in_memory(change, key, size)
            if change.reencode:
                self.light.obsm[REENCODED_KEY] = change.take_reencoded(size)
            return self.light
        with write_result(path, self.light) as file:
            self._write(file, change, key, size)
            if change.reencode:
                self.light.obsm[REENCODED_KEY] = change.take_reencoded(size)
                file.write(f"obsm/{REENCODED_KEY}", self.light.obsm[REENCODED_KEY])
        return self.light

    def _finish_in_memory(self, change: ExpressionChange, key: str | None, size: int) -> None:
        given, result = self._given, self.light
        if key is not None:
            entries = None if change.denoise else count_entries(self._matrices[self._source])
            moved = (moved for _, moved in change.chunks(self._matrices[self._source], self._wanted, size))
            put(result, key, gather(moved, result.shape, entries))
        take = _share if key is None else _copy
        for name, matrix in self._matrices.items():
            if name != key:
                put(result, name, take(matrix, self._wanted))
        take_raw(result, given, lambda matrix: take(matrix, None))

    def _write(self, file: ResultFile, change: ExpressionChange, key: str | None, size: int) -> None:
        """Write all matrices, with one look at each cell's expression."""
        matrices = dict(self._matrices)
        if key is not None:
            source = matrices.pop(self._source)
            entries = count_entries(source)
            for own, moved in change.chunks(source, self._wanted, size):
                file.append(key, moved, entries)
                if self._source != key:
                    file.append(self._source, own, entries)
            matrices.pop(key, None)
        for name, matrix in matrices.items():
            file.copy(name, matrix, self._wanted)
        if self._given.raw is not None:
            file.write_raw(self._given.raw)

    @cached_property
    def _matrices(self) -> dict[str, Matrix]:
        """``X`` and the layers by their names in a file."""
        return matrices_of(self._given)

    def _estimate(self, dense: bool) -> int:
        """Bytes of the corrected expression, at most."""
        matrix = self._matrices[self._source]
        entries = count_entries(matrix)
        if dense or entries is None:
            return 4 * self.light.n_obs * self.light.n_vars if dense or is_in_memory(matrix) else count_bytes(matrix)
        return 8 * entries


def _copy(matrix: Matrix, genes: np.ndarray | None) -> Matrix:
    """The matrix, or these columns, in memory."""
    if is_in_memory(matrix):
        return matrix.copy() if genes is None else matrix[:, genes]
    chunks = (chunk if genes is None else chunk[:, genes] for _, chunk in row_chunks(matrix))
    n_genes = matrix.shape[1] if genes is None else int(genes.sum())
    return gather(chunks, (matrix.shape[0], n_genes), count_entries(matrix))


def _share(matrix: Matrix, genes: np.ndarray | None) -> Matrix:
    """The matrix itself, of which what is in memory can't be written to; some of its columns are a copy."""
    return lock(matrix) if genes is None else _copy(matrix, genes)
