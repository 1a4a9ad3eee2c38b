"""The methods that are compared, each a function from cells to an embedding."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

    from fedscgen.correction import ReferenceKind
    from fedscgen.federation import SimulationResult
    from fedscgen.model import FedSCGEN

BATCH, LABELS, COUNTS = "batch", "cell_type", "counts"
EMBEDDING, REENCODED = "X_fedscgen", "X_fedscgen_reencoded"
N_COMPONENTS = 20


@dataclass(frozen=True)
class Cells:
    """What a method gets.

    Parameters
    ----------
    all
        Cells to embed, with ``obs["batch"]`` and ``obs["cell_type"]``.
    train
        Those to train on: all, or those of the batches that are not held out.
    seed
        Of everything random.
    accelerator
        Where to train, as Lightning names it.
    """

    all: AnnData
    train: AnnData
    seed: int
    accelerator: str = "cpu"


@dataclass(frozen=True)
class Method:
    """A method and what it can do.

    Parameters
    ----------
    embed
        From cells and settings to an embedding of all cells, shape ``(n_cells, n_dimensions)``.
    passes_on
        Function that takes the settings which ``embed`` doesn't name; it says which there are.
    takes_newcomers
        Whether it embeds batches that it didn't train on.
    in_rounds
        Whether it trains in rounds.
    defaults
        Settings that differ from those of the function.
    """

    embed: Callable[..., np.ndarray]
    passes_on: Callable[[], Callable[..., Any]] | None = None
    takes_newcomers: bool = False
    in_rounds: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def settings(self) -> set[str]:
        """Names of all settings."""
        functions = [self.embed] if self.passes_on is None else [self.embed, self.passes_on()]
        parameters = [p for function in functions for p in inspect.signature(function).parameters.values()]
        named = {p.name for p in parameters if p.kind is not inspect.Parameter.VAR_KEYWORD}
        return named - {"self", "cells", "adata", *_GIVEN}

    def __call__(self, cells: Cells, settings: Mapping[str, Any]) -> np.ndarray:
        """Embed all cells."""
        return self.embed(cells, **self.complete(settings))

    def complete(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings, with this method's own defaults where they say nothing."""
        return {**self.defaults, **settings}


# settings of simulate and train that the benchmark chooses itself
_GIVEN = {
    "accelerator", "batch_key", "callbacks", "expression", "labels_key", "layer", "model_kwargs", "on_round",
    "show_progress", "site_key",
}  # fmt: skip


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


def _scgen(cells: Cells, *, model: Mapping[str, Any] | None = None, reencode: bool = False, **train: Any) -> np.ndarray:
    """Correct by scGen's batch removal (Lotfollahi et al. 2019), with all cells in one place."""
    from fedscgen.model import FedSCGEN

    adata = cells.train.copy()
    FedSCGEN.setup_anndata(adata, BATCH, LABELS)
    scgen = FedSCGEN(adata, **(model or {}))
    scgen.train(accelerator=cells.accelerator, enable_progress_bar=False, **train)
    scgen.references = scgen.get_references()
    return _corrected(scgen, cells.all, reencode=reencode)


def _fedscgen(
    cells: Cells, *, model: Mapping[str, Any] | None = None, reencode: bool = False, **settings: Any
) -> np.ndarray:
    """The federation, one site a batch. A batch that is held out corrects itself afterwards."""
    result = _simulate(cells, model, reencode=reencode, **settings)
    if cells.train is not cells.all:
        return _corrected(result.model, cells.all, reencode=reencode)
    return result.corrected.obsm[REENCODED if reencode else EMBEDDING]


def round_by_round(
    cells: Cells, *, model: Mapping[str, Any] | None = None, reencode: bool = False, **settings: Any
) -> Iterator[tuple[int, np.ndarray]]:
    """Embeddings as they would be had the federation ended after each round.

    The weights are those of the federation. References are chosen with all cells at hand, which gives what the sites
    find together.
    """
    snapshots: dict[int, Any] = {}
    result = _simulate(cells, model, on_round=snapshots.__setitem__, **settings)
    kind = cast("ReferenceKind", result.references.kind)
    min_cells = settings.get("min_cells", inspect.signature(_simulator()).parameters["min_cells"].default)
    for n_rounds in sorted(snapshots):
        result.model.load_weights(snapshots.pop(n_rounds))
        result.model.references = result.model.get_references(kind=kind, min_cells=min_cells)
        yield n_rounds, _corrected(result.model, cells.all, reencode=reencode)


def _simulate(cells: Cells, model: Mapping[str, Any] | None, **settings: Any) -> SimulationResult:
    from fedscgen.federation import simulate

    return simulate(
        cells.train,
        BATCH,
        labels_key=LABELS,
        expression=None,
        model_kwargs=model,
        accelerator=cells.accelerator,
        show_progress=False,
        **settings,
    )


def _corrected(model: FedSCGEN, adata: AnnData, *, reencode: bool) -> np.ndarray:
    return model.correct(adata, expression=None, reencode=reencode).obsm[REENCODED if reencode else EMBEDDING]


def _train_of_scvi() -> Callable[..., Any]:
    from scvi.model import SCVI

    return SCVI.train


def _train_of_fedscgen() -> Callable[..., Any]:
    from fedscgen.model import FedSCGEN

    return FedSCGEN.train


def _simulator() -> Callable[..., Any]:
    from fedscgen.federation import simulate

    return simulate


def _federated(**defaults: Any) -> Method:
    return Method(_fedscgen, _simulator, takes_newcomers=True, in_rounds=True, defaults=defaults)


METHODS: Mapping[str, Method] = {
    "pca": Method(_pca, takes_newcomers=True),
    "harmony": Method(_harmony),
    "scvi": Method(_scvi, _train_of_scvi),
    "scanvi": Method(_scanvi, _train_of_scvi),
    "scgen": Method(_scgen, _train_of_fedscgen, takes_newcomers=True),
    "fedscgen": _federated(),
    "fedscgen-masked": _federated(secure="masked"),
    "fedscgen-crypten": _federated(secure="crypten"),
}
"""Methods by name: uncorrected, centralized, and federated with each kind of sum."""
