"""A whole federation in one process, for study and testing."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np
import pandas as pd
import scvi
import torch
from anndata import AnnData
from rich.progress import track
from scipy import sparse

from fedscgen._data import CELL_TYPE_KEY, CORRECTED_LAYER, DataKeys, check_unique, working_copy
from fedscgen.federation._client import Client
from fedscgen.federation._ledger import joined
from fedscgen.federation._padding import padded_copy
from fedscgen.federation._server import Server
from fedscgen.federation._settings import FederationSettings
from fedscgen.federation._transport import InProcessTransport
from fedscgen.model import FedSCGEN
from fedscgen.secure import make_aggregator

if TYPE_CHECKING:
    from fedscgen._types import NamedArrays, Preset, References
    from fedscgen.aggregation import BatchNormPolicy, OptimizerKind, Strategy
    from fedscgen.correction import ReferenceKind, Unlabeled
    from fedscgen.federation._settings import GenesKind
    from fedscgen.secure import Aggregator, AggregatorName


@dataclass(frozen=True)
class SimulationResult:
    """What a simulated federation yields.

    Parameters
    ----------
    model
        The federation's model, with its references; save it with :meth:`~fedscgen.model.FedSCGEN.save` for new sites.
    corrected
        All sites' cells in input order, with ``obsm["X_fedscgen"]`` and the decoded expression.
    history
        One row a site, round and epoch: ``site``, ``round``, ``epoch``, ``train_loss``, ``validation_loss``,
        ``seconds``, and ``federation_loss``, the validation loss over all sites of the weights that the round began
        with.
    references
        Where each shared cell type belongs in latent space.
    ledger
        Every message: ``round``, ``sender``, ``receiver``, ``kind``, ``shape``, ``bytes``, ``protection``.
    genes
        The model's genes: those that all sites hold, or with ``genes="union"`` those that any holds.
    settings
        What the federation agreed on.
    """

    model: FedSCGEN
    corrected: AnnData
    history: pd.DataFrame
    references: References
    ledger: pd.DataFrame
    genes: list[str] = field(repr=False)
    settings: FederationSettings


def simulate(
    adata: AnnData | Mapping[str, AnnData],
    site_key: str = "batch",
    *,
    batch_key: str | None = None,
    labels_key: str = "cell_type",
    layer: str | None = None,
    unlabeled_category: str | None = None,
    preset: Preset = "default",
    n_rounds: int | None = None,
    n_epochs: int | None = None,
    lr: float | None = None,
    lr_decay: float | None = None,
    batch_size: int | None = None,
    strategy: Strategy | None = None,
    batchnorm: BatchNormPolicy | None = None,
    server_optimizer: OptimizerKind | None = None,
    proximal_weight: float | None = None,
    restore_best_epoch: bool | None = None,
    reference: ReferenceKind | None = None,
    min_cells: int = 5,
    early_stopping_patience: int | None = None,
    genes: GenesKind | None = None,
    secure: AggregatorName | Aggregator = "plain",
    shrink: bool = False,
    unlabeled: Unlabeled = "knn",
    expression: str | None = CORRECTED_LAYER,
    denoise: bool | None = None,
    reencode: bool = False,
    model_kwargs: Mapping[str, Any] | None = None,
    accelerator: str = "auto",
    show_progress: bool = True,
    on_round: Callable[[int, NamedArrays], None] | None = None,
) -> SimulationResult:
    """Run a whole federation: every site trains, agrees on references and corrects its cells.

    Client and server are those of a real federation; here they share a process, and messages still pass through the
    wire format. Random numbers derive from ``scvi.settings.seed``.

    Parameters
    ----------
    adata
        Log-normalised cells of all sites, to be split by ``site_key``; or one AnnData a site, by name. Genes may be
        in another order or missing at some sites; see ``genes``. Nothing in it is changed.
    site_key
        Column of ``obs`` with the sites. With several AnnData, the column of the result that will name them.
    batch_key
        Column of ``obs`` with batches within a site; ``None`` if each site's cells are one batch.
    labels_key
        Column of ``obs`` with the cell types.
    layer
        Layer with the expression; ``X`` if ``None``.
    unlabeled_category
        What the column says of cells without a label; ``None`` if all have one.
    preset
        Settings by name: ``"default"``, or ``"paper"``, the published ones. Those given here go before.
    n_rounds, n_epochs, lr, lr_decay, batch_size, strategy, batchnorm, server_optimizer, proximal_weight, \
