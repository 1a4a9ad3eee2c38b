"""A whole federation in one process, for study and testing."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
import torch
from anndata import AnnData
from rich.progress import track

from fedscgen._data import KNOWN_KEY, TYPES_KEY, DataKeys, working_copy
from fedscgen._join import name_column
from fedscgen._normalize import normalize_sites
from fedscgen._options import check_kind
from fedscgen.federation._initial_model import InitialModel
from fedscgen.federation._joined import join_parts, join_working_copies, restore_order
from fedscgen.federation._last_step import LenientTransport
from fedscgen.federation._ledger import join_ledgers
from fedscgen.federation._models import find_model
from fedscgen.federation._same_cells import refuse_same_cells
from fedscgen.federation._server import Server
from fedscgen.federation._settings import FederationSettings, SiteOptions
from fedscgen.federation._simulated_sites import (
    LightClient,
    check_sites,
    join_batches,
    options_of,
    read_backed,
    take_sites,
)
from fedscgen.federation._small_sites import correct_later, find_members, note_small_sites
from fedscgen.model import CorrectionOptions
from fedscgen.secure import PlainAggregator, make_aggregator

if TYPE_CHECKING:
    from pathlib import Path

    from fedscgen._options import Preset
    from fedscgen._types import NamedArrays, References
    from fedscgen.correction import Landmarks
    from fedscgen.federation._client import Client
    from fedscgen.federation._models import FederatedModel
    from fedscgen.secure import Aggregator


@dataclass(frozen=True)
class SimulationResult:
    """What a simulated federation yields.

    Parameters
    ----------
    model
        The federation's model, a :class:`~fedscgen.model.FedSCGEN` unless the settings name another architecture, with
        its references; save it with :meth:`~fedscgen.model.FedSCGEN.save` for new sites.
    corrected
        All sites' cells in input order, with ``obsm["X_fedscgen"]``, the corrected expression and what was predicted
        of cell types; see :meth:`fedscgen.model.FedSCGEN.correct`. Of several AnnData with other columns of ``obs``, or
        genes, it has all; a column is missing, and a gene zero, for cells of sites that lack it, and
        ``var["n_sites"]`` counts the sites that hold a gene. Without corrected expression it shares the matrices of one
        AnnData that was given, and they can't be written to through it.
    types
        One row per site, batch within it and cell type: ``site``, ``batch``, ``cell_type``, ``n_cells``, ``n_moved``,
        ``why`` cells stay, move with their batch only or are too few, or a site took no part in training, and ``like``,
        a shared type of almost this name. It is in ``corrected.uns["fedscgen_types"]``, too. Empty for a model that
        tells none.
    history
        One row per site, round and epoch: ``site``, ``round``, ``epoch``, ``train_loss``, ``validation_loss``,
        ``seconds``, and ``federation_loss``, the validation loss over all sites of the weights that the round began
        with.
    references
        Where cells belong in latent space. Of one site alone: what it has found among its own batches.
    ledger
        Every message: ``round``, ``sender``, ``receiver``, ``kind``, ``shape``, ``bytes``, ``protection``.
    genes
        The model's genes: those that all sites hold, or with ``genes="union"`` those that any holds; with
        ``n_top_genes`` the chosen ones of these. ``corrected`` has them alone, unless it keeps others as they are.
    settings
        What the federation agreed on.
    site, correction
        What the run was asked for besides. With all three,
        ``simulate(data, settings=result.settings, site=result.site, correction=result.correction)`` repeats the run;
        one with an initial model needs that too.
    site_key
        Column of ``corrected.obs`` with the sites.
    failed
        Why a site couldn't correct its cells, by its name: ``corrected`` lacks them or has NaN.
    """

    model: Any
    corrected: AnnData
    types: pd.DataFrame
    history: pd.DataFrame
    references: References | Landmarks
    ledger: pd.DataFrame
    genes: list[str] = field(repr=False)
    settings: FederationSettings
    site: SiteOptions
    correction: CorrectionOptions
    site_key: str = "batch"
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def uses_labels(self) -> bool:
        """Whether labels told where cells belong. If not, cells have moved without them, and none has got a name."""
        return bool(self.references.labels)


def simulate(
    data: AnnData | Mapping[str, AnnData],
    site_key: str = "batch",
    *,
    settings: Preset | FederationSettings = "default",
    site: SiteOptions | None = None,
    correction: CorrectionOptions | None = None,
    secure: str | Aggregator = "plain",
    accelerator: str = "auto",
    show_progress: bool = True,
    init_model: str | Path | None = None,
    on_round: Callable[[int, NamedArrays], None] | None = None,
) -> SimulationResult:
    """Run a whole federation: every site trains, agrees on references and corrects its cells.

    A site of fewer than four cells takes no part in training: the others' model corrects its cells.

    Client and server are those of a real federation; here they share a process, and messages still pass through the
    wire format.

    Parameters
    ----------
    data
        Log-normalised cells of all sites, to be split by ``site_key``; or one AnnData per site, by name. Genes may be
        in another order or missing at some sites; see ``genes`` of :class:`FederationSettings`. Nothing in it is
        changed.
    site_key
        Column of ``obs`` with the sites. With several AnnData, the column of the result that will name them; if some
        have it for something of their own, another is taken, see ``site_key`` of :class:`SimulationResult`. The
        ``batch_key`` of ``site`` may then be missing at some of them, whose cells are one batch each.
    settings
        What the sites do alike: ``"default"``, ``"components"`` without any training, ``"paper"`` for the published
        settings, or your own.
    site
        What is where in the data, the same at every site. ``None``: :class:`SiteOptions` with its defaults.
    correction
        How the cells are corrected. ``None``: :class:`CorrectionOptions` with its defaults or, with the settings
        ``"paper"``, as published.
    secure
        Name of an aggregator, such as ``"plain"``, ``"crypten"``, ``"masked"`` or one that was registered, or an
        :class:`~fedscgen.secure.Aggregator`.
    accelerator
        Where to train, as Lightning names it.
    show_progress
        Show a progress bar over the rounds.
    init_model
        Path of what training begins with, as :meth:`InitialModel.read` takes it. The federation then works on that
        model's genes. ``None``: random weights, or what the model makes of them.
    on_round
        Called after each round with its number and the federation's weights as they stand, such as to keep snapshots.
        Load them with :meth:`fedscgen.model.FedSCGEN.load_weights`.

    Raises
    ------
    KeyError, ValueError
        Bad data, settings or initial model, or the same cells at two sites; the message names site, value and remedy.
    NoSharedLabelError
        No cell type is held by enough sites; with landmarks, only if all cells have a label.
    SiteError, AggregationError
        A site failed, or a sum could not be opened.

    Warns
    -----
    UserWarning
        Data that are unlikely to be meant; two sites have a few cells in common; a site has too few cells to train, or
        couldn't correct its cells, which the result then lacks or has with NaN; or no cell type is held by enough sites
        and cells move without labels.

    Examples
    --------
    >>> result = simulate(adata)
    >>> result = simulate(adata, settings=FederationSettings(n_rounds=3), secure="masked")
    """
    if isinstance(settings, str):
        correction = correction or CorrectionOptions.from_preset(settings)
        settings = FederationSettings.from_preset(settings)
    site, correction = site or SiteOptions(), correction or CorrectionOptions()
    check_kind(settings, FederationSettings, "settings")
    check_kind(site, SiteOptions, "site")
    check_kind(correction, CorrectionOptions, "correction")
    if isinstance(secure, type):
        raise TypeError(f"secure={secure.__name__}: pass an aggregator, {secure.__name__}(...), or its name")
    given = None if init_model is None else InitialModel.read(init_model)
    asked = site
    data, site = join_batches(read_backed(data), site)
    data = normalize_sites(data, site_key, site.keys) if site.normalize else data
    run = _run(data, site_key, settings, site, correction, secure, accelerator, show_progress, given, on_round)
    gc.collect()  # the sites' cells, which their models refer to in circles
    site_key = name_column(data, site_key)
    if isinstance(data, Mapping):
        data = {name: data[name] for name in run.parts}
        corrected = join_parts(data, run.parts, site_key)
        data = join_working_copies(data, site_key, site, run.genes)
    else:
        known = data.var_names.isin(run.genes)  # an initial model may have fewer
        data = data if known.all() or correction.keep_genes else data[:, known]
        corrected = restore_order(data, site_key, run.parts, site.keys, correction.expression)
    corrected.uns[TYPES_KEY] = run.types
    known = corrected.var_names.isin(run.genes)
    if not known.all():
        corrected.var[KNOWN_KEY] = known
    return SimulationResult(
        model=_make_model(data, replace(site.keys, batch_key=site.keys.batch_key or site_key), run),
        corrected=corrected,
        types=run.types,
        history=run.history,
        references=run.references,
        ledger=run.ledger,
        genes=run.genes,
        settings=run.settings,
        site=asked,
        correction=correction,
        site_key=site_key,
        failed=run.failed,
    )


class _Run(NamedTuple):
    """What is left of a federation when its clients are gone; ``parts`` are their corrected cells."""

    parts: dict[str, AnnData]
    types: pd.DataFrame
    history: pd.DataFrame
    references: References | Landmarks
    ledger: pd.DataFrame
    genes: list[str]
    settings: FederationSettings
    weights: NamedArrays
    failed: Mapping[str, str]


def _run(
    data: AnnData | Mapping[str, AnnData],
    site_key: str,
    settings: FederationSettings,
    site: SiteOptions,
    correction: CorrectionOptions,
    secure: str | Aggregator,
    accelerator: str,
    show_progress: bool,
    given: InitialModel | None,
    on_round: Callable[[int, NamedArrays], None] | None,
) -> _Run:
    """Make the clients, and let them run."""
    sites = take_sites(data, site_key, site.keys)
    members = find_members(sites)
    check_sites(members, site_key, settings)
    aggregator, later = make_aggregator(secure, len(members)), PlainAggregator()
    seed = settings.find_seed()
    clients = [
        LightClient(
            name,
            cells,
            (aggregator if name in members else later).contributor(name),
            options_of(cells, site),
            correction,
            accelerator=accelerator,
            seed=seed + i,
        )
        for i, (name, cells) in enumerate(sites.items())
    ]
    refuse_same_cells(sites, site.keys)  # which the clients have found to be sound
    training = [client for client in clients if client.site in members]
    transport = LenientTransport(training)
    server = Server(transport, aggregator, replace(settings, seed=seed), given)
    track_rounds = partial(track, description="Federated training", total=settings.n_rounds, disable=not show_progress)
    try:
        with aggregator:
            failed = transport.finish(server, lambda: server.run(track_rounds, on_round))
        left_out = correct_later(server, [client for client in clients if client not in training])
    finally:
        for client in clients:
            client.close()
    return _Run(
        parts={client.site: client.corrected for client in clients if client.corrected is not None},
        types=note_small_sites(_collect_types(clients), failed | left_out, sites),
        history=_collect_history(clients, server.losses),
        references=_find_references(server, clients),
        ledger=join_ledgers(client.ledger for client in clients),
        genes=server.genes,
        settings=server.settings,
        weights=server.weights,
        failed=failed,
    )


def _find_references(server: Server, clients: Sequence[Client]) -> References | Landmarks:
    """What the sites have agreed on, or what a site that was alone has found."""
    models = [client.model for client in clients if client.site in server.sites]
    alone = models[0].references if len(models) == 1 and models[0] is not None else None
    return server.references if server.references.labels or alone is None else alone


def _make_model(adata: AnnData, keys: DataKeys, run: _Run) -> FederatedModel:
    """A model of all cells with the federation's weights and references."""
    model_class = find_model(run.settings.architecture)
    cells = working_copy(adata, keys, run.genes)
    with warnings.catch_warnings():  # the clients have warned
        warnings.simplefilter("ignore", UserWarning)
        model_class.setup_anndata(cells, **keys.of_anndata())
    with torch.random.fork_rng(devices=[]):
        model: FederatedModel = model_class(cells, **run.settings.model)
    model.load_weights(run.weights)
    model.references = run.references
    return model


def _collect_types(clients: Sequence[Client]) -> pd.DataFrame:
    told = {
        c.site: c.corrected.uns[TYPES_KEY] for c in clients if c.corrected is not None and TYPES_KEY in c.corrected.uns
    }
    columns = ["site", "batch", "cell_type", "n_cells", "n_moved", "why", "like"]
    tables = [table.assign(site=site)[columns] for site, table in told.items()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def _collect_history(clients: Sequence[Client], losses: Sequence[float]) -> pd.DataFrame:
    rows = [
        {"site": client.site, **row, "federation_loss": losses[row["round"] - 1]}
        for client in clients
        for row in client.history
    ]
    columns = ["site", "round", "epoch", "train_loss", "validation_loss", "seconds", "federation_loss"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.sort_values(["round", "epoch"], kind="stable", ignore_index=True)
