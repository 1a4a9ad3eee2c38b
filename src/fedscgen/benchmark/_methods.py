"""The methods that are compared, each a function from cells to an embedding."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from fedscgen._options import names_of
from fedscgen.benchmark import _fedscgen
from fedscgen.benchmark._cells import BATCH, COUNTS, LABELS, Cells

if TYPE_CHECKING:
    from fedscgen._data import Matrix

N_COMPONENTS = 20


@dataclass(frozen=True)
class Method:
    """A method and what it can do.

    Parameters
    ----------
    embed
        From cells and settings to an embedding of all cells, shape ``(n_cells, n_dimensions)``.
    more_settings
        Names of the settings that ``embed`` takes without naming them.
    takes_newcomers
        Whether it embeds batches that it didn't train on.
    in_rounds
        Whether it trains in rounds.
    defaults
        Settings that differ from those of the function.
    decode
        From the same to corrected expression, shape ``(n_cells, n_genes)``, sparse or dense, if the method has any. The
        ``embedding`` that is measured doesn't matter for it.
    """

    embed: Callable[..., np.ndarray]
    more_settings: Callable[[], set[str]] = set
    takes_newcomers: bool = False
    in_rounds: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    decode: Callable[..., Matrix] | None = None

    @property
    def decodes(self) -> bool:
        """Whether it yields corrected expression."""
        return self.decode is not None

    def settings(self) -> set[str]:
        """Names of all settings."""
        return (names_of_parameters(self.embed) | self.more_settings()) - _CHOSEN_HERE

    def __call__(self, cells: Cells, settings: Mapping[str, Any]) -> np.ndarray:
        """Embed all cells."""
        return self.embed(cells, **self.complete(settings))

    def expression(self, cells: Cells, settings: Mapping[str, Any]) -> Matrix:
        """Corrected expression of all cells, shape ``(n_cells, n_genes)``; for methods that decode."""
        if self.decode is None:
            raise TypeError("this method doesn't decode: see decodes")
        return self.decode(cells, **{k: v for k, v in self.complete(settings).items() if k != "embedding"})

    def complete(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings, with this method's own defaults where they say nothing."""
        return {**self.defaults, **settings}


# settings that the benchmark chooses itself
_CHOSEN_HERE = {"accelerator", "callbacks", "cells", "expression", "reencode"}


def names_of_parameters(function: Callable[..., Any]) -> set[str]:
    """What a function or method can be given by name."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD} - {"self"}


def _pca(cells: Cells, *, n_components: int = N_COMPONENTS) -> np.ndarray:
    """Principal components of the training cells' expression."""
    from sklearn.decomposition import PCA

    n_components = min(n_components, cells.train.n_obs - 1, cells.train.n_vars - 1)
    pca = PCA(n_components, svd_solver="arpack", random_state=cells.seed).fit(cells.train.X)
    return np.asarray(pca.transform(cells.all.X), dtype=np.float32)


def _harmony(cells: Cells, *, n_components: int = N_COMPONENTS) -> np.ndarray:
    """Harmony (Korsunsky et al. 2019) on principal components."""
    from harmonypy import run_harmony

    components = _pca(cells, n_components=n_components)
    result = run_harmony(
        components.astype(np.float64),
        cells.all.obs[[BATCH]].astype(str),
        [BATCH],
        random_state=cells.seed,
        ncores=1,
        verbose=False,
    )
    return np.asarray(result.Z_corr, dtype=np.float32)


def _scvi(cells: Cells, *, model: Mapping[str, Any] | None = None, **train: Any) -> np.ndarray:
    """Embed with scVI (Lopez et al. 2018) and scvi-tools' defaults."""
    return _train_scvi(cells, model or {}, train).get_latent_representation()


def _scanvi(
    cells: Cells, *, model: Mapping[str, Any] | None = None, scanvi_epochs: int | None = None, **train: Any
) -> np.ndarray:
    """Embed with scANVI (Xu et al. 2021), which begins as a trained scVI and knows all cell types."""
    from scvi.model import SCANVI

    pretrained = _train_scvi(cells, model or {}, train)
    scanvi = SCANVI.from_scvi_model(pretrained, unlabeled_category="no such type", labels_key=LABELS)
    scanvi.train(scanvi_epochs, accelerator=cells.accelerator, enable_progress_bar=False)
    return scanvi.get_latent_representation()


def _train_scvi(cells: Cells, model: Mapping[str, Any], train: Mapping[str, Any]) -> Any:
    """On counts where there are any, else on log-normalised expression with a normal likelihood."""
    from scvi.model import SCVI

    adata = cells.train.copy()
    layer = COUNTS if COUNTS in adata.layers else None
    if layer is None and adata.X.min() < 0:
        raise ValueError(
            "scVI needs counts or log-normalised expression, but X holds negative values (scaled data) and there is no "
            f"layers[{COUNTS!r}]: give it the raw counts"
        )
    SCVI.setup_anndata(adata, layer=layer, batch_key=BATCH, labels_key=LABELS)
    likelihood = {} if layer else {"gene_likelihood": "normal"}
    scvi = SCVI(adata, **{**likelihood, **model})
    scvi.train(accelerator=cells.accelerator, enable_progress_bar=False, **train)
    return scvi


def _settings_of_scvi() -> set[str]:
    from scvi.model import SCVI

    return names_of_parameters(SCVI.train)


def _settings_of_scgen() -> set[str]:
    from fedscgen.model import FedSCGEN

    return names_of_parameters(FedSCGEN.train)


def _settings_of_federation() -> set[str]:
    from fedscgen.federation import SimulationSettings

    return {"preset", "secure", *names_of(SimulationSettings)}


def _federated(**defaults: Any) -> Method:
    return Method(
        _fedscgen.fedscgen,
        _settings_of_federation,
        takes_newcomers=True,
        in_rounds=True,
        defaults=defaults,
        decode=_fedscgen.fedscgen_expression,
    )


METHODS: Mapping[str, Method] = {
    "pca": Method(_pca, takes_newcomers=True),
    "harmony": Method(_harmony),
    "scvi": Method(_scvi, _settings_of_scvi),
    "scanvi": Method(_scanvi, _settings_of_scvi),
    "scgen": Method(_fedscgen.scgen, _settings_of_scgen, takes_newcomers=True, decode=_fedscgen.scgen_expression),
    "local": Method(_fedscgen.local, _settings_of_federation),
    "fedscgen": _federated(),
    "fedscgen-masked": _federated(secure="masked"),
    "fedscgen-crypten": _federated(secure="crypten"),
}
"""Methods by name: uncorrected, centralized, at each site alone, and federated with each kind of sum."""