restore_best_epoch, reference, early_stopping_patience, genes
        See :class:`FederationSettings`.
    min_cells
        See :class:`Client`.
    secure
        ``"plain"``, ``"crypten"``, ``"masked"``, or an :class:`~fedscgen.secure.Aggregator`.
    shrink, unlabeled, expression, denoise, reencode
        See :meth:`fedscgen.model.FedSCGEN.correct`. ``denoise`` is as published with the preset ``"paper"``.
    model_kwargs
        Keyword arguments of :class:`~fedscgen.model.FedSCGEN`, such as ``n_latent``.
    accelerator
        Where to train, as Lightning names it.
    show_progress
        Show a progress bar over the rounds.
    on_round
        Called after each round with its number and the federation's weights as they stand, such as to keep snapshots.
        Load them with :meth:`fedscgen.model.FedSCGEN.load_weights`.

    Raises
    ------
    KeyError, ValueError
        Bad data or settings; the message names the site, the value and the remedy.
    NoSharedLabelError
        No cell type is held by two sites.
    SiteError, AggregationError
        A site failed, or a sum could not be opened.
    """
    settings = FederationSettings.from_preset(
        preset,
        n_rounds=n_rounds,
        n_epochs=n_epochs,
        lr=lr,
        lr_decay=lr_decay,
        batch_size=batch_size,
        strategy=strategy,
        batchnorm=batchnorm,
        server_optimizer=server_optimizer,
        proximal_weight=proximal_weight,
        restore_best_epoch=restore_best_epoch,
        reference=reference,
        early_stopping_patience=early_stopping_patience,
        genes=genes,
        seed=_seed(),
        model=model_kwargs,
    )
    keys = DataKeys(batch_key, labels_key, layer, unlabeled_category=unlabeled_category)
    sites = dict(adata) if isinstance(adata, Mapping) else _split(adata, site_key, keys)
    aggregator = make_aggregator(secure, len(sites))
    options: dict[str, Any] = {
        "batch_key": batch_key,
        "labels_key": labels_key,
        "layer": layer,
        "unlabeled_category": unlabeled_category,
        "min_cells": min_cells,
        "accelerator": accelerator,
        "shrink": shrink,
        "unlabeled": unlabeled,
        "expression": expression,
        "denoise": preset == "paper" if denoise is None else denoise,
        "reencode": reencode,
    }
    clients = [Client(site, cells, aggregator.contributor(site), **options) for site, cells in sites.items()]
    server = Server(InProcessTransport(clients), aggregator, settings)
    try:
        with aggregator:
            server.run(
                lambda rounds: track(rounds, "Federated training", total=settings.n_rounds, disable=not show_progress),
                on_round,
            )
    finally:
        for client in clients:
            client.close()
    if isinstance(adata, Mapping):
        corrected = _concatenated({client.site: client.corrected for client in clients}, site_key)
        adata = _concatenated({site: padded_copy(cells, keys, server.genes) for site, cells in sites.items()}, site_key)
    else:
        corrected = _in_input_order(adata, site_key, clients, expression)
    return SimulationResult(
        model=_federated_model(adata, replace(keys, batch_key=batch_key or site_key), server, settings),
        corrected=corrected,
        history=_history(clients, server.losses),
        references=server.references,
        ledger=joined(client.ledger for client in clients),
        genes=server.genes,
        settings=settings,
    )


def _seed() -> int:
    return secrets.randbelow(2**31) if scvi.settings.seed is None else scvi.settings.seed


def _split(adata: AnnData, site_key: str, keys: DataKeys) -> dict[str, AnnData]:
    """One light AnnData a site, with no more than its client needs."""
    if not isinstance(adata, AnnData):
        raise TypeError(f"pass an AnnData or a mapping of AnnData by site, not {type(adata).__name__}")
    check_unique(adata.obs_names, "obs_names")
    check_unique(adata.var_names, "var_names")
    sites = keys.categories_of(adata, site_key)
    keys.categories_of(adata, keys.batch_key)
    keys.labels_of(adata)
    light = working_copy(adata, keys, adata.var_names)
    return {site: light[sites == site].copy() for site in sites.categories}


def _in_input_order(adata: AnnData, site_key: str, clients: Sequence[Client], expression: str | None) -> AnnData:
    """A copy of the input with what the clients added; NaN where a site dropped out."""
    corrected = adata.copy()
    sites = DataKeys().categories_of(adata, site_key)
    expressions: list[tuple[np.ndarray, np.ndarray | sparse.spmatrix]] = []
    types: list[pd.Series] = []
    for client in clients:
        part, rows = client.corrected, np.flatnonzero(sites == client.site)
        if part is None:
            continue
        client.corrected = None  # its expression is as large as the result's
        for key in part.obsm:
            _fill(corrected.obsm, key, rows, part.obsm[key], adata.n_obs)
        if CELL_TYPE_KEY in part.obs:
            types.append(part.obs[CELL_TYPE_KEY].astype(object))
        if expression is not None:
            expressions.append((rows, part.X if expression == "X" else part.layers[expression]))
    if types:
        corrected.obs[CELL_TYPE_KEY] = pd.concat(types).reindex(adata.obs_names).astype("category")
    if expression == "X":
        corrected.X = _in_order(expressions, adata.n_obs)
    elif expression is not None:
        corrected.layers[expression] = _in_order(expressions, adata.n_obs)
    return corrected


def _in_order(
    parts: list[tuple[np.ndarray, np.ndarray | sparse.spmatrix]], n_rows: int
) -> np.ndarray | sparse.csr_matrix:
    """Matrices put together by the rows that each has, with NaN in rows of none; the parts are used up."""
    if not sparse.issparse(parts[0][1]):
        whole = np.full((n_rows, parts[0][1].shape[1]), np.nan, dtype=np.float32)
        while parts:
            rows, values = parts.pop()
            whole[rows] = values
        return whole
    missing = np.setdiff1d(np.arange(n_rows), np.concatenate([rows for rows, _ in parts]))
    parts.append((missing, sparse.csr_matrix(np.full((len(missing), parts[0][1].shape[1]), np.nan, dtype=np.float32))))
    order = np.argsort(np.concatenate([rows for rows, _ in parts]))
    return sparse.vstack([values for _, values in parts], "csr")[order]


def _fill(arrays: MutableMapping[str, np.ndarray], key: str, rows: np.ndarray, values: np.ndarray, n_rows: int) -> None:
    """Write values into rows of a named array, which begins as NaN."""
    if key not in arrays:
        arrays[key] = np.full((n_rows, values.shape[1]), np.nan, dtype=values.dtype)
    arrays[key][rows] = values


def _concatenated(parts: Mapping[str, AnnData], site_key: str) -> AnnData:
    """All sites' cells, one site after the other; names get the site appended where they would repeat."""
    names = [name for part in parts.values() for name in part.obs_names]
    unique = len(set(names)) == len(names)
    return anndata.concat(parts, join="inner", label=site_key, merge="same", index_unique=None if unique else "-")


def _federated_model(adata: AnnData, keys: DataKeys, server: Server, settings: FederationSettings) -> FedSCGEN:
    """A model of all cells with the federation's weights and references."""
    cells = working_copy(adata, keys, server.genes)
    with warnings.catch_warnings():  # the clients have warned
        warnings.simplefilter("ignore", UserWarning)
        FedSCGEN.setup_anndata(cells, **keys.of_anndata())
    with torch.random.fork_rng(devices=[]):
        model = FedSCGEN(cells, **settings.model)
    model.load_weights(server.weights)
    model.references = server.references
    return model


def _history(clients: Sequence[Client], losses: Sequence[float]) -> pd.DataFrame:
    rows = [
        {"site": client.site, **row, "federation_loss": losses[row["round"] - 1]}
        for client in clients
        for row in client.history
    ]
    return pd.DataFrame(rows).sort_values(["round", "epoch"], kind="stable", ignore_index=True)
