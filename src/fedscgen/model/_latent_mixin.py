"""From cells to latent vectors, and what is told of them by batch and cell type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from scvi.model.base import BaseModelClass

from fedscgen._data import DataKeys, check_unique
from fedscgen._genes import lacks_genes
from fedscgen._options import check_whole
from fedscgen._rows import dense_chunks
from fedscgen._types import MAX_MISSING_GENES
from fedscgen.correction import label_stats_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pandas as pd
    from anndata import AnnData
    from mudata import MuData

    from fedscgen._types import LabelStats


_CELLS_AT_A_TIME = 1024


class LatentMixin(BaseModelClass):
    """Encoding of the registered cells, or of others with the same genes, and decoding."""

    @property
    def genes(self) -> list[str]:
        """Names of the genes, in the network's order."""
        return [str(name) for name in self.keys.modality_of(self.adata).var_names]

    @property
    def keys(self) -> DataKeys:
        """The keys named at set-up."""
        return DataKeys(**self.registry["setup_args"])

    def get_latent_representation(
        self,
        adata: AnnData | MuData | None = None,
        indices: Sequence[int] | None = None,
        give_mean: bool = True,
        mc_samples: int = 5000,
        batch_size: int | None = None,
        return_dist: bool = False,
        dataloader: Iterable[dict[str, torch.Tensor]] | None = None,
        *,
        max_missing_genes: float = MAX_MISSING_GENES,
    ) -> Any:
        """Mean of the latent posterior, or a sample of it.

        Parameters
        ----------
        adata
            Cells to encode; genes are found by name. The registered ones if ``None``.
        indices
            Positions of the cells to encode, or a mask; all if ``None``.
        give_mean
            ``False`` gives one sample per cell, with torch's random numbers.
        mc_samples
            Taken as in scvi-tools, and without effect: the posterior's mean is known.
        batch_size
            Cells that are made dense at a time; 1024 if ``None``.
        return_dist
            Give mean and variance of the posterior.
        dataloader
            Mini-batches as scvi-tools' data loaders give them, instead of cells.
        max_missing_genes
            Share of the model's genes that ``adata`` may lack. They are taken for zero, with a warning.

        Returns
        -------
        Shape ``(n_cells, n_latent)``, float32; with ``return_dist`` two of them.

        Raises
        ------
        RuntimeError
            The model hasn't been trained.
        ValueError
            ``batch_size`` is below 1, too many genes are missing or names of genes repeat, expression is NaN, inf or
            beyond float32, or both cells and a ``dataloader`` are given.

        Warns
        -----
        UserWarning
            A few genes are missing.
        """
        chunks = self._chunks(adata, indices, batch_size, dataloader, max_missing_genes)
        none = np.empty((0, self.module.encoder.mean.out_features), dtype=np.float32)
        if not return_dist:
            return np.concatenate([none, *(self._encode(chunk, give_mean) for chunk in chunks)])
        posteriors = [self._posterior(chunk) for chunk in chunks]
        means = [posterior.loc.cpu().numpy() for posterior in posteriors]
        variances = [posterior.variance.cpu().numpy() for posterior in posteriors]
        return np.concatenate([none, *means]), np.concatenate([none, *variances])

    def get_label_stats(
        self,
        adata: AnnData | MuData | None = None,
        batch_size: int = 1024,
        *,
        max_missing_genes: float = MAX_MISSING_GENES,
    ) -> LabelStats:
        """Cells, and mean and variance in latent space, of each batch and cell type.

        They describe patients' cells: keep them here. Cells without a label count nowhere.

        Parameters
        ----------
        adata
            As in :meth:`get_latent_representation`.
        batch_size
            Cells that are made dense at a time.
        max_missing_genes
            As in :meth:`get_latent_representation`.

        Returns
        -------
        Counts and variances of shape ``(n_batches, n_labels)``, means of shape ``(n_batches, n_labels, n_latent)``.
        """
        adata = self.adata if adata is None else adata
        latent = self.get_latent_representation(adata, batch_size=batch_size, max_missing_genes=max_missing_genes)
        return label_stats_of(latent, *self._categories(adata))

    def _chunks(
        self,
        adata: AnnData | MuData | None,
        indices: Sequence[int] | None,
        batch_size: int | None,
        dataloader: Iterable[dict[str, torch.Tensor]] | None = None,
        max_missing: float | None = MAX_MISSING_GENES,
    ) -> Iterator[torch.Tensor]:
        """Yield expression of shape ``(<= batch_size, n_genes)``, of all cells or of these.

        Genes that the cells lack are zero; more than this share are refused, unless it is None: then that was done.
        """
        self._check_if_trained(warn=False)
        if dataloader is not None:
            if not (adata is None and indices is None and batch_size is None):
                raise ValueError("pass either a dataloader, or cells as adata, indices and batch_size")
            for batch in dataloader:
                if not torch.isfinite(batch[REGISTRY_KEYS.X_KEY]).all():
                    raise ValueError("a mini-batch of the dataloader holds NaN or inf: remove or repair such values")
                yield batch[REGISTRY_KEYS.X_KEY]
            return
        size = _CELLS_AT_A_TIME if batch_size is None else batch_size
        check_whole("batch_size", size, 1)
        matrix, columns = self._expression(self.adata if adata is None else adata, max_missing)
        cells = None if indices is None else np.arange(matrix.shape[0])[np.asarray(indices)]
        for rows, chunk in dense_chunks(matrix, columns, size, cells):
            if not np.isfinite(chunk).all():
                raise ValueError(self._name_non_finite(adata, indices, rows, chunk))
            yield torch.from_numpy(chunk)

    def _encode_all(self, adata: AnnData | MuData, batch_size: int) -> np.ndarray:
        """Latent vectors of these cells, of whose genes something was said before, ``(n_cells, n_latent)``."""
        chunks = self._chunks(adata, None, batch_size, max_missing=None)
        latent = np.empty((adata.n_obs, self.module.encoder.mean.out_features), dtype=np.float32)
        row = 0
        for chunk in chunks:
            latent[row : row + len(chunk)] = self._encode(chunk)
            row += len(chunk)
        return latent

    def _name_non_finite(
        self, adata: AnnData | MuData | None, indices: Sequence[int] | None, rows: slice, chunk: np.ndarray
    ) -> str:
        """Say in which of the encoded cells the first value is that no network can take."""
        cells = self.keys.modality_of(self.adata if adata is None else adata).obs_names
        cells = (cells if indices is None else cells[np.asarray(indices)])[rows]
        row, column = np.argwhere(~np.isfinite(chunk))[0]
        return (
            f"{self.keys.where} holds {chunk[row, column]} as float32 (first at cell {cells[row]!r}, gene "
            f"{self.genes[column]!r}): remove or repair such values"
        )

    def _expression(self, adata: AnnData | MuData, max_missing: float | None) -> tuple[Any, np.ndarray | None]:
        """The matrix, and the columns of it that are the model's genes, -1 for those that it lacks; None if all are."""
        matrix = self.keys.expression_of(adata)
        if adata is self.adata:
            return matrix, None
        names = self.keys.modality_of(adata).var_names
        check_unique(names, "var_names")
        if max_missing is not None:
            lacks_genes(names, self.genes, max_missing)
        return matrix, None if list(names) == self.genes else names.get_indexer(self.genes)

    def _categories(self, adata: AnnData | MuData) -> tuple[pd.Categorical, pd.Categorical]:
        keys = self.keys
        return keys.categories_of(adata, keys.batch_key), keys.labels_of(adata)

    def _posterior(self, chunk: np.ndarray | torch.Tensor) -> Any:
        with torch.inference_mode():
            return self.module.inference(torch.as_tensor(chunk))["qz"]

    def _encode(self, chunk: np.ndarray | torch.Tensor, give_mean: bool = True) -> np.ndarray:
        posterior = self._posterior(chunk)
        vectors: torch.Tensor = posterior.loc if give_mean else posterior.sample()
        return vectors.cpu().numpy()

    def _decode(self, latent: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            decoded: torch.Tensor = self.module.generative(torch.from_numpy(latent))["px"]
        return decoded.cpu().numpy()

    def _decode_change(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            change: torch.Tensor = self.module.decode_change(torch.from_numpy(before), torch.from_numpy(after))
        return change.cpu().numpy()
