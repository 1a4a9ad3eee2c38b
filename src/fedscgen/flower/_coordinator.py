"""The coordinator's side of a run over Flower: who takes part, what is run, and what is kept of it."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from fedscgen._files import write_whole
from fedscgen.federation import FederationSettings, PrivacyLedger, Server, SiteError
from fedscgen.flower._config import names_in
from fedscgen.flower._transport import FlowerTransport
from fedscgen.model import SavedModel, read_model, write_model
from fedscgen.secure import AggregationError, MaskedAggregator, PlainAggregator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flwr.serverapp import Grid

    from fedscgen.flower._config import RunConfig
    from fedscgen.secure import Aggregator

logger = logging.getLogger(__name__)


def coordinate(grid: Grid, config: RunConfig) -> None:
    """Gather the sites, run the workflow and write what the coordinator gets.

    That is, in ``config.output``: ``model/`` with weights and references, ``history.csv`` with the validation loss of
    each round, ``ledger-training.csv`` or ``ledger-correction.csv`` with every message, and while it trains
    ``checkpoint.fedscgen``, with which the same command goes on after the last finished round.

    Raises
    ------
    FileExistsError
        The output holds a trained model.
    BlockingIOError
        Another run is writing to the output.
    SiteError, AggregationError
        Too few sites are left; the message says why others aren't.
    CheckpointError
        The output's checkpoint, or the model, is damaged or of another federation.
    """
    output = Path(config.output).absolute()
    output.mkdir(parents=True, exist_ok=True)
    workflow = _train if config.workflow == "training" else _correct
    ledger = PrivacyLedger(output / f"ledger-{config.workflow}.csv")
    transport = FlowerTransport(grid, config.answer_timeout, ledger)
    try:
        with _alone_in(output):
            workflow(transport, config, output)
    except (AggregationError, SiteError) as error:
        raise type(error)(f"{error}{transport.told_reasons()}") from error
    logger.info("the result is in %s", output)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder until this one ends, however it ends."""
    with (folder / ".lock").open("w") as lock:
        try:
            flock(lock, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"another run is writing to {folder}: wait for it, or choose another output"
            ) from None
        yield


def _train(transport: FlowerTransport, config: RunConfig, output: Path) -> None:
    model = output / "model"
    if model.exists():
        raise FileExistsError(f"{model} exists: choose another output, or move the model away")
    changes = {"n_rounds": config.n_rounds, "n_epochs": config.n_epochs, "reference": config.reference}
    settings = FederationSettings.from_preset(
        config.preset,
        genes=config.genes,
        min_sites=config.min_sites,
        seed=config.seed,
        **{name: value for name, value in changes.items() if value},
    )
    _gather(transport, config)
    checkpoint = output / "checkpoint.fedscgen"
    with _aggregator(config) as aggregator:
        server = Server(transport, aggregator, settings)
        server.run(on_round=_log_round, checkpoint=checkpoint)
    history = pd.DataFrame({"round": range(1, len(server.losses) + 1), "federation_loss": server.losses})
    write_whole(output / "history.csv", history.to_csv(index=False).encode())
    write_model(model, SavedModel(server.weights, server.genes, server.references, settings.model))
    checkpoint.unlink(missing_ok=True)


def _correct(transport: FlowerTransport, config: RunConfig, output: Path) -> None:
    trained = read_model(Path(config.model))
    if trained.references is None:
        raise ValueError(f"model={config.model} holds no references: name the model that a training has written")
    settings = FederationSettings(genes=config.genes, min_sites=config.min_sites, seed=config.seed, model=trained.model)
    _gather(transport, config)
    Server(transport, PlainAggregator(), settings).serve(trained.genes, trained.weights, trained.references)


def _gather(transport: FlowerTransport, config: RunConfig) -> None:
    proposal = {
        "workflow": config.workflow,
        "aggregator": config.secure,
        "reveals_counts": _reveals_counts(config),
        "n_sites": config.n_sites,
        "sites": names_in(config.sites),
    }
    transport.gather(proposal, n_sites=config.n_sites, min_sites=config.min_sites, timeout=config.join_timeout)


def _aggregator(config: RunConfig) -> Aggregator:
    if config.secure == "plain":
        logger.warning("secure='plain': the coordinator sees what every site contributes; for study only")
        return PlainAggregator()
    return MaskedAggregator(reveal_counts=_reveals_counts(config))


def _reveals_counts(config: RunConfig) -> bool:
    return config.workflow == "training" and (config.secure == "plain" or config.reference == "dominant")


def _log_round(round_: int, weights: Any) -> None:
    logger.info("round %d is finished", round_)
