"""The methods that are compared, each a function from cells to an embedding, and how another package adds one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fedscgen._options import names_of
from fedscgen._registry import Registry
from fedscgen.benchmark import _fedscgen
from fedscgen.benchmark._cells import BATCH, COUNTS, LABELS, UNLABELLED, Cells, Embedded
from fedscgen.benchmark._method import Method, name_parameters

N_COMPONENTS = 20


def _pca(cells: Cells, *, n_components: int = N_COMPONENTS) -> np.ndarray:
    """Principal components of the training cells' expression."""
    from sklearn.decomposition import PCA

    n_components = min(n_components, cells.train.n_obs - 1, cells.train.n_vars - 1)
    pca = PCA(n_components, svd_solver="arpack", random_state=cells.seed).fit(cells.train.X)
    return np.asarray(pca.transform(cells.all.X), dtype=np.float32)


def _harmony(
    cells: Cells, *, n_components: int = N_COMPONENTS, theta: float = 2.0, lamb: float | None = None
) -> np.ndarray:
    """Harmony (Korsunsky et al. 2019) on principal components.

    ``theta`` weighs how evenly batches share a cluster, and ``lamb`` holds corrections small; ``None`` has harmonypy
    estimate it for each cluster.
    """
    from harmonypy import run_harmony

    components = _pca(cells, n_components=n_components)
    result = run_harmony(
        components.astype(np.float64),
        cells.all.obs[[BATCH]].astype(str),
        [BATCH],
        theta=theta,
        lamb=lamb,
        random_state=cells.seed,
        ncores=1,
        verbose=False,
    )
    return np.asarray(result.Z_corr, dtype=np.float32)


def _scvi(cells: Cells, *, model: Mapping[str, Any] | None = None, **train: Any) -> np.ndarray:
    """Embed with scVI (Lopez et al. 2018) and scvi-tools' defaults."""
    return np.asarray(_train_scvi(cells, model or {}, train).get_latent_representation())


def _scanvi(
    cells: Cells, *, model: Mapping[str, Any] | None = None, scanvi_epochs: int | None = None, **train: Any
) -> Embedded:
    """Embed with scANVI (Xu et al. 2021), which begins as a trained scVI and names the cells without a label."""
    from scvi.model import SCANVI

    pretrained = _train_scvi(cells, model or {}, train)
    scanvi = SCANVI.from_scvi_model(pretrained, unlabeled_category=UNLABELLED, labels_key=LABELS)
    scanvi.train(scanvi_epochs, accelerator=cells.accelerator, enable_progress_bar=False)
    named = None if cells.no_label is None else np.asarray(scanvi.predict())
    return Embedded(np.asarray(scanvi.get_latent_representation()), named)


def _train_scvi(cells: Cells, model: Mapping[str, Any], train: Mapping[str, Any]) -> Any:
    """Train on counts where there are any, else on log-normalised expression with a normal likelihood."""
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


# what the benchmark chooses itself
_OF_TRAINING = {"accelerator", "callbacks"}
_OF_CORRECTION = {"expression", "reencode"}
_OF_CELLS = {"batch_key", "labels_key", "layer", "genes"}
_OF_RUN = {"seed"}
# what sites that train alone take of a federation's settings
_OF_LOCAL = {"n_rounds", "n_epochs", "lr", "batch_size", "restore_best_epoch", "reference", "model", "min_cells"}


def _name_settings_of_scvi() -> set[str]:
    from scvi.model import SCVI

    return name_parameters(SCVI.train) - _OF_TRAINING


def _name_settings_of_scgen() -> set[str]:
    from fedscgen.model import FedSCGEN

    return name_parameters(FedSCGEN.train) - _OF_TRAINING


def _name_settings_of_federation() -> set[str]:
    from fedscgen.federation import SimulationSettings

    return {"preset", "secure", "label_free", *names_of(SimulationSettings)} - _OF_CORRECTION - _OF_CELLS - _OF_RUN


def _name_settings_of_local() -> set[str]:
    return set(_OF_LOCAL)


def _check_training(settings: Mapping[str, Any]) -> None:
    """Refuse sizes of training that are no whole numbers above 0, and a network that is no table."""
    for name in ("max_epochs", "scanvi_epochs", "batch_size"):
        value = settings.get(name, 1)
        if type(value) is not int or value < 1:
            raise ValueError(f"{name}={value!r}: expected a whole number above 0")
    _fedscgen.check_network(settings)


def _check_harmony(settings: Mapping[str, Any]) -> None:
    """Refuse weights that Harmony can't take."""
    for name in ("theta", "lamb"):
        value = settings.get(name, 1)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ValueError(f"{name}={value!r}: expected a number above 0")


def _check_scgen(settings: Mapping[str, Any]) -> None:
    _check_training(settings)
    _fedscgen.check_local({"model": settings.get("model", {})})  # which has the same network


def _make_federation(**defaults: Any) -> Method:
    return Method(
        _fedscgen.fedscgen,
        _name_settings_of_federation,
        takes_newcomers=True,
        defaults=defaults,
        decode=_fedscgen.fedscgen_expression,
        embed_by_round=_fedscgen.round_by_round,
        check=_fedscgen.check_federation,
    )


# uncorrected, centralized, at each site alone, and federated with each kind of sum
_OWN: Mapping[str, Method] = {
    "pca": Method(_pca, centralized=True, takes_newcomers=True),
    "harmony": Method(_harmony, centralized=True, check=_check_harmony),
    "scvi": Method(_scvi, _name_settings_of_scvi, centralized=True, check=_check_training),
    "scanvi": Method(_scanvi, _name_settings_of_scvi, centralized=True, check=_check_training),
    "scgen": Method(
        _fedscgen.scgen,
        _name_settings_of_scgen,
        centralized=True,
        takes_newcomers=True,
        decode=_fedscgen.scgen_expression,
        check=_check_scgen,
    ),
    "local": Method(_fedscgen.local, _name_settings_of_local, check=_fedscgen.check_local),
    "fedscgen": _make_federation(),
    "fedscgen-components": _make_federation(n_rounds=0),
    "fedscgen-label-free": _make_federation(label_free=True),
    "fedscgen-masked": _make_federation(secure="masked"),
    "fedscgen-crypten": _make_federation(secure="crypten"),
}

_METHODS: Registry[Method] = Registry("method")


def register_method(name: str, method: Method, *, overwrite: bool = False) -> None:
    """Add a method, which a specification can then name.

    Parameters
    ----------
    name
        What specifications and tables call it.
    method
        The method.
    overwrite
        Replace a method of that name.

    Raises
    ------
    TypeError
        It is no :class:`Method`, such as a function alone.
    ValueError
        The name is empty or taken.
    """
    if not isinstance(method, Method):
        raise TypeError(f"method {name!r} is a {type(method).__name__}, not a Method: pass Method(function)")
    _METHODS.register(name, method, overwrite=overwrite)


def list_methods() -> dict[str, Method]:
    """All methods by name: this package's own first, then those that other packages registered."""
    return {name: _METHODS.find(name) for name in _METHODS.names()}


def find_method(name: str) -> Method:
    """The method of a name.

    Raises
    ------
    ValueError
        There is none; the message lists those there are.
    """
    return _METHODS.find(name)


for _name, _method in _OWN.items():
    register_method(_name, _method)
