"""A model's weights by name: what leaves a site, and what comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from scvi.model.base import BaseModelClass

from fedscgen import aggregation
from fedscgen.model._module import FedVAE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np

    from fedscgen._types import ClientUpdate, NamedArrays, References
    from fedscgen.aggregation import BatchNormPolicy, Strategy
    from fedscgen.correction import Landmarks


class WeightsMixin(BaseModelClass):
    """Weights in and out."""

    is_trained_: bool
    references: References | Landmarks | None
    _keep_references: Callable[[], None]

    @classmethod
    def initial_weights(cls, n_genes: int, seed: int, **network: Any) -> NamedArrays:
        """The weights that a model of ``n_genes`` genes has right after its construction under ``seed``.

        ``network`` are keyword arguments of :class:`FedSCGEN`.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return FedVAE(n_genes, **network).weights()

    def get_weights(self) -> NamedArrays:
        """Copies of all parameters and BatchNorm statistics by name, in float32; integer counters stay here."""
        return {name: array.copy() for name, array in self.module.weights().items()}

    def load_weights(self, weights: Mapping[str, np.ndarray], batchnorm: BatchNormPolicy = "pooled") -> None:
        """Load weights by name, such as :meth:`aggregate` returns.

        Parameters
        ----------
        weights
            Arrays with this model's names and shapes.
        batchnorm
            ``"pooled"`` takes all of them; ``"local"`` and ``"averaged"`` keep this model's own BatchNorm statistics,
            once it has any.

        Raises
        ------
        ValueError
            Names or shapes don't fit, or a value is NaN or inf.
        """
        own = self.module.weights()
        aggregation.check_update(weights, own, who="these weights")
        chosen = aggregation.weights_for_site(weights, own, batchnorm if self.is_trained_ else "pooled")
        self.module.load_state_dict({name: _view(array) for name, array in chosen.items()}, strict=False)
        self.module.eval()
        self.is_trained_ = True
        self.references = None  # which belong to the weights before

    def close(self) -> None:
        """Free the registered cells, which scvi-tools would keep for good; the weights and references stay."""
        if self.adata is not None:
            self.deregister_manager(self.adata)
            self._adata = self._adata_manager = None

    @staticmethod
    def aggregate(updates: Sequence[ClientUpdate], strategy: Strategy = "weighted_fedavg") -> NamedArrays:
        """Average the sites' updates in the clear; see :func:`fedscgen.aggregation.aggregate`."""
        return aggregation.aggregate(updates, strategy)


def _view(array: np.ndarray) -> torch.Tensor:
    """An array as a tensor; torch would warn of one that can't be written to, which is copied."""
    return torch.from_numpy(array) if array.flags.writeable else torch.tensor(array)
